"""The reader of MELD: dyadic dialogues, the clips they point to, and groups that share them."""

from pathlib import Path

import pytest

from omnichat.data.corpora.meld import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import SAMPLES, levels, needs, read, reasons, roles, write_levels

HEADER = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Old_Dialogue_ID,Old_Utterance_ID,Season"
ROWS = [
    '"Oh, no.",Phoebe,sadness,negative,0,0,7,1,4',
    "What?,Monica,surprise,negative,0,1,7,4,4",
    "Hi!,Ross,joy,positive,1,0,7,4,4",
    "Hey.,Ross,neutral,neutral,1,1,7,5,4",
    "Yes.,Joey,anger,negative,1,2,7,6,4",
]


def corpus(folder: Path, *clips: str) -> Path:
    """Two dialogues cut out of one, and clips of which each has its own level."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "dev_sent_emo_dya.csv").write_text("\n".join([HEADER, *ROWS]))
    for number, clip in enumerate(clips, start=1):
        write_levels(folder / "dev" / "dev_splits_complete" / clip, [number / 10], rate=48_000)
    return folder


def test_clips_are_those_of_the_old_numbers(tmp_path: Path) -> None:
    """By the new numbers nearly every turn would be heard from another one's clip."""
    corpus(tmp_path, "dia7_utt1.wav", "dia7_utt4.wav", "dia7_utt5.wav", "dia7_utt6.wav", "dia0_utt0.wav")
    reading = read(CORPUS, tmp_path)
    assert reasons(reading) == {}
    first, second = reading.dialogues
    assert levels(first) == [0.1, 0.2]
    assert levels(second) == [0.2, 0.3, 0.4]
    assert roles(second) == "uua"
    assert [turn.style.emotion for turn in first.turns] == ["sad", "surprised"]
    assert {dialogue.scene["split"] for dialogue in reading.dialogues} == {"val"}
    assert CORPUS.group(first) == CORPUS.group(second) == "val/7"


def test_clips_without_wavs_are_an_error_with_the_command(tmp_path: Path) -> None:
    """Words only, in silence, where the clips were downloaded, would lose all audio."""
    corpus(tmp_path, "dia7_utt1.wav")
    clip = tmp_path / "dev" / "dev_splits_complete" / "dia7_utt1.wav"
    clip.rename(clip.with_suffix(".mp4"))
    with pytest.raises(
        DataError, match=r'ffmpeg -i "\$clip" -vn -ac 1 -ar 16000 "\$\{clip%\.mp4\}\.wav".*not_extracted'
    ):
        read(CORPUS, tmp_path)


def test_a_missing_clip_rejects_its_dialogue(tmp_path: Path) -> None:
    """A turn without audio among others that have some would be trained on as if nobody spoke."""
    corpus(tmp_path, "dia7_utt1.wav", "dia7_utt4.wav")
    reading = read(CORPUS, tmp_path)
    assert [dialogue.id for dialogue in reading.dialogues] == ["val/0"]
    assert reasons(reading) == {"no_file": 1}
    assert "dia7_utt5.wav" in str(reading.rejects[0])


@needs("meld")
def test_the_real_dev_list() -> None:
    """Counts made apart from this code: 270 dialogues, 1,462 utterances out of 108 dialogues; no clips are at hand."""
    reading = read(CORPUS, SAMPLES / "meld")
    assert reasons(reading) == {}
    assert len(reading.dialogues) == 270
    assert sum(len(dialogue.turns) for dialogue in reading.dialogues) == 1_462
    assert len({CORPUS.group(dialogue) for dialogue in reading.dialogues}) == 108
    assert all(turn.meta["audio"] == "none" for dialogue in reading.dialogues for turn in dialogue.turns)
