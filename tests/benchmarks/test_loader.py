"""The loader benchmark: arms that deliver one thing, and rates that are rates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loader
from benchmarks.corpus import SPEECH_KB_PER_SECOND, write_corpus
from benchmarks.loader_report import Arm, LoaderReport, Sample, Target
from benchmarks.measure import NotEqualError
from benchmarks.workload import make_prompt, write_checkpoints
from omnichat.batch import Example
from omnichat.data.scan import scan
from omnichat.data.store import Store
from tests.benchmarks.test_arms import TOY


def test_arms_deliver_the_same_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the plain arm reads something else than the project, and when nobody would notice."""
    corpus = write_corpus(tmp_path, 2)
    # Audio that is easier or harder to decode than speech would flatter an arm.
    assert corpus.audio_bytes / corpus.seconds / 1e3 == pytest.approx(SPEECH_KB_PER_SECOND, rel=0.15)
    prompt = make_prompt(write_checkpoints(tmp_path, TOY))
    found = scan(Store(corpus.split), prompt)
    loader.check_equal(corpus, found, prompt)
    get = loader.PlainDialogues.__getitem__

    def louder(self: loader.PlainDialogues, row: int) -> Example:
        example = get(self, row)
        return replace(example, waves=tuple(np.nextafter(wave, np.float32(1)) for wave in example.waves))

    monkeypatch.setattr(loader.PlainDialogues, "__getitem__", louder)
    with pytest.raises(NotEqualError, match="other tokens or audio"):
        loader.check_equal(corpus, found, prompt)


def test_every_arm_runs_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when an arm stops early, which would look fast, or a loader's process is left behind."""
    for name, value in (("SLOW", 2), ("FAST", 4), ("WORKERS", (1,)), ("BATCH", 1), ("STEP_SECONDS", 1e-4)):
        monkeypatch.setattr(loader, name, value)
    report = loader.run(1, 2, TOY)
    assert {(arm.name, arm.workers, arm.dialogues) for arm in report.samples} == {
        (name, workers, 2 if name in (loader.PLAIN, loader.LIVE_MELS) else 4)
        for name in (loader.PLAIN, loader.PLAIN_WAVES, loader.LIVE, loader.LIVE_MELS, loader.CACHED)
        for workers in (1,)
    }
    assert all(sample.wall > 0 and sample.cpu > 0 for samples in report.samples.values() for sample in samples)
    assert "cached against plain" in report.text()
    assert all(0 <= wait.share < 1 for wait in report.waits)


def test_ratios_are_of_rates_with_equal_workers() -> None:
    """Fails when a ratio compares arms of unequal workers, or one slow round decides."""
    samples = {
        Arm("slow", 0, 1): [Sample(4, 4), Sample(4, 4), Sample(90, 90)],
        Arm("slow", 1, 1): [Sample(2, 5)] * 3,
        Arm("fast", 0, 1): [Sample(1, 2)] * 3,
        Arm("fast", 1, 1): [Sample(1, 1)] * 3,
    }
    targets = [Target("slow", "fast", 2.0), Target("slow", "fast", 2.1), Target("slow", "fast")]
    report = LoaderReport({"dialogues": 1}, samples, 3600.0, dict.fromkeys(samples, 2e6), [], targets)
    assert report.speedups(targets[0]) == {0: (4, 2), 1: (2, 5)}
    assert report.missed() == [targets[1]]
    line = next(line for line in report.text().splitlines() if line.startswith("slow") and " 1 " in line)
    assert line.split() == ["slow", "1", "0.5", "0.5..0.5", "0.500", "1.0", "5000.00"]
