"""One training step: from waves, or cached frames, and token ids to updated weights."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.measure import Outcome, difference, outcome, require_equal, time_arms, trainable_tensors
from benchmarks.plain_loop import PlainLoop
from benchmarks.report import Ratio, Report
from benchmarks.salmonn import SALMONN_WINDOWS, SalmonnLoop
from benchmarks.workload import (
    Sizes,
    describe,
    draw_dialogues,
    make_examples,
    make_prompt,
    with_features,
    write_checkpoints,
)
from omnichat.audio import WINDOW
from omnichat.batch import Example, pack
from omnichat.models.encoders import load_encoder
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.training.optim import build_optimizer

SALMONN, PLAIN = "SALMONN-style step", "plain loop"
CACHED, TRIM, PAD30 = "cached 30 s features", "online, trim", "online, pad30"
SHARED = "cached, shared prefix"


class Trainee:
    """A model, what it trains on, and its optimizer."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor]) -> None:
        self.loss = loss
        self.trainable = trainable_tensors(model)
        self.optimizer = build_optimizer(dict(self.trainable), 1e-4, weight_decay=0.05, betas=(0.9, 0.999))

    def outcome(self) -> Outcome:
        """Loss and gradients of the next step."""
        return outcome(self.loss(), self.trainable)

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad()
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.trainable.values(), 1.0)
        self.optimizer.step()


def make_trainees(folder: Path, sizes: Sizes, num_dialogues: int) -> tuple[dict[str, Trainee], list[Example]]:
    """The arms with equal weights, each with its own copy, and the examples they all train on.

    Whisper is the only expert in every arm: it is the one whose 30 s context the arms treat differently.
    """
    checkpoints = write_checkpoints(folder, sizes)
    examples = make_examples(make_prompt(checkpoints), draw_dialogues(num_dialogues))
    torch.manual_seed(1)
    mixformer = MixFormer({"whisper": sizes.width}, sizes.width, **sizes.qformer)
    plain = PlainLoop(checkpoints, copy.deepcopy(mixformer), sizes)
    for name, parameter in plain.llm.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave lora_A without gradients to compare
            nn.init.normal_(parameter, std=0.02)
    encoders = {context: load_encoder("whisper", checkpoints.whisper, context=context) for context in ("pad30", "trim")}

    def project(inputs: Sequence[Example], context: str | None, share_prefix: bool = False) -> Trainee:
        llm = load_llm(checkpoints.llama)
        add_lora(llm, sizes.lora_rank, sizes.lora_alpha)
        own = {"whisper": encoders[context]} if context else {}
        model = OmniChat(own, copy.deepcopy(mixformer), llm, WINDOW, 1)
        with torch.no_grad():
            for name, parameter in trainable_tensors(model).items():
                parameter.copy_(weights[name])

        def loss() -> Tensor:
            batch = pack(inputs, share_prefix=share_prefix)
            return model(batch).total / batch.num_targets

        return Trainee(model, loss)

    weights = trainable_tensors(plain)
    cached = with_features(examples, encoders["pad30"])
    salmonn = SalmonnLoop(checkpoints, sizes)
    arms = {
        SALMONN: Trainee(salmonn, lambda: salmonn(salmonn.collate(examples))),
        PLAIN: Trainee(plain, lambda: plain(plain.collate(examples))),
        PAD30: project(examples, "pad30"),
        TRIM: project(examples, "trim"),
        CACHED: project(cached, None),
        SHARED: project(cached, None, share_prefix=True),
    }
    return arms, examples


def run(repetitions: int, num_dialogues: int, sizes: Sizes) -> Report:
    """Compare the step of the project to that of a plain loop, and to one with SALMONN's shapes.

    Raises:
        NotEqualError: an arm that should compute what the plain loop computes does not.
    """
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        arms, examples = make_trainees(Path(folder), sizes, num_dialogues)
        expected = arms[PLAIN].outcome()
        equal = [require_equal(name, arms[name].outcome(), PLAIN, expected) for name in (CACHED, SHARED, PAD30)]
        other = [difference(TRIM, arms[TRIM].outcome(), PLAIN, expected)]
        timings = time_arms({name: arm.step for name, arm in arms.items()}, repetitions)
    return Report(
        title="training step: forward, backward, clipping, AdamW; Whisper is the only expert in every arm",
        workload=describe(examples),
        equal=equal,
        other=other,
        unlike={SALMONN: f"a Q-Former of its own and {SALMONN_WINDOWS} windows a clip"},
        timings=timings,
        ratios=[
            Ratio(PLAIN, CACHED, 4.0),
            Ratio(PLAIN, TRIM, 2.3),
            Ratio(PLAIN, PAD30),
            Ratio(CACHED, SHARED, 1.03),
            Ratio(SALMONN, CACHED, 8.0),
            Ratio(SALMONN, TRIM, 4.5),
            Ratio(SALMONN, PLAIN),
        ],
    )
