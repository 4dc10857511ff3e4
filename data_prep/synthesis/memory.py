"""The memory of a worker."""

import contextlib
import ctypes

# malloc.h of glibc
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST = 1 << 30


def keep_freed_memory() -> None:
    """Let the process reuse the memory of arrays that it has freed, instead of handing each back to the system.

    Arrays of some seconds of audio are above glibc's threshold: each is mapped anew and filled with zeros page by page,
    which costs more than what is computed on them. Does nothing where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
