"""The commands that turn a corpus into a store."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep import deepdialogue, sharechat_demo
from omnichat.audio import load_audio
from omnichat.data.corpora.summary import majority_f1
from omnichat.data.scan import scan
from omnichat.data.store import Store, read_info
from omnichat.prompt import Prompt

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the corpora's recordings are not at ../shared/samples")


def command(module: object, *arguments: object) -> int:
    """What `python -m data_prep.<module>` with these arguments returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prog", *map(str, arguments)])
        return module.main()  # type: ignore[attr-defined]


def corpus(folder: Path) -> Path:
    """A conversation with a float recording that exceeds one, and one without recordings."""
    for name in ("1_2", "2_2"):
        (folder / name).mkdir(parents=True)
        spoken = [
            {"speaker": "LLM1", "text": "hi", "emotion": "curious"},
            {"speaker": "LLM2", "text": "yes", "emotion": "happy"},
        ]
        record = {"domain": "art", "model1": "a", "model2": "b", "conversation": spoken}
        (folder / name / f"{name}.json").write_text(json.dumps(record))
    wave = np.concatenate([np.full(8_000, 1.08), np.zeros(4_800), np.full(8_000, 0.5), np.zeros(8_000)])
    soundfile.write(folder / "1_2" / "1_2_xtts.wav", wave, 16_000, subtype="FLOAT")
    return folder


def test_a_store_stands_alone_with_the_samples_of_its_source(
    tmp_path: Path, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source may go away; a clipped or re-encoded copy would be other data."""
    source, out = corpus(tmp_path / "in"), tmp_path / "out"
    assert command(deepdialogue, source, out) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["train", "1", "2", "2.00", "2", "0.00"]
    assert "curious        1  50.0% -> neutral  (lossy)" in printed
    assert "2_2.json: has no 2_2_<voice>.wav beside it" in printed
    for path in source.rglob("*.wav"):
        path.unlink()
    moved = out.rename(tmp_path / "moved")
    store = Store(moved / "train")
    assert scan(store, prompt, decode=True).faults == ()
    assert store[0].turns[0].audio is not None
    assert load_audio(store[0].turns[0].audio).max() == pytest.approx(1.08)
    assert dict(read_info(moved).splits) == {"train": 1}
    assert (moved / "splits/train.txt").read_text() == "art/1_2/xtts\n"


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    """A conversion that was stopped goes on; one that was done is left as it is."""
    source, out = corpus(tmp_path / "in"), tmp_path / "out"
    command(deepdialogue, source, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert command(deepdialogue, source, out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_folder_without_the_corpus_fails_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, a cure, no traceback, no empty store."""
    for module in (deepdialogue, sharechat_demo):
        assert command(module, tmp_path, tmp_path / "out") == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """A user must not have to read the code to run it."""
    for module in (deepdialogue, sharechat_demo):
        with pytest.raises(SystemExit) as caught:
            command(module, "--help")
        assert caught.value.code == 0
        assert "example:\n  python -m data_prep." in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        command(deepdialogue)
    assert caught.value.code == 2


def test_the_majority_baseline_is_that_of_always_the_commonest() -> None:
    """By hand: three of four happy gives precision 3/4, recall 1, F1 6/7, weighted by 3/4."""
    assert majority_f1(Counter(happy=3, sad=1)) == pytest.approx(9 / 14)
    assert majority_f1(Counter()) == 0


@needs_samples
@pytest.mark.parametrize(
    ("module", "samples", "split", "count"),
    [(sharechat_demo, "sharechatx_demo", "test", 12), (deepdialogue, "deepdialogue", "train", 9)],
)
def test_real_recordings_become_a_sound_store(
    module: object, samples: str, split: str, count: int, tmp_path: Path, prompt: Prompt
) -> None:
    """16 and 24 kHz, PCM_16, PCM_32 and FLOAT, background music: every sample decodes, nothing leaves the store."""
    assert command(module, SAMPLES / samples, tmp_path / "store") == 0
    result = scan(Store(tmp_path / "store" / split), prompt, decode=True)
    assert result.faults == ()
    assert len(result.rows) == count
