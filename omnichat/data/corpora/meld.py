"""MELD: dialogues of the series Friends with emotions; its dyadic lists (declare-lab/MELD@2d2011b, README.md).

{train,dev,test}_sent_emo_dya.csv, one utterance a row, and the clips of MELD.Raw.tar.gz as dia<D>_utt<U>.mp4 in
train_splits, dev_splits_complete and output_repeated_splits_test. <D> and <U> are Old_Dialogue_ID and Old_Utterance_ID:
the dyadic dialogues were cut out of those of several speakers, often with turns left out and with turns that other
dialogues share, so that all from one old dialogue are one group. The corpus's own split is kept.

Audio is heard only where it was taken out of the clips, as WAV beside them:
    for clip in train_splits/dia*.mp4; do ffmpeg -i "$clip" -vn -ac 1 -ar 16000 "${clip%.mp4}.wav"; done
Without any clips the dialogues have words only; with some, a dialogue that lacks one is rejected.
"""

from collections.abc import Mapping
from pathlib import Path

from omnichat.data.corpora.lists import grouped, read_csv
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, audio_below, checked, said
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "meld"
_SPLITS = {
    "train_sent_emo_dya.csv": ("train", "train_splits"),
    "dev_sent_emo_dya.csv": ("val", "dev_splits_complete"),
    "test_sent_emo_dya.csv": ("test", "output_repeated_splits_test"),
}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Old_Dialogue_ID", "Old_Utterance_ID")
EXTRACT = 'for clip in {}/dia*.mp4; do ffmpeg -i "$clip" -vn -ac 1 -ar 16000 "${{clip%.mp4}}.wav"; done'


def parts(source: Path) -> list[Part]:
    """One for each of the three lists that is there.

    Raises:
        DataError: `no_file` where none is; `not_extracted` where there are clips without any WAV.
    """
    found = [path for name in _SPLITS for path in sorted(source.rglob(name))]
    if not found:
        raise DataError("no_file", f"holds none of {', '.join(_SPLITS)} (data/MELD_Dyadic)", str(source))
    listed = []
    for path in found:
        split, folder = _SPLITS[path.name]
        content = (split, _clips(source, folder))
        listed.append(Part(path.relative_to(source).as_posix(), (path,), content))
    return listed


def _clips(source: Path, name: str) -> Path | None:
    """The folder of a split's recordings; None where the clips were not downloaded."""
    folders = sorted(path for path in source.rglob(name) if path.is_dir())
    for folder in folders:
        if next(folder.glob("dia*_utt*.wav"), None) is not None:
            return folder
    for folder in folders:
        if next(folder.glob("dia*_utt*.mp4"), None) is not None:
            cure = EXTRACT.format(folder)
            raise DataError("not_extracted", f"holds clips, but no WAV; take out the audio first: {cure}", str(folder))
    return None


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one list."""
    reading, (path,), (split, clips) = Reading(), part.files, part.content
    with reading.rejecting(path):
        for name, rows in grouped(read_csv(path, _COLUMNS), "Dialogue_ID").items():
            with reading.rejecting(f"{path}: dialogue {name!r}"):
                turns = [_turn(row, clips, choices) for row in rows]
                reading.dialogues.append(_dialogue(f"{split}/{name}", rows, turns, split, choices))
    return reading


def _dialogue(name: str, rows: list[Mapping[str, str]], turns: list[Turn], split: str, choices: Choices) -> Dialogue:
    script = f"{split}/{rows[0]['Old_Dialogue_ID']}"
    scene = {"scenario": "emotion", "split": split, "script": script}
    return checked(name, assign_roles(turns, [row["Speaker"] for row in rows], choices.roles), NAME, scene)


def _turn(row: Mapping[str, str], clips: Path | None, choices: Choices) -> Turn:
    clip = f"dia{row['Old_Dialogue_ID']}_utt{row['Old_Utterance_ID']}"
    audio = audio_below(clips, f"{clip}.wav") if clips is not None else None
    meta = {"emotion": row["Emotion"], "sentiment": row["Sentiment"], "speaker": row["Speaker"], "clip": clip}
    return said(row["Utterance"].strip(), audio, Style(emotion=choices.emotion(row["Emotion"])), meta)


CORPUS = Corpus(
    name=NAME,
    licence="GPL-3.0 (repository); clips from a television series, for research",
    source="declare-lab/MELD",
    parts=parts,
    read=read,
    labels=NAME,
)
