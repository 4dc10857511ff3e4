"""DeepDialogue (Koudounas et al., 2025), in the layouts of its hub and of its site.

Hub (datasets SALT-Research/DeepDialogue-xtts and -orpheus), a folder for each pair of models:
    data/dialogues_<model>[_<model2>]/<domain>_<n>_<turns>.json
    data/dialogues_<model>[_<model2>]/<domain>_<n>_<turns>/segments/NNN_LLM<k>_<emotion>.wav      from 001
    data/dialogues_<model>[_<model2>]/<domain>_<n>_<turns>/<domain>_<n>_<turns>_full.wav
Site: `<id>/<id>.json` beside `<id>_<voice>.wav`.

A JSON holds domain, model1, model2 and conversation of speaker, text, emotion. Turns are heard from their segments;
where there are none, from the whole conversation (one channel with both speakers, 24 kHz), cut at its silences: the
turns were put together with runs of exact zeros, 0.2 or 0.3 s between two and 0.5 s at the end, so the cuts are exact.
One dialogue for each voice. A segment's name holds the emotion that was acted, one of RAVDESS's eight.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE, audio_ref
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, checked
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn

NAME = "deepdialogue"
_MIN_SILENCE = 0.09  # s; shorter runs of zeros occur within turns, all gaps are longer (measured: 86 recordings)
SEGMENT = re.compile(r"(\d+)_(LLM[12])_([a-z]+)\.wav")
_LAYOUT = "<domain>_<n>_<turns>.json beside a folder of that name (hub), or <id>/<id>.json with <id>_<voice>.wav (site)"


def parts(source: Path) -> list[Part]:
    """One for each conversation, in the order of their paths.

    Raises:
        DataError: `no_file` where there are none.
    """
    paths = [path for path in sorted(source.rglob("*.json")) if _is_conversation(path)]
    if not paths:
        raise DataError("no_file", f"holds no conversation; expected is {_LAYOUT}", str(source))
    return [Part(path.relative_to(source).as_posix(), (path,)) for path in paths]


def _is_conversation(path: Path) -> bool:
    """By its place; whether it has recordings is asked when it is read, so that missing ones are named."""
    return path.parent.name == path.stem or path.parent.name.startswith("dialogues_") or path.with_suffix("").is_dir()


def _recordings(path: Path) -> list[tuple[str, Path]]:
    """(voice, recording or folder of segments) of a conversation."""
    if path.parent.name == path.stem:  # site
        wavs = sorted(path.parent.glob(f"{path.stem}_*.wav"))
        return [(wav.stem.removeprefix(f"{path.stem}_"), wav) for wav in wavs]
    folder = path.with_suffix("")
    voice = next((name for name in ("xtts", "orpheus") if name in str(path.parent).lower()), "")
    if (folder / "segments").is_dir():
        return [(voice, folder / "segments")]
    full = folder / f"{path.stem}_full.wav"
    return [(voice, full)] if full.is_file() else []


def read(part: Part, choices: Choices) -> Reading:
    """One conversation, a dialogue for each voice."""
    reading, (path,) = Reading(), part.files
    with reading.rejecting(path):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (recordings := _recordings(path)):
            raise DataError("no_file", f"has no {path.stem}_<voice>.wav beside it; fetch the recordings too")
        for voice, recording in recordings:
            with reading.rejecting(path):
                reading.dialogues.append(_dialogue(record, recording, _scene(record, path, voice), choices))
    return reading


def cut_at_silences(samples: NDArray[np.float32], rate: int) -> list[tuple[int, int]]:
    """[start, stop) of the stretches between runs of exact zeros of at least 0.09 s."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], samples == 0, [False]])))
    runs = [(start, stop) for start, stop in edges.reshape(-1, 2).tolist() if stop - start >= _MIN_SILENCE * rate]
    starts = [0, *(stop for _, stop in runs)]
    stops = [*(start for start, _ in runs), len(samples)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def _dialogue(record: dict[str, Any], recording: Path, scene: dict[str, str], choices: Choices) -> Dialogue:
    spoken = record["conversation"]
    speakers = [one["speaker"] for one in spoken]
    said = [
        Turn("user", one["text"], Style(emotion=choices.emotion(one["emotion"])), meta={"emotion": one["emotion"]})
        for one in spoken
    ]
    heard = _segments(recording, speakers) if recording.is_dir() else _stretches(recording, len(spoken))
    turns = [
        replace(turn, audio=audio, meta={**turn.meta, **note}) for turn, (audio, note) in zip(said, heard, strict=True)
    ]
    name = f"{scene['script']}/{scene['voice']}".removesuffix("/")
    return checked(name, assign_roles(turns, speakers, choices.roles), NAME, scene)


def _segments(folder: Path, speakers: list[str]) -> list[tuple[AudioRef, dict[str, str]]]:
    """The recording of each turn, by the numbers in their names."""
    found: dict[int, tuple[Path, str, str]] = {}
    for path in sorted(folder.glob("*.wav")):
        if (match := SEGMENT.fullmatch(path.name)) is None:
            raise DataError("bad_layout", "a segment is called NNN_LLM<k>_<emotion>.wav", f"{folder.name}/{path.name}")
        if int(match[1]) in found:
            raise DataError("bad_layout", f"two segments have the number {match[1]}", f"{folder.name}/{path.name}")
        found[int(match[1])] = (path, match[2], match[3])
    if sorted(found) != list(range(1, len(speakers) + 1)):
        message = f"the text has {len(speakers)} turns, the segments are numbered {sorted(found)}; fetch them again"
        raise DataError("segment_mismatch", message, folder.name)
    for number, speaker in enumerate(speakers, start=1):
        if found[number][1] != speaker:
            message = f"is spoken by {found[number][1]}, in the text by {speaker}"
            raise DataError("segment_mismatch", message, f"{folder.name}/{found[number][0].name}")
    return [(audio_ref(path), {"acted_emotion": emotion}) for _, (path, _, emotion) in sorted(found.items())]


def _stretches(recording: Path, count: int) -> list[tuple[AudioRef, dict[str, str]]]:
    """One stretch for each turn, in samples at 16 kHz."""
    audio_ref(recording)  # names what is wrong with the file
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    stretches = cut_at_silences(samples.any(axis=1).astype(np.float32), rate)
    if len(stretches) != count:
        message = f"falls into {len(stretches)} stretches at its silences, the text has {count} turns"
        raise DataError("cut_mismatch", message, recording.name)
    at_16k = [(round(start * SAMPLE_RATE / rate), round(stop * SAMPLE_RATE / rate)) for start, stop in stretches]
    return [(AudioRef(str(recording), stop - start, start), {}) for start, stop in at_16k]


def _scene(record: dict[str, Any], path: Path, voice: str) -> dict[str, str]:
    # Numbers are given anew for each domain and, on the hub, each pair of models. The site cuts long names, so that its
    # own folder's name and the domain tell scripts apart.
    above = path.parent.name if path.parent.name.startswith("dialogues_") else record["domain"]
    scene = {"scenario": "emotion", "domain": record["domain"], "script": f"{above}/{path.stem}", "voice": voice}
    return scene | {"model_user": record["model1"], "model_assistant": record["model2"]}


CORPUS = Corpus(
    name=NAME,
    licence="CC BY-NC-SA 4.0 (stated inconsistently: CC BY-SA 4.0 on its site, CC BY-NC 4.0 on the hub's card)",
    source="SALT-Research/DeepDialogue",
    parts=parts,
    read=read,
    labels=NAME,
)
