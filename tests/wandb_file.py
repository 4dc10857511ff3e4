"""The records of W&B's offline file, read without W&B's service: its frames are LevelDB's log format."""

import struct
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")  # checksum, length, type: 1 whole, 2 first, 3 middle, 4 last part
FILE_HEADER = 7  # ":W&B", a magic number, a version


def read_wandb(run_dir: Path) -> list[Any]:
    """All `Record`s (wandb.proto.wandb_internal_pb2) of the one offline run below a run folder, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    content, place, records, whole = path.read_bytes(), FILE_HEADER, [], b""
    assert content.startswith(b":W&B")
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:  # the rest of a block that holds no header is padding
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        whole += content[place : place + length]
        place += length
        if kind in (1, 4):
            records.append(Record.FromString(whole))
            whole = b""
    return records
