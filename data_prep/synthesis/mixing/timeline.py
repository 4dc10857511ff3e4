"""Turns that overlap: where each begins, and the two tracks of a conversation in InteractSpeech's shape.

InteractSpeech (interactspeech/interactspeech.github.io@85c5534): a folder for each dialogue with `information.json`
and a mono track for each speaker, both as long as the conversation. `omnichat.data.corpora.interactspeech` reads it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data_prep.synthesis.blobs import read_audio
from data_prep.synthesis.contracts import Line, Mixed, Piece
from omnichat.audio import SAMPLE_RATE
from omnichat.data.corpora.interactspeech import INTERRUPT, RATE

FADE = SAMPLE_RATE // 50  # 20 ms: a voice that breaks off does not click


def break_off(wave: NDArray[np.float32], cut: float) -> NDArray[np.float32]:
    """The first `cut` of (S,) samples, faded out; all of them where it is 1."""
    if cut == 1:
        return wave
    kept = wave[: max(1, round(cut * len(wave)))].copy()
    fade = min(FADE, len(kept))
    kept[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return kept


def spoken_words(line: Line) -> str:
    """The words of a line before it is broken off: whole words of the share of letters; at least one."""
    if line.cut == 1:
        return line.text
    words = line.text.split()
    letters = round(line.cut * len(line.text))
    kept = [word for number, word in enumerate(words) if len(" ".join(words[: number + 1])) <= letters]
    return " ".join(kept or words[:1])


def starts(lines: Sequence[Line], lengths: Sequence[int | None]) -> list[int]:
    """The sample at which each line begins, by its gap.

    A gap counts from the end of the line before; after a backchannel from the later of its end and that of the line it
    was said to. No line begins before the line it meets, and nobody begins before he has ended.

    Args:
        lines: of the conversation.
        lengths: samples of each as they are heard; None where a line is not spoken, which takes no time.
    """
    placed: list[int] = []
    ends: dict[str, int] = {}
    end = before = 0
    for line, length in zip(lines, lengths, strict=True):
        start = max(end + round(line.gap * SAMPLE_RATE), before, ends.get(line.speaker, 0))
        placed.append(start)
        stop = start + (length or 0)
        ends[line.speaker] = max(ends.get(line.speaker, 0), stop)
        end = max(end, stop) if line.kind == "backchannel" else stop
        before = start
    return placed


def write_two_tracks(mixed: Mixed, blobs: Path, folder: Path) -> Path:
    """Write a dialogue whose turns are all spoken as two tracks; the folder it is in, named by its id.

    Samples and times are exact: the tracks stay at 16 kHz, and times in samples at 22,050 Hz, as the corpus has them,
    are finer than that.

    Raises:
        ValueError: a turn is not spoken.
    """
    pieces = [piece for piece in mixed.pieces if piece is not None]
    if len(pieces) != len(mixed.plan.lines):
        raise ValueError(f"{mixed.plan.id}: a turn has no audio; run with speak_assistant=true")
    begins = [round(piece.start * SAMPLE_RATE) for piece in pieces]
    length = max(begin + piece.num_samples for begin, piece in zip(begins, pieces, strict=True))
    lines = mixed.plan.lines
    first = lines[0].speaker
    tracks = {"A": np.zeros(length, np.float32), "B": np.zeros(length, np.float32)}
    times: dict[str, list[list[int]]] = {"A": [], "B": []}
    for line, piece, begin in zip(lines, pieces, begins, strict=True):
        speaker = "A" if line.speaker == first else "B"
        tracks[speaker][begin : begin + piece.num_samples] += read_audio(blobs, piece.blob)
        times[speaker].append([_at_track_rate(begin), _at_track_rate(begin + piece.num_samples)])
    out = folder / mixed.plan.id
    out.mkdir(parents=True, exist_ok=True)
    for speaker, track in tracks.items():
        pcm = np.round(np.clip(track, -1, 1) * 32767).astype(np.int16)
        soundfile.write(out / f"dialogue_speaker{speaker.lower()}.wav", pcm, SAMPLE_RATE, subtype="PCM_16")
    record = {
        "original_dialog_id": mixed.plan.id,
        "dialog_index": mixed.plan.brief.number,
        "processed_dialogue": "\n".join(f"{'A' if line.speaker == first else 'B'}: {_marked(line)}" for line in lines),
        "speakerA_time": times["A"],
        "speakerB_time": times["B"],
    }
    (out / "information.json").write_text(json.dumps(record, ensure_ascii=False, indent=4) + "\n", encoding="utf-8")
    return out


def place(lines: Sequence[Line], pieces: Sequence[Piece | None]) -> list[Piece | None]:
    """The pieces with their starts: by the gaps where the lines have times of their own, else end to end."""
    lengths = [None if piece is None else piece.num_samples for piece in pieces]
    begins = starts(lines, lengths)
    return [
        None if piece is None else piece.model_copy(update={"start": begin / SAMPLE_RATE})
        for piece, begin in zip(pieces, begins, strict=True)
    ]


def _marked(line: Line) -> str:
    """The words with the mark of InteractSpeech between those that were said and those that were only planned."""
    said = spoken_words(line)
    rest = " ".join(line.text.split()).removeprefix(said).strip()
    return f"{said} {INTERRUPT} {rest}".strip() if line.cut < 1 else line.text


def _at_track_rate(sample: int) -> int:
    return round(sample * RATE / SAMPLE_RATE)
