"""pytest -p tests.emulated_gpu.plugin: the tests marked `gpu` on a machine without one.

It shows whether a GPU's code path runs: tensors on two devices, waits, types that a kernel refuses. Neither speed nor
a GPU's rounding, nor what torch.compile would make of it.
"""

import ctypes

from tests.emulated_gpu.library import built

# Before torch is imported: it asks once and for all whether there is CUDA.
ctypes.CDLL(str(built()))

from tests.emulated_gpu.device import emulate  # noqa: E402

emulate()
