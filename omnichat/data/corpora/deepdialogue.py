"""DeepDialogue (Koudounas et al., 2025): whole-conversation recordings cut at their silences.

`<id>/<id>.json` (domain, model1, model2, conversation of speaker, text, emotion) beside `<id>_<voice>.wav`, one channel
with both speakers at 24 kHz. The turns were put together with runs of exact zeros, 0.2 or 0.3 s between two and 0.5 s
at the end, so the cuts are exact. One dialogue for each voice. The licence is stated inconsistently (CC BY-SA 4.0,
CC BY-NC 4.0, CC BY-NC-SA 4.0): take it as non-commercial.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE, audio_ref
from omnichat.data.corpora.emotions import EmotionMap, emotion_map
from omnichat.data.corpora.reading import Reading, RolePolicy, assign_roles
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn, check_dialogue

NAME = "deepdialogue"
_MIN_SILENCE = 0.09  # s; shorter runs of zeros occur within turns, all gaps are longer (measured: 86 recordings)


def read_deepdialogue(folder: Path | str, policy: RolePolicy = "last_speaker") -> Reading:
    """All conversations below a folder that have recordings, in the order of their paths.

    Args:
        folder: anywhere above the conversations.
        policy: who is the assistant.

    Raises:
        DataError: `no_file` where there are none.
    """
    reading, labels = Reading(), emotion_map(NAME)
    for path in sorted(Path(folder).rglob("*.json")):
        with reading.rejecting(path):
            _read_conversation(path, labels, policy, reading)
    if not reading.dialogues and not reading.rejects:
        raise DataError("no_file", "holds no <id>/<id>.json with <id>_<voice>.wav beside it", str(folder))
    return reading


def cut_at_silences(samples: NDArray[np.float32], rate: int) -> list[tuple[int, int]]:
    """[start, stop) of the stretches between runs of exact zeros of at least 0.09 s."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], samples == 0, [False]])))
    runs = [(start, stop) for start, stop in edges.reshape(-1, 2).tolist() if stop - start >= _MIN_SILENCE * rate]
    starts = [0, *(stop for _, stop in runs)]
    stops = [*(start for start, _ in runs), len(samples)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def _read_conversation(path: Path, labels: EmotionMap, policy: RolePolicy, reading: Reading) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    if "conversation" not in record:
        return  # an index of conversations lies beside them
    recordings = sorted(path.parent.glob(f"{path.stem}_*.wav"))
    if not recordings:
        raise DataError("no_file", f"has no {path.stem}_<voice>.wav beside it; fetch the recordings too")
    for recording in recordings:
        voice = recording.stem.removeprefix(f"{path.stem}_")
        with reading.rejecting(path):
            reading.labels.update(one["emotion"] for one in record["conversation"])
            reading.dialogues.append(_dialogue(record, recording, _scene(record, path, voice), labels, policy))


def _dialogue(
    record: dict[str, Any], recording: Path, scene: dict[str, str], labels: EmotionMap, policy: RolePolicy
) -> Dialogue:
    spoken = record["conversation"]
    turns = [
        Turn("user", one["text"], Style(emotion=labels[one["emotion"]]), audio)
        for one, audio in zip(spoken, _turn_audio(recording, len(spoken)), strict=True)
    ]
    roles = assign_roles(turns, [one["speaker"] for one in spoken], policy)
    dialogue = Dialogue(f"{scene['script']}/{scene['voice']}", roles, NAME, scene)
    check_dialogue(dialogue)
    return dialogue


def _turn_audio(recording: Path, count: int) -> list[AudioRef]:
    """One stretch for each turn, in samples at 16 kHz."""
    audio_ref(recording)  # names what is wrong with the file
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    stretches = cut_at_silences(samples.any(axis=1).astype(np.float32), rate)
    if len(stretches) != count:
        message = f"falls into {len(stretches)} stretches at its silences, the text has {count} turns"
        raise DataError("cut_mismatch", message, recording.name)
    at_16k = [(round(start * SAMPLE_RATE / rate), round(stop * SAMPLE_RATE / rate)) for start, stop in stretches]
    return [AudioRef(str(recording), stop - start, start) for start, stop in at_16k]


def _scene(record: dict[str, Any], path: Path, voice: str) -> dict[str, str]:
    # The hub cuts nothing, the site cuts long names: the folder's own name and its domain tell scripts apart.
    scene = {
        "scenario": "emotion",
        "domain": record["domain"],
        "script": f"{record['domain']}/{path.stem}",
        "voice": voice,
    }
    return scene | {"model_user": record["model1"], "model_assistant": record["model2"]}
