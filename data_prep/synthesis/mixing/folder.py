"""A folder of recordings with a table as a catalogue."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.mixing.captions import ClipRow, pools, read_captions
from data_prep.synthesis.mixing.clips import Catalogue, Clip
from data_prep.synthesis.mixing.loudness import loudness
from data_prep.synthesis.mixing.settings import ClipSettings
from data_prep.synthesis.stage import Reject
from omnichat.audio import SAMPLE_RATE, audio_ref, load_audio
from omnichat.dialogue import DataError, inside

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
TABLES = (".json", ".csv")
QUIETEST = -60.0  # LUFS; what is quieter is silence with noise
UNKNOWN = "not stated"
_NONCOMMERCIAL = re.compile(r"\bnc\b|non-?\s?commercial|research[- ]only|academic use", re.IGNORECASE)


class FolderCatalogue(Catalogue):
    """The clips of a table, their recordings read when they are heard.

    Raises:
        DataError: what is wrong with the table, `no_file` where there is none, `noncommercial`.
    """

    def __init__(self, settings: ClipSettings) -> None:
        self._settings = settings
        self.folder = Path(settings.folder)
        self.table = find_table(self.folder, settings.captions)
        rows = read_captions(self.table)
        if not settings.allow_noncommercial:
            refuse_noncommercial(rows, self.table)
        self._rows = {row.id: row for row in rows}
        self._files = recordings(self.folder)
        pool = pools(rows)
        super().__init__(
            Clip(
                id=row.id,
                kind=row.kind,
                caption=row.caption,
                event_class=row.classified(),
                pool=pool[row.id],
                licence=row.licence or UNKNOWN,
                credit=row.credit,
                file=row.file or self._files.get(row.id, ""),
            )
            for row in rows
        )

    def wave(self, clip: Clip) -> NDArray[np.float32]:
        """The recording at 16 kHz, channels averaged, at its own level, cut to `max_seconds`."""
        row = self._rows.get(clip.id)
        if row is None or not clip.file:
            raise Reject("clip_missing", f"{self.folder}: no recording of clip {clip.id!r}")
        return checked_wave(self.folder, clip.file, row, self._settings)

    def identity(self) -> Mapping[str, Any]:
        """The table's content, and names and sizes of the recordings: hashing them all would take hours."""
        digest = hashlib.sha256(self.table.read_bytes())
        for clip in self.clips.values():
            path = self.folder / clip.file
            size = path.stat().st_size if clip.file and path.is_file() else -1
            digest.update(f"\n{clip.id} {clip.file} {size}".encode())
        return {"folder": "", "captions": digest.hexdigest()[:16]}


def find_table(folder: Path, name: str = "") -> Path:
    """The table of the folder: the one that is named, or the only one there is.

    Raises:
        DataError: `no_file`.
    """
    if not folder.is_dir():
        raise DataError("no_file", "no such folder of clips; correct mix.clips.folder", str(folder))
    if name:
        found = [path for path in (folder / name, Path(name)) if path.is_file()]
        if not found:
            raise DataError("no_file", f"no table {name!r} here; correct mix.clips.captions", str(folder))
        return found[0]
    found = sorted(path for path in folder.iterdir() if path.suffix in TABLES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        message = f"holds {len(found)} tables ({names}); name the one of the captions: mix.clips.captions"
        raise DataError("no_file", message, str(folder))
    return found[0]


def recordings(folder: Path) -> dict[str, str]:
    """Recordings below the folder by the ids that may mean them: ID, ID_START and YID as downloaders name them."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            file = path.relative_to(folder).as_posix()
            for name in (path.stem, path.stem.rpartition("_")[0], path.stem.removeprefix("Y"), file.rpartition(".")[0]):
                found.setdefault(name, file)
    found.pop("", None)
    return found


def refuse_noncommercial(rows: tuple[ClipRow, ...], table: Path) -> None:
    """Raise where a licence forbids commercial use: the store would inherit it without anybody having decided so.

    Raises:
        DataError: `noncommercial`.
    """
    found = [row for row in rows if _NONCOMMERCIAL.search(row.licence)]
    if found:
        message = (
            f"{len(found)} clip(s) may not be used commercially, as {found[0].id!r} ({found[0].licence}); take them "
            "out of the table, or set mix.clips.allow_noncommercial=true, and the store inherits the restriction"
        )
        raise DataError("noncommercial", message, str(table))


def checked_wave(folder: Path, file: str, row: ClipRow, settings: ClipSettings) -> NDArray[np.float32]:
    """The recording, if it may be heard.

    Raises:
        Reject: `caption_missing`, `clip_missing`, `clip_voice`, `clip_short`, `clip_silent`.
    """
    if not row.caption:
        raise Reject("caption_missing", f"clip {row.id!r} has no caption")
    if row.voice is not None and row.voice > settings.max_voice:
        message = f"clip {row.id!r}: a human voice with probability {row.voice:.2f}, at most {settings.max_voice:g}"
        raise Reject("clip_voice", message)
    try:
        wave = _read(inside(folder, file), settings.max_seconds)
    except DataError as error:
        raise Reject("clip_missing", f"clip {row.id!r}: {error}") from None
    if len(wave) < settings.min_seconds * SAMPLE_RATE:
        seconds = len(wave) / SAMPLE_RATE
        raise Reject("clip_short", f"clip {row.id!r} lasts {seconds:.2f} s, at least {settings.min_seconds:g} s")
    if (found := loudness(wave)) < QUIETEST:
        raise Reject("clip_silent", f"clip {row.id!r} has {found:.0f} LUFS, at least {QUIETEST:.0f}")
    return wave


@lru_cache(maxsize=64)  # 40 MB of 10 s clips
def _read(path: str, max_seconds: float) -> NDArray[np.float32]:
    ref = audio_ref(path)
    wave = load_audio(replace(ref, num_samples=min(ref.num_samples, round(max_seconds * SAMPLE_RATE))))
    wave.setflags(write=False)
    return wave
