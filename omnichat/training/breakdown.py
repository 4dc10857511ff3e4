"""What is logged of a step, cut into parts: loss by source and by turn, gates by scenario, what each source gave.

Reads the device; for steps that are logged in parts (each `trainer.log_every`-th and the last), not for all.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnichat.audio import SAMPLE_RATE
from omnichat.batch import PackedBatch
from omnichat.data.shares import Drawn
from omnichat.models.omnichat import Losses
from omnichat.prompt import CONTENT_TARGET

TURNS = 10  # assistant turns with a curve of their own; ShareChatX has 3.7 a dialogue (the paper's 7.37 turns)
LATER = f"{TURNS + 1}+"
DIALOGUE_TURNS = "data/dialogue_turns"
QUANTILES = {"p10": 0.1, "p90": 0.9}


def loss_parts(losses: Sequence[Losses], batches: Sequence[PackedBatch], names: Sequence[str]) -> dict[str, float]:
    """Cross entropy sums and target counts: `sum KEY` and `count KEY` for every key that `part_metrics` may return.

    The keys are the same on every rank, so that they can be added up over ranks.
    """
    turns = [f"loss/by_turn/{turn}" for turn in (*range(1, TURNS + 1), LATER)]
    sources = [f"loss/by_source/{name}" for name in names]
    parts = {f"{what} {key}": 0.0 for key in (*sources, *turns, DIALOGUE_TURNS) for what in ("sum", "count")}
    for loss, batch in zip(losses, batches, strict=True):
        values = loss.per_target.double().cpu().numpy()
        dialogue, turn = target_places(batch)
        source = np.array([names.index(name) for name in batch.sources], dtype=np.int64)[dialogue]
        for keys, place in ((sources, source), (turns, np.minimum(turn, TURNS + 1) - 1)):
            sums, counts = (np.bincount(place, weight, len(keys)) for weight in (values, None))
            for key, total, count in zip(keys, sums, counts, strict=True):
                parts[f"sum {key}"] += float(total)
                parts[f"count {key}"] += float(count)
        parts[f"sum {DIALOGUE_TURNS}"] += len(np.unique(np.stack([dialogue, turn]), axis=1).T)
        parts[f"count {DIALOGUE_TURNS}"] += len(batch.dialogue_ids)
    return parts


def part_metrics(parts: dict[str, float]) -> dict[str, float]:
    """`loss/by_source/NAME` and `loss/by_turn/N`: means over targets; nothing for parts without targets.

    `data/dialogue_turns`: assistant turns that are learnt, the mean over dialogues.
    """
    keys = [name.removeprefix("count ") for name, count in parts.items() if name.startswith("count ") and count]
    return {key: parts[f"sum {key}"] / parts[f"count {key}"] for key in keys}


def target_places(batch: PackedBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each target its dialogue in the batch, and its assistant turn in that dialogue, from 1.

    Turns that are not learnt (an opening one, by default) do not count.
    """
    targets, starts = batch.targets.cpu().numpy(), batch.starts.cpu().numpy()
    dialogue = np.searchsorted(starts, targets, side="right") - 1
    # A reply ends in a content target, the end token, and a header or another dialogue comes after it.
    ends = (batch.kinds.cpu().numpy()[targets] == CONTENT_TARGET) & (np.diff(targets, append=-1) != 1)
    before = np.cumsum(ends) - ends
    first = np.searchsorted(dialogue, dialogue, side="left")  # of the same dialogue
    return dialogue, before - before[first] + 1


def drawn_by_source(batches: Sequence[PackedBatch], names: Sequence[str]) -> dict[str, Drawn]:
    """What this rank's micro-batches hold of each source."""
    drawn = {name: Drawn() for name in names}
    for batch in batches:
        for source, targets in zip(batch.sources, batch.dialogue_targets, strict=True):
            drawn[source].dialogues += 1
            drawn[source].targets += targets
        for dialogue, samples in zip(batch.clip_dialogues.tolist(), batch.num_samples, strict=True):
            drawn[batch.sources[dialogue]].seconds += samples / SAMPLE_RATE
    return drawn


def qformer_norms(names: Sequence[str], losses: Sequence[Losses]) -> dict[str, float]:
    """`qformer/out_norm/EXPERT`: the mean length of what a Q-Former gives, over the windows of this rank's clips."""
    clips = [
        norms[:count]
        for loss in losses
        for norms, count in zip(loss.norms.cpu(), loss.window_counts.tolist(), strict=True)
    ]
    if not clips:
        return {}
    means = torch.cat(clips).mean(0).tolist()
    return {f"qformer/out_norm/{name}": mean for name, mean in zip(names, means, strict=True)}


def gates_by_scenario(
    names: Sequence[str], losses: Sequence[Losses], batches: Sequence[PackedBatch]
) -> dict[str, float]:
    """`gate/EXPERT/SCENARIO`, `.../p10`, `.../p90`: mean and quantiles of a gate over the windows of this rank's clips.

    Scenario is `all` where dialogues have none.
    """
    opened: dict[str, list[Tensor]] = defaultdict(list)
    for loss, batch in zip(losses, batches, strict=True):
        clips, owners = loss.gates.float().cpu(), batch.clip_dialogues.tolist()
        for gates, count, dialogue in zip(clips, loss.window_counts.tolist(), owners, strict=True):
            opened[batch.scenarios[dialogue] or "all"].append(gates[:count])
    metrics = {}
    for scenario, own in sorted(opened.items()):
        windows = torch.cat(own).numpy()
        for name, gate in zip(names, windows.T, strict=True):
            metrics[f"gate/{name}/{scenario}"] = float(gate.mean())
            for quantile, share in QUANTILES.items():
                metrics[f"gate/{name}/{scenario}/{quantile}"] = float(np.quantile(gate, share))
    return metrics
