"""Two-track dialogues: interruptions and signs of listening, planned in words; exact times come with the audio.

The shape is InteractSpeech's: a speaker who is interrupted breaks off, what he would still have said is known, and the
two overlap for a moment. There it is 0.45 s (10,000 samples at 22,050 Hz in the published example); ours vary around
that.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_prep.synthesis.contracts import Brief
from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import Asker, Shape
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.llm import headed_line, spelled, styles_rule
from data_prep.synthesis.writing.prompts import prompt, sentences_rule
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import grammar, write_template
from data_prep.synthesis.writing.topics import Topic

INTERRUPT, LISTENING = "[interrupt]", "[listening]"
OVERLAP = (0.25, 0.65)  # seconds for which both speak when one cuts in
PAUSE = (0.1, 0.6)  # seconds between turns that do not overlap
LISTEN = (0.4, 1.0)  # seconds before the end of a turn at which its listener says something


class InteractAnswer(Shape):
    """What the model is to answer."""

    turns: list[str]


def write_interact_template(
    brief: Brief, topics: Sequence[Topic], settings: WritingSettings, rng: np.random.Generator
) -> Draft:
    """A script of the grammar whose exchanges overlap: by an interruption, or by a sign of listening to a statement.

    The opening stays as it is.
    """
    draft = write_template(brief, topics, rng)
    lines: list[DraftLine] = []
    exchanges = len(draft.history) // 2
    wanted = max(1, round(settings.overlap_share * (exchanges - 1)))
    overlapping = set((1 + rng.permutation(max(0, exchanges - 1)))[:wanted].tolist())
    longer = [str(text) for text in rng.permutation(grammar()["continuations"])]
    for number in range(exchanges):
        first, second = draft.history[2 * number : 2 * number + 2]
        if number not in overlapping:
            lines += [first, second]
        elif longer and (first.text.endswith("?") or rng.random() < 0.5):
            whole = f"{first.text.rstrip('.?!')}, {longer.pop()}."
            # Broken off somewhere in what was added, so that the question can be understood.
            cut = rng.uniform(len(first.text) + 4, len(whole) - 4) / len(whole)
            cut_in = str(rng.choice(grammar()["cut_in"])).format(second.text)
            lines += [replace(first, text=whole, cut=cut), replace(second, text=cut_in, kind="interruption")]
        else:
            listener = replace(second, text=str(rng.choice(grammar()["listening"])), kind="backchannel")
            lines += [first, listener, second]
    return replace(draft, history=timed(lines, rng))


async def write_interact_with_model(brief: Brief, settings: WritingSettings, asker: Asker, attempt: Attempt) -> Draft:
    """The script of a brief as the model wrote it; gaps are drawn.

    Raises:
        Retry: see `Asker.ask`; `llm_schema` for turns that are none, `turns_count` where hardly any are there.
    """
    turns = brief.history_turns + 2
    rules = prompt(
        "interact",
        turns=turns,
        max_words=settings.max_words,
        sentences=sentences_rule(settings.sentences),
        overlaps=max(1, round(settings.overlap_share * brief.history_turns / 2)),
        style=spelled(brief.styles[0]) if brief.styles else styles_rule(()),
    )
    request = prompt("sharechat_request", topic=brief.topic)
    answer = await asker.ask(rules, request, InteractAnswer, attempt)
    lines = marked([headed_line(text, f"turn {n}") for n, text in enumerate(answer.turns, 1)])
    if len(lines) < 2:
        raise Retry("turns_count", f"{len(lines)} turns, asked for {turns}")
    return Draft(timed(lines[:-2], attempt.rng), (lines[-2],), (lines[-1],))


def marked(lines: Sequence[DraftLine]) -> list[DraftLine]:
    """Lines with `[interrupt]` and `[listening]` in their words as lines that are cut, cut in, or are backchannels.

    A cut is a share of the letters, as that is how long they take to say, nearly.
    """
    found: list[DraftLine] = []
    for line in lines:
        text = line.text
        last = next((other for other in reversed(found) if other.kind != "backchannel"), None)
        if LISTENING in text:
            found.append(replace(line, text=text.replace(LISTENING, "").strip(), kind="backchannel"))
            continue
        kind = "interruption" if last is not None and last.cut < 1 else "turn"
        before, mark, after = text.partition(INTERRUPT)
        before, after = before.strip(), after.strip()
        if mark and before and after:
            line = replace(line, text=f"{before} {after}", cut=len(before) / (len(before) + 1 + len(after)))
        found.append(replace(line, kind=kind))
    return found


def timed(lines: Sequence[DraftLine], rng: np.random.Generator) -> tuple[DraftLine, ...]:
    """The lines with their gaps: an interruption and a backchannel begin before the line they meet has ended."""
    spans = {"turn": PAUSE, "interruption": OVERLAP, "backchannel": LISTEN}
    gaps = [round(float(rng.uniform(*spans[line.kind])), 3) * (1 if line.kind == "turn" else -1) for line in lines]
    return tuple(replace(line, gap=gap if n else 0.0) for n, (line, gap) in enumerate(zip(lines, gaps, strict=True)))
