"""EChat-200K: Chinese spoken questions with empathetic answers (ASLP-lab/EChat-200K on the hub).

JSONL as OSUM-EChat reads it (ASLP-lab/OSUM@c7b2774, OSUM-EChat/common_utils/fake_data/raw/data.list, and
wenet/dataset/process/processor.py), a dialogue a line, in files called *.jsonl or *.list:
    key, wav (of the question), txt (the answer), extra: {question, age "<ADULT>", gender "<FEMALE>", think_str,
    a_wav_path (of the answer), speech_token, ...}, history: [{wav, txt}, ...] in dialogues of several rounds
or unpacked shards of its, common_utils/fake_data/shard: <key>.extra, the same as JSON, beside <key>.txt and <key>.wav.

An answer may begin with a tag that says its emotion, "<HAPPY>..."; without one the emotion has no target (upstream
takes neutral). Age, gender and, where it is there, emotion of the question are the speaker's. Questions of earlier
rounds, and those without `question`, are heard without words. Paths are looked up beside the list, then in the corpus's
folder; an answer's recording that is not there is left out, a question's rejects the dialogue. `speech_token`, codes of
another model, is left out. Shards (.tar) are to be unpacked first.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnichat.data.corpora.lists import line_stretches, lines_within, object_of
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, audio_below, checked, give_roles, said
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn

NAME = "echat-200k"
_TAG = re.compile(r"(<[A-Za-z]+>)\s*(.*)", re.DOTALL)
_NONE = {"<none>", "<null>", "none", "null"}  # what upstream writes where a cue is not known
_EXTRA, _PART = ".extra", 200  # dialogues of an unpacked shard that are read as one part
_GENDERS = {"<male>": "male", "<female>": "female"}


def parts(source: Path) -> list[Part]:
    """Stretches of the lists, and some dialogues of an unpacked shard at a time.

    Raises:
        DataError: `no_file` where there are none.
    """
    paths = sorted(path for pattern in ("*.jsonl", "*.list") for path in source.rglob(pattern))
    listed = [
        Part(f"{path.relative_to(source).as_posix()}@{start}", (path,), (source, start, stop))
        for path in paths
        for start, stop in line_stretches(path)
    ]
    unpacked = sorted(source.rglob(f"*{_EXTRA}"))
    for first in range(0, len(unpacked), _PART):
        key = unpacked[first].relative_to(source).as_posix()
        listed.append(Part(key, tuple(unpacked[first : first + _PART])))
    if not listed:
        message = "holds no *.jsonl or *.list of JSON lines, and no <key>.extra; unpack shards (.tar) first"
        raise DataError("no_file", message, str(source))
    return listed


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one part."""
    reading = Reading()
    if part.content is None:
        for path in part.files:
            with reading.rejecting(path):
                reading.dialogues.append(_dialogue(_unpacked(path), (path.parent, path.parent), choices))
        return reading
    (path,), (source, start, stop) = part.files, part.content
    with reading.rejecting(path):
        for place, line in lines_within(path, start, stop):
            with reading.rejecting(f"{path}: line at byte {place}"):
                reading.dialogues.append(_dialogue(object_of(line), (path.parent, source), choices))
    return reading


def _unpacked(path: Path) -> dict[str, Any]:
    """The dialogue of a shard whose `extra` is here, as a line of a list would hold it."""
    key = path.name.removesuffix(_EXTRA)
    emotion = path.with_name(f"{key}.emotion")
    extra = {"emotion": emotion.read_text(encoding="utf-8").strip()} if emotion.is_file() else {}
    text = path.with_name(f"{key}.txt").read_text(encoding="utf-8")
    return {"key": key, "txt": text, "wav": f"{key}.wav", "extra": extra | object_of(path.read_bytes())}


def _dialogue(record: Mapping[str, Any], folders: tuple[Path, Path], choices: Choices) -> Dialogue:
    extra = record.get("extra") or {}
    rounds = [*record.get("history", ()), {**record, "question": extra.get("question", "")}]
    turns: list[Turn] = []
    for number, one in enumerate(rounds, start=1):
        last = number == len(rounds)
        turns.append(_question(one, extra if last else {}, folders, choices))
        turns.append(_answer(one["txt"], _heard(extra.get("a_wav_path"), folders) if last else None, choices))
    scene = {"scenario": "emotion"} | ({"dataset": extra["dataset"]} if extra.get("dataset") else {})
    roles = give_roles(turns, ["user", "assistant"] * len(rounds), "assistant")
    return checked(record["key"], roles, NAME, scene)


def _question(one: Mapping[str, Any], extra: Mapping[str, Any], folders: tuple[Path, Path], choices: Choices) -> Turn:
    if (audio := _heard(one["wav"], folders)) is None:
        raise DataError("no_file", f"the question's recording {one['wav']!r} is not there; fetch it too")
    cues = {name: value for name in ("age", "gender", "emotion") if (value := _cue(extra.get(name)))}
    emotion = choices.emotion(cues["emotion"]) if "emotion" in cues else None
    style = Style(_GENDERS.get(cues.get("gender", "").lower()), emotion)
    return said((one.get("question") or "").strip(), audio, style, cues)


def _answer(text: str, audio: AudioRef | None, choices: Choices) -> Turn:
    tagged = _TAG.fullmatch(text.strip())
    label, words = (_cue(tagged[1]), tagged[2]) if tagged is not None else (None, text.strip())
    style = Style(emotion=choices.emotion(label) if label is not None else None)
    return said(words, audio, style, {"emotion": label})


def _cue(tag: str | None) -> str | None:
    return tag if tag and tag.strip().lower() not in _NONE else None


def _heard(name: str | None, folders: tuple[Path, Path]) -> AudioRef | None:
    """A recording of either folder. A path out of both is one of another machine: it is not there."""
    for folder in folders:
        try:
            return audio_below(folder, (name or "").removeprefix("./"))
        except DataError as error:
            if error.reason not in ("no_file", "path_outside_root"):
                raise
    return None


CORPUS = Corpus(
    name=NAME,
    licence="Apache-2.0",
    source="ASLP-lab/EChat-200K on the Hugging Face hub",
    parts=parts,
    read=read,
    labels="echat_200k",
)
