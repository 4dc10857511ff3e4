"""Tensors that say they lie on a GPU and are computed on the CPU.

What a GPU refuses is refused: operands on two devices. What makes the host wait for a GPU is counted, or refused.
"""

import os
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.attention.varlen  # its operations
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.emulated_gpu.attention import varlen_attention, varlen_attention_backward

aten = torch.ops.aten
HERE = str(Path(__file__).parent)
GPU, CPU = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))), torch.device("cpu")

# Their result's shape or value depends on numbers on the device, for which the host has to wait.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.equal,
    aten.is_nonzero,
}
COPIES = {aten._to_copy, aten.copy_, aten.copy}


class Waited(RuntimeError):
    """The host would have waited for the device where it must not."""


class OnGpu(Tensor):
    """A tensor on the emulated GPU; `inner` holds its numbers on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=GPU,
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{self.inner!r} on the emulated GPU"

    def tolist(self) -> Any:
        """Its numbers, for which the host waits."""
        Waits.here("tolist")
        return self.inner.tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "OnGpu":
        return OnGpu(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Emulation(TorchDispatchMode):
    """Sees what is made on the device from nothing, or from the host's tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Waits:
    """Where the host would wait: counted by place, and refused in the mode that `set_sync_debug_mode` calls `error`."""

    mode = "default"
    seen: ClassVar[Counter[str]] = Counter()

    @classmethod
    def set(cls, mode: str | int) -> None:
        """`default`, `warn` or `error`, or their numbers."""
        cls.mode = ("default", "warn", "error")[mode] if isinstance(mode, int) else mode

    @classmethod
    def here(cls, func: Any) -> None:
        """The host would wait here."""
        if cls.mode == "error":
            raise Waited(f"{func} makes the host wait for the device")
        frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(HERE)]
        ours = [frame for frame in frames if "/omnichat/" in frame.filename][-2:]
        last = [frame for frame in frames if "/torch/" not in frame.filename][-2:]
        frames = [frame for frame in frames if frame in ours or frame in last]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
        cls.seen[f"{func} {where}"] += 1


def on_cpu(given: Any) -> Any:
    """Operands, alone or nested, with those of the GPU as the tensors that hold their numbers."""
    return pytree.tree_map_only(OnGpu, lambda tensor: tensor.inner, given)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation, on whichever device its operands lie."""
    given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in given)
    packet = func.overloadpacket
    to = kwargs.get("device")
    to = torch.device(to) if to is not None else None
    if any(tensor.is_meta for tensor in given) or (to is not None and to.type == "meta"):
        return func(*args, **kwargs)  # shapes alone
    if func.namespace == "c10d":
        inner_args, inner_kwargs = on_cpu((args, kwargs))
        out = func(*inner_args, **inner_kwargs)
        return (args[0], out[-1]) if isinstance(out, tuple) else out
    if packet in COPIES:
        return _copied(func, args, kwargs, to)
    to_gpu = on_gpu if to is None else to.type == "cuda"
    if not to_gpu and not on_gpu:
        return func(*args, **kwargs)
    _same_device(func, given)
    if packet in WAITING or (packet in (aten.index, aten.index_put, aten.index_put_) and _has_mask(args)):
        Waits.here(func)
    if packet is aten._fused_sdp_choice:
        return 0  # by products: what a kernel of the GPU would be chosen is not the same as on the CPU
    inner_args, inner_kwargs = on_cpu((args, kwargs))
    if to is not None:
        inner_kwargs["device"] = CPU
    inner_kwargs.pop("pin_memory", None)
    out = REPLACED.get(packet, func)(*inner_args, **inner_kwargs)
    if not to_gpu:
        return out
    wrapped = pytree.tree_map_only(Tensor, OnGpu, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _copied(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], to: torch.device | None) -> Any:
    if func.overloadpacket is aten._to_copy:
        source = args[0]
        target = to or source.device
        if source.device.type != target.type and not kwargs.get("non_blocking"):
            Waits.here(func)
        made = func(on_cpu(source), **{**kwargs, "device": CPU, "pin_memory": False})
        return OnGpu(made) if target.type == "cuda" else made
    into, source = args[:2]
    non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
    # A single number of the host is an argument of the kernel that writes it.
    if into.device.type != source.device.type and not non_blocking and source.ndim:
        Waits.here(func)
    out = func(*on_cpu(args), **kwargs)
    if func.overloadpacket is aten.copy:
        return OnGpu(out) if isinstance(into, OnGpu) else out
    return into


def _same_device(func: Any, given: list[Tensor]) -> None:
    """As a GPU's kernels do: a single number may come from the host, and nothing else."""
    strangers = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
    if not strangers or not any(isinstance(tensor, OnGpu) for tensor in given):
        return
    if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        Waits.here(func)  # the places are carried to the device first
        return
    raise RuntimeError(f"Expected all tensors to be on the same device, but found {GPU} and cpu, in {func}")


def _has_mask(args: tuple[Any, ...]) -> bool:
    return any(isinstance(place, Tensor) and place.dtype in (torch.bool, torch.uint8) for place in args[1])


REPLACED: dict[Any, Callable[..., Any]] = {
    torch.ops.torch_attn._varlen_attn: varlen_attention,
    torch.ops.torch_attn._varlen_attn_backward: varlen_attention_backward,
}
