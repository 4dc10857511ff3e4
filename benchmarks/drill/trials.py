"""The kill drill's trials: what is killed, when, and what has to be true afterwards."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from omnichat import build, checkpoint
from omnichat.config import RunConfig, load_config
from omnichat.run_folder import CHECKPOINTS, read_metrics
from omnichat.training.fit import fit
from omnichat.training.resume import CheckpointWriter

STEPS, SAVE_EVERY = 10, 2
OVERRIDES = (
    "recipe=smoke", "run_name=drill", "data.made_up=16", "trainer.validate_every=0", "trainer.warmup_steps=1",
    f"trainer.max_steps={STEPS}", f"trainer.save_every={SAVE_EVERY}", "trainer.keep_last=2", "trainer.log_every=3",
)  # fmt: skip
KILLS_A_TRIAL = 5
PATIENCE = 120  # s; a child that takes longer hangs
# What a save is made of, in the module that saves: a kill comes just before one of these calls, or half way through.
POINTS = (
    (checkpoint, "save_file"),
    (checkpoint, "_fingerprint"),
    (checkpoint, "_flush"),
    (checkpoint.shutil, "rmtree"),
    (Path, "mkdir"),
    (Path, "write_text"),
    (Path, "rename"),
    (Path, "unlink"),
)


@dataclass
class Outcome:
    """What the trials of one kind found; `faults` has a line for each thing that must not be."""

    kind: str
    trials: int = 0
    kills: int = 0
    most_lost: int = 0
    where: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """A line of the report."""
        return (
            f"{self.kind:<16} {self.trials:4d} trials, {self.kills:4d} kills, most steps lost {self.most_lost} "
            f"(allowed {SAVE_EVERY}), faults {len(self.faults)}"
        )


def prepare(folder: Path) -> RunConfig:
    """The run's weights and dialogues, made once for all trials."""
    return build.materialise(load_config(*OVERRIDES), folder)


def hashes(run_dir: Path) -> dict[str, str]:
    """Of the weights and moments after the last step."""
    tensors = checkpoint.load_checkpoint(run_dir / CHECKPOINTS / str(STEPS)).tensors
    return {stem: checkpoint.tensors_sha256(group) for stem, group in tensors.items()}


def losses(run_dir: Path) -> list[tuple[float, float | None]]:
    """Of every step on record."""
    return [(record["step"], record.get("loss/total")) for record in read_metrics(run_dir)]


def start(config: RunConfig, run_dir: Path, before: Callable[[], Any] = lambda: None) -> int:
    """Fork a child that trains; its process id. `before` runs in the child first."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(run_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        before()
        code = fit(config, run_dir)
    except BaseException as error:  # a child must never come back into this program
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def end(child: int, seconds: float) -> int | None:
    """Wait so long for a child; its wait status, or None where it still runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    return None


def kill_at(call: int, torn: bool, note: Path) -> Callable[[], None]:
    """Arms a child: it kills itself just before (torn: half way through) the call-th call inside a save."""

    def arm() -> None:
        state = {"inside": 0, "calls": 0}
        save = CheckpointWriter.__call__

        def saving(self: CheckpointWriter, *arguments: Any) -> None:
            state["inside"] += 1
            try:
                save(self, *arguments)
            finally:
                state["inside"] -= 1

        CheckpointWriter.__call__ = saving  # type: ignore[method-assign]
        for owner, name in POINTS:
            setattr(owner, name, _counted(getattr(owner, name), name, call, torn, state, note))

    return arm


def _counted(real: Callable[..., Any], name: str, call: int, torn: bool, state: dict[str, int], note: Path) -> Any:
    def counted(*arguments: Any, **options: Any) -> Any:
        if not state["inside"]:
            return real(*arguments, **options)
        state["calls"] += 1
        if state["calls"] != call:
            return real(*arguments, **options)
        if torn and name == "save_file":
            real(*arguments, **options)
            os.truncate(arguments[1], Path(arguments[1]).stat().st_size // 2)
        with open(note, "a") as out:
            out.write(f"{name}{' torn' if torn and name == 'save_file' else ''}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    return counted


def trial(config: RunConfig, run_dir: Path, expected: dict[str, str], draw: random.Random, outcome: Outcome) -> None:
    """One run, killed several times, then left to finish."""
    outcome.trials += 1
    forced = outcome.kind == "inside a save"
    note = run_dir.with_suffix(".kills")
    for _ in range(KILLS_A_TRIAL):
        # A save makes about 25 of these calls, and the run five saves: calls up to 60 fall into the first three.
        arm = kill_at(draw.randrange(1, 60), draw.random() < 0.3, note) if forced else None
        child = start(config, run_dir, *([arm] if arm else []))
        status = end(child, PATIENCE if forced else draw.uniform(0.1, longest_life(run_dir)))
        if status is None:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if forced:
                outcome.faults.append(f"{run_dir.name}: hung for {PATIENCE} s")
        if os.WIFSIGNALED(status):
            outcome.kills += 1
        elif os.WEXITSTATUS(status) != 0:
            outcome.faults.append(
                f"{run_dir.name}: ended with {os.WEXITSTATUS(status)}, see {run_dir.with_suffix('.log')}"
            )
        inspect(run_dir, outcome)
    status = end(start(config, run_dir), PATIENCE)
    if status is None or status != 0:
        outcome.faults.append(f"{run_dir.name}: did not finish after its kills, see {run_dir.with_suffix('.log')}")
    elif hashes(run_dir) != expected:
        outcome.faults.append(f"{run_dir.name}: its final weights or moments differ from the undisturbed run's")
    elif losses(run_dir) != losses(run_dir.parent / "undisturbed"):
        outcome.faults.append(f"{run_dir.name}: its record of losses is not the undisturbed run's")
    if note.exists():
        for name in note.read_text().split("\n")[:-1]:
            outcome.where[name] = outcome.where.get(name, 0) + 1


def longest_life(run_dir: Path) -> float:
    """How long a child may live at most before it is killed: as long as the undisturbed run took, and a little."""
    return float((run_dir.parent / "seconds").read_text()) * 1.1


def inspect(run_dir: Path, outcome: Outcome) -> None:
    """After a kill: the newest checkpoint is valid, and not far behind the last step on record."""
    newest, refused = checkpoint.newest_valid(run_dir / CHECKPOINTS)
    outcome.faults += [f"{run_dir.name}: unreadable: {reason}" for reason in refused]
    done = max((int(record["step"]) for record in read_metrics(run_dir)), default=0)
    lost = done - (int(newest.name) if newest is not None else 0)
    outcome.most_lost = max(outcome.most_lost, lost)
    if lost > SAVE_EVERY:
        outcome.faults.append(f"{run_dir.name}: {lost} steps lost")


def drill(folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> list[Outcome]:
    """At least `kills` kills of either kind."""
    config = prepare(folder / "parts")
    begun = time.monotonic()
    if end(start(config, folder / "undisturbed"), PATIENCE) != 0:
        raise SystemExit(f"drill: the undisturbed run failed, see {folder / 'undisturbed.log'}")
    (folder / "seconds").write_text(str(time.monotonic() - begun))
    expected = hashes(folder / "undisturbed")
    outcomes = []
    for kind in ("random instants", "inside a save"):
        outcome, draw = Outcome(kind), random.Random(f"{seed} {kind}")
        while outcome.kills < kills and outcome.trials < 2 * kills:
            run_dir = folder / f"{kind.replace(' ', '_')}_{outcome.trials}"
            trial(config, run_dir, expected, draw, outcome)
            if not outcome.faults:
                shutil.rmtree(run_dir)
        say(outcome.row())
        for name, count in sorted(outcome.where.items()):
            say(f"    before {name}: {count}")
        for fault in outcome.faults:
            say(f"    {fault}")
        outcomes.append(outcome)
    return outcomes
