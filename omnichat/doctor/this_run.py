"""What one run needs of this machine: files, packages, room on the disk and in the GPU's memory."""

from collections.abc import Iterator

from omnichat.config import ConfigError, RunConfig
from omnichat.doctor.findings import Finding, State, shared_memory, size
from omnichat.recipes import ROOT, locate
from omnichat.requirements import missing, named

AREA = "this run"


def needed(config: RunConfig) -> Iterator[Finding]:
    """Everything that the config asks for, there or not."""
    lacking = missing(config)
    for key, path in named(config).items():
        if not any(line.startswith(f"{key}: ") for line in lacking):
            yield Finding(AREA, key, "ok", str(locate(path)))
    for line in lacking:
        key, _, rest = line.partition(": ")
        found, _, cure = rest.partition("; ")
        yield Finding(AREA, key, "missing", found, cure)
    if config.data.num_workers and (shared := shared_memory(needed=True)).state != "ok":
        found = f"workers hand batches over in {shared.name}: {shared.found}"
        yield Finding(AREA, f"data.num_workers={config.data.num_workers}", shared.state, found, shared.remedy)
    yield from _sizes(config)


def _sizes(config: RunConfig) -> Iterator[Finding]:
    """Disk and GPU memory, counted from the config as `omnichat.training.estimate` does."""
    if config.task != "dialogue":
        return
    import torch

    from omnichat.build import sized_model
    from omnichat.checkpoint import trainable
    from omnichat.training.estimate.counted import USABLE, step_of
    from omnichat.training.guard import TrainingError
    from omnichat.training.memory import estimate_memory
    from omnichat.training.preflight import disk

    try:
        model = sized_model(config)
    except ConfigError as error:  # random or unknown nets
        yield Finding(AREA, "sizes", "absent", f"are not counted: {error.faults[0]}")
        return
    try:
        room = disk(trainable(model), next(path for path in (ROOT / "runs", ROOT) if path.is_dir()))
        yield Finding(AREA, "disk", "ok", room.removeprefix("disk: "))
    except TrainingError as error:
        found, _, cure = str(error).partition("; ")
        yield Finding(AREA, "disk", "missing", found, cure)
    if not torch.cuda.is_available() or config.trainer.accelerator == "cpu":
        return
    step = step_of(config, model)
    usual, largest = (estimate_memory(model, config, batch, step.ranks).total for batch in (step.usual, step.largest))
    capacity = min(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count())) * USABLE
    found = f"{size(usual)} are estimated, {size(largest)} with longest dialogues, {size(capacity)} are usable"
    cure = "trainer.micro_batch, trainer.activation_checkpointing, model=omnichat_4bit: docs/hardware.md"
    state: State = "ok" if largest <= capacity else "doubtful" if usual <= capacity else "missing"
    yield Finding(AREA, "GPU memory", state, found, "" if state == "ok" else cure)
