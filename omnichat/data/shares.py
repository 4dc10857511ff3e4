"""What a run was given of each source: its share of the dialogues, of the audio heard, and of what is learnt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNITS = {"dialogues": "dialogues", "seconds": "seconds heard", "targets": "target tokens"}


@dataclass(slots=True)
class Drawn:
    """How much of a source was drawn: dialogues, seconds of audio heard, target tokens."""

    dialogues: float = 0
    seconds: float = 0
    targets: float = 0


class Shares:
    """What was drawn of each source since the first step.

    Args:
        sizes: dialogues of each source by name.
        drawn: what was drawn of each before; nothing by default.
        left_out: how many of their dialogues are not drawn, by reason.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        drawn: Mapping[str, Drawn] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.sizes, self.left_out = dict(sizes), dict(left_out or {})
        self.drawn = {name: drawn[name] if drawn is not None else Drawn() for name in sizes}

    def add(self, name: str, drawn: Drawn) -> None:
        """Count what was drawn of a source."""
        for unit in UNITS:
            setattr(self.drawn[name], unit, getattr(self.drawn[name], unit) + getattr(drawn, unit))

    def share(self, name: str, unit: str) -> float | None:
        """The source's part of all that was drawn, by dialogues, seconds or targets; None where nothing was."""
        total = sum(getattr(drawn, unit) for drawn in self.drawn.values())
        return getattr(self.drawn[name], unit) / total if total else None

    def passes(self, name: str) -> float:
        """How often the source was walked through."""
        return self.drawn[name].dialogues / self.sizes[name] if self.sizes[name] else 0.0

    def metrics(self) -> dict[str, float]:
        """`data/share/<unit>/<source>`, `data/passes/<source>`, and `data/skipped/<reason>` where some are left out."""
        metrics: dict[str, float] = {f"data/skipped/{reason}": float(count) for reason, count in self.left_out.items()}
        for name in self.sizes:
            found = {unit: self.share(name, unit) for unit in UNITS}
            metrics |= {f"data/share/{unit}/{name}": share for unit, share in found.items() if share is not None}
            metrics[f"data/passes/{name}"] = self.passes(name)
        return metrics

    def text(self) -> str:
        """A line for each source."""
        return "\n".join(describe(name, self.metrics()) for name in self.sizes)


def synthetic_share(steps: Sequence[Mapping[str, float]], unit: str) -> float | None:
    """The synthetic share of what a run of two sources drew, from the metrics of its steps; None where none has it."""
    keys = [f"data/share/{unit}/{name}" for name in ("synthetic", "real")]
    last = next((record for record in reversed(steps) if any(key in record for key in keys)), None)
    return None if last is None else last.get(keys[0], 0.0)


def describe(name: str, metrics: Mapping[str, float]) -> str:
    """A source's line of `Shares.text`, from the metrics of a step."""
    parts = [
        f"{100 * metrics[f'data/share/{unit}/{name}']:.2f} % of the {title}"
        for unit, title in UNITS.items()
        if f"data/share/{unit}/{name}" in metrics
    ]
    return f"{name}: {', '.join([*parts, passes_text(metrics[f'data/passes/{name}'])])}"


def passes_text(passes: float) -> str:
    """`walked through 3.4 times`."""
    return f"walked through {passes:.1f} times"


def sources_in(keys: Iterable[str]) -> list[str]:
    """The sources that the metrics of a step speak of."""
    return [key.removeprefix("data/passes/") for key in keys if key.startswith("data/passes/")]
