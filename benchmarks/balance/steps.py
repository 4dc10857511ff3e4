"""How even steps are cut, and how full: counted over the training stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.workload import Sizes, draw_dialogues, make_examples, make_prompt, write_checkpoints
from omnichat.batch import pack
from omnichat.data.dataset import DialogueDataset
from omnichat.data.scan import Scan
from omnichat.data.steps import Steps, split_step
from omnichat.data.store import Store, write_store

RANKS = 8
MICRO_BATCHES = (1, 2, 3, 6)  # of each rank, in a step of 48 dialogues
BUDGETS = (4_096, 8_192, 12_288, 16_384, 32_768)
HEAD = ("step", "dialogues", "filled", "5 %", "ours: mean", "95 %", "most", "in order: mean", "95 %")
WIDTHS = (34, 11, 8, 8, 12, 8, 8, 16, 8)


@dataclass(frozen=True)
class Row:
    """A way to cut steps: for each step its dialogues, its share of the budget, and the heaviest rank over the mean."""

    name: str
    dialogues: NDArray[np.float64]
    filled: NDArray[np.float64]
    ours: NDArray[np.float64]
    in_order: NDArray[np.float64]

    def text(self) -> str:
        """A line of the table."""
        cells = [f"{self.dialogues.mean():.1f}", f"{self.filled.mean():.3f}", f"{np.quantile(self.filled, 0.05):.3f}"]
        cells += [f"{value:.4f}" for value in (self.ours.mean(), np.quantile(self.ours, 0.95), self.ours.max())]
        cells += [f"{value:.3f}" for value in (self.in_order.mean(), np.quantile(self.in_order, 0.95))]
        return line(self.name, cells)


def line(name: str, cells: Sequence[str]) -> str:
    """Cells in columns."""
    return name.ljust(WIDTHS[0]) + "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS[1:], strict=True))


def heaviest(loads: Sequence[int]) -> float:
    """The most tokens over the mean."""
    return max(loads) / (sum(loads) / len(loads))


def measure(name: str, steps: Steps, count: int, micro_batches: int = 1) -> Row:
    """Cut `count` steps, each over 8 ranks."""
    found = []
    for step in range(count):
        lengths = steps.dataset.lengths(steps[step]).tolist()
        shares = split_step(lengths, RANKS, micro_batches)
        ours = [sum(lengths[place] for part in rank for place in part) for rank in shares]
        in_order = [int(part.sum()) for part in np.array_split(np.array(lengths), RANKS)]
        filled = sum(lengths) / (steps.tokens or sum(lengths))
        found.append((len(lengths), filled, heaviest(ours), heaviest(in_order)))
    return Row(name, *np.array(found).T)


def report(steps: int, count: int) -> None:
    """Print the table of `steps` steps of each kind, over `count` dialogues in the source."""
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        prompt = make_prompt(write_checkpoints(Path(folder), Sizes()))
        dialogues = draw_dialogues(count)
        tokens = [prompt.render(dialogue) for dialogue in dialogues]
        write_store(Path(folder) / "store", {"train": dialogues}, "drawn", "CC0-1.0", "benchmarks.workload")
        lengths = np.array([len(one.ids) for one in tokens], dtype=np.int32)
        targets = np.array([one.num_targets for one in tokens], dtype=np.int32)
        rows, nothing = np.arange(len(lengths)), np.zeros_like(lengths)
        store = Store(Path(folder) / "store" / "train.jsonl")
        scan = Scan(store, rows, lengths, targets, nothing.astype(np.float32), nothing, (), ())
        stream = DialogueDataset({"synthetic": scan}, {"synthetic": 1.0}, prompt)
        print(f"{len(lengths):,} dialogues of {lengths.min()}..{lengths.max()} tokens, mean {lengths.mean():.1f}")
        print(f"{steps:,} steps of each kind on {RANKS} ranks; tokens of the heaviest rank over the mean\n")
        print(line(HEAD[0], HEAD[1:]))
        for micro in MICRO_BATCHES:
            name = f"48 dialogues, {micro} micro-batch{'es' if micro > 1 else ''}"
            print(measure(name, Steps(stream, dialogues=48), steps, micro).text(), flush=True)
        for budget in BUDGETS:
            print(measure(f"{budget:,} tokens", Steps(stream, tokens=budget), steps).text(), flush=True)
        packed, padded = [], []
        for start in range(0, 48, 6):
            batch = pack(make_examples(prompt, dialogues[start : start + 6]))
            real = int(batch.starts.diff().sum())
            packed.append(real / len(batch.ids))
            padded.append(real / (6 * batch.max_length))
        print(
            f"\nreal over allocated tokens of micro-batches of 6: packed {np.mean(packed):.3f}, "
            f"padded {np.mean(padded):.3f}"
        )
