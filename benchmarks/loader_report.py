"""What the loader benchmark found, as text and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Arm(NamedTuple):
    """A loader with a number of workers, and how many dialogues it is timed over."""

    name: str
    workers: int
    dialogues: int


class Sample(NamedTuple):
    """Seconds for each dialogue: on the clock, and of CPU in all processes together."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Target:
    """How many times the baseline's dialogues a second an arm has, with equal workers; at least `ratio` where given."""

    baseline: str
    arm: str
    ratio: float | None = None


class Wait(NamedTuple):
    """Share of its time that a device which needs `step` seconds for a batch waits for an arm."""

    arm: Arm
    step: float
    share: float


@dataclass(frozen=True)
class LoaderReport:
    """Rates of all arms.

    Attributes:
        workload: what was read, in numbers.
        samples: of each arm, in rounds.
        seconds: heard in a dialogue.
        read_bytes: of audio or frames that an arm reads for a dialogue.
        waits: of a device.
        targets: ratios to report, on the clock and in CPU time.
    """

    workload: Mapping[str, float]
    samples: Mapping[Arm, Sequence[Sample]]
    seconds: float
    read_bytes: Mapping[Arm, float]
    waits: Sequence[Wait]
    targets: Sequence[Target]

    def speedups(self, target: Target) -> dict[int, tuple[float, float]]:
        """For each number of workers the ratio of median rates: on the clock, and in CPU time."""
        found = {}
        for arm, samples in self.samples.items():
            if arm.name == target.arm:
                base = next(a for a in self.samples if (a.name, a.workers) == (target.baseline, arm.workers))
                pairs = zip(_medians(self.samples[base]), _medians(samples), strict=True)
                wall, cpu = (slow / fast for slow, fast in pairs)
                found[arm.workers] = (wall, cpu)
        return found

    def missed(self) -> list[Target]:
        """Targets that are missed, on the clock, with any number of workers."""
        return [
            target
            for target in self.targets
            if target.ratio is not None and min(wall for wall, _ in self.speedups(target).values()) < target.ratio
        ]

    def text(self) -> str:
        """A table for people."""
        workload = ", ".join(
            f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.1f}"
            for name, value in self.workload.items()
        )
        lines = ["## loader: from a store on disk to batches", "", workload, ""]
        lines.append("equal: tokens, labels and audio of all arms, bit for bit")
        lines += ["", f"{'arm':<24}{'workers':>8}{'dialogues/s':>13}{'min..max':>16}{'audio h/s':>11}"]
        lines[-1] += f"{'MB/s read':>11}{'CPU ms/dialogue':>17}"
        for arm, samples in self.samples.items():
            wall, cpu = _medians(samples)
            rates = [1 / sample.wall for sample in samples]
            lines.append(
                f"{arm.name:<24}{arm.workers:>8}{1 / wall:>13.1f}{f'{min(rates):.1f}..{max(rates):.1f}':>16}"
                f"{self.seconds / wall / 3600:>11.3f}{self.read_bytes[arm] / wall / 1e6:>11.1f}{1e3 * cpu:>17.2f}"
            )
        lines += ["", f"{'dialogues/s, ratio of medians':<44}{'workers':>8}{'clock':>9}{'CPU':>9}  target"]
        for target in self.targets:
            for workers, (wall, cpu) in self.speedups(target).items():
                verdict = ""
                if target.ratio is not None:
                    verdict = f">= {target.ratio:g} {'met' if wall >= target.ratio else 'MISSED'}"
                name = f"{target.arm} against {target.baseline}"
                lines.append(f"{name:<44}{workers:>8}{wall:>8.1f}x{cpu:>8.1f}x  {verdict}".rstrip())
        lines.append("")
        for wait in self.waits:
            lines.append(
                f"a device that needs {1e3 * wait.step:.0f} ms for a batch waits {100 * wait.share:.1f} % of its time "
                f"for {wait.arm.name}, {wait.arm.workers} workers"
            )
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {
            "workload": dict(self.workload),
            "arms": [
                arm._asdict() | {"read_bytes_per_dialogue": self.read_bytes[arm], "seconds": [*map(list, samples)]}
                for arm, samples in self.samples.items()
            ],
            "ratios": [asdict(target) | {"speedups": self.speedups(target)} for target in self.targets],
            "waits": [wait.arm._asdict() | {"step": wait.step, "share": wait.share} for wait in self.waits],
        }


def _medians(samples: Sequence[Sample]) -> tuple[float, float]:
    return statistics.median(s.wall for s in samples), statistics.median(s.cpu for s in samples)
