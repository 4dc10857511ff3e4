"""Engines: who holds the parameters and the optimizer's moments, whole or in shards, and how to see them whole.

Whatever the engine, a checkpoint holds the same files. So each engine can gather the trained parameters and the
moments of AdamW, and put them back into its shards. DeepSpeed's own checkpoints are pickles and are not used.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.deepspeed import reset_seed
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from omnichat.models.encoders import Encoder
from omnichat.models.omnichat import OmniChat
from omnichat.training.optim import optimizer_tensors, restore_optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")  # torch.optim.AdamW's names
# torch.optim.AdamW's step counter is the same for every parameter; DeepSpeed keeps it for its flat shards only.
STEP = "step"


def build_strategy(name: str, accelerator: str) -> str | Strategy:
    """The Lightning strategy of `trainer.strategy`.

    Args:
        name: `auto`, `ddp`, `fsdp` (FSDP2) or `deepspeed_stage_N`.
        accelerator: of the trainer; on the CPU processes talk through gloo.
    """
    if name == "ddp":
        # Every trained parameter has a gradient in every micro-batch, zeros where there was nothing to hear.
        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    if name == "fsdp":
        return FullyShardedData()
    if name.startswith("deepspeed"):
        return ExactDeepSpeed(
            stage=int(name[-1]),
            logging_batch_size_per_gpu=1,  # for its own throughput log only
            exclude_frozen_parameters=True,
            process_group_backend="gloo" if accelerator == "cpu" else None,
        )
    return name


class FullyShardedData(ModelParallelStrategy):
    """FSDP2: every rank holds a shard of the LLM and of what is trained."""

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """One dimension of all ranks; how many there are is known by now."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


class ExactDeepSpeed(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy that divides by the accumulation once, and also runs on the CPU."""

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Without DeepSpeed's division by the accumulation: Lightning has divided the loss already."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def setup_environment(self) -> None:
        """As for any other strategy; Lightning's refuses all but CUDA, which DeepSpeed itself does not."""
        if isinstance(self.accelerator, CPUAccelerator):
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Join the process group, without compiling DeepSpeed's shared-memory collectives on the CPU."""
        if not isinstance(self.accelerator, CPUAccelerator):
            super().setup_distributed()
            return
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # needs a compiler and ninja, gains nothing here
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        """With an index on the CPU too, which DeepSpeed compares."""
        device = super().root_device
        return torch.device("cpu", 0) if device.type == "cpu" else device


class Outside(dict[str, Encoder]):
    """Experts that an engine must not see: not a module, so it neither shards nor gathers them."""


def shard(model: OmniChat, strategy: Strategy) -> None:
    """Make the model ready for an engine that cuts parameters into shards; with the others nothing is done.

    The experts stay whole on each rank. They are small, and a rank calls them as often as its clips ask for, where
    ZeRO-3 and FSDP2 wait for every rank at every call. FSDP2 wants one dtype a group, so the float32 adapters are
    groups of their own inside the LLM's bfloat16 layers.
    """
    zero3 = isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
    if not (zero3 or isinstance(strategy, ModelParallelStrategy)):
        return
    encoders: Any = model.encoders
    del model.encoders
    keep: Any = Outside({name: encoder.to(strategy.root_device) for name, encoder in encoders.items()})
    model.encoders = keep
    if zero3:
        return
    assert isinstance(strategy, ModelParallelStrategy)
    mesh = strategy.device_mesh["data_parallel"]
    for name, module in model.llm.named_modules():
        if isinstance(module, nn.Linear) and ".lora_" in name:
            fully_shard(module, mesh=mesh)
    for layer in model.llm.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model.mixformer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


@contextmanager
def whole_model(model: nn.Module) -> Iterator[None]:
    """The parameters that the model itself uses are there, outside of its forward; its layers gather their own."""
    if isinstance(model, FSDPModule):
        model.unshard()
        try:
            yield
        finally:
            model.reshard()
    else:
        yield


def gather(trainer: pl.Trainer, parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trained parameters and AdamW's moments (`<parameter>.<moment>`), whole. Every rank has to call it."""
    optimizer = trainer.optimizers[0]
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        fragments = importlib.import_module("deepspeed.utils.tensor_fragment")
        states = list(_deepspeed_states(optimizer))
        step = next((state[STEP] for state in states if STEP in state), None)
        weights: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        if step is not None:
            _link_states(optimizer)
        for name, parameter in parameters.items():
            weights[name] = fragments.safe_get_full_fp32_param(parameter).cpu()
            if step is not None:
                moments |= {
                    f"{name}.{key}": fragments.safe_get_full_optimizer_state(parameter, key).cpu() for key in MOMENTS
                }
                moments[f"{name}.{STEP}"] = torch.as_tensor(float(step))
        return weights, moments
    found = optimizer_tensors(optimizer, dict(parameters))
    return (
        {name: _whole(parameter.detach()) for name, parameter in parameters.items()},
        {name: _whole(tensor) for name, tensor in found.items()},
    )


def scatter(
    trainer: pl.Trainer,
    parameters: Mapping[str, nn.Parameter],
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
) -> None:
    """Put what `gather` gave back into the engine's parameters and optimizer, before the first step.

    Raises:
        ValueError: the moments belong to other parameters.
    """
    optimizer = trainer.optimizers[0]
    if isinstance(trainer.strategy, DeepSpeedStrategy):
        _restore_deepspeed(optimizer, parameters, weights, moments)
        return
    cut = {name: _like(tensor, parameters.get(name.rpartition(".")[0])) for name, tensor in moments.items()}
    restore_optimizer(optimizer, dict(parameters), cut)


def _whole(tensor: Tensor) -> Tensor:
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.cpu()


def _like(tensor: Tensor, parameter: nn.Parameter | None) -> Tensor:
    """A moment cut as its parameter is; steps are numbers and stay whole."""
    if not isinstance(parameter, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def _flat_shards(optimizer: Any) -> list[Tensor]:
    """This rank's flat float32 shards of a DeepSpeed optimizer, whose states its inner optimizer keeps."""
    names = (
        "fp32_partitioned_groups_flat",  # stage 3
        "single_partition_of_fp32_groups",  # stages 1 and 2
        "fp32_groups_flat_partition",  # its bfloat16 optimizer
    )
    for name in names:
        if hasattr(optimizer, name):
            return list(getattr(optimizer, name))
    raise RuntimeError(f"{type(optimizer).__name__}: not one of DeepSpeed's optimizers known here")


def _deepspeed_states(optimizer: Any) -> Iterator[dict[str, Any]]:
    for shard_ in _flat_shards(optimizer):
        if shard_ in optimizer.optimizer.state:
            yield optimizer.optimizer.state[shard_]


def _link_states(optimizer: Any) -> None:
    """Tell each parameter which part of the flat states is its own.

    Stages 1 and 2 do so after the first group's first step, when the other groups have no states yet.
    """
    groups = getattr(optimizer, "bit16_groups", getattr(optimizer, "bf16_groups", ()))
    for group, shard_ in zip(groups, _flat_shards(optimizer), strict=False):
        for parameter in group:
            if getattr(parameter, "_hp_mapping", None) is not None:
                parameter._hp_mapping.set_optim_state_fragment(shard_, optimizer.optimizer.state[shard_])


def _restore_deepspeed(
    optimizer: Any, parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]
) -> None:
    step = next((value for name, value in moments.items() if name.endswith(f".{STEP}")), None)
    if step is not None:
        # DeepSpeed makes the states at the first step; they have to be there to be filled.
        for shard_ in _flat_shards(optimizer):
            state = {key: torch.zeros_like(shard_) for key in MOMENTS}
            optimizer.optimizer.state[shard_] = {STEP: step.clone(), **state}
        _link_states(optimizer)
    for name, parameter in parameters.items():
        _set_shard(parameter, weights[name], None)
        for key in MOMENTS if step is not None else ():
            _set_shard(parameter, moments[f"{name}.{key}"], key)


def _set_shard(parameter: nn.Parameter, whole: Tensor, key: str | None) -> None:
    """Put this rank's part of a float32 parameter (`key` None) or of a moment into DeepSpeed's flat shard.

    DeepSpeed's own setter fails for a stage-3 parameter that is not a multiple of the ranks (0.19.8, stage3.py
    `set_full_hp_param`: it cuts the last rank's part from beyond the end).
    """
    whole = whole.to(parameter.device)
    stage3: Any = getattr(parameter, "_z3_optimizer", None)
    if stage3 is None:
        fragments = importlib.import_module("deepspeed.utils.tensor_fragment")
        setter = fragments.safe_set_full_fp32_param if key is None else fragments.safe_set_full_optimizer_state
        setter(parameter, whole, *([] if key is None else [key]))
        return
    shard_, _ = stage3._get_fp32_opt_state_partition(parameter, release_swap_buffers=False, optim_state_key=key)
    start = shard_.numel() * stage3._get_param_partition_rank(parameter)
    part = whole.flatten()[start : start + shard_.numel()]
    shard_.data[: part.numel()].copy_(part)
