"""A checkpoint of a run as objects, and a dialogue with it that keeps its cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from omnichat import build
from omnichat.audio import audio_ref, load_audio, pieces
from omnichat.batch import Example, pack, to_device
from omnichat.checkpoint import STATE, CheckpointError, find_checkpoint, load_checkpoint, restore_trained
from omnichat.config import RunConfig, saved_config
from omnichat.dialogue import STYLE_FIELDS, DataError, Dialogue, Reply, Turn
from omnichat.models.omnichat import OmniChat
from omnichat.models.session import Session
from omnichat.prompt import IGNORE, NO_TARGET, Allowed, Prompt, Tokens
from omnichat.run_folder import CHECKPOINTS


@dataclass(frozen=True)
class LoadedRun:
    """A run folder as objects, with the weights of one of its checkpoints.

    `style_fields` are those that its training data knew; replies say `unknown` in the others.
    """

    config: RunConfig
    model: OmniChat
    prompt: Prompt
    step: int
    style_fields: tuple[str, ...] = STYLE_FIELDS

    def form(self, written: Sequence[int]) -> Allowed | None:
        """See `Prompt.allowed`."""
        return self.prompt.allowed(written, self.style_fields)


def load_run(run_dir: Path | str, checkpoint: str = "newest") -> LoadedRun:
    """A checkpoint of a run folder, on the GPU where there is one; `checkpoint` as in `find_checkpoint`.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or a damaged one; says what was refused and why. Or its
            run did not learn to answer.
        ConfigError: its config is none of this version's.
        EncoderError, ValueError: the frozen weights are not where they were, or cannot be used.
    """
    start = load_checkpoint(find_checkpoint(Path(run_dir) / CHECKPOINTS, checkpoint))
    config = saved_config(start.state["config"], start.path / STATE)
    if config.task != "dialogue":
        raise CheckpointError(f"{start.path}: is of a run of task={config.task}; score it with eval/run_events.py")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model = build.build_model(config)
    restore_trained(model, start)
    device = "cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu"
    style_fields = tuple(start.state.get("style_fields", STYLE_FIELDS))  # older checkpoints do not say
    return LoadedRun(config, model.to(device).eval(), build.build_prompt(config), start.step, style_fields)


class Chat:
    """A dialogue that keeps its KV cache: each reply reads only the new turn."""

    def __init__(self, run: LoadedRun) -> None:
        self.run = run
        self.reset()

    @classmethod
    def load(cls, run_dir: Path | str, checkpoint: str = "newest") -> "Chat":
        """A chat with a checkpoint of a run, by default the newest.

        Raises:
            CheckpointError: see `load_run`.
        """
        return cls(load_run(run_dir, checkpoint))

    def reset(self) -> None:
        """Begin a new dialogue."""
        self.ids: list[int] = []  # all token ids so far, the assistant's as it wrote them
        self._session = Session(self.run.model.llm)
        self._unread: list[int] = []  # written by the model, not yet in the cache

    def reply(self, audio: Path | str | None = None, text: str = "") -> Reply:
        """Hear (or, by the run's input, read) a user turn and answer it.

        Args:
            audio: path of an audio file; whatever libsndfile reads.
            text: the words, for runs with input=text or speech+text.

        Raises:
            DataError: the audio cannot be used; `no_audio` or `no_text` where the run's input needs it; `too_long`
                where the dialogue leaves the context.
        """
        config, prompt = self.run.config, self.run.prompt
        turn = Turn("user", text, audio=audio_ref(audio) if audio is not None and prompt.input != "text" else None)
        tokens = self._continued(prompt.render(Dialogue("chat", (turn,)), generation=True))
        if len(self.ids) + len(tokens.ids) + config.evaluation.max_new_tokens > config.data.max_tokens:
            raise DataError(
                "too_long",
                f"the dialogue would exceed data.max_tokens={config.data.max_tokens}; reset() begins a new one",
            )
        waves = [
            wave[start : start + length]
            for slot in tokens.slots
            for wave in [load_audio(slot.audio)]
            for start, length in pieces(len(wave))
        ]
        batch = to_device(pack([Example(tokens, tuple(waves), None, "chat")]), self.run.model.llm.device)
        with torch.no_grad():
            embeds = self.run.model.embed(batch).embeds
        (reply,) = self._session.reply([embeds], config.evaluation.max_new_tokens, prompt.stop_id, self.run.form)
        written = reply.ids
        ended = written if written[-1] == prompt.stop_id else [*written, prompt.stop_id]
        self.ids += [*tokens.ids[len(self._unread) :].tolist(), *ended]
        self._unread = ended[len(written) - 1 :]
        return prompt.parse(prompt.decode(written))

    def _continued(self, tokens: Tokens) -> Tokens:
        """The turn's tokens after what is in the cache: without a second system prompt, with what is yet unread."""
        if not self.ids:
            return tokens
        opening = len(self.run.prompt.render(Dialogue("chat", ())).ids)
        shift = len(self._unread) - opening

        def joined(values: np.ndarray, unread: list[int]) -> np.ndarray:
            return np.concatenate([np.array(unread, dtype=values.dtype), values[opening:]])

        return Tokens(
            joined(tokens.ids, self._unread),
            joined(tokens.labels, [IGNORE] * len(self._unread)),
            joined(tokens.kinds, [NO_TARGET] * len(self._unread)),
            tuple(replace(slot, start=slot.start + shift) for slot in tokens.slots),
        )
