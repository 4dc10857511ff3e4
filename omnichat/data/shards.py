"""Arrow shards: dialogues with their audio in memory-mapped files, in the layout of `datasets.save_to_disk`.

A shard is an Arrow IPC stream, as `datasets` maps it. A row is a dialogue; the audio of a turn is a struct of `bytes`
and `path`, the storage of `datasets.Audio`. Bytes are an audio file of their own, read by their place in the shard.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from omnichat.data.info import INFO_FILE, Shard, StoreInfo, write_info, write_json
from omnichat.data.lossless import cut_out
from omnichat.dialogue import STYLE_FIELDS, AudioRef, DataError, Dialogue, Turn, check_dialogue
from omnichat.file_hashes import cached_sha256

AudioForm = Literal["flac", "bytes", "reference"]
AUDIO_FORMS: tuple[AudioForm, ...] = ("flac", "bytes", "reference")

_NOTES = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
_TURN = pa.struct(
    [
        ("role", pa.string()),
        ("text", pa.string()),
        ("style", pa.struct([(name, pa.string()) for name in STYLE_FIELDS])),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("start", pa.int64()),
        ("num_samples", pa.int64()),
        ("channel", pa.int64()),
        ("sha256", pa.string()),
        ("meta", _NOTES),
        ("learn", pa.bool_()),
    ]
)


def _schema(turn: pa.StructType) -> pa.Schema:
    return pa.schema([("id", pa.string()), ("source", pa.string()), ("scene", _NOTES), ("turns", pa.list_(turn))])


SCHEMA = _schema(_TURN)
SCHEMAS = (SCHEMA, _schema(pa.struct([one for one in _TURN if one.name != "learn"])))  # the older one is still read

# A batch is what a reader maps at a time. Arrow counts the bytes of a column in 31 bits.
BATCH_ROWS, BATCH_BYTES = 1_000, 64 * 2**20
MAX_ROW_BYTES = 2**31 - 1 - BATCH_BYTES


def write_shard(
    path: Path | str,
    dialogues: Iterable[Dialogue],
    audio: AudioForm = "flac",
    root: Path | str | None = None,
    rejects: list[DataError] | None = None,
) -> Shard:
    """Write dialogues to one shard. Equal dialogues give equal bytes; a file of that name is whole.

    Args:
        path: of the file.
        dialogues: with references into the corpus as it was downloaded.
        audio: how it is kept, without a sample changed: `flac` cuts each stretch out (see `cut_out`), `bytes` does so
            where a file is not heard whole, and else keeps the file as it is, `reference` keeps paths below `root`.
        root: folder of the store, for `reference`.
        rejects: takes the fault of a dialogue that cannot be kept, which is then left out.

    Raises:
        DataError: where there is no `rejects`: what `check_dialogue` and `load_audio` find, `path_outside_root`,
            `bad_encoding` or `too_large`, with the dialogue and the turn.
    """
    if audio not in AUDIO_FORMS:
        raise ValueError(f"audio {audio!r} is not one of {', '.join(AUDIO_FORMS)}")
    if (root is None) == (audio == "reference"):
        raise ValueError("root is the folder that references are relative to: give it for them, and only for them")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    rows = 0
    with partial.open("wb") as file:
        out = _Hashed(file)
        with pa.ipc.new_stream(pa.PythonFile(out, mode="w"), SCHEMA) as stream:
            for batch in _batches(_rows(dialogues, audio, root, rejects)):
                stream.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
                rows += len(batch)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return Shard(str(path), rows, out.size, out.digest.hexdigest())


def finish_store(
    folder: Path | str,
    *,
    name: str,
    licence: str,
    source: str,
    splits: dict[str, list[Shard]],
    seed: int | None = None,
    engine: str = "",
) -> StoreInfo:
    """Move shards into place as a `datasets.DatasetDict` on disk; `store.json` comes last: what has it is whole.

    Args:
        folder: of the store, on the file system of the shards.
        name: of the corpus.
        licence: of the corpus.
        source: where it comes from.
        splits: the shards of each, in order.
        seed: of a made store.
        engine: that made it.

    Raises:
        DataError: `empty_file` where a split has no dialogue, `truncated` where a shard is not as it was written.
    """
    folder = Path(folder)
    filled = {split: [shard for shard in shards if shard.rows] for split, shards in splits.items()}
    for split, shards in filled.items():
        if not shards:
            raise DataError("empty_file", "holds no dialogue; leave the split out", str(folder / split))
        for shard in shards:
            check_size(Path(shard.file), shard)
    (folder / INFO_FILE).unlink(missing_ok=True)
    placed = {split: _place(folder, split, shards) for split, shards in filled.items()}
    for split, placed_shards in placed.items():
        _describe(folder / split, placed_shards, {"license": licence, "homepage": source, "description": name})
    write_json(folder / "dataset_dict.json", {"splits": list(placed)})
    counts = {split: sum(shard.rows for shard in shards) for split, shards in placed.items()}
    info = StoreInfo(name, licence, source, counts, seed, engine, placed)
    write_info(folder, info)
    return info


def check_size(path: Path, shard: Shard) -> None:
    """Raise where a shard is missing or of another size, which costs no reading.

    Raises:
        DataError: `no_file` or `truncated`.
    """
    if not path.is_file():
        raise DataError("no_file", "no such shard; copy it again, or make the store again", str(path))
    if (size := path.stat().st_size) != shard.bytes:
        message = f"has {size:,} bytes, {shard.bytes:,} were written; copy it again, or make the store again"
        raise DataError("truncated", message, str(path))


def _place(folder: Path, split: str, shards: list[Shard]) -> tuple[Shard, ...]:
    target = folder / split
    target.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for shard, name in zip(shards, names, strict=True):
        os.replace(shard.file, target / name)
    for stale in set(target.glob("data-*.arrow")) - {target / name for name in names}:
        stale.unlink()
    return tuple(replace(shard, file=f"{split}/{name}") for shard, name in zip(shards, names, strict=True))


def _describe(folder: Path, shards: tuple[Shard, ...], about: dict[str, str]) -> None:
    """What `datasets` reads beside the files of a split. It takes the features from the files themselves."""
    digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
    state: dict[str, Any] = {
        "_data_files": [{"filename": Path(shard.file).name} for shard in shards],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": folder.name,
    }
    write_json(folder / "state.json", state)
    write_json(folder / "dataset_info.json", about | {"citation": "", "features": None})


class _Hashed(io.RawIOBase):
    """A file to write to that counts and hashes what it is given: what should lie on disk, whatever does."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size += len(content)
        return self.file.write(content)


def _batches(rows: Iterable[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for row, added in rows:
        if batch and (len(batch) == BATCH_ROWS or size + added > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += added
    if batch:
        yield batch


def _rows(
    dialogues: Iterable[Dialogue], form: AudioForm, root: Path | str | None, rejects: list[DataError] | None
) -> Iterator[tuple[dict[str, Any], int]]:
    """Each dialogue as a row, and the bytes of its audio."""
    for dialogue in dialogues:
        try:
            yield _row(dialogue, form, root)
        except DataError as error:
            if rejects is None:
                raise
            rejects.append(error)


def _row(dialogue: Dialogue, form: AudioForm, root: Path | str | None) -> tuple[dict[str, Any], int]:
    check_dialogue(dialogue)
    turns = []
    for number, turn in enumerate(dialogue.turns):
        try:
            turns.append(_turn(turn, form, root))
        except DataError as error:
            raise error.at(f"dialogue {dialogue.id!r}: turn {number}") from None
    size = sum(len(turn["audio"]["bytes"] or b"") for turn in turns if turn["audio"] is not None)
    if size > MAX_ROW_BYTES:
        message = f"has {size:,} bytes of audio, a row takes {MAX_ROW_BYTES:,}; split the dialogue"
        raise DataError("too_large", message, f"dialogue {dialogue.id!r}")
    row = {"id": dialogue.id, "source": dialogue.source, "scene": _notes(dialogue.scene), "turns": turns}
    try:
        "".join(_texts(row)).encode()
    except UnicodeEncodeError:
        message = "holds half a surrogate pair; write it as UTF-8 again"
        raise DataError("bad_encoding", message, f"dialogue {dialogue.id!r}") from None
    return row, size


def _texts(value: Any) -> Iterator[str]:
    """All strings in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _turn(turn: Turn, form: AudioForm, root: Path | str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role, "text": turn.text, "style": turn.style.known(), "audio": None}
    if turn.audio is not None:
        content, path, ref = _audio(turn.audio, form, root)
        row |= {"audio": {"bytes": content, "path": path}, "start": ref.start, "num_samples": ref.num_samples}
        row |= {"channel": ref.channel, "sha256": ref.sha256}
    return row | {"meta": _notes(turn.meta), "learn": turn.learn}


def _audio(ref: AudioRef, form: AudioForm, root: Path | str | None) -> tuple[bytes | None, str, AudioRef]:
    """Bytes, path and stretch of a turn's audio; a path without bytes is relative to the store's folder."""
    if form != "reference":
        content, moved = cut_out(ref, keep=form == "bytes")
        return content, Path(ref.path).name, moved
    assert root is not None
    if ref.size:
        raise DataError("path_outside_root", "lies inside another shard; keep it with audio=flac", ref.path)
    target, base = os.path.realpath(ref.path), os.path.realpath(root)
    if not target.startswith(base + os.sep):
        message = f"does not lie in the store's folder {root}; write the store there, or keep audio=flac"
        raise DataError("path_outside_root", message, ref.path)
    return None, Path(target).relative_to(base).as_posix(), replace(ref, sha256=ref.sha256 or _sha256(target))


def _sha256(path: str) -> str:
    try:
        return cached_sha256(path)
    except OSError as error:
        raise DataError("no_file", f"cannot be read ({error}); check the corpus's folder", path) from None


def _notes(values: Any) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
