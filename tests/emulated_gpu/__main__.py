"""Run a program on the emulated GPU: python -m tests.emulated_gpu train.py recipe=smoke ... or -m MODULE ...

At its end it says where the host waited for the device, and how often.
"""

import atexit
import runpy
import sys

import tests.emulated_gpu.plugin  # noqa: F401
from tests.emulated_gpu.tensors import Waits


def tell() -> None:
    """Print the waits."""
    for place, count in Waits.seen.most_common():
        print(f"waited {count:4} {place}", file=sys.stderr)


atexit.register(tell)
program, sys.argv = sys.argv[1], sys.argv[1:]
if program == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(program, run_name="__main__")
