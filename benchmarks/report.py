"""What a benchmark found, as text and as JSON."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import TOLERANCE, Difference, Timing

MIB = 2**20


@dataclass(frozen=True)
class Ratio:
    """How many times faster `arm` is than `baseline`; at least `target`, where there is one."""

    baseline: str
    arm: str
    target: float | None = None


@dataclass(frozen=True)
class Report:
    """A benchmark's arms, those shown to compute one function, those known to compute another, and the ratios.

    `unlike` says of an arm whose weights have no counterpart what it computes instead.
    """

    title: str
    workload: Mapping[str, float]
    equal: Sequence[Difference]
    other: Sequence[Difference]
    timings: Mapping[str, Timing]
    ratios: Sequence[Ratio]
    unlike: Mapping[str, str] = field(default_factory=dict)

    def speedup(self, ratio: Ratio) -> float:
        """Ratio of the medians."""
        return self.timings[ratio.baseline].median / self.timings[ratio.arm].median

    def speedups(self, ratio: Ratio) -> list[float]:
        """The ratio within each round."""
        pairs = zip(self.timings[ratio.baseline].seconds, self.timings[ratio.arm].seconds, strict=True)
        return [slow / fast for slow, fast in pairs]

    def missed(self) -> list[Ratio]:
        """Ratios below their target."""
        return [ratio for ratio in self.ratios if ratio.target is not None and self.speedup(ratio) < ratio.target]

    def text(self) -> str:
        """A table for people."""
        workload = ", ".join(f"{name} {_number(value)}" for name, value in self.workload.items())
        lines = [f"## {self.title}", "", workload, ""]
        for gap in self.equal:
            lines.append(f"equal: {gap.arm} = {gap.reference}: {_gap(gap)}; {TOLERANCE:.0e} allowed")
        for gap in self.other:
            lines.append(f"another function: {gap.arm} is not {gap.reference}: {_gap(gap)}")
        lines += [f"another function: {name}: {what}" for name, what in self.unlike.items()]
        other = {gap.arm for gap in self.other}
        lines += ["", f"{'arm':<28}{'median':>10}{'min..max':>18}{'peak memory':>14}"]
        for name, timing in self.timings.items():
            spread = f"{1e3 * min(timing.seconds):.0f}..{1e3 * max(timing.seconds):.0f}"
            lines.append(f"{name:<28}{1e3 * timing.median:>7.0f} ms{spread:>15} ms{timing.peak_bytes / MIB:>10.0f} MiB")
        lines += ["", f"{'speed-up':<60}{'medians':>9}{'rounds':>16}  target"]
        for ratio in self.ratios:
            rounds, mark = self.speedups(ratio), " (another function)" if ratio.arm in other else ""
            span = f"{min(rounds):.2f}..{max(rounds):.2f}"
            lines.append(
                f"{ratio.arm}{mark} against {ratio.baseline}".ljust(60)
                + f"{self.speedup(ratio):>8.2f}x{span:>16}  {self._verdict(ratio)}".rstrip()
            )
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {
            "title": self.title,
            "workload": dict(self.workload),
            "equal": [asdict(gap) for gap in self.equal],
            "another_function": [asdict(gap) for gap in self.other],
            "unlike": dict(self.unlike),
            "arms": {name: asdict(timing) | {"median": timing.median} for name, timing in self.timings.items()},
            "ratios": [
                asdict(ratio) | {"speedup": self.speedup(ratio), "rounds": self.speedups(ratio)}
                for ratio in self.ratios
            ],
        }

    def _verdict(self, ratio: Ratio) -> str:
        if ratio.target is None:
            return ""
        return f">= {ratio.target:g} {'met' if self.speedup(ratio) >= ratio.target else 'MISSED'}"


def environment() -> dict[str, str]:
    """What the figures depend on besides the code."""
    packages = {name: version(name) for name in ("torch", "transformers", "peft", "numpy")}
    return {"processor": _processor(), "python": platform.python_version(), **packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _gap(gap: Difference) -> str:
    return f"loss differs by {gap.loss:.1e}, gradients by {gap.gradient:.1e} at most ({gap.tensor}; relative)"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
