"""Training and scoring an experiment's rows; a run that is there already, by its config's hash, is not made again."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from omnichat.config import ConfigError, checked
from omnichat.data.shares import UNITS, synthetic_share
from omnichat.data.store import Store
from omnichat.evaluation.experiments.definition import DefinitionError, Experiment, Row
from omnichat.evaluation.replies import replace_file
from omnichat.free_keys import SAME_RESULT
from omnichat.recipes import ROOT, did_you_mean, locate, with_own_keys
from omnichat.requirements import missing_stores
from omnichat.run_folder import SCORES, read_metrics
from omnichat.schema import RunConfig

TRAINING, BASELINE = "train.py", "eval/baseline.py"
STOPPED = 143  # exit code of a program that a SIGTERM ended
ABOUT = "experiment.json"  # in a run's folder: what it is a run of


@dataclass(frozen=True, slots=True)
class Planned:
    """A run of a row.

    Attributes:
        folder: named by the hash of all that its result depends on; equal rows of several experiments share it, and
            a baseline, which draws nothing, has one for all seeds.
        program: that makes it, TRAINING or BASELINE.
        arguments: of the program.
        after: folder of the run that it begins with.
    """

    row: str
    seed: int
    folder: Path
    program: str
    arguments: tuple[str, ...]
    after: Path | None = None

    @property
    def log(self) -> Path:
        """What its programs print."""
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that was made: its scores, or why there are none.

    Attributes:
        shares: how much of what it drew was synthetic, by each unit of `UNITS` that it wrote down.
    """

    planned: Planned
    scores: dict[str, Any] | None
    fault: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)


def plan(
    experiment: Experiment, size: str, seeds: Sequence[int], out: Path, extra: Sequence[str] = ()
) -> list[Planned]:
    """The runs of all rows, seed by seed, each after the one it begins with.

    Args:
        experiment: whose rows.
        size: a key of its sizes.
        seeds: of each row.
        out: folder of the runs.
        extra: overrides of all runs, after the row's own.

    Raises:
        DefinitionError: there is no such size.
        ConfigError: a row's config is wrong (names the row), or stores are missing (names all, and where to get them).
        DataError: a store is broken.
    """
    if size not in experiment.sizes:
        raise DefinitionError(f"no size {size!r}; there are {', '.join(experiment.sizes)}")
    common, runs, states, lacking = experiment.sizes[size], [], _States(), dict[str, None]()
    for seed in seeds:
        folders: dict[str, Path] = {}
        for name, row in experiment.rows_of(size).items():
            overrides = [
                f"recipe={common.recipe}",
                *common.set,
                *row.set,
                *row.at.get(size, ()),
                *extra,
                f"seed={seed}",
            ]
            after = None if row.init_from is None else folders[row.init_from]
            if after is not None:
                overrides.append(f"init_from={after}")
            config, faults = checked(with_own_keys(overrides))
            if config is None or faults:
                raise ConfigError([f"row {name!r}: {fault}" for fault in faults])
            if lines := missing_stores(config):  # a run is known by its dialogues too
                lacking |= dict.fromkeys(lines)
                folders[name] = out
                continue
            if row.baseline is not None:
                planned = _baseline(name, seed, row, config, experiment.splits, out, states)
            else:
                planned = _training(name, seed, common.recipe, config, overrides, after, out, states)
            folders[name] = planned.folder
            runs.append(planned)
    if lacking:
        raise ConfigError(list(lacking))
    return runs


def _training(
    row: str,
    seed: int,
    recipe: str,
    config: RunConfig,
    overrides: Sequence[str],
    after: Path | None,
    out: Path,
    states: "_States",
) -> Planned:
    values, data = _without(config.model_dump(mode="json"), SAME_RESULT), config.data
    paths = [data.synthetic, data.real, *(source.path for source in data.sources.values())]
    paths += [*data.val.values(), *data.test.values()]
    values["stores"] = {path: states[path] for path in paths if path is not None}
    if not config.model.encoders.own:  # a key that came later; without it runs have the names that they had
        del values["model"]["encoders"]["own"]
    folder = out / f"{recipe}-{_hash(values)}"
    own = (f"run_name={folder.name}", f"hydra.run.dir={folder.resolve()}")
    return Planned(row, seed, folder, TRAINING, (*overrides, *own), after)


def _baseline(
    name: str, seed: int, row: Row, config: RunConfig, splits: Sequence[str], out: Path, states: "_States"
) -> Planned:
    sets = {**config.data.val, **config.data.test}
    if absent := [split for split in splits if split not in sets]:
        raise ConfigError([f"row {name!r}: data.val, data.test: no {', '.join(absent)}, which is to be answered"])
    settings = config.evaluation.model_dump(mode="json", exclude={"batch_size"})
    stores = [sets[split] for split in splits]
    values = {"options": row.options, "evaluation": settings, "stores": {path: states[path] for path in stores}}
    folder = out / f"{row.baseline}-{_hash(values)}"
    settings["batch_size"] = config.evaluation.batch_size
    arguments = (
        str(row.baseline),
        f"store={','.join(stores)}",
        f"names={','.join(splits)}",
        f"out={folder}",
        *row.options,
        *(f"{key}={value}" for key, value in settings.items()),
    )
    return Planned(name, seed, folder, BASELINE, arguments)


def _without(values: Mapping[str, Any], keys: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Values of sections, without some dotted keys."""
    return {
        key: _without(value, keys, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if prefix + key not in keys
    }


def _hash(values: Mapping[str, Any]) -> str:
    """Of what a run computes and on which dialogues; equal for equal results."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


class _States(dict[str, Any]):
    """What the stores hold, each read once: rows share them."""

    def __missing__(self, path: str) -> Any:
        self[path] = Store(locate(path)).state()
        return self[path]


def only(runs: Sequence[Planned], rows: Sequence[str]) -> list[Planned]:
    """The runs of some rows, and those that they begin with.

    Raises:
        DefinitionError: there is no such row.
    """
    there = list(dict.fromkeys(planned.row for planned in runs))
    if absent := [row for row in rows if row not in there]:
        raise DefinitionError(f"no row {absent[0]!r}{did_you_mean(absent[0], there)}; there are: {'; '.join(there)}")
    wanted = {planned.folder for planned in runs if planned.row in rows}
    for planned in reversed(runs):  # each stands after the one that it begins with
        if planned.folder in wanted and planned.after is not None:
            wanted.add(planned.after)
    return [planned for planned in runs if planned.folder in wanted]


def run_all(
    runs: Sequence[Planned], splits: Sequence[str], scoring: Sequence[str] = (), label: str = "runs", jobs: int = 1
) -> list[Outcome]:
    """Train and score every run that is not there yet. A failing run costs only itself and those that begin with it.

    A SIGTERM is handed on to the programs that are running, which save: they would go on by themselves. (Ctrl-C at a
    terminal reaches them anyway.)

    Args:
        runs: each after the one that it begins with.
        splits: that are scored.
        scoring: further arguments of eval/run_store.py.
        label: of the progress bar.
        jobs: runs side by side.
    """
    begun: dict[Path, Future[str]] = {}
    programs = _Programs()

    def make(planned: Planned) -> str:
        if planned.after is not None and planned.after in begun:  # it was begun earlier, so this ends
            begun[planned.after].result()
        fault = "" if _scored(planned, splits) else _make(planned, splits, scoring, programs)
        advance()
        return fault

    count = len({planned.folder for planned in runs})
    with _stopped_by_sigterm(), _bar(label, count) as advance, ThreadPoolExecutor(jobs) as pool:
        try:
            for planned in runs:
                if planned.folder not in begun:
                    begun[planned.folder] = pool.submit(make, planned)
            return [read_outcome(planned, splits, begun[planned.folder].result()) for planned in runs]
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                print(f"{label}: stopping; what is running saves first", file=sys.stderr, flush=True)
                programs.stop()
            pool.shutdown(cancel_futures=True)
            raise


def read_outcome(planned: Planned, splits: Sequence[str], fault: str = "") -> Outcome:
    """What lies in a run's folder; nothing is made."""
    scores = None if fault else _scored(planned, splits)
    steps = read_metrics(planned.folder) if scores else []
    shares = {unit: share for unit in UNITS if (share := synthetic_share(steps, unit)) is not None}
    return Outcome(planned, scores, fault or ("" if scores else "not made"), shares)


def _scored(planned: Planned, splits: Sequence[str]) -> dict[str, Any] | None:
    """Its scores, where all sets are scored in full."""
    try:
        scores: dict[str, Any] = json.loads((planned.folder / SCORES).read_text(encoding="utf-8"))
        found = scores["splits"]
        return scores if all(name in found and not found[name]["partial"] for name in splits) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


class _Programs:
    """Those that are running."""

    def __init__(self) -> None:
        self._lock, self._stopped, self._running = threading.Lock(), False, set[subprocess.Popen[bytes]]()

    def run(self, command: Sequence[str], log: BinaryIO) -> int:
        """Run one and return its exit code; none is begun after `stop`."""
        with self._lock:
            if self._stopped:
                return STOPPED
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        return code

    def stop(self) -> None:
        """Ask them to save and end."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit, so that what is running can be ended first; signals reach the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _make(planned: Planned, splits: Sequence[str], scoring: Sequence[str], programs: _Programs) -> str:
    """Train or answer, and score; what went wrong, empty where nothing did."""
    planned.folder.mkdir(parents=True, exist_ok=True)
    about = {"row": planned.row, "seed": planned.seed, "program": planned.program, "arguments": planned.arguments}
    replace_file(planned.folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
    sets = () if planned.program == BASELINE else (f"split={','.join(splits)}",)  # a baseline has answered no others
    score = (f"run={planned.folder}", *sets, *scoring)
    for program, arguments in ((planned.program, planned.arguments), ("eval/run_store.py", score)):
        with planned.log.open("ab") as log:
            command = [sys.executable, str(ROOT / program), *arguments]
            log.write(f"\n{program} {' '.join(arguments)}\n".encode())
            log.flush()
            code = programs.run(command, log)
        if code != 0:
            return f"{program} ended with exit code {code}; see {planned.log}"
    return ""


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; a line for each run elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        done = iter(range(1, total + 1))
        yield lambda: console.print(f"{label}: {next(done)} of {total}", highlight=False)
        return
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda: progress.advance(bar)
