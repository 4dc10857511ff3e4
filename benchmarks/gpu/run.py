"""The order of the measurements; one that fails, or does not fit the device, is said to and the rest goes on."""

import copy
import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.gpu.arms import Arm, PlainLoop, Project, SalmonnStyle
from benchmarks.gpu.clock import Clock, Timing, copy_bandwidth, matmul_flops, time_steps
from benchmarks.gpu.data import (
    PaddedBatch,
    Step,
    make_steps,
    padded,
    pinned,
    seconds_heard,
    with_features,
)
from benchmarks.gpu.experts import VARIANTS, Cost, cost, table
from benchmarks.gpu.scale import Scale, in_context, make_encoders, make_llm, make_mixformer, make_model
from benchmarks.salmonn import SALMONN_WINDOWS, SalmonnFront
from omnichat.batch import Example, PackedBatch, pack
from omnichat.models.encoders import Encoder
from omnichat.models.layers import compile_layers
from omnichat.models.packed import PACKED
from omnichat.training.flops import step_flops

COMPILED, EAGER = "cached features, compiled", "cached features, eager"
TRIM, PAD30 = "online trim, compiled", "online pad30, compiled"
PLAIN, SALMONN = "plain loop", "SALMONN-style step"
SHARED = "cached, compiled, shared prefix"
EXPERTS = "online trim, experts compiled"  # and Q-Formers, and the language model
QFORMERS = "cached, Q-Formers compiled"  # and the language model
ARMS = (COMPILED, EAGER, TRIM, PAD30, PLAIN, SALMONN, SHARED, EXPERTS, QFORMERS)
USER_HOURS = (672 + 217 + 242) / 2  # OmniChat, Table 1: hours of the three subsets; about half are the user's
EQUAL_DIALOGUES = 4
MicroBatches = Sequence[PackedBatch | PaddedBatch]


@dataclass
class Found:
    """All figures; what could not be measured is absent, and said in `failed`."""

    matmul: float = 0.0
    copy: float = 0.0
    tokens: float = 0.0
    heard: float = 0.0
    timings: dict[str, Timing] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    micro_batches: dict[str, int] = field(default_factory=dict)
    experts: dict[str, Cost] = field(default_factory=dict)
    gaps: dict[str, tuple[float, float]] = field(default_factory=dict)
    other: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What to run."""

    scale: Scale
    device: torch.device
    dialogues: int = 48
    plain_micro: int = 24
    salmonn_micro: int = 8
    warmup: int = 3
    steps: int = 8
    arms: tuple[str, ...] = ARMS
    workers: int = 8
    profile: Path | None = None
    skip: tuple[str, ...] = ()


class Bench:
    """The nets, and the steps they train on."""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, options.device
        self.encoders = make_encoders(options.scale, self.device)
        self.mixformer = make_mixformer(options.scale, self.encoders, self.device)
        self.llm = make_llm(options.scale, self.device)
        self.steps = make_steps(2, options.dialogues, self.device)
        self.cached = [with_features(step, self.encoders, self.device) for step in self.steps]
        self.packed = [pinned(pack(examples), self.device) for examples in self.cached]
        self.mels = options.scale.whisper.n_mels

    def arm(self, name: str) -> Arm:
        """An arm with an optimizer of its own. It shares nets with the arms before, which must not be run any more."""
        for part in (*self.encoders.values(), self.mixformer):
            compile_layers(part, name in (EXPERTS, QFORMERS))
        if name == PLAIN:
            return PlainLoop(self.encoders, self.mixformer, self.llm, self.device)
        if name == SALMONN:
            widths = [encoder.dim for encoder in self.encoders.values()]
            with self.device:
                front = SalmonnFront(widths, self.llm.config.hidden_size, self.options.scale.qformer)
            return SalmonnStyle(self.encoders, front, self.llm, self.device)
        trim = self.encoders | {"whisper": in_context(self.encoders["whisper"], "trim")}
        compile_layers(trim["whisper"], name == EXPERTS)
        own = {TRIM: trim, EXPERTS: trim, PAD30: self.encoders}.get(name, {})
        return Project(make_model(own, self.mixformer, self.llm, compiled=name != EAGER), self.device)

    def micro_batches(self, name: str, examples: Sequence[Example] | None = None) -> list[MicroBatches]:
        """Each step's micro-batches on the host, as this arm takes them; of these examples, if given, as one step."""
        if name in (COMPILED, EAGER, QFORMERS):
            return [[batch] for batch in self.packed] if examples is None else [[pinned(pack(examples), self.device)]]
        if name == SHARED:
            cached = self.cached if examples is None else [examples]
            return [[pinned(pack(part, share_prefix=True), self.device)] for part in cached]
        live = [step.examples for step in self.steps] if examples is None else [examples]
        if name in (TRIM, EXPERTS, PAD30):
            return [[pinned(pack(part), self.device)] for part in live]
        size = self.options.plain_micro if name == PLAIN else self.options.salmonn_micro
        windows = SALMONN_WINDOWS if name == SALMONN else None
        return [
            [padded(part[first : first + size], self.mels, self.device, windows) for first in range(0, len(part), size)]
            for part in live
        ]

    def targets(self, number: int) -> int:
        """Targets of a step."""
        return self.steps[number % len(self.steps)].live.num_targets


def run(options: Options, say: Callable[[str], None]) -> Found:
    """Measure; `say` hears of each part when it is done."""
    found, started = Found(), time.monotonic()

    def part(name: str, work: Callable[[], str | None]) -> None:
        begun = time.monotonic()
        try:
            text = work() or ""
        except Exception as error:  # the other figures are worth having
            found.failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            say(f"{name}: FAILED\n{traceback.format_exc()}")
        else:
            say(f"[{time.monotonic() - started:5.0f} s] {name} ({time.monotonic() - begun:.1f} s): {text}")
        gc.collect()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()

    cuda = options.device.type == "cuda"
    part("ceilings", lambda: _ceilings(found, options.device, 8192 if cuda else 256, 2**32 if cuda else 2**20))
    made: list[Bench] = []
    part("nets and dialogues", lambda: made.append(Bench(options)))
    if not made:
        return found
    bench = made[0]
    found.tokens = sum(len(step.live.ids) for step in bench.steps) / len(bench.steps)
    found.heard = sum(map(seconds_heard, bench.steps)) / len(bench.steps)
    parts: dict[str, Callable[[], str]] = {"equality": lambda: _equality(found, bench)}
    parts["experts"] = lambda: _experts(found, bench)
    parts |= {name: lambda name=name: _time(found, bench, name) for name in options.arms}
    parts |= {"loader": lambda: _loader(found, bench), "features": lambda: _features(found, bench)}
    if options.profile is not None:
        parts["profile"] = lambda: _profile(bench, options.profile)
    for name, work in parts.items():
        if name not in options.skip:
            part(name, work)
    return found


def _ceilings(found: Found, device: torch.device, size: int, volume: int) -> str:
    found.matmul, found.copy = matmul_flops(device, size), copy_bandwidth(device, volume)
    return f"bf16 product {found.matmul / 1e12:.0f} TFLOP/s, copy {found.copy / 1e12:.2f} TB/s"


def _equality(found: Found, bench: Bench) -> str:
    """Arms that compute one function, on a few dialogues: loss and the whole gradient, against float32 arithmetic.

    In bfloat16 no two ways to compute agree closely; each should be as near to float32 as the plain loop is.
    """
    count = min(EQUAL_DIALOGUES, bench.options.dialogues)
    live, cached = bench.steps[0].examples[:count], bench.cached[0][:count]
    targets = sum(example.tokens.num_targets for example in live)
    exact = Project(
        make_model({}, bench.mixformer, copy.deepcopy(bench.llm).float(), compiled=False), bench.device, autocast=False
    )
    expected, reference = exact.gradients(bench.micro_batches(EAGER, cached)[0], targets)
    del exact
    for name, examples in {PLAIN: live, EAGER: cached, COMPILED: cached, SHARED: cached, PAD30: live}.items():
        loss, gradient = bench.arm(name).gradients(bench.micro_batches(name, examples)[0], targets)
        gap = float((gradient - reference).norm() / reference.norm())
        found.gaps[name] = (abs(loss - expected) / abs(expected), gap)
    return "; ".join(f"{name}: loss {loss:.1e}, gradient {gap:.1e}" for name, (loss, gap) in found.gaps.items())


def _experts(found: Found, bench: Bench) -> str:
    """Each expert alone, on the clips of the first step."""
    live, options = bench.steps[0].live, bench.options
    assert live.waves is not None
    waves, whisper = live.waves.to(bench.device), bench.encoders["whisper"]
    nets = {"whisper trim": in_context(whisper, "trim"), "whisper pad30": whisper}
    nets |= {name: encoder for name, encoder in bench.encoders.items() if name != "whisper"}
    for change in VARIANTS:
        for name, expert in nets.items():
            whole = f"{name}, {change}"
            try:
                found.experts[whole] = cost(
                    expert, change, waves, live.num_samples, min(2, options.warmup), options.steps
                )
            except Exception as error:  # what a device cannot do must not take the other figures along
                found.failed[whole] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "\n" + "\n".join(table(found.experts, found.matmul))


def _time(found: Found, bench: Bench, name: str) -> str:
    arm, batches = bench.arm(name), bench.micro_batches(name)

    def step(number: int, clock: Clock) -> None:
        arm.step(batches[number % len(batches)], bench.targets(number), clock)

    options = bench.options
    timing = time_steps(step, options.warmup, options.steps, bench.device)
    found.timings[name], found.micro_batches[name] = timing, len(batches[0])
    if isinstance(arm, Project):
        counts = [
            step_flops(arm.model, batch.starts.diff().tolist(), batch.num_targets, batch.num_samples, batch.shared)
            for (batch,) in batches
        ]
        found.flops[name] = sum(counts) / len(counts)
    stages = ", ".join(f"{stage} {1e3 * seconds:.0f}" for stage, seconds in timing.stages.items())
    return f"{timing.median:.3f} s a step ({stages} ms), peak {timing.peak_bytes / 2**30:.1f} GiB"


def _loader(found: Found, bench: Bench) -> str:
    """The share of the time in which training with cached features waits for the next batch to be packed and sent."""
    count = 2 + 2 * bench.options.steps
    loader = DataLoader(
        _Packing(bench.cached, count),
        batch_size=None,
        num_workers=bench.options.workers,
        pin_memory=bench.device.type == "cuda",
    )
    arm, waited, begun = bench.arm(COMPILED), 0.0, 0.0
    bench.llm.set_attn_implementation(PACKED)
    batches: Iterator[PackedBatch] = iter(loader)
    for number in range(count):
        asked = time.perf_counter()
        batch = next(batches)
        if number == 2:  # the workers have started, the shapes are known
            begun = asked
        waited += time.perf_counter() - asked if number >= 2 else 0.0
        arm.step([PackedBatch(*batch)], bench.targets(number), Clock(bench.device))
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    spent = time.perf_counter() - begun
    found.other["loader wait"] = waited / spent
    found.other["step with loader"] = spent / (count - 2)
    return f"{waited / spent:.1%} waited with {bench.options.workers} workers, {spent / (count - 2):.3f} s a step"


class _Packing(torch.utils.data.Dataset[PackedBatch]):
    """Steps packed anew, as data workers do it."""

    def __init__(self, steps: Sequence[Sequence[Example]], count: int) -> None:
        self.steps, self.count = steps, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> PackedBatch:
        return pack(self.steps[number % len(self.steps)])


def _features(found: Found, bench: Bench) -> str:
    """Seconds of audio a second through the three encoders, Whisper with 30 s, and back to the host in bfloat16."""
    options = bench.options
    timing = time_steps(
        lambda n, clock: _encode(bench.encoders, bench.steps, n, clock), options.warmup, options.steps, bench.device
    )
    rate = found.heard / timing.median
    found.timings["features, pad30"] = timing
    found.other["audio seconds a second"] = rate
    found.other["minutes for ShareChatX"] = USER_HOURS * 60 / rate
    return f"{rate:.0f} s of audio a second, {USER_HOURS * 60 / rate:.1f} min for {USER_HOURS:.0f} h"


def _encode(encoders: Mapping[str, Encoder], steps: Sequence[Step], number: int, clock: Clock) -> None:
    step = steps[number % len(steps)]
    assert step.live.waves is not None
    waves, frames = step.live.waves.to(next(encoders["whisper"].parameters()).device, non_blocking=True), {}
    clock.mark("transfer")
    for name, encoder in encoders.items():
        frames[name], _ = encoder.encode(waves, step.live.num_samples)
        clock.mark(name)
    for tensor in frames.values():
        tensor.to("cpu")
    clock.mark("to the host")


def _profile(bench: Bench, folder: Path | None) -> str:
    """Tables of the kernels of one step with cached features, and of one online."""
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    for name in (COMPILED, TRIM):
        _profile_step(bench, name, folder / f"{name.replace(', ', '-').replace(' ', '-')}.txt")
    return f"written to {folder}"


def _profile_step(bench: Bench, name: str, path: Path) -> None:
    arm, batches = bench.arm(name), bench.micro_batches(name)
    arm.step(batches[1], bench.targets(1), Clock(bench.device))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (bench.device.type == "cuda")
    with profile(activities=activities) as profiler:
        arm.step(batches[0], bench.targets(0), Clock(bench.device))
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
    key = "self_device_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=60, max_name_column_width=100)
    path.write_text(table, encoding="utf-8")
