"""Builds the C++ part, once for each torch."""

import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

COMPILER = shutil.which("g++")
SOURCE = Path(__file__).with_name("guard.cpp")


def built() -> Path:
    """The shared library, kept in the folder for temporary files."""
    assert COMPILER is not None, "g++ is needed"
    found = find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    key = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode() + str(torch).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"omnichat-emulated-gpu-{getpass.getuser()}"
    library = folder / f"{key}.so"
    if not library.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        half = folder / f"{key}.{os.getpid()}.so"
        paths = [
            f"-I{torch}/include",
            f"-I{torch}/include/torch/csrc/api/include",
            f"-L{torch}/lib",
            f"-Wl,-rpath,{torch}/lib",
            "-Wl,--no-as-needed",
        ]
        options = ["-shared", "-fPIC", "-std=c++20", str(SOURCE), *paths, "-lc10", "-ltorch_cpu", "-o", str(half)]
        subprocess.run([COMPILER, *options], check=True)
        half.replace(library)
    return library
