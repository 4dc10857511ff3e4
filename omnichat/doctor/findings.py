"""What this machine has, whatever is trained on it: packages, memory, shared memory, programs, keys."""

import os
import platform
import resource
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from omnichat.recipes import ROOT
from omnichat.requirements import has_wandb_key

# ok: there. absent: not there, and not needed. doubtful: may fail or be slow. missing: needed, and not there.
State = Literal["ok", "absent", "doubtful", "missing"]

NOT_FOR_USERS = ("all", "dev", "browser")  # extras
INSTALL = "pip install -c constraints.txt -e '.{}'"
SHARED_MEMORY = Path("/dev/shm")  # where data workers put batches
ENOUGH_SHARED = 2**30  # bytes; a container has 64 MiB where nothing is said. Ours, unverified
ENOUGH_FILES = 1024  # open at once: the usual limit, under which the tests run
PROGRAMS = {
    "flite": "speaks corpora as a second engine: install your system's package flite",
    "ffmpeg": "cuts MELD's videos, and nothing else: install your system's package ffmpeg",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: of the page.
        name: of the thing, or the key that asks for it.
        state: see `State`.
        found: what was found.
        remedy: what to do, where there is something to be done.
    """

    area: str
    name: str
    state: State
    found: str
    remedy: str = ""


def machine() -> Iterator[Finding]:
    """Processor, memory, shared memory, limits and disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("machine", "python", "ok", f"{platform.python_version()}, {system}, {cores} cores, {size(memory)}")
    yield shared_memory()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = files != resource.RLIM_INFINITY and files < ENOUGH_FILES
    yield Finding(
        "machine",
        "open files",
        "doubtful" if few else "ok",
        "no limit" if files == resource.RLIM_INFINITY else f"{files:,} at once",
        f"ulimit -n {ENOUGH_FILES * 64}, or data.num_workers=0" if few else "",
    )
    free = shutil.disk_usage(ROOT).free
    yield Finding("machine", "disk", "ok", f"{size(free)} free in {ROOT}, where runs/ lies")


def shared_memory(needed: bool = False) -> Finding:
    """Of batches on their way from data workers; `needed` where there are any."""
    cure = "docker run --shm-size=8g (or --ipc=host), or data.num_workers=0"
    if not SHARED_MEMORY.is_dir():
        lacking = needed and platform.system() == "Linux"  # elsewhere workers have other ways
        return Finding("machine", str(SHARED_MEMORY), "missing" if lacking else "absent", "is not there", cure)
    free = shutil.disk_usage(SHARED_MEMORY).free
    few = free < ENOUGH_SHARED
    return Finding(
        "machine", str(SHARED_MEMORY), "doubtful" if few else "ok", f"{size(free)} free", cure if few else ""
    )


def packages(project: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """What `pyproject.toml` asks for, and each of its extras."""
    if project is None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project is not None
    there, faults = versions(project["dependencies"])
    yield Finding("packages", "omnichat", "ok", ", ".join(there))
    for fault in faults:
        yield Finding("packages", "omnichat", "missing", fault, INSTALL.format(""))
    extras: Mapping[str, Sequence[str]] = project["optional-dependencies"]
    for extra in extras:
        if extra not in NOT_FOR_USERS:
            there, faults = versions(_unfolded(extra, extras))
            found = ", ".join([*there, *faults])
            cure = INSTALL.format(f"[{extra}]") if faults else ""
            yield Finding("packages", extra, "absent" if faults else "ok", found, cure)


def versions(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that are there, with their versions, and what is wrong with the others."""
    there, faults = [], []
    for requirement in map(Requirement, wanted):
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            faults.append(f"no {requirement.name}")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            there.append(f"{requirement.name} {found}")
        else:
            faults.append(f"{requirement.name} {found}, needed is {requirement.specifier}")
    return there, faults


def _unfolded(extra: str, extras: Mapping[str, Sequence[str]]) -> list[str]:
    """The packages of an extra; one that takes in others names them as `omnichat[OTHER]`."""
    found: list[str] = []
    for text in extras[extra]:
        requirement = Requirement(text)
        found += [one for other in sorted(requirement.extras) for one in _unfolded(other, extras)] or [text]
    return found


def programs() -> Iterator[Finding]:
    """Speech engines, compilers, and the key of W&B, of which only whether it is there is told."""
    speaks = "espeakng-loader" if find_spec("espeakng_loader") else find_library("espeak-ng")
    cure = f"speaks the quickstart's corpus: {INSTALL.format('[tts]')}"
    yield Finding(
        "programs", "espeak-ng", "ok" if speaks else "absent", speaks or "is not there", "" if speaks else cure
    )
    for name, use in PROGRAMS.items():
        path = shutil.which(name)
        yield Finding("programs", name, "ok" if path else "absent", path or "is not there", "" if path else use)
    key = has_wandb_key()
    found = "there is a key" if key else "there is no key: W&B stays offline"
    yield Finding("programs", "W&B", "ok" if key else "absent", found, "" if key else "wandb login, or WANDB_API_KEY")


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
