"""The dialogues of ShareChatX's demo pages (sharechatx.github.io, no licence), as transcribed `dialogue.json` files.

`<id>/dialogue.json` beside its wavs (16 kHz; PCM_16, PCM_32 and FLOAT, which may exceed +-1). Speaker A, the left
column, is the user and speaks first; B answers. The page gives pitch, speed and emotion, no gender. Where the page ends
on a user turn, its answer is taken from DailyTalk where the recording was identified there; else the turn is left out.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omnichat.audio import audio_ref
from omnichat.data.corpora.reading import Choices, Corpus, assign_roles, checked, dialogue_folders, read_folder
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "sharechat-demo"


def _dialogue(path: Path, choices: Choices) -> Dialogue:
    record = json.loads(path.read_text(encoding="utf-8"))
    turns = [_turn(path.parent, turn, choices) for turn in record["turns"]]
    speakers = [turn["speaker"] for turn in record["turns"]]
    answer = next((extra for extra in record.get("extra_audio", ()) if "dailytalk" in extra), None)
    if speakers[-1] == "A" and answer is not None:
        turns.append(_turn(path.parent, answer["dailytalk"] | {"audio": answer["audio"]}, choices))
        speakers.append("B")
    scene = {"scenario": record["subset"], "background": record["derived_background"]["mode"]}
    if record["background_caption"]:
        scene["caption"] = record["background_caption"]
    return checked(record["id"], assign_roles(turns, speakers, choices.roles), NAME, scene)


def _turn(folder: Path, record: Mapping[str, Any], choices: Choices) -> Turn:
    if Path(record["audio"]).name != record["audio"]:
        raise DataError("path_outside_root", f"audio {record['audio']!r} is not a file beside its dialogue.json")
    pitch, speed = (record[name].strip().lower() if record.get(name) else None for name in ("pitch", "speed"))
    style = Style(emotion=choices.emotion(record["emotion"]), speed=speed, pitch=pitch)
    return Turn("user", record["text"], style, audio_ref(folder / record["audio"]), {"emotion": record["emotion"]})


CORPUS = Corpus(
    name=NAME,
    licence="none stated",
    source="sharechatx.github.io",
    parts=partial(dialogue_folders, name="dialogue.json", layout="<id>/dialogue.json beside its recordings"),
    read=partial(read_folder, dialogue=_dialogue),
    labels="sharechat_demo",  # the page's labels, and DailyTalk's for its answers
)
