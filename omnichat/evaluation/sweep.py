"""What a sweep has made: its runs with what each changed, how far it has come, and how it scored.

A sweep's folder holds `sweep.json`: `{"runs": {NAME: {"folder", "changed", "code"}}}`, the folder relative to it, the
exit code null while the run goes on.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omnichat.config import ConfigError, RunConfig, saved_config
from omnichat.data.shares import synthetic_share
from omnichat.dialogue import DataError
from omnichat.evaluation.replies import replace_file
from omnichat.evaluation.report import read_scores
from omnichat.run_folder import CONFIG_FILE, has_checkpoint, read_metrics
from omnichat.secrets import masked

SWEEP = "sweep.json"
STOPPED = (130, 138, 143)  # by a signal, after a save: the same command goes on
LAST = 100  # steps whose mean is the final loss; a tenth of the run where that is less


@dataclass(frozen=True, slots=True)
class Point:
    """A run of a sweep.

    Attributes:
        changed: the overrides that make it another run than its neighbours, as they were typed.
        code: its exit code, None where it is not known.
        config: None where the run left none that can be read.
        steps: the lines of `metrics.jsonl`.
        scores: of `scores.json`; None where there are none, and `fault` says why.
    """

    name: str
    folder: Path
    changed: tuple[str, ...]
    code: int | None
    config: RunConfig | None
    steps: Sequence[Mapping[str, float]]
    scores: Mapping[str, Any] | None
    fault: str

    @property
    def alpha(self) -> float | None:
        """The share of synthetic dialogues that was asked for; None where the run does not mix two sources."""
        if self.config is not None:
            return self.config.data.alpha
        given = [override.partition("=")[2] for override in self.changed if override.startswith("data.alpha=")]
        try:
            return float(given[-1]) if given else None
        except ValueError:
            return None

    @property
    def trained(self) -> int:
        """The last step of training that was logged."""
        return max((int(record["step"]) for record in self.steps if "loss/total" in record), default=0)

    @property
    def status(self) -> str:
        """Done, or how far it came and why it goes no further."""
        wanted = None if self.config is None else self.config.trainer.max_steps
        if wanted is not None and has_checkpoint(self.folder, wanted):
            return "done"
        where = f"step {self.trained:,}" + ("" if wanted is None else f" of {wanted:,}")
        if self.code not in (None, 0, *STOPPED):
            return f"failed (exit code {self.code}), {where}"
        return f"unfinished, {where}" if self.steps else "not begun"

    def realised(self, unit: str) -> float | None:
        """The synthetic share of what was drawn, by dialogues, seconds heard or target tokens."""
        return synthetic_share(self.steps, unit)

    def final(self, key: str) -> float | None:
        """The mean of a metric over the last steps that have it; of a held-out one the last."""
        values = [record[key] for record in self.steps if key in record]
        count = 1 if key.startswith("validation/") else min(LAST, -(-len(values) // 10))
        return sum(values[-count:]) / count if values else None


def note_point(sweep: Path, name: str, folder: Path, changed: Sequence[str], code: int | None) -> None:
    """Write into the sweep's folder that a run begins (code None) or how it ended; other runs' entries stay.

    Raises:
        OSError: the folder cannot be written to.
    """
    runs = _listed(sweep)
    runs[name] = {"folder": os.path.relpath(folder, sweep), "changed": masked(list(changed)), "code": code}
    sweep.mkdir(parents=True, exist_ok=True)
    replace_file(sweep / SWEEP, (json.dumps({"runs": runs}, indent=1) + "\n").encode())


def read_points(folders: Sequence[Path]) -> list[Point]:
    """The runs of a sweep's folder, a folder of runs, or run folders; by alpha, then by name.

    Raises:
        DataError: `no_file` or `bad_json`, for a folder that holds none of them.
    """
    points: dict[Path, Point] = {}
    for folder in folders:
        if (folder / SWEEP).is_file():
            found = [
                _point(name, folder / entry["folder"], tuple(entry["changed"]), entry["code"])
                for name, entry in _listed(folder).items()
            ]
        else:
            alone = (folder / CONFIG_FILE).is_file()
            runs = [folder] if alone else sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))
            found = [_point(run.name, run, (), None) for run in runs]
        if not found:
            message = f"holds neither {SWEEP} nor runs; name the folder of a sweep, as runs/sweeps/NAME, or of runs"
            raise DataError("no_file", message, str(folder))
        points |= {point.folder.resolve(): point for point in found}
    return sorted(points.values(), key=lambda point: (point.alpha is None, point.alpha or 0.0, point.name))


def _listed(sweep: Path) -> dict[str, Any]:
    path = sweep / SWEEP
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for entry in runs.values():
            entry["folder"], entry["changed"], entry["code"]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"is not the list of a sweep's runs ({error!r}); remove it and name the run folders instead"
        raise DataError("bad_json", message, str(path)) from None
    return dict(runs)


def _point(name: str, folder: Path, changed: tuple[str, ...], code: int | None) -> Point:
    config, scores, faults = None, None, []
    path = folder / CONFIG_FILE
    try:
        config = saved_config(yaml.safe_load(path.read_text(encoding="utf-8")), path)
    except FileNotFoundError:
        faults.append(f"left no {CONFIG_FILE}")
    except (OSError, ValueError, yaml.YAMLError, ConfigError) as error:
        faults.append(f"{CONFIG_FILE} cannot be read ({' '.join(str(error).split())})")
    try:
        scores = read_scores(folder)
    except DataError as error:
        faults.append("not scored" if error.reason == "no_file" else str(error))
    return Point(name, folder, changed, code, config, read_metrics(folder), scores, "; ".join(faults))
