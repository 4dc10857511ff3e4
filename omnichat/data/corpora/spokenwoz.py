"""SpokenWOZ: task-oriented telephone dialogues (lhotse recipes/spokenwoz.py@d798019; spokenwoz.github.io).

    text_5700_{train_dev,test}/data.json    {id: {goal, log: [{tag: user | system, text, words, ...}]}}
    text_5700_train_dev/valListFile.json    ids of the validation set, one a line whatever its name says
    audio_5700_{train_dev,test}/<id>.wav    8 kHz stereo, user in channel 0, system in channel 1

Words give BeginTime and EndTime in milliseconds of the recording: a turn is heard from its first to its last one, in
its speaker's channel. A turn without words has no times, so that it has its text only. The system is the assistant,
whatever --roles says. The corpus has no emotions. Its own split is kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, audio_below, checked, give_roles, said
from omnichat.data.corpora.recordings import stretch
from omnichat.dialogue import DataError, Dialogue, Turn

NAME = "spokenwoz"
_CHANNELS = {"user": 0, "system": 1}
_LAYOUT = "text_5700_train_dev/data.json and text_5700_test/data.json beside audio_5700_train_dev and audio_5700_test"


def parts(source: Path) -> list[Part]:
    """One for each of the two lists that is there.

    Raises:
        DataError: `no_file` where none is.
    """
    found = sorted(source.rglob("text_5700_*/data.json"))
    if not found:
        raise DataError("no_file", f"holds no data.json; expected is {_LAYOUT}", str(source))
    validation = [path.parent / "valListFile.json" for path in found]
    return [
        Part(path.relative_to(source).as_posix(), (path, *([ids] if ids.is_file() else [])))
        for path, ids in zip(found, validation, strict=True)
    ]


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one list."""
    reading, (path, *lists) = Reading(), part.files
    name = path.parent.name.removeprefix("text_5700_")
    audio = path.parents[1] / f"audio_5700_{name}"
    with reading.rejecting(path):
        if name != "test" and not lists:
            raise DataError("no_file", "has no valListFile.json beside it, so train and val are not known")
        validation = set(lists[0].read_text(encoding="utf-8").split()) if lists else set()
        for key, record in json.loads(path.read_text(encoding="utf-8")).items():
            split = "test" if name == "test" else "val" if key in validation else "train"
            with reading.rejecting(f"{path}: dialogue {key!r}"):
                reading.dialogues.append(_dialogue(key, record, audio, split))
    return reading


def _dialogue(key: str, record: Mapping[str, Any], folder: Path, split: str) -> Dialogue:
    recording = Path(audio_below(folder, f"{key}.wav").path)
    log = record["log"]
    for number, turn in enumerate(log):
        if turn["tag"] not in _CHANNELS:
            raise DataError("unknown_role", f"tag {turn['tag']!r} is not user or system", f"turn {number}")
    turns = give_roles([_turn(turn, recording) for turn in log], [turn["tag"] for turn in log], "system")
    return checked(key, turns, NAME, {"scenario": "task", "split": split})


def _turn(turn: Mapping[str, Any], recording: Path) -> Turn:
    if not turn["words"]:
        return said(turn["text"].strip())
    start = min(word["BeginTime"] for word in turn["words"])
    stop = max(word["EndTime"] for word in turn["words"])
    audio = stretch(recording, start / 1000, stop / 1000, _CHANNELS[turn["tag"]])
    return said(turn["text"].strip(), audio, meta={"start_ms": str(start), "stop_ms": str(stop)})


CORPUS = Corpus(
    name=NAME,
    licence="CC BY-NC 4.0",
    source="spokenwoz.github.io",
    parts=parts,
    read=read,
)
