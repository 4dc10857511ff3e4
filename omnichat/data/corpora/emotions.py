"""Emotion labels of other corpora as the seven of ShareChatX, by the tables in `emotions.json`.

A label the table calls lossy is guessed or merged; `null` means no target. Reports print both.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from omnichat.dialogue import EMOTIONS, DataError


@dataclass(frozen=True, slots=True)
class EmotionMap:
    """A corpus's labels, as `omnichat.dialogue.EMOTIONS` or None, and those where something is lost."""

    corpus: str
    labels: Mapping[str, str | None]
    lossy: frozenset[str]
    chosen: frozenset[str] = frozenset()

    def __getitem__(self, label: str) -> str | None:
        """The emotion of a label, case and outer spaces aside.

        Raises:
            DataError: `unknown_emotion` with the nearest label; a new label needs a decision, not a default.
        """
        key = label.strip().lower()
        if key not in self.labels:
            close = get_close_matches(key, self.labels, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"decide what it becomes: --emotion '{key}=neutral'"
            known = ", ".join(self.labels)
            raise DataError("unknown_emotion", f"emotion {label!r} is not one of {known}; {hint}")
        return self.labels[key]

    def choosing(self, choices: Mapping[str, str | None]) -> "EmotionMap":
        """The same with some labels decided otherwise, or new ones decided.

        Raises:
            DataError: `unknown_emotion` where a choice is none of the seven.
        """
        for label, emotion in choices.items():
            if emotion is not None and emotion not in EMOTIONS:
                message = f"{label}={emotion}: an emotion is one of {', '.join(EMOTIONS)}, or none for no target"
                raise DataError("unknown_emotion", message)
        chosen = {label.strip().lower(): emotion for label, emotion in choices.items()}
        return replace(self, labels={**self.labels, **chosen}, chosen=frozenset(chosen))

    def table(self, counts: Counter[str]) -> list[str]:
        """One line for each label met: how often, what it became, whether something was lost or decided by the user."""
        total = max(1, sum(counts.values()))
        lines = []
        lost = 0
        for label, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            key = label.strip().lower()
            emotion = (self.labels[key] or "no target") if key in self.labels else "not in the table: rejected"
            note = ("  (chosen)" if key in self.chosen else "") + ("  (lossy)" if key in self.lossy else "")
            lost += count if key in self.lossy else 0
            lines.append(f"{label:>16} {count:8d} {count / total:6.1%} -> {emotion}{note}")
        lines += [f"{label:>16} {0:8d}        (chosen, but never met)" for label in sorted(self.chosen - _keys(counts))]
        return [*lines, f"{'lossy':>16} {lost:8d} {lost / total:6.1%}"]


def _keys(counts: Counter[str]) -> set[str]:
    return {label.strip().lower() for label in counts}


def emotion_map(corpus: str) -> EmotionMap:
    """The table of a corpus."""
    table = _tables()[corpus]
    return EmotionMap(
        corpus, {label.lower(): emotion for label, emotion in table["map"].items()}, frozenset(table["lossy"])
    )


def corpora_with_emotions() -> list[str]:
    """The names of all tables."""
    return list(_tables())


def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(files(__package__).joinpath("emotions.json").read_text(encoding="utf-8"))
    return tables
