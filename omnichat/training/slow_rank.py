"""A rank that is stopped or far behind makes all others wait without a word; rank 0 names it."""

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from itertools import count
from time import localtime, monotonic, strftime, time
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch.distributed as dist
from torch import Tensor

# Ours. Between two places of a step lies less than a second at usual sizes; NCCL itself gives up after 10 minutes.
PATIENCE = 30.0  # s at one place, before rank 0 looks at the others
BEAT = 1.0  # s between two signs of life
SILENCE = 10.0  # s without one: a process that lives gives some ten


class SignOfLife(NamedTuple):
    """What a rank says of itself in the store of the process group.

    Attributes:
        place: how far it has come; the same number on every rank at the same place of the same micro-batch.
        beat: counts; where it stands still the whole process does.
        host: its machine.
    """

    place: int
    beat: int
    host: str


class SlowRankWatch(pl.Callback):
    """Tells for which ranks the others wait, and where they run; training goes on as soon as they come.

    Every rank has a thread that gives signs of life, so that a step pays for adding one to a number, three times a
    micro-batch. Rank 0 looks at them only once it has itself been at one place for `PATIENCE`. A rank whose device
    hangs in a collective is not told from those that wait for it; nor is anything told while rank 0's process stands.

    Args:
        tell: shows a line; of rank 0.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._place = 0
        self._step = 0
        self._since = monotonic()
        self._told: set[str] = set()  # of this place
        self._telling = threading.Lock()  # the place does not change while its ranks are named
        self._over = threading.Event()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on every rank gives signs of life, and rank 0 watches."""
        if trainer.world_size == 1 or not dist.is_initialized():
            return
        # Clones: a connection of the group's own may be held by a thread that waits for another rank.
        store: Any = dist.distributed_c10d._get_default_store()
        work: list[tuple[Callable[..., None], int]] = [(self._beat, trainer.global_rank)]
        if trainer.is_global_zero:
            work.append((self._watch, trainer.world_size))
        for target, number in work:
            threading.Thread(target=target, args=(store.clone(), number), name=target.__name__, daemon=True).start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The data of the micro-batch is there."""
        self._arrive()
        self._step = trainer.global_step + 1

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """This rank has come so far by itself, where its parameters are not shards; what comes after waits for all."""
        self._arrive()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Its work is done: ranks that wait here do so for a checkpoint, a validation or the data."""
        self._arrive()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look no more."""
        self._over.set()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Look no more: what went wrong is told by others."""
        self._over.set()

    def _arrive(self) -> None:
        with self._telling:
            self._place += 1
            told, self._told = self._told, set()
            waited, self._since = monotonic() - self._since, monotonic()
        if told:
            self.tell(f"step {self._step}: goes on after {waited:.0f} s")

    def _beat(self, store: dist.Store, rank: int) -> None:
        host = socket.gethostname()
        with contextlib.suppress(dist.DistError):  # the store is gone with rank 0; the next collective says so
            for beat in count():
                store.set(_key(rank), f"{self._place} {beat} {host}")
                if self._over.wait(BEAT):
                    return

    def _watch(self, store: dist.Store, ranks: int) -> None:
        with contextlib.suppress(dist.DistError):
            while not self._over.wait(BEAT):
                place, since = self._place, self._since
                if monotonic() - since < PATIENCE:
                    continue
                before = _signs_of_life(store, ranks)
                if self._over.wait(SILENCE):
                    return
                after = _signs_of_life(store, ranks)
                with self._telling:
                    if place == self._place:
                        self._name(before, after)

    def _name(self, before: Sequence[SignOfLife], after: Sequence[SignOfLife]) -> None:
        front = max(sign.place for sign in after)
        late = {}
        for rank, (earlier, sign) in enumerate(zip(before, after, strict=True)):
            if sign.beat == earlier.beat:
                late[rank] = f"rank {rank} on {sign.host} gives no sign of life: stopped, stuck or unreachable"
            elif sign.place < front:
                late[rank] = f"rank {rank} on {sign.host} lives but is behind"
        new = set(late.values()) - self._told
        self._told |= new
        if new:
            waited = monotonic() - self._since
            since = strftime("%H:%M:%S", localtime(time() - waited))
            self.tell(f"step {self._step}: waiting since {since}, {waited:.0f} s: {'; '.join(sorted(new))}")


def _signs_of_life(store: dist.Store, ranks: int) -> list[SignOfLife]:
    found = []
    for key in map(_key, range(ranks)):
        sign = store.get(key).decode() if store.check([key]) else "-1 -1 an unknown machine"
        place, beat, host = sign.split(" ", 2)
        found.append(SignOfLife(int(place), int(beat), host))
    return found


def _key(rank: int) -> str:
    return f"omnichat/sign_of_life/{rank}"
