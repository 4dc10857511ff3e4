"""Mixed dialogues as a store that `train.py` reads: Arrow shards, `store.json`, and `manifest.jsonl` with all levels.

Shards are of fixed size in the order of scripts, so that a store has the same bytes however its dialogues were made.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.contracts import Line, Mixed, Piece
from data_prep.synthesis.mixing.timeline import overlaps, planned_words, spoken_words
from data_prep.synthesis.writing.template import sound_name
from omnichat.audio import SAMPLE_RATE
from omnichat.data.info import INFO_FILE, Shard, StoreInfo, read_info
from omnichat.data.shards import finish_store, write_shard
from omnichat.dialogue import AudioRef, DataError, Dialogue, Turn

MANIFEST = "manifest.jsonl"
PARTIAL = ".packing"
PIECE_SECONDS, PIECE_DIALOGUES = 3600.0, 1000  # of a shard


def pack(
    mixed: Iterable[Mixed],
    blobs: Path,
    out: Path,
    *,
    name: str,
    licence: str,
    source: str,
    seed: int | None = None,
    engine: str = "",
) -> StoreInfo:
    """Write the store; `store.json` comes last.

    Args:
        mixed: in the order of `order`; only a shard's worth of them is held at a time.
        blobs: folder of the blob store.
        out: folder of the store. An earlier one of the same name is replaced.
        name, licence, source, seed, engine: see `StoreInfo`.

    Raises:
        DataError: `store_exists` where another store lies in `out`, `empty_file` where there is no dialogue,
            `bad_order`, or what is wrong with a blob.
    """
    _make_room(out, name)
    partial = out / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    splits: dict[str, _Split] = {}
    last: tuple[int, int, str] | None = None
    with (partial / MANIFEST).open("w", encoding="utf-8", newline="\n") as manifest:
        for one in mixed:
            if last is not None and order(one) <= last:
                message = f"dialogue {one.plan.id!r} comes after {last[2]!r}; sort them by script and branch, each once"
                raise DataError("bad_order", message, str(out))
            last = order(one)
            split = splits.setdefault(one.plan.brief.split, _Split(partial / one.plan.brief.split))
            _write_manifest(manifest, one)
            split.add(to_dialogue(one, blobs, name), _seconds(one))
        manifest.flush()
        os.fsync(manifest.fileno())
    for split in splits.values():
        split.flush()
    if not splits:
        raise DataError("empty_file", "no dialogue was made, so there is nothing to pack; see the report", str(out))
    os.replace(partial / MANIFEST, out / MANIFEST)
    shards = {split: splits[split].shards for split in sorted(splits, key=_split_order)}
    info = finish_store(out, name=name, licence=licence, source=source, splits=shards, seed=seed, engine=engine)
    shutil.rmtree(partial)
    return info


def order(mixed: Mixed) -> tuple[int, int, str]:
    """What a store is sorted by: script, branch, id."""
    return mixed.plan.brief.number, mixed.plan.branch, mixed.plan.id


def to_dialogue(mixed: Mixed, blobs: Path, source: str) -> Dialogue:
    """The dialogue, its audio in the blob store."""
    timed = overlaps(mixed.plan.lines)
    turns = tuple(
        Turn(line.speaker, spoken_words(line), line.style, _audio(piece, blobs), _meta(line, piece, timed))
        for line, piece in zip(mixed.plan.lines, mixed.pieces, strict=True)
    )
    return Dialogue(mixed.plan.id, turns, source, scene_of(mixed))


def scene_of(mixed: Mixed) -> dict[str, str]:
    """What is known of a dialogue beside its turns; `group` holds dialogues that share their words.

    `sound` is the word by which a template's reply names it, which the scoring looks for.
    """
    plan = mixed.plan
    sound = plan.brief.sound
    user = [line for line in plan.lines if line.speaker == "user"]
    voice = plan.voices.get("user")
    # The quickstart's topic is its script: a sentence and the content word that the reply repeats.
    content = {"content": plan.brief.topic.partition("-")[2]} if plan.brief.recipe == "quickstart" else {}
    return {
        "scenario": "emotion" if sound is None else sound.kind,
        "script": f"{plan.brief.recipe}-{plan.brief.number:07d}",
        "group": plan.group,
        "voice": "" if voice is None else voice.name,
        "voice_gender": "" if voice is None else voice.gender,
        "emotion": (user[-1].style.emotion or "") if user else "",
        "sound": "" if sound is None else sound_name(sound),
        "caption": "" if sound is None else sound.caption,
        "placement": mixed.placement,
        "clip": mixed.clip,
        "topic": plan.brief.topic,
        "split": plan.brief.split,
    } | content


@dataclass
class _Split:
    """A split while it is written."""

    path: Path
    shards: list[Shard] = field(default_factory=list)
    dialogues: list[Dialogue] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, dialogue: Dialogue, seconds: float) -> None:
        full = len(self.dialogues) == PIECE_DIALOGUES or self.seconds + seconds > PIECE_SECONDS
        if self.dialogues and full:
            self.flush()
        self.dialogues.append(dialogue)
        self.seconds += seconds

    def flush(self) -> None:
        if self.dialogues:
            path = self.path.with_name(f"{self.path.name}-{len(self.shards):05d}.arrow")
            self.shards.append(write_shard(path, self.dialogues))
            self.dialogues, self.seconds = [], 0.0


def _make_room(out: Path, name: str) -> None:
    """Remove an earlier store of this name; nothing else."""
    if not (out / INFO_FILE).exists():
        return
    info = read_info(out)
    if info.name != name or not (out / MANIFEST).exists():
        message = f"holds the store {info.name!r}, which was not made by this recipe; choose another folder"
        raise DataError("store_exists", message, str(out))
    (out / INFO_FILE).unlink()
    for split in info.splits:
        shutil.rmtree(out / split, ignore_errors=True)


def _audio(piece: Piece | None, blobs: Path) -> AudioRef | None:
    return None if piece is None else AudioRef(str(blob_path(blobs, piece.blob)), piece.num_samples)


def _meta(line: Line, piece: Piece | None, timed: bool) -> dict[str, str]:
    """What a dialogue whose turns overlap needs beyond the turns: `start` in seconds, and what was not said."""
    if not timed:
        return {}
    start = {} if piece is None else {"start": f"{piece.start:.6f}"}
    return {"kind": line.kind} | start | ({"planned": planned_words(line)} if line.cut < 1 else {})


def _write_manifest(manifest: TextIO, mixed: Mixed) -> None:
    """One line: what was heard in each turn and how loud."""
    turns: list[Mapping[str, Any] | None] = []
    for line, piece in zip(mixed.plan.lines, mixed.pieces, strict=True):
        heard = None if piece is None else piece.model_dump(mode="json")
        turns.append({"speaker": line.speaker, "voice": _voice_name(mixed, line), "audio": heard})
    record = {"id": mixed.plan.id, **scene_of(mixed), "licence": mixed.licence, "credit": mixed.credit, "turns": turns}
    manifest.write(json.dumps(record, ensure_ascii=False) + "\n")


def _voice_name(mixed: Mixed, line: Line) -> str:
    voice = mixed.plan.voices.get(line.speaker)
    return "" if voice is None else voice.name


def _seconds(mixed: Mixed) -> float:
    return sum(piece.num_samples for piece in mixed.pieces if piece is not None) / SAMPLE_RATE


def _split_order(split: str) -> tuple[int, str]:
    return {"train": 0, "val": 1}.get(split, 2), split
