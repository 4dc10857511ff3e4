"""AF-Dialogue: dialogues in text about one sound or piece of music (Audio Flamingo, Kong et al., 2024).

As NVIDIA/audio-flamingo reads it (branch legacy_audio_flamingo_1, chat/data/prepare_each_dataset.py@b91a444):
    dialogues_audioset_thresholded.json, dialogues_musiccaps_thresholded.json
        [{audio_id: name of the clip, dialogue: [{user, assistant}, ...]}, ...]
or as that script writes it, {..., data: {"0": {name, dialogue}, ...}}. The lists have not been published.

Nobody speaks: the user's words are text. Where the clip lies in the list's folder or below (as `audio_id` says, or with
.wav or .flac behind it), it is the audio of the first user turn, whose `meta` says {"audio": "sound"}: what is heard
there is what the words are about, so train with data.input=speech+text. Without the clip all turns have words only.
Dialogues about one clip are one group. Upstream also drops answers with phrases such as "cannot determine"; here they
stay.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnichat.audio import audio_ref
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, checked, give_roles, said
from omnichat.dialogue import DataError, Dialogue

NAME = "af-dialogue"
_ENDINGS = ("", ".wav", ".flac")


def parts(source: Path) -> list[Part]:
    """One for each list.

    Raises:
        DataError: `no_file` where there are none.
    """
    paths = sorted({*source.rglob("dialogues_*.json"), *source.rglob("*-Dialog/*.json")})
    if not paths:
        message = "holds no dialogues_*.json; expected is a list of {audio_id, dialogue: [{user, assistant}]}"
        raise DataError("no_file", message, str(source))
    return [Part(path.relative_to(source).as_posix(), (path,)) for path in paths]


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one list."""
    reading, (path,) = Reading(), part.files
    with reading.rejecting(path):
        listed = json.loads(path.read_text(encoding="utf-8"))
        records = list(listed["data"].values()) if isinstance(listed, dict) else listed
        clips = {clip.relative_to(path.parent).as_posix(): clip for clip in sorted(path.parent.rglob("*.*"))}
        by_name = {clip.name: clip for clip in clips.values()} | clips
        for number, record in enumerate(records):
            with reading.rejecting(f"{path}: dialogue {number}"):
                reading.dialogues.append(_dialogue(f"{path.stem}/{number}", record, by_name))
    return reading


def _dialogue(name: str, record: dict[str, Any], clips: dict[str, Path]) -> Dialogue:
    clip = record.get("audio_id") or record["name"]
    found = next((clips[clip + ending] for ending in _ENDINGS if clip + ending in clips), None)
    turns = [said(spoken[role].strip()) for spoken in record["dialogue"] for role in ("user", "assistant")]
    if not turns:
        raise DataError("no_turns", "has no turns")
    if found is not None:
        turns[0] = replace(turns[0], audio=audio_ref(found), meta={"audio": "sound"})
    speakers = ["user", "assistant"] * len(record["dialogue"])
    return checked(name, give_roles(turns, speakers, "assistant"), NAME, {"scenario": "audio", "script": clip})


CORPUS = Corpus(
    name=NAME,
    licence="not published",
    source="NVIDIA/audio-flamingo, branch legacy_audio_flamingo_1 (the code that reads it)",
    parts=parts,
    read=read,
)
