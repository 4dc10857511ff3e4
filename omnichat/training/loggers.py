"""Where metrics go: `metrics.jsonl` always, TensorBoard and W&B by config."""

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from omnichat.background import end_children
from omnichat.config import RunConfig
from omnichat.requirements import has_wandb_key
from omnichat.run_folder import METRICS
from omnichat.secrets import mask_logs, masked
from omnichat.training.guard import TrainingError
from omnichat.training.ranks import is_first
from omnichat.training.tensorboard import TensorBoard

QUEUE = 1000  # records that wait for W&B: a few MB
# For W&B to send the rest after the last step. What it cannot send lies in its file by then: it writes it every 15 s.
FINISH_SECONDS = 30.0
SILENT_SECONDS = 2.0  # of that, before it is said what is waited for
UNSENT = 75  # `wandb_process.UNSENT`: with it would come W&B, which is not installed everywhere


class JsonLinesLogger(Logger):
    """One JSON object a line, flushed at once: the readable record that no service can lose."""

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self._forget_after(resume_step)

    @property
    def name(self) -> str:
        """Lightning asks for it; the file has no other use for a name."""
        return "metrics"

    @property
    def version(self) -> str:
        """One run folder holds one record."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append `{"step": step, **metrics}`.

        Raises:
            TrainingError: the disk refuses.
        """
        line = json.dumps({"step": step, **{name: float(value) for name, value in metrics.items()}}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(line)
        except OSError as error:
            raise TrainingError(
                f"{self.path}: step {step} cannot be written ({error.strerror}); free disk space, and the same "
                "command goes on from the last checkpoint"
            ) from None

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml is the record of the config."""

    @rank_zero_only
    def _forget_after(self, step: int) -> None:
        # Steps after the checkpoint will be trained, and logged, again.
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # a line that a kill cut short
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


class WandbProcess(Logger):
    """W&B, through a process of its own and a bounded queue: training waits for neither a network nor a full disk.

    What comes while the queue is full, or after the process has ended, is dropped and counted; `metrics.jsonl` has it.

    Args:
        run_dir: W&B's folder `wandb/` lies in it.
        config: of the run; goes to W&B without secrets.
    """

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        super().__init__()
        self.folder = run_dir.resolve() / "wandb"
        self.dropped = 0
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE)
        self._process: subprocess.Popen[str] | None = None
        self._start(run_dir.resolve(), config)

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "wandb"

    @property
    def version(self) -> str:
        """One run folder, one run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hand them over, or drop them."""
        values = {name: float(value) for name, value in metrics.items()}
        self._put({"kind": "metrics", "step": step, "values": values})

    @rank_zero_only
    def log_replies(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Hand over how held-out dialogues were answered: the rows of a table, see `reply_rows`."""
        self._put({"kind": "replies", "step": step, "rows": masked(rows)})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config went along at the start."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Give the process a moment to send the rest, then end it; what it did not send lies in `wandb/`."""
        if self._process is None:
            return
        process, self._process = self._process, None
        deadline = monotonic() + FINISH_SECONDS
        try:
            self._queue.put(None, timeout=FINISH_SECONDS)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, min(SILENT_SECONDS, deadline - monotonic())))
            if process.returncode is None and deadline > monotonic():
                print(f"waiting for W&B to send the rest of the run, for {FINISH_SECONDS:.0f} s at most", flush=True)
            process.wait(max(0.0, deadline - monotonic()))
        except (queue.Full, subprocess.TimeoutExpired):
            print(f"W&B did not finish in {FINISH_SECONDS:.0f} s; send the rest with: wandb sync {self.folder}/*run-*")
            _end(process)
        if process.returncode == UNSENT:
            print(f"W&B does not answer; send the run later with: wandb sync {self.folder}/offline-run-*", flush=True)
        self._mask_logs()
        if self.dropped:
            print(f"W&B was too slow: {self.dropped} records were not given to it; {METRICS} has them", flush=True)

    def _mask_logs(self) -> None:
        """The process does so at its end, which a kill or a crash keeps it from."""
        try:
            mask_logs(self.folder)
        except OSError as error:
            print(f"W&B's logs may hold secrets, and cannot be masked: {error}; look at them before you share them")

    @rank_zero_only
    def _start(self, run_dir: Path, config: RunConfig) -> None:
        settings = config.logger.wandb
        self.folder.mkdir(parents=True, exist_ok=True)
        number = self.folder / "id"  # of W&B's run, which a resumed run goes on with
        if not number.exists():
            number.write_text(uuid4().hex[:12], encoding="utf-8")
        shown = {
            "name": config.run_name,
            "project": settings.project,
            "entity": settings.entity,
            "group": settings.group,
            "config": config.model_dump(mode="json"),
        }
        run = masked(shown) | {"id": number.read_text(encoding="utf-8"), "resume": "allow", "dir": str(run_dir)}
        offline = settings.mode == "offline" or (settings.mode == "auto" and not has_wandb_key())
        with (self.folder / "process.log").open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "omnichat.training.wandb_process"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C stops training, which then ends this process in order
            )
        self._put({"kind": "start", "run": run, "offline": offline, "pid": os.getpid()})
        threading.Thread(target=self._feed, args=(self._process,), name="wandb", daemon=True).start()

    def _put(self, message: Mapping[str, Any]) -> None:
        try:
            if self._process is None or self._process.poll() is not None:
                raise queue.Full
            self._queue.put_nowait(json.dumps(message))
        except queue.Full:
            self.dropped += 1

    def _feed(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # the process has ended; `_put` counts what it does not get
            while (line := self._queue.get()) is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()


def _end(process: "subprocess.Popen[str]") -> None:
    """End the process and W&B's own, which is in a session of its own and would go on trying, and logging."""
    end_children(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(2)


def build_loggers(config: RunConfig, run_dir: Path, first_step: int) -> list[Logger]:
    """The loggers that `config.logger` asks for; W&B runs offline where there is no key.

    What is left to the machine (`auto`) and is not installed is said, and the run goes on without.
    """
    asked = {"tensorboard": config.logger.tensorboard, "wandb": config.logger.wandb.mode}
    absent = [name for name, how in asked.items() if how == "auto" and importlib.util.find_spec(name) is None]
    if absent and is_first():
        extras = ",".join(absent)
        print(f"no {' nor '.join(absent)} here (pip install -e '.[{extras}]'): {METRICS} has the metrics", flush=True)
    loggers: list[Logger] = [JsonLinesLogger(run_dir / METRICS, first_step)]
    if config.logger.tensorboard and "tensorboard" not in absent:
        loggers.append(TensorBoard(run_dir))
    if config.logger.wandb.mode != "disabled" and "wandb" not in absent:
        loggers.append(WandbProcess(run_dir, config))
    return loggers
