"""An orderly stop: signals ask for it, all ranks agree on it, SLURM puts the job back into its queue."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import distributed


class StopRequest:
    """SIGTERM and SIGINT ask for a stop at the next step's end, after saving; a second SIGINT interrupts.

    Under SLURM so does SIGUSR1 (`sbatch --signal=SIGUSR1@90`: 90 s before the time is up), after which the job is
    queued again.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # that came to this process
        self._agreed: int | None = None  # that the run ends with
        self._group: Any = None

    def install(self) -> None:
        """Take the signals over, where Python allows it: in the main thread. Every rank has to call it."""
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            # On the CPU: asking the device at every step would make it wait for the host.
            self._group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            asked = (signal.SIGTERM, signal.SIGINT, *((signal.SIGUSR1,) if in_slurm() else ()))
            for number in asked:
                signal.signal(number, self._note)

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """Put the handlers back that were there before, ours and Lightning's own gone, however the run ends."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether a signal has come to any rank. Every rank has to ask, at the same step: saving needs all of them."""
        asked = self.signal or 0
        if self._group is not None:
            most = torch.tensor([asked])
            distributed.all_reduce(most, op=distributed.ReduceOp.MAX, group=self._group)
            asked = int(most)
        # What came while this rank waited for the others stays noted, and is told at the next step.
        self._agreed = asked or None
        return self._agreed is not None

    def exit_code(self, step: int, first: bool) -> int:
        """How the run ended: 0, or 128 and the signal, after saying so and putting SLURM's job back into its queue.

        Args:
            step: the last that was trained, and saved.
            first: whether this is the rank that speaks for all.
        """
        if self._agreed is None:
            return 0
        print(f"stopped by signal {self._agreed} at step {step}, saved; the same command goes on", flush=True)
        if self._agreed == signal.SIGUSR1 and first:
            requeue()
        return 128 + self._agreed

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Only a flag: work inside a signal handler can fall into the middle of a save (Lightning issue 21406).
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def in_slurm() -> bool:
    """Whether this is a batch job of SLURM."""
    return "SLURM_JOB_ID" in os.environ


def requeue() -> bool:
    """Put this SLURM job back into its queue; whether that worked. To be called once, by one rank, after the save."""
    job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        print(f"job {job} could not be queued again ({said}); submit it again, it goes on by itself", file=sys.stderr)
        return False
    print(f"job {job} is queued again", flush=True)
    return True
