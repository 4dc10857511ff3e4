"""What people decided about dialogues of a pilot: accepted, or refused for their words, their speech or their sound."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.ledger import Ledger

FACT = "decisions"
Part = Literal["words", "speech", "sound"]


class Decision(Contract):
    """A verdict about one dialogue. `part` is what was wrong with it, for a refused one."""

    verdict: Literal["accepted", "refused"]
    part: Part | None = None
    note: str = ""


class Decisions(Contract):
    """All verdicts of a run, and how often each part of a dialogue was refused: it is then made with another seed.

    Attributes:
        verdicts: by dialogue; the last of each.
        takes: by script number ("12") for words, by dialogue for speech and sound.
    """

    verdicts: dict[str, Decision] = Field(default_factory=dict)
    takes: dict[Part, dict[str, int]] = Field(default_factory=dict)

    def take(self, part: Part, name: str) -> int:
        """With which take a part of a script or dialogue begins."""
        return self.takes.get(part, {}).get(name, 0)


class DecisionError(ValueError):
    """A file of decisions that cannot be read; the message says why."""


def read_decisions(ledger: Ledger) -> Decisions:
    """The run's decisions so far."""
    found = ledger.fact(FACT)
    return Decisions() if found is None else Decisions.model_validate_json(found)


def parse_decisions(path: Path) -> dict[str, Decision]:
    """The file that the pilot's page saves: `{"decisions": {DIALOGUE: {"verdict": ..., "part": ..., "note": ...}}}`.

    Raises:
        DecisionError: it is something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): Decision.model_validate(value) for name, value in record["decisions"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DecisionError(f"{path}: is not a file that the pilot's page saved ({first})") from None


def take_in(ledger: Ledger, new: Mapping[str, Decision], scripts: Mapping[str, int]) -> Decisions:
    """Add decisions to the run's. A refused part gets its next take, once for each time that it is refused.

    Args:
        ledger: of the run.
        new: by dialogue.
        scripts: number of the script of each dialogue.

    Raises:
        DecisionError: a dialogue that is not in the run.
    """
    if unknown := sorted(set(new) - set(scripts)):
        raise DecisionError(f"{len(unknown)} dialogues are not in this run, the first is {unknown[0]!r}")
    old = read_decisions(ledger)
    takes = {part: dict(counts) for part, counts in old.takes.items()}
    rewritten = set()
    for name, decision in new.items():
        if decision.verdict == "accepted":
            continue
        part = decision.part or "speech"
        key = str(scripts[name]) if part == "words" else name
        if (part, key) in rewritten:  # two branches of a script whose words are refused
            continue
        rewritten.add((part, key))
        counts = takes.setdefault(part, {})
        counts[key] = counts.get(key, 0) + 1
    decisions = Decisions(verdicts={**old.verdicts, **new}, takes=takes)
    ledger.set_fact(FACT, decisions.model_dump_json())
    return decisions
