"""A checkpoint of a run as objects, and a dialogue with it that keeps its cache."""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from omnichat import build
from omnichat.audio import audio_ref, load_audio, pieces
from omnichat.batch import Example, pack, to_device
from omnichat.checkpoint import CheckpointError, restore_trained
from omnichat.config import ConfigError, RunConfig, saved_config
from omnichat.dialogue import STYLE_FIELDS, DataError, Dialogue, Reply, Turn
from omnichat.exported import load_trained
from omnichat.models.omnichat import Heard, OmniChat
from omnichat.models.session import Session
from omnichat.prompt import IGNORE, NO_TARGET, Allowed, Prompt, Tokens
from omnichat.recipes import did_you_mean, locate
from omnichat.requirements import missing_weights


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


def load_run(
    run_dir: Path | str, checkpoint: str = "newest", weights: Mapping[str, Path | str] | None = None
) -> LoadedRun:
    """What a run trained, with the frozen weights around it, on the GPU where there is one.

    Args:
        run_dir: folder of a run, or of an export.
        checkpoint: of a run, as in `find_checkpoint`.
        weights: where frozen weights lie that are not where they were in training: `llm`, `whisper`, ... -> path.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or a damaged one; says what was refused and why. Or its
            run did not learn to answer, or the frozen weights are of another shape.
        ConfigError: its config is none of this version's, `weights` names a part that the model does not have, or
            frozen weights are not there; names all.
        EncoderError, ValueError: frozen weights cannot be used.
    """
    start = load_trained(locate(str(run_dir)), checkpoint)
    config = _with_weights(saved_config(start.state["config"], start.path), weights or {})
    if config.task != "dialogue":
        raise CheckpointError(f"{start.path}: is of a run of task={config.task}; score it with eval/run_events.py")
    if faults := missing_weights(config):
        elsewhere = "if they lie elsewhere: Chat.load(..., weights={'llm': PATH}), or llm=PATH in the command"
        raise ConfigError([*faults, elsewhere])
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model = build.build_model(config)
    restore_trained(model, start)
    device = "cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu"
    style_fields = tuple(start.state.get("style_fields", STYLE_FIELDS))  # older checkpoints do not say
    return LoadedRun(config, model.to(device).eval(), build.build_prompt(config), start.step, style_fields)


def _with_weights(config: RunConfig, weights: Mapping[str, Path | str]) -> RunConfig:
    known = (*config.model.experts, "llm")
    if unknown := [name for name in weights if name not in known]:
        hint = "".join(did_you_mean(name, known) for name in unknown)
        raise ConfigError([f"weights: there is no {', '.join(unknown)}; the model has {', '.join(known)}{hint}"])
    values = config.model_dump(mode="json")
    for name, path in weights.items():
        encoders = values["model"]["encoders"]
        section = values["model"]["llm"] if name == "llm" else encoders["own"].get(name) or encoders[name]
        section["checkpoint"] = str(path)
    return RunConfig.model_validate_json(json.dumps(values))


class Chat:
    """A dialogue that keeps its KV cache: each reply reads only the new turn."""

    def __init__(self, run: LoadedRun) -> None:
        self.run = run
        self.reset()

    @classmethod
    def load(
        cls, run_dir: Path | str, checkpoint: str = "newest", weights: Mapping[str, Path | str] | None = None
    ) -> "Chat":
        """A chat with a checkpoint of a run, by default the newest, or with an export; arguments as of `load_run`.

        Raises:
            CheckpointError, ConfigError: see `load_run`.
        """
        return cls(load_run(run_dir, checkpoint, weights))

    def reset(self) -> None:
        """Begin a new dialogue."""
        self.gates: dict[str, float] = {}  # of the turn heard last, the mean over its windows
        self.ids: list[int] = []  # all token ids so far, the assistant's as it wrote them
        self._session = Session(self.run.model.llm)
        self._unread: list[int] = []  # written by the model, not yet in the cache

    def reply(self, audio: Path | str | None = None, text: str = "") -> Reply:
        """Hear (or, by the run's input, read) a user turn and answer it: the last that `stream` gives."""
        *_, last = self.stream(audio, text)
        return last

    def stream(self, audio: Path | str | None = None, text: str = "") -> Generator[Reply, None, None]:
        """Hear (or, by the run's input, read) a user turn, and give the reply as it grows, once for each token.

        Its style is None until it is written. Who stops listening has interrupted: the dialogue goes on from what was
        given so far.

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
            heard = self.run.model.embed(batch)
        embeds = heard.embeds
        self.gates = self._gates(heard)
        written: list[int] = []
        try:
            for (reply,) in self._session.stream(
                [embeds], config.evaluation.max_new_tokens, prompt.stop_id, self.run.form
            ):
                written = reply.ids
                yield prompt.parse(prompt.decode(written).rstrip("\ufffd"))  # a character may take several tokens
        except GeneratorExit:
            self._remember(tokens, written)
            return
        self._remember(tokens, written)
        yield prompt.parse(prompt.decode(written))

    def _gates(self, heard: Heard) -> dict[str, float]:
        if not len(heard.window_counts):
            return {}
        own = torch.arange(heard.gates.shape[1]) < heard.window_counts[:, None]
        means = heard.gates.float().cpu()[own].mean(0).tolist()
        return {name: round(value, 4) for name, value in zip(self.run.config.model.experts, means, strict=True)}

    def _remember(self, tokens: Tokens, written: list[int]) -> None:
        """Note what the cache holds after a reply, and what of it is still to be read."""
        stop_id = self.run.prompt.stop_id
        ended = [*written, *([] if written[-1] == stop_id else [stop_id]), *self.run.prompt.between]
        self.ids += [*tokens.ids[len(self._unread) :].tolist(), *ended]
        self._unread = ended[len(written) - 1 :]

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
