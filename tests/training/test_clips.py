"""What is encoded together, and read ahead."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import SAMPLE_RATE
from omnichat.config import load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError
from omnichat.training.clips import BATCH_SAMPLES, Clip, decoded, heard_clips, in_batches


def clips_of(*seconds: float) -> list[Clip]:
    return [Clip(AudioRef(str(place), round(SAMPLE_RATE * length)), (b"",)) for place, length in enumerate(seconds)]


def test_batches_keep_to_the_budget_with_their_padding() -> None:
    """A batch beyond the budget runs out of memory on the longest clips; one clip beyond it must still be encoded."""
    clips = clips_of(300, 60, 59, *[30] * 5, *[4] * 40)
    batches = in_batches(clips)
    assert [clip for batch in batches for clip in batch] == clips
    assert [len(batch) for batch in batches] == [1, 2, 4, 4, 30, 7]
    assert all(len(batch) * batch[0].ref.num_samples <= BATCH_SAMPLES for batch in batches[1:])


def test_what_is_heard_is_encoded_once(tmp_path: Path) -> None:
    """The same audio in two stores, or twice in one, costs one encoding; the assistant's turns are not heard."""
    made_up_dialogues(tmp_path / "a", 4)
    made_up_dialogues(tmp_path / "b", 6)  # the first four are those of a, in other files
    config = load_config(
        "recipe=smoke",
        "data.made_up=null",
        "data.alpha=0.5",
        f"data.synthetic={tmp_path}/a/train.jsonl",
        f"data.real={tmp_path}/b/train.jsonl",
        f"++data.val.again={tmp_path}/a/train.jsonl",
    )
    store = Store(tmp_path / "b" / "train.jsonl")
    heard = [turn.audio for row in range(6) for turn in store[row].turns if turn.role == "user" and turn.audio]
    clips = heard_clips(config)
    assert len(clips) == len(heard)
    lengths = [clip.ref.num_samples for clip in clips]
    assert lengths == sorted((ref.num_samples for ref in heard), reverse=True)


def test_waves_come_in_order_in_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames under another clip's name would train without a word."""
    clips = []
    for number, seconds in enumerate((31, 3, 2, 1)):
        soundfile.write(tmp_path / f"{number}.wav", np.full(seconds * SAMPLE_RATE, number / 8), SAMPLE_RATE)
        clips.append(Clip(AudioRef(str(tmp_path / f"{number}.wav"), seconds * SAMPLE_RATE), (b"",)))
    batches = [[clip] for clip in clips[:2]] + [clips[2:]]
    found = list(decoded(batches, 2))
    assert [batch for batch, _ in found] == batches
    assert [[len(wave) for wave in waves] for _, waves in found] == [[480_000, 16_000], [48_000], [32_000, 16_000]]
    assert [[float(wave[0]) for wave in waves] for _, waves in found] == [[0, 0], [1 / 8], [2 / 8, 3 / 8]]
    assert capsys.readouterr().err.splitlines()[-1] == "encoded 0.010 of 0.010 h"
    with pytest.raises(DataError, match=r"missing.wav.*\[no_file\]"):
        list(decoded([[Clip(AudioRef(str(tmp_path / "missing.wav"), 16_000), (b"",))]], 1))
