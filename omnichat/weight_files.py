"""Downloaded weights: what is wrong with a file or folder, told from first bytes, lengths and names; nothing is loaded.

A download that broke off, a pointer in place of a file, another program's format: each has a cure of its own, which the
library that trips over it does not know.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
HEAD = 512  # bytes that tell what a file is
LONGEST_HEADER = 100_000_000  # bytes; of safetensors (safetensors/src/tensor.rs MAX_HEADER_SIZE)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it cannot be read, or is no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def foreign(head: bytes) -> str | None:
    """What a file is that begins with `head`, in words, where nobody could mean it as weights; else None."""
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip().lower()
    if not head:
        return "is empty, as a download that broke off leaves behind"
    if text.startswith(b"<"):
        return "is a web page or a server's error message, as a link that asks for a login or has expired leaves behind"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself (`git lfs pull` gets it)"
    if head.startswith(b"GGUF"):
        return "is a GGUF file, made for llama.cpp; get the safetensors of the model that it was made of"
    if head.startswith((b"lmgg", b"ggml")):
        return "is a ggml file, made for whisper.cpp; get the model that it was made of"
    return None


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def torch_fault(path: Path) -> str | None:
    """What is wrong with a file that torch.save should have written, as far as its two ends tell."""
    head = head_of(path)
    if what := foreign(head):
        return what
    if head.startswith(b"PK\x03\x04"):  # an archive, as torch.save has made since 1.6; its table stands at the end
        return None if zipfile.is_zipfile(path) else "is truncated, the archive's end is missing"
    if head[8:9] == b"{":
        return "is a safetensors file, which needs its config.json beside it: give the folder"
    return None if head.startswith(b"\x80") else "is no file of torch.save"


def safetensors_fault(path: Path) -> str | None:
    """What is wrong with a safetensors file, as its header tells; None where its length is what the header says."""
    size, head = path.stat().st_size, head_of(path)
    if what := foreign(head):
        return what
    if head[8:9] != b"{":
        pickled = head.startswith((b"PK", b"\x80"))
        return "is a file of torch.save, not of safetensors" if pickled else "is no safetensors file"
    length = int.from_bytes(head[:8], "little")
    if length > LONGEST_HEADER:
        return "is no safetensors file"
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "is truncated" if 8 + length > size else "is damaged: its header cannot be read"
    if size < whole:
        return f"is truncated: {size:,} of {whole:,} bytes"
    return f"is damaged: {size:,} bytes where its header says {whole:,}" if size > whole else None


def folder_faults(folder: Path) -> list[str]:
    """What is wrong with the weights and JSON files of a Hugging Face folder: a line for each file, with the cure.

    Files that are missing are named where an index asks for them.
    """
    return [f"{path}: {what}{'' if ';' in what else '; download it again'}" for path, what in _broken(folder)]


def _broken(folder: Path) -> Iterator[tuple[Path, str]]:
    for name in ("config.json", "tokenizer.json", INDEX):
        path = folder / name
        if path.is_file() and (what := foreign(head_of(path))):
            yield path, what
    if not (folder / WHOLE).exists() and not (folder / INDEX).exists() and any(folder.glob("*-of-*.safetensors")):
        yield folder / INDEX, "no such file, without which nothing tells what the shards beside it hold"
    for path in _weights(folder):
        what = safetensors_fault(path) if path.is_file() else f"no such file, but {INDEX} asks for it"
        if what:
            yield path, what


def _weights(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: the whole, or the shards of its index; none where that cannot be read."""
    if (folder / WHOLE).is_file() or not (folder / INDEX).is_file():
        return [path for path in [folder / WHOLE] if path.is_file()]
    places = json_object(folder / INDEX).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) and all(map(_is_name, places.values())) else set()
    return [folder / name for name in sorted(names)]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and Path(value).name == value


def mistaken_for_a_folder(place: Path) -> str | None:
    """What a path is that was meant as a Hugging Face folder, with the cure; None where it has a `config.json`."""
    if place.is_file():
        what = foreign(head_of(place))
        return what or "is a file; give the folder that holds it, with its config.json"
    if (place / "config.json").exists() or not place.is_dir():
        return None
    names = sorted(path.name for path in place.iterdir())
    if snapshot := snapshot_in(place):
        return f"is a folder of the hub's cache; give the model in it, {snapshot}"
    if gguf := next((name for name in names if name.lower().endswith(".gguf")), None):
        return f"holds {gguf}, made for llama.cpp; get the safetensors of the model that it was made of"
    if "adapter_config.json" in names:
        return "is a LoRA adapter alone; give the model that it was trained on, or the two merged"
    if (place / "params.json").exists() or (place / "original/params.json").exists():
        return "is Meta's own format; get config.json, tokenizer.json and the safetensors of the same page too"
    return None


def snapshot_in(place: Path) -> Path | None:
    """The newest model in a folder of the Hugging Face hub's cache (`models--OWNER--NAME/snapshots/REVISION`)."""
    found = [path for path in place.glob("snapshots/*") if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def quantised(config: dict[str, Any]) -> str | None:
    """How the weights of a `config.json` are quantised, in words; None where they are whole."""
    found = config.get("quantization_config", config.get("quantization"))
    if not found:
        return None
    return str(found.get("quant_method", "its own")) if isinstance(found, dict) else "its own"
