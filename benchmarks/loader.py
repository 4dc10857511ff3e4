"""From a store on disk to batches: the project's loader, live and cached, against a plain one."""

import gc
import io
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.corpus import WIDTHS, Corpus, write_corpus
from benchmarks.loader_report import Arm, LoaderReport, Sample, Target, Wait
from benchmarks.measure import NotEqualError
from benchmarks.plain_loop import PaddedCollator
from benchmarks.workload import Sizes, make_prompt, write_checkpoints
from omnichat.audio import FRAME_RATE, PIECE
from omnichat.batch import Example, PackedBatch
from omnichat.data.dataset import DialogueDataset
from omnichat.data.features import FeatureReader
from omnichat.data.module import make_loader
from omnichat.data.scan import Scan, scan
from omnichat.data.steps import StepBatches, Steps
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, Dialogue, Style, Turn
from omnichat.models.encoders.log_mel import log_mel
from omnichat.prompt import Prompt

BATCH = 6  # dialogues: trainer.micro_batch
MELS = 128  # Whisper large-v3
WORKERS = (0, 1, 2)
# Ours. A rate is taken over so many dialogues; over fewer, the start of the workers would be most of the time.
SLOW, FAST = 12, 288
# The step of 48 dialogues that is aimed for on an H200 takes 0.63 s, a micro-batch of 6 an eighth of it.
STEP_SECONDS = 0.63 / 8
PLAIN, PLAIN_WAVES = "plain", "plain, waves for mels"
LIVE, LIVE_MELS, CACHED = "live", "live, and 30 s mels", "cached"


class PlainDialogues(Dataset[Example]):
    """A `datasets` table read as its documentation does: a row as Python objects, audio bytes through soundfile."""

    def __init__(self, split: Path, prompt: Prompt) -> None:
        self.table = datasets.load_from_disk(str(split))
        self.prompt = prompt

    def __len__(self) -> int:
        """Dialogues."""
        return len(self.table)

    def __getitem__(self, row: int) -> Example:
        """Its text is rendered by the project's prompt, as in every arm."""
        record = self.table[row]
        turns, waves = [], []
        for turn in record["turns"]:
            audio = None
            if turn["audio"] is not None:
                wave, _ = soundfile.read(io.BytesIO(turn["audio"]["bytes"]), dtype="float32")
                waves.append(wave)
                audio = AudioRef(turn["audio"]["path"], len(wave))
            turns.append(Turn(turn["role"], turn["text"], Style(**turn["style"]), audio))
        tokens = self.prompt.render(Dialogue(record["id"], tuple(turns)))
        return Example(tokens, tuple(waves), None, record["id"])


class MelBatches(StepBatches):
    """The project's batches with the mels that the plain loader makes, by the project's own spectrogram."""

    def __getitem__(self, number: int) -> tuple[PackedBatch, Tensor]:  # type: ignore[override]
        """A packed batch, and (A, 128, 3000) log-mel of 30 s."""
        batch = super().__getitem__(number)
        assert batch.waves is not None
        padded = F.pad(batch.waves, (0, PIECE - batch.waves.shape[1]))
        return batch, log_mel(padded, torch.full_like(batch.wave_lengths, PIECE), MELS)[0]


def run(repetitions: int, num_dialogues: int, sizes: Sizes) -> LoaderReport:
    """Compare the loaders.

    Raises:
        NotEqualError: the arms deliver other tokens or other audio.
    """
    datasets.disable_progress_bars()
    with TemporaryDirectory(prefix="omnichat-bench-") as name:
        corpus = write_corpus(Path(name), num_dialogues)
        prompt = make_prompt(write_checkpoints(Path(name), sizes))
        found = scan(Store(corpus.split), prompt)
        check_equal(corpus, found, prompt)
        arms = make_arms(corpus, found, prompt)
        samples: dict[Arm, list[Sample]] = {arm: [] for arm in arms}
        for repetition in range(repetitions + 1):
            for arm, start in arms.items():
                sample = measure(start, arm.dialogues)
                if repetition:  # the first is a warm-up
                    samples[arm].append(sample)
        waits = [
            Wait(arm, STEP_SECONDS, wait_share(start)) for arm, start in arms.items() if arm.name in (LIVE, CACHED)
        ]
    seconds = corpus.seconds / num_dialogues
    return LoaderReport(
        workload={
            "dialogues": num_dialogues,
            "seconds heard per dialogue": seconds,
            "FLAC kB per second": corpus.audio_bytes / corpus.seconds / 1e3,
            "dialogues per batch": min(BATCH, num_dialogues),
        },
        samples=samples,
        seconds=seconds,
        read_bytes={
            arm: 2 * sum(WIDTHS.values()) * FRAME_RATE * seconds
            if arm.name == CACHED
            else corpus.audio_bytes / num_dialogues
            for arm in arms
        },
        waits=waits,
        targets=[
            Target(PLAIN, LIVE, 3.0),
            Target(PLAIN, CACHED, 10.0),
            Target(PLAIN, LIVE_MELS),
            Target(PLAIN_WAVES, LIVE),
        ],
    )


def make_arms(corpus: Corpus, found: Scan, prompt: Prompt) -> dict[Arm, Callable[[], Iterable[Any]]]:
    """For each arm what makes its loader, which ends after the arm's number of dialogues."""
    size = min(BATCH, len(found.rows))
    plain, features = PlainDialogues(corpus.split, prompt), FeatureReader(corpus.features, corpus.keys)
    sources, shares = {"drawn": found}, {"drawn": 1.0}
    live = Steps(DialogueDataset(sources, shares, prompt), size)
    cached = Steps(DialogueDataset(sources, shares, prompt, features=features), size)
    streams = {LIVE: StepBatches(live), LIVE_MELS: MelBatches(live), CACHED: StepBatches(cached)}

    def plain_loader(collator: PaddedCollator, workers: int, dialogues: int) -> DataLoader[Any]:
        order = RandomSampler(plain, num_samples=dialogues)
        return DataLoader(plain, size, sampler=order, num_workers=workers, collate_fn=collator)

    arms: dict[Arm, Callable[[], Iterable[Any]]] = {}
    for workers in WORKERS:
        for name in (PLAIN, PLAIN_WAVES, LIVE, LIVE_MELS, CACHED):
            batches = (SLOW if name in (PLAIN, LIVE_MELS) else FAST) // size
            arm = Arm(name, workers, batches * size)
            if name in streams:
                arms[arm] = lambda name=name, workers=workers, batches=batches: make_loader(
                    streams[name], range(batches), workers
                )
            else:
                collator = PaddedCollator(MELS if name == PLAIN else 0)
                arms[arm] = lambda collator=collator, arm=arm: plain_loader(collator, arm.workers, arm.dialogues)
    return arms


def measure(start: Callable[[], Iterable[Any]], dialogues: int) -> Sample:
    """Time from making a loader to its end, its processes included, for each dialogue."""
    gc.collect()
    wall, used = time.monotonic(), _cpu_seconds()
    for _ in start():
        pass
    gc.collect()  # ends the workers, whose time counts once they have
    return Sample((time.monotonic() - wall) / dialogues, (_cpu_seconds() - used) / dialogues)


def wait_share(start: Callable[[], Iterable[Any]]) -> float:
    """Share of its time that a device which needs `STEP_SECONDS` for a batch waits for the next one."""
    waited = worked = 0.0
    batches = iter(start())
    next(batches)  # the start of a run, which happens once
    for _ in range(48):
        time.sleep(STEP_SECONDS)
        since = time.monotonic()
        if next(batches, None) is None:
            break
        waited, worked = waited + time.monotonic() - since, worked + STEP_SECONDS
    return waited / max(waited + worked, 1e-9)


def check_equal(corpus: Corpus, found: Scan, prompt: Prompt) -> None:
    """The project's examples are the plain ones: same tokens, same audio bit for bit; cached frames for all of it.

    Raises:
        NotEqualError: they are not.
    """
    plain = PlainDialogues(corpus.split, prompt)
    features = FeatureReader(corpus.features, corpus.keys)
    live = DialogueDataset({"drawn": found}, {"drawn": 1.0}, prompt)
    cached = DialogueDataset({"drawn": found}, {"drawn": 1.0}, prompt, features=features)
    rows = {plain[row].dialogue_id: row for row in range(len(plain))}
    for index in range(len(plain)):
        ours, theirs, kept = live[index], plain[rows[live[index].dialogue_id]], cached[index]
        assert kept.features is not None
        frames = [len(piece["whisper"]) for piece in kept.features]
        if not (
            np.array_equal(ours.tokens.ids, theirs.tokens.ids)
            and np.array_equal(ours.tokens.labels, theirs.tokens.labels)
            and all(np.array_equal(a, b) for a, b in zip(ours.waves, theirs.waves, strict=True))
            and frames == [-(-(len(wave) // 160) // 2) for wave in theirs.waves]
        ):
            raise NotEqualError(f"{ours.dialogue_id}: the loaders deliver other tokens or audio. Nothing is timed")


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
