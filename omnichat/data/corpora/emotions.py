"""Emotion labels of other corpora as the seven of ShareChatX, by the tables in `emotions.json`.

A label the table calls lossy is guessed or merged; `null` means no target. Reports print both.
"""

import json
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from omnichat.dialogue import DataError


@dataclass(frozen=True, slots=True)
class EmotionMap:
    """A corpus's labels, as `omnichat.dialogue.EMOTIONS` or None, and those where something is lost."""

    corpus: str
    labels: dict[str, str | None]
    lossy: frozenset[str]

    def __getitem__(self, label: str) -> str | None:
        """The emotion of a label, case and outer spaces aside.

        Raises:
            DataError: `unknown_emotion` with the nearest label; a new label needs a decision, not a default.
        """
        key = label.strip().lower()
        if key not in self.labels:
            close = get_close_matches(key, self.labels, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "add it to omnichat/data/corpora/emotions.json"
            known = ", ".join(self.labels)
            raise DataError("unknown_emotion", f"emotion {label!r} is not one of {known}; {hint}")
        return self.labels[key]

    def table(self, counts: Counter[str]) -> list[str]:
        """One line for each label met: how often, what it became, whether something was lost."""
        total = max(1, sum(counts.values()))
        lines = []
        lost = 0
        for label, count in counts.most_common():
            key = label.strip().lower()
            emotion = (self.labels[key] or "no target") if key in self.labels else "not in the table: rejected"
            note = "  (lossy)" if key in self.lossy else ""
            lost += count if note else 0
            lines.append(f"{label:>16} {count:6d} {count / total:6.1%} -> {emotion}{note}")
        return [*lines, f"{'lossy':>16} {lost:6d} {lost / total:6.1%}"]


def emotion_map(corpus: str) -> EmotionMap:
    """The table of a corpus."""
    tables = json.loads(files(__package__).joinpath("emotions.json").read_text(encoding="utf-8"))
    table = tables[corpus]
    return EmotionMap(
        corpus, {label.lower(): emotion for label, emotion in table["map"].items()}, frozenset(table["lossy"])
    )
