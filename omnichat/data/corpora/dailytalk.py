"""DailyTalk (Lee et al., 2023): recorded dialogues of a woman and a man, from its release or from its lists.

Release: `metadata.json` {dialogue: {utterance: {speaker, text, emotion, act, topic, ...}}} beside
`data/<dialogue>/<utterance>_<speaker>_d<dialogue>.wav` (lhotse/recipes/daily_talk.py, which also says that speaker 1 is
the woman). Lists: `train_frame.txt` and `val_frame.txt` of `preprocessed_data/DailyTalk` in keonlee9420/DailyTalk,
lines `<utterance>_<speaker>_d<dialogue>|<speaker>|{phones}|<text>|<emotion>`, packed with xz or not; audio where it
lies beside them as in the release.

Its own lists are train and val. The test set is ours (`dailytalk_test.txt`): which 220 dialogues the paper took is not
published.
"""

import json
import lzma
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omnichat.audio import audio_ref
from omnichat.data.corpora.reading import (
    NO_AUDIO,
    Choices,
    Corpus,
    PaperRow,
    Part,
    Reading,
    assign_roles,
    checked,
    find_layout,
)
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "dailytalk"
GENDERS = {0: "male", 1: "female"}
SHARED_LETTERS = 40  # dialogues that share a turn of more letters and digits are one script: 56 pairs of the lists do
_PART = 32  # dialogues
_LAYOUT = "metadata.json beside data/ (release), or train_frame.txt and val_frame.txt (lists)"
_LISTS = ("train_frame.txt", "train_frame.txt.xz", "val_frame.txt", "val_frame.txt.xz")
_BASE = re.compile(r"(\d+)_([01])_d(\d+)")

Utterance = dict[str, Any]  # number, speaker, text, emotion, and what else the metadata says


def parts(source: Path) -> list[Part]:
    """32 dialogues at a time, in the order of their numbers.

    Raises:
        DataError: `no_file` where neither layout is there, `bad_json` or `bad_layout` where its list cannot be read.
    """
    root, lists = _root(source)
    dialogues: dict[int, list[Utterance]] = {}
    for path in lists:
        try:
            _add(dialogues, _read_metadata(path) if path.name == "metadata.json" else _read_list(path))
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, lzma.LZMAError) as error:
            if isinstance(error, DataError):
                raise error.at(str(path)) from None
            reason = "bad_json" if path.suffix == ".json" else "bad_layout"
            raise DataError(reason, f"cannot be read ({error}); fetch it again", str(path)) from None
    scripts = shared_scripts({number: [str(one.get("text")) for one in spoken] for number, spoken in dialogues.items()})
    folder = root / "data" if (root / "data").is_dir() else None
    order = sorted(dialogues)
    runs = [order[start : start + _PART] for start in range(0, len(order), _PART)]
    return [
        Part(
            f"dialogues {run[0]}-{run[-1]}",
            tuple(lists),
            (folder, tuple((number, scripts[number], dialogues[number]) for number in run)),
        )
        for run in runs
    ]


def read(part: Part, choices: Choices) -> Reading:
    """Some dialogues."""
    reading = Reading()
    folder, dialogues = part.content
    for number, script, spoken in dialogues:
        with reading.rejecting(f"{part.files[0].name}: dialogue {number}"):
            reading.dialogues.append(_dialogue(number, script, spoken, folder, choices))
    return reading


def shared_scripts(texts: Mapping[int, Sequence[str]]) -> dict[int, int]:
    """The script of each dialogue, named by the smallest of the dialogues that are linked by a long turn in common."""
    script = {number: number for number in texts}
    holders: dict[str, list[int]] = defaultdict(list)
    for number, turns in texts.items():
        for text in turns:
            letters = re.sub(r"[\W_]", "", text.lower())
            if len(letters) > SHARED_LETTERS:
                holders[letters].append(number)

    def find(number: int) -> int:
        while script[number] != number:
            number = script[number]
        return number

    for first, *others in holders.values():
        for other in others:
            low, high = sorted((find(first), find(other)))
            script[high] = low
    return {number: find(number) for number in script}


@lru_cache(maxsize=2)
def listed(split: str) -> frozenset[int]:
    """The dialogues of `dailytalk_test.txt` or `dailytalk_val.txt`."""
    lines = files(__package__).joinpath(f"dailytalk_{split}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(int(line) for line in lines if line and not line.startswith("#"))


def _root(source: Path) -> tuple[Path, list[Path]]:
    """The folder of the corpus, and the files that list it."""
    for name in ("metadata.json", *_LISTS):
        try:
            root = find_layout(source, name, _LAYOUT)
        except DataError:
            continue
        return root, [root / name] if name == "metadata.json" else [p for n in _LISTS if (p := root / n).is_file()]
    raise DataError("no_file", f"holds no DailyTalk; expected is {_LAYOUT}", str(source))


def _add(dialogues: dict[int, list[Utterance]], more: Mapping[int, list[Utterance]]) -> None:
    twice = sorted(set(dialogues) & set(more))
    if twice:
        raise DataError("duplicate_id", f"dialogues {twice[:5]} stand in another list too; keep one of the two")
    dialogues.update(more)


def _read_metadata(path: Path) -> dict[int, list[Utterance]]:
    record = json.loads(path.read_text(encoding="utf-8"))
    return {
        int(name): [{**one, "number": int(number)} for number, one in sorted(spoken.items(), key=lambda x: int(x[0]))]
        for name, spoken in record.items()
    }


def _read_list(path: Path) -> dict[int, list[Utterance]]:
    raw = path.read_bytes()
    text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode("utf-8")
    dialogues: dict[int, list[Utterance]] = defaultdict(list)
    for place, line in enumerate(text.splitlines(), start=1):
        base, _, rest = line.partition("|")
        match, fields = _BASE.fullmatch(base), rest.split("|")
        if match is None or len(fields) != 4:
            message = f"line {place} is not <utterance>_<speaker>_d<dialogue>|<speaker>|{{phones}}|<text>|<emotion>"
            raise DataError("bad_layout", f"{message}: {line[:80]!r}")
        number, speaker, dialogue = map(int, match.groups())
        spoken = {"number": number, "speaker": speaker, "text": fields[2], "emotion": fields[3]}
        dialogues[dialogue].append(spoken)
    return {name: sorted(spoken, key=lambda one: int(one["number"])) for name, spoken in dialogues.items()}


def _dialogue(number: int, script: int, spoken: Sequence[Utterance], folder: Path | None, choices: Choices) -> Dialogue:
    numbers = [one["number"] for one in spoken]
    if numbers != list(range(len(numbers))):
        missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
        raise DataError("missing_turn", f"turns {missing} are missing or stand there twice; fetch the list again")
    turns = [_turn(number, one, folder, choices) for one in spoken]
    split = "test" if number in listed("test") else "val" if number in listed("val") else "train"
    scene = {"script": str(script), "split": split}
    if spoken and "topic" in spoken[0]:
        scene["topic"] = str(spoken[0]["topic"])
    roles = assign_roles(turns, [GENDERS[one["speaker"]] for one in spoken], choices.roles)
    return checked(str(number), roles, NAME, scene)


def _turn(number: int, spoken: Utterance, folder: Path | None, choices: Choices) -> Turn:
    speaker, label = spoken["speaker"], spoken["emotion"]
    if speaker not in GENDERS:
        raise DataError("bad_layout", f"speaker {speaker!r} is not 0 or 1", f"turn {spoken['number']}")
    meta = {"emotion": label} | ({"act": str(spoken["act"])} if "act" in spoken else {})
    style = Style(gender=GENDERS[speaker], emotion=choices.emotion(label))
    if folder is None:
        return Turn("user", spoken["text"], style, None, meta | NO_AUDIO)
    audio = audio_ref(folder / str(number) / f"{spoken['number']}_{speaker}_d{number}.wav")
    return Turn("user", spoken["text"], style, audio, meta)


CORPUS = Corpus(
    name=NAME,
    licence="CC BY-SA 4.0",
    source="README of keonlee9420/DailyTalk on GitHub",
    parts=parts,
    read=read,
    labels=NAME,
    paper=PaperRow(dialogues=2_514, turns=23_774, hours=22),
)
