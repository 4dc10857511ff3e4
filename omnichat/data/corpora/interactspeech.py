"""InteractSpeech: dialogues with interruptions, one track for each speaker.

A folder for each dialogue (interactspeech/interactspeech.github.io@85c5534, assets/audio/interactspeech_demo_syn):
    SODA_PROCESSED--train--<n>/information.json, dialogue_speakera.wav, dialogue_speakerb.wav        22.05 kHz, FLOAT

`processed_dialogue` holds lines "A: ..." and "B: ..."; `speakerA_time` and `speakerB_time` give [start, stop) of each
one's lines, in samples at 22,050 Hz. A line that is cut short has "[interrupt]" where the other cuts in; the words
after it were planned and never spoken. Both tracks are as long as the dialogue and silent while the other speaks, so
that each turn is heard alone though turns overlap (by 10,000 samples in the dialogue at hand).

Kept as `meta`: start and stop (samples at 22,050 Hz of the tracks), overlap (by how many of them a turn begins before
the one before it ends), interrupted and planned (the words that were not spoken). The corpus has no emotions. The
larger part of it, and the recordings of real dialogues, were not at hand: their layout may differ.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from omnichat.data.corpora.reading import Choices, Corpus, assign_roles, checked, dialogue_folders, read_folder, said
from omnichat.data.corpora.recordings import stretch
from omnichat.dialogue import DataError, Dialogue, Turn

NAME = "interactspeech"
RATE = 22_050  # of the times in information.json
INTERRUPT = "[interrupt]"
_LINE = re.compile(r"([AB]):\s*(.*)", re.DOTALL)


def _dialogue(path: Path, choices: Choices) -> Dialogue:
    record = json.loads(path.read_text(encoding="utf-8"))
    lines = [_LINE.fullmatch(line.strip()) for line in record["processed_dialogue"].splitlines() if line.strip()]
    speakers = [line[1] for line in lines if line is not None]
    if len(speakers) != len(lines):
        raise DataError("bad_layout", "a line of processed_dialogue does not begin with 'A:' or 'B:'")
    times = {speaker: [(int(start), int(stop)) for start, stop in record[f"speaker{speaker}_time"]] for speaker in "AB"}
    for speaker in "AB":
        if speakers.count(speaker) != len(times[speaker]):
            message = f"speaker {speaker} has {speakers.count(speaker)} lines and {len(times[speaker])} times"
            raise DataError("segment_mismatch", f"{message}; fetch it again")
    turns, before = [], 0
    for line in lines:
        assert line is not None, "counted above"
        start, stop = times[line[1]].pop(0)
        turns.append(_turn(path.parent / f"dialogue_speaker{line[1].lower()}.wav", line[2], start, stop, before))
        before = stop
    scene = {"scenario": "interruption", "script": path.parent.name, **_origin(record)}
    return checked(path.parent.name, assign_roles(turns, speakers, choices.roles), NAME, scene)


def _turn(track: Path, line: str, start: int, stop: int, before: int) -> Turn:
    words, interrupted, planned = line.partition(INTERRUPT)
    meta = {"start": str(start), "stop": str(stop), "overlap": str(before - start) if start < before else None}
    meta |= {"interrupted": "yes" if interrupted else None, "planned": planned.strip()}
    return said(words.strip(), stretch(track, start / RATE, stop / RATE), meta=meta)


def _origin(record: dict[str, Any]) -> dict[str, str]:
    return {"original": record["original_dialog_id"]} if record.get("original_dialog_id") else {}


CORPUS = Corpus(
    name=NAME,
    licence="none stated for the data (its site's LICENSE file is CC0)",
    source="interactspeech.github.io",
    parts=partial(
        dialogue_folders, name="information.json", layout="<dialogue>/information.json beside dialogue_speaker{a,b}.wav"
    ),
    read=partial(read_folder, dialogue=_dialogue),
)
