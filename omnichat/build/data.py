"""The data of a run: its stores, the stream of training batches, the dialogues of an evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omnichat.batch import Example
from omnichat.config import RunConfig
from omnichat.data.dataset import DialogueDataset, StoreDataset
from omnichat.data.features import FeatureReader
from omnichat.data.mixture import alpha_weights
from omnichat.data.module import DialogueModule
from omnichat.data.overlong import LAST_ROUND_TOO_LONG, round_starts
from omnichat.data.scan import Scan, raise_faults
from omnichat.data.scan_cache import cached_scan
from omnichat.data.steps import Steps
from omnichat.data.store import Store
from omnichat.dialogue import Dialogue
from omnichat.prompt import Prompt
from omnichat.recipes import locate

SOURCES = ("synthetic", "real")  # source 0 is drawn where mu < alpha (paper, App. C.1)


def training_stores(config: RunConfig) -> dict[str, Path]:
    """The stores that the run draws from, by source; one whose share is 0 is left out."""
    data = config.data
    if data.alpha is None:
        return {name: locate(source.path) for name, source in data.sources.items() if source.weight}
    shares = {"synthetic": data.alpha, "real": 1 - data.alpha}
    paths = {"synthetic": data.synthetic, "real": data.real}
    return {name: locate(path) for name in SOURCES if shares[name] > 0 and (path := paths[name]) is not None}


def source_weights(config: RunConfig) -> dict[str, float]:
    """The share of each source, those that are not drawn included: a source's draws depend on its place.

    Raises:
        DataError: see `alpha_weights`.
    """
    data = config.data
    if data.alpha is None:
        total = math.fsum(source.weight for source in data.sources.values())
        return {name: source.weight / total for name, source in data.sources.items()}
    return alpha_weights(data.alpha, data.synthetic is not None, data.real is not None)


def validation_stores(config: RunConfig) -> dict[str, Path]:
    """The held-out stores by name."""
    return {name: locate(path) for name, path in config.data.val.items()}


class Scans(NamedTuple):
    """What was found in the stores of a run, by name, none of it at fault."""

    sources: dict[str, Scan]
    held_out: dict[str, Scan]


def scan_data(config: RunConfig, prompt: Prompt) -> Scans:
    """Read everything that the run draws from and is validated on, and print how much it is.

    Raises:
        DataError: every fault of every store at once.
    """
    data = config.data

    def scanned(stores: Mapping[str, Path]) -> dict[str, Scan]:
        return {name: cached_scan(Store(path), prompt, data.overlong) for name, path in stores.items()}

    sources, held_out = scanned(training_stores(config)), scanned(validation_stores(config))
    sources |= {name: sources[name].first(count) for name, count in data.first.items() if name in sources}
    raise_faults([fault for part in (*sources.values(), *held_out.values()) for fault in part.faults])
    for name, part in [*sources.items(), *held_out.items()]:
        _report(name, part)
    return Scans(sources, held_out)


def build_data(
    config: RunConfig,
    prompt: Prompt,
    features: FeatureReader | None,
    start_step: int = 0,
    scans: Scans | None = None,
) -> DialogueModule:
    """The stream of training batches from `start_step` on, and the validation sets; `scans` of them, else made here.

    Raises:
        DataError: see `scan_data`.
    """
    data, settings = config.data, config.trainer
    sources, held_out = scans or scan_data(config, prompt)
    dataset = DialogueDataset(sources, source_weights(config), prompt, config.seed, features)
    steps = Steps(dataset, settings.dialogues_per_step, settings.tokens_per_step, settings.shared_prefix)
    val = [_held_out(part, prompt, features, settings.validation_dialogues) for part in held_out.values()]
    return DialogueModule(
        steps,
        settings.max_steps,
        val,
        settings.micro_batch,
        data.num_workers,
        start_step,
    )


def eval_examples(
    config: RunConfig, prompt: Prompt, path: Path | str, features: FeatureReader | None = None, limit: int | None = None
) -> tuple[list[Dialogue], list[Example]]:
    """Dialogues of a store and their examples, which end where the last assistant turn is to be written.

    Raises:
        DataError: every fault of the store at once.
    """
    dataset = eval_dialogues(config, prompt, path, features, limit)
    return [dataset.dialogue(n) for n in range(len(dataset))], [dataset[n] for n in range(len(dataset))]


def eval_dialogues(
    config: RunConfig,
    prompt: Prompt,
    path: Path | str,
    features: FeatureReader | None = None,
    limit: int | None = None,
    keep_overlong: bool = False,
) -> StoreDataset:
    """The dialogues of a store as they are shown to a model that is to answer them; no audio is read yet.

    Args:
        config: of the run.
        prompt: of the run.
        path: of the store.
        features: cached features to read instead of audio.
        limit: how many.
        keep_overlong: keep dialogues that are too long, with `overlong=drop_oldest_turns` their last round: one is
            refused when it is rendered, and where only the reply to be written is what is too long, it is not. Those
            that `overlong=drop_dialogue` leaves out are left out nevertheless.

    Raises:
        DataError: every fault of the store at once.
    """
    store, overlong = Store(locate(str(path))), config.data.overlong
    kept = keep_overlong and overlong != "drop_dialogue"
    part = cached_scan(store, prompt, "drop_dialogue" if kept and overlong == "error" else overlong)
    raise_faults([fault for fault in part.faults if not (kept and fault.reason == LAST_ROUND_TOO_LONG)])
    if not kept:
        return _held_out(part, prompt, features, limit, generation=True)
    first_turns = dict(zip(part.rows.tolist(), part.first_turns.tolist(), strict=True))
    rows = range(len(store))[:limit]
    if overlong == "drop_oldest_turns":  # all that is not usable is too long, or it would have been raised
        first_turns |= {row: max(round_starts(store[row]), default=0) for row in rows if row not in first_turns}
    return StoreDataset(store, prompt, features, True, rows, np.array([first_turns.get(row, 0) for row in rows]))


def _held_out(
    part: Scan, prompt: Prompt, features: FeatureReader | None, limit: int | None, generation: bool = False
) -> StoreDataset:
    return StoreDataset(part.store, prompt, features, generation, part.rows[:limit], part.first_turns[:limit])


def _report(name: str, part: Scan) -> None:
    dropped = (
        f"; {len(part.dropped)} too long, left out: {', '.join(fault.where for fault in part.dropped[:5])}"
        if part.dropped
        else ""
    )
    if len(shortened := np.flatnonzero(part.first_turns)):
        named = ", ".join(part.store.place(int(part.rows[place])) for place in shortened[:5])
        turns = int(part.first_turns.sum())
        dropped += f"; {len(shortened)} too long, without their oldest turns ({turns} in all): {named}"
    if unlearnt := int(part.context_only.sum()):
        dropped = f"; {unlearnt:,} answers are context only (learn is false){dropped}"
    print(
        f"{name}: {len(part.rows):,} dialogues, {float(part.seconds.sum()) / 3600:.2f} h heard, "
        f"{int(np.sum(part.lengths)):,} tokens, {int(np.sum(part.targets)):,} of them targets{dropped}",
        flush=True,
    )
