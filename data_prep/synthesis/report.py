"""The report of a run: `report.html` to look at and listen to, `report.md` for a repository or a ticket."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from data_prep.synthesis.content import Content, count
from data_prep.synthesis.contracts import REASONS
from data_prep.synthesis.decisions import Decisions
from data_prep.synthesis.figures import Figures, figures, listed
from data_prep.synthesis.pipeline import Pipeline
from data_prep.synthesis.players import dialogue, embedded
from data_prep.synthesis.session import SESSIONS
from omnichat.evaluation.charts import gauge
from omnichat.evaluation.page import bullets, page, panel, section, table

HTML, MARKDOWN = "report.html", "report.md"
AUDIO_BYTES = 3_200_000  # of all players together; keeps the page below 5 MB
Rows = list[list[str]]
HEAD_STAGES = ["stage", "items", "done", "rejected", "waiting", "yield", "attempts", "calls", "worker hours"]
HEAD_REASONS = ["reason", "meaning", "items rejected", "attempts refused"]
HEAD_CONTENT = ["split", "dialogues", "turns", "turns each", "hours heard"]
HEAD_SESSIONS = ["started", "host", "workers", "seconds", "items made", "items a second"]


def write_report(pipeline: Pipeline) -> None:
    """Write both files into the run's folder."""
    found, content = figures(pipeline.ledger), count(pipeline.mixed(), pipeline.config.seed)
    title = f"Synthesis: {pipeline.config.name}"
    tables = _tables(pipeline, found, content)
    thresholds = json.dumps({name: dict(pipeline.stages[name].identity()) for name in pipeline.stages}, indent=2)
    lead = _lead(pipeline, found, content)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        *(section(name, panel(_html(head, rows))) for name, head, rows in tables if rows),
        section("Styles", panel(_styles(content))),
        section("To listen to", *_samples(pipeline, content)),
        section("Engines and thresholds", f"<details><summary>identity of each stage</summary><pre><code>"
                f"{escape(thresholds)}</code></pre></details>"),
        section("Notes", bullets(_notes(pipeline, found))),
    ]  # fmt: skip
    (pipeline.folder.root / HTML).write_text(page(title, body), encoding="utf-8")
    parts = [f"# {title}\n\n{lead}\n"]
    parts += [f"## {name}\n\n{markdown(head, rows)}\n" for name, head, rows in tables if rows]
    parts += ["## Notes\n\n" + "\n".join(f"- {note}" for note in _notes(pipeline, found)) + "\n"]
    parts += [f"## Engines and thresholds\n\n```json\n{thresholds}\n```\n"]
    (pipeline.folder.root / MARKDOWN).write_text("\n".join(parts), encoding="utf-8")


def _tables(pipeline: Pipeline, found: Sequence[Figures], content: Content) -> list[tuple[str, list[str], Rows]]:
    return [
        ("Content", HEAD_CONTENT, content_rows(content)),
        ("Stages", HEAD_STAGES, stage_rows(found)),
        ("Refusals", HEAD_REASONS, reason_rows(found)),
        ("Attempts", ["stage", "attempts: items"], attempt_rows(found)),
        ("Emotion of the current turn", ["emotion", *content.emotions], _emotion_rows(content)),
        ("Check by hand", ["verdict", "dialogues", "share", "95 % interval"], decision_rows(pipeline.decisions)),
        ("Drivers", HEAD_SESSIONS, session_rows(pipeline)),
    ]


def stage_rows(found: Sequence[Figures]) -> Rows:
    """A row for each stage."""
    return [
        [
            one.stage,
            f"{one.total:,}",
            f"{one.counts['done']:,}",
            f"{one.counts['rejected']:,}",
            f"{one.counts['pending'] + one.counts['leased']:,}",
            "" if one.share is None else f"{100 * one.share:.1f} %",
            f"{sum(number * items for number, items in one.attempts.items()):,}",
            f"{one.costs['calls']:,.0f}",
            f"{one.seconds / 3600:.3f}",
        ]
        for one in found
    ]


def reason_rows(found: Sequence[Figures]) -> Rows:
    """A row for each reason that was met."""
    rejected, refused = Counter[str](), Counter[str]()
    for one in found:
        rejected += one.reasons
        refused += one.refusals
    names = sorted(set(rejected) | set(refused), key=lambda name: (-rejected[name], -refused[name], name))
    return [[name, REASONS[name][1], f"{rejected[name]:,}", f"{refused[name]:,}"] for name in names]


def attempt_rows(found: Sequence[Figures]) -> Rows:
    """How many items took how many attempts."""
    return [
        [one.stage, ", ".join(f"{number}: {items:,}" for number, items in sorted(one.attempts.items()))]
        for one in found
        if one.attempts
    ]


def content_rows(content: Content) -> Rows:
    """A row for each split, and all."""
    rows = [
        [split, f"{number:,}", f"{turns:,}", f"{turns / number:.2f}", f"{content.seconds[split] / 3600:.2f}"]
        for split, number in content.dialogues.items()
        for turns in [content.turns[split]]
    ]
    if len(rows) > 1:
        number, turns = content.dialogues.total(), content.turns.total()
        hours = sum(content.seconds.values()) / 3600
        rows.append(["all", f"{number:,}", f"{turns:,}", f"{turns / number:.2f}", f"{hours:.2f}"])
    return rows


def session_rows(pipeline: Pipeline) -> Rows:
    """A row for each time that a driver worked."""
    from datetime import UTC, datetime

    rows = []
    for record in json.loads(pipeline.ledger.fact(SESSIONS) or "[]"):
        made = sum(stage["done"] + stage["rejected"] for stage in record["stages"].values())
        started = datetime.fromtimestamp(record["started"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        workers = f"{record['workers']} ({record['executor']})"
        rate = f"{made / max(record['seconds'], 1e-3):.1f}"
        rows.append([started, record["host"], workers, f"{record['seconds']:.0f}", f"{made:,}", rate])
    return rows


def _emotion_rows(content: Content) -> Rows:
    names = sorted({name for counts in content.emotions.values() for name in counts})
    return [[name, *(_share(counts[name], counts.total()) for counts in content.emotions.values())] for name in names]


def decision_rows(decisions: Decisions) -> Rows:
    """A row for each verdict: how many, which share, and its interval."""
    verdicts = Counter(
        one.verdict if one.verdict == "accepted" else f"refused: {one.part or 'speech'}"
        for one in decisions.verdicts.values()
    )
    total = verdicts.total()
    return [
        [name, f"{items:,}", _share(items, total), _wilson(items, total)] for name, items in sorted(verdicts.items())
    ]


def _share(items: int, total: int) -> str:
    return f"{items:,} ({100 * items / total:.1f} %)" if total else ""


def _wilson(items: int, total: int) -> str:
    """Wilson's score interval (1927) of a share."""
    z = 1.96
    middle = (items + z * z / 2) / (total + z * z)
    reach = z * (items * (total - items) / total + z * z / 4) ** 0.5 / (total + z * z)
    return f"{100 * max(0, middle - reach):.0f} to {100 * min(1, middle + reach):.0f} %"


def _lead(pipeline: Pipeline, found: Sequence[Figures], content: Content) -> str:
    hours = sum(content.seconds.values()) / 3600
    config = pipeline.config
    shard = f", shard {config.shard}" if config.shard else ""
    return (
        f"{content.dialogues.total():,} dialogues of {config.scripts:,} scripts{shard}, {hours:.2f} h heard, "
        f"{len(content.voices)} voices, {len(content.clips)} clips; recipe {config.writing.recipe}, words by "
        f"{config.writing.writer}, speech by {config.speech.kind}, seed {config.seed}."
    )


def _styles(content: Content) -> str:
    rows = []
    for name, counts in content.styles.items():
        for value, items in sorted(counts.items(), key=lambda pair: -pair[1]):
            share = items / counts.total()
            rows.append([escape(name), escape(value), f"{gauge(share, None, None)} {100 * share:.1f} %"])
            name = ""
    for value, items in sorted(content.placements.items()) if content.clips else ():
        share = items / content.placements.total()
        rows.append(["sound", escape(value), f"{gauge(share, None, None)} {100 * share:.1f} %"])
    return table(["of", "value", "share"], rows) if rows else ""


def _samples(pipeline: Pipeline, content: Content) -> list[str]:
    source = embedded(pipeline.folder.blobs, AUDIO_BYTES)
    return [dialogue(mixed, source) for mixed in content.samples]


def _notes(pipeline: Pipeline, found: Sequence[Figures]) -> list[str]:
    notes = [f"{one.stage}: attempts refused: {listed(one.refusals)}" for one in found if one.refusals]
    waiting = sum(one.counts["pending"] + one.counts["leased"] for one in found)
    if waiting:
        notes.append(f"{waiting:,} items are not finished; `resume` goes on")
    if pipeline.config.speech.kind in ("espeak", "flite"):
        notes.append(
            "An embedded engine speaks: style is prosody, and no recogniser judges the words unless one is set."
        )
    return notes


def _html(head: Sequence[str], rows: Rows) -> str:
    return table([escape(name) for name in head], [[escape(cell) for cell in row] for row in rows])


def markdown(head: Sequence[str], rows: Rows) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summary(found: Sequence[Figures], content: Content) -> Mapping[str, tuple[list[str], Rows]]:
    """What `run` prints at its end."""
    return {
        "stages": (HEAD_STAGES, stage_rows(found)),
        "refusals": (HEAD_REASONS, reason_rows(found)),
        "attempts": (["stage", "attempts: items"], attempt_rows(found)),
        "content": (HEAD_CONTENT, content_rows(content)),
    }
