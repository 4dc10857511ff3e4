"""A measured figure and the target it is held against."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, on how much, and at least how much was wanted; None where nothing was."""

    name: str
    value: float
    unit: str
    about: str
    target: float | None = None

    @property
    def missed(self) -> bool:
        """Whether it is below its target."""
        return self.target is not None and self.value < self.target

    def __str__(self) -> str:
        wanted = "" if self.target is None else f" (target {self.target:,g}: {'missed' if self.missed else 'met'})"
        return f"{self.name}: {self.value:,.4g} {self.unit}{wanted}; {self.about}"
