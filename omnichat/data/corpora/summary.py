"""What a conversion prints: sizes, emotions before and after, and the paper's row beside ours."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omnichat.audio import SAMPLE_RATE
from omnichat.data.corpora.emotions import EmotionMap
from omnichat.data.corpora.reading import PaperRow
from omnichat.dialogue import EMOTIONS, DataError, Dialogue

SHOWN = 20  # rejects; the rest is in the file that the last line names


@dataclass
class Summary:
    """Counts over dialogues; two of them add up.

    Attributes:
        dialogues: how many.
        turns: how many.
        heard: turns that have audio.
        samples: of all audio, at 16 kHz.
        labels: the corpus's own emotions (`meta["emotion"]`) over all turns.
        emotions: what they became, "no target" included.
        answers: the emotions of assistant turns, which are what a model has to tell.
    """

    dialogues: int = 0
    turns: int = 0
    heard: int = 0
    samples: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, dialogue: Dialogue) -> None:
        """Count one dialogue."""
        self.dialogues += 1
        self.turns += len(dialogue.turns)
        for turn in dialogue.turns:
            self.heard += turn.audio is not None
            self.samples += turn.audio.num_samples if turn.audio is not None else 0
            emotion = turn.style.emotion
            if "emotion" in turn.meta:
                self.labels[turn.meta["emotion"]] += 1
            if "emotion" in turn.meta or emotion is not None:
                self.emotions[emotion or "no target"] += 1
            if emotion is not None and turn.role == "assistant":
                self.answers[emotion] += 1

    def __add__(self, other: "Summary") -> "Summary":
        values: list[Any] = [getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__]
        return Summary(*values)

    def to_record(self) -> dict[str, Any]:
        """As JSON, keys in a fixed order."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value for name, value in values.items()
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Summary":
        """The summary of such a record."""
        values: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value for name, value in record.items()
        }
        return cls(**values)

    @property
    def hours(self) -> float:
        """Of audio."""
        return self.samples / SAMPLE_RATE / 3600


def majority_f1(answers: Counter[str]) -> float:
    """Weighted F1 of always answering the commonest emotion: with its share p, recall 1 and precision p."""
    share = max(answers.values(), default=0) / max(1, answers.total())
    return 2 * share**2 / (1 + share)


def table(
    splits: Mapping[str, Summary],
    rejects: Iterable[DataError],
    emotions: EmotionMap | None,
    paper: PaperRow | None,
) -> str:
    """The lines that a conversion prints."""
    total = sum(splits.values(), Summary())
    lines = [f"{'':>10} {'dialogues':>10} {'turns':>10} {'a dialogue':>10} {'with audio':>10} {'hours':>9}"]
    lines += [_sizes(split, summary) for split, summary in splits.items()]
    if len(splits) > 1:
        lines.append(_sizes("all", total))
    if paper is not None:
        lines.append(_paper_row(paper))
    if emotions is not None and (total.labels or emotions.chosen):
        lines += ["emotions before and after:", *emotions.table(total.labels)]
    if not total.emotions:
        lines.append("emotions: none are known; such style targets are masked, not neutral")
    else:
        known = [f"{name} {count} ({count / total.emotions.total():.1%})" for name, count in _ordered(total.emotions)]
        lines.append(f"emotions after: {', '.join(known) or 'none'}")
        score = 100 * majority_f1(total.answers)
        lines.append(f"majority-class weighted F1 of the answers: {score:.1f} (n={total.answers.total()})")
    return "\n".join([*lines, *_rejected(list(rejects))])


def _sizes(name: str, summary: Summary) -> str:
    each = summary.turns / max(1, summary.dialogues)
    return (
        f"{name:>10} {summary.dialogues:10d} {summary.turns:10d} {each:10.2f} {summary.heard:10d} {summary.hours:9.2f}"
    )


def _paper_row(paper: PaperRow) -> str:
    def shown(value: float | None, form: str) -> str:
        return format(value, form) if value is not None else "-"

    each = paper.turns / paper.dialogues if paper.turns and paper.dialogues else None
    return (
        f"{'paper':>10} {shown(paper.dialogues, 'd'):>10} {shown(paper.turns, 'd'):>10} {shown(each, '.2f'):>10} "
        f"{'-':>10} {shown(paper.hours, '.2f'):>9}  (OmniChat, Table 1)"
    )


def _ordered(emotions: Counter[str]) -> list[tuple[str, int]]:
    names = [name for name in (*EMOTIONS, "no target") if name in emotions]
    return [(name, emotions[name]) for name in names]


def _rejected(rejects: list[DataError]) -> list[str]:
    reasons = Counter(error.reason for error in rejects)
    lines = [f"rejected: {len(rejects)}"]
    lines += [f"{reason:>24} {number:6d}" for reason, number in sorted(reasons.items(), key=lambda x: (-x[1], x[0]))]
    lines += [f"  {error}" for error in rejects[:SHOWN]]
    more = len(rejects) - SHOWN
    return [*lines, f"  and {more} more: see rejects.jsonl"] if more > 0 else lines
