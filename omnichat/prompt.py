"""A dialogue as the token ids a language model sees, and the model's text as a reply.

Messages stand in the chat format of the language model's family (`omnichat.chat_format`).
A user message holds audio slots, one per query of each window, and/or the transcript; an assistant message is
`(gender, emotion, speed, pitch): words`, the order of the paper's generation prompts (Figs 11-13).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from omnichat.audio import SAMPLE_RATE, WINDOW, num_windows
from omnichat.chat_format import Taught, find_format
from omnichat.dialogue import STYLE_FIELDS, STYLE_VALUES, AudioRef, DataError, Dialogue, Reply, Style, Turn

Input = Literal["speech", "text", "speech+text"]
INPUTS: tuple[Input, ...] = ("speech", "text", "speech+text")
LossOn = Literal["all", "last"]
LOSS_ON: tuple[LossOn, ...] = ("all", "last")

IGNORE = -100  # torch.nn.functional.cross_entropy's default ignore_index
NO_TARGET, STYLE_TARGET, CONTENT_TARGET = 0, 1, 2
UNKNOWN = "unknown"

_REPLY = re.compile(r"\s*\(([^()]*)\)\s*:(.*)", re.DOTALL)
_COLOURS = {STYLE_TARGET: "\033[35m", CONTENT_TARGET: "\033[32m"}
_MARKS = {STYLE_TARGET: ("«", "»"), CONTENT_TARGET: ("⟦", "⟧")}


@dataclass(frozen=True, slots=True)
class Slot:
    """Token positions [start, start + length) that one user turn's audio fills."""

    start: int
    length: int
    audio: AudioRef


@dataclass(frozen=True, slots=True)
class Tokens:
    """A rendered dialogue of T tokens.

    Attributes:
        ids: (T,) int64.
        labels: (T,) int64; labels[t] is ids[t] where position t is a target, else -100 (the Hugging Face alignment:
            a target at t is predicted from the hidden state at t - 1).
        kinds: (T,) uint8; 0 no target, 1 a style target, 2 a content target (words and the end token).
        slots: the audio of the user turns, in order.
        style_fields: those of `STYLE_FIELDS` that are a target in some turn.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    slots: tuple[Slot, ...]
    style_fields: frozenset[str] = frozenset()

    @property
    def num_targets(self) -> int:
        """How many tokens count in the loss."""
        return int(np.count_nonzero(self.kinds))


class Allowed(NamedTuple):
    """What may come next in a reply.

    Attributes:
        ids: of the tokens, one at least.
        taught: whether the model could have learnt to choose one of them.
    """

    ids: frozenset[int]
    taught: bool


class Prompt:
    """Renders dialogues and parses replies. Text is tokenised piece by piece, so a label never depends on a neighbour.

    Args:
        tokenizer: the language model's own `tokenizer.json`; the prompt takes it over (no truncation, no padding,
            control tokens special).
        window: frames per window of the Mix-Former.
        queries: audio slots per window.
        input: what of a user turn the model gets.
        system: the text of the system message; none where empty.
        loss_on_first: whether an assistant turn before any user turn counts in the loss.
        max_tokens: longest dialogue allowed; None for any.
        loss_on: which assistant turns count in the loss, among those whose `learn` is not false.
        taught: what the model's folder says of its format; None leaves it to the tokenizer.

    Raises:
        ValueError: an option out of range, a tokenizer without the control tokens of a chat format, or a model that was
            not taught its own.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        window: int = WINDOW,
        queries: int = 1,
        input: Input = "speech",
        system: str = "",
        loss_on_first: bool = False,
        max_tokens: int | None = None,
        loss_on: LossOn = "all",
        taught: Taught | None = None,
    ) -> None:
        if window < 1 or queries < 1:
            raise ValueError(f"window and queries must be at least 1, got window={window}, queries={queries}")
        if input not in INPUTS:
            raise ValueError(f"input {input!r} is not one of {', '.join(INPUTS)}")
        if loss_on not in LOSS_ON:
            raise ValueError(f"loss_on {loss_on!r} is not one of {', '.join(LOSS_ON)}")
        self.tokenizer = tokenizer
        self.window, self.queries, self.input = window, queries, input
        self.system, self.loss_on_first, self.max_tokens = system, loss_on_first, max_tokens
        self.loss_on = loss_on
        tokenizer.no_truncation()  # a tokenizer.json may carry either; both would change dialogues silently
        tokenizer.no_padding()
        self._format = find_format(tokenizer.token_to_id, taught)
        self.family, self.begin = self._format.name, self._format.begin  # public: a scan depends on them
        audio = next(name for name in self._format.audio if tokenizer.token_to_id(name) is not None)
        found = {name: tokenizer.token_to_id(name) for name in (*self._format.control, audio)}
        self._special: dict[str, int] = {name: token for name, token in found.items() if token is not None}
        self._audio = self._special[audio]
        self._mark_special()
        if parsed := [name for name, token in self._special.items() if token in self.encode(name)]:
            raise ValueError(
                f"the tokenizer reads {', '.join(parsed)} in plain text as control tokens; "
                "mark them special in tokenizer.json, so that data cannot forge a turn"
            )
        self._fixed: dict[str, list[int]] = {}
        self._forms: dict[frozenset[str], list[tuple[list[list[int]], bool]]] = {}

    def _mark_special(self) -> None:
        """Data must not forge a turn: control tokens that are mere words, as where they were added late, are marked."""
        known = self.tokenizer.get_added_tokens_decoder()
        late = [name for name, token in self._special.items() if token not in known or not known[token].special]
        if late:
            self.tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in late])

    @property
    def stop_id(self) -> int:
        """The token that ends a turn."""
        return self._special[self._format.end]

    @property
    def between(self) -> list[int]:
        """What stands between a turn's last token and the next turn."""
        return self._piece(self._format.after_end) if self._format.after_end else []

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens spelled out in it stay text.

        Raises:
            DataError: `bad_encoding`.
        """
        self.tokenizer.encode_special_tokens = True  # set each time: the flag does not survive pickling
        try:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:  # what tokenizers says of half a surrogate pair, which JSON may spell
            raise DataError("bad_encoding", "text holds half a surrogate pair; write it as UTF-8 again") from None
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of generated token ids, without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def render(self, dialogue: Dialogue, generation: bool = False) -> Tokens:
        """The dialogue as tokens; with `generation` only up to the header of the assistant turn to be generated.

        In generation the last turn, if it is the assistant's, gives way to the reply; otherwise the reply follows it.
        The tokens are then a prefix of those for training.

        Raises:
            DataError: `no_audio`, `no_text`, `too_short` or `bad_encoding` with the turn; `too_long` with the length
                and the limit.
        """
        turns, last = dialogue.turns, len(dialogue.turns) - 1
        if generation and turns and turns[-1].role == "assistant":
            turns = turns[:-1]
        out = _Pieces()
        out.add([self._special[self._format.begin]] if self._format.begin else [])
        if self.system:
            out.add([*self._header("system"), *self.encode(self.system.strip()), self.stop_id, *self.between])
        heard = False
        for number, turn in enumerate(turns):
            heard = heard or turn.role == "user"
            learnt = turn.learn and (self.loss_on == "all" or number == last)
            try:
                self._add_turn(out, turn, target=learnt and (heard or self.loss_on_first))
            except DataError as error:
                raise error.at(f"dialogue {dialogue.id!r}: turn {number}") from None
        if generation:
            out.add(self._header("assistant"))
        if self.max_tokens is not None and len(out.ids) > self.max_tokens:
            message = (
                f"renders to {len(out.ids)} tokens, the limit is {self.max_tokens}; "
                "raise max_tokens, or set overlong=drop_oldest_turns or overlong=drop_dialogue"
            )
            raise DataError("too_long", message, f"dialogue {dialogue.id!r}")
        return out.tokens()

    def parse(self, text: str) -> Reply:
        """See `parse_reply`."""
        return parse_reply(text)

    def allowed(self, written: Sequence[int], taught: Collection[str]) -> "Allowed | None":
        """The tokens that may come next in a reply that keeps its form; None where any may: in its words, or once lost.

        Left to itself a model that was trained on a mixture writes what no parser reads: sources label different
        fields, and what is not labelled is no target, so all that it learnt of such a field comes from other dialogues.
        A field that no training data knows is written `unknown`, as it always was in training.

        Args:
            written: the reply so far.
            taught: the style fields that were targets in training.
        """
        rest = list(written)
        for pieces, is_taught in self._form(frozenset(taught)):
            done = next((piece for piece in pieces if rest[: len(piece)] == piece), None)
            if done is None:
                ids = frozenset(piece[len(rest)] for piece in pieces if piece[: len(rest)] == rest)
                return Allowed(ids, is_taught) if ids else None
            rest = rest[len(done) :]  # no style value begins another, so no other piece fits
        return None

    def show(self, tokens: Tokens, colour: bool = False) -> str:
        """The rendered dialogue for human eyes: «style targets», ⟦content targets⟧, [audio slots]."""
        slots = {slot.start: slot for slot in tokens.slots}
        shown, start = [], 0
        while start < len(tokens.ids):
            if start in slots:
                slot = slots[start]
                shown.append(f"[{slot.length} audio slots, {slot.audio.num_samples / SAMPLE_RATE:.2f} s]")
                start += slot.length
                continue
            kind, stop = int(tokens.kinds[start]), start + 1
            while stop < len(tokens.ids) and tokens.kinds[stop] == kind and stop not in slots:
                stop += 1
            text = self.tokenizer.decode(tokens.ids[start:stop].tolist(), skip_special_tokens=False)
            if kind != NO_TARGET:
                before, after = _MARKS[kind]
                text = f"{before}{text}{after}"
                text = f"{_COLOURS[kind]}{text}\033[0m" if colour else text
            shown.append(text)
            start = stop
        return "".join(shown)

    def _piece(self, text: str) -> list[int]:
        if text not in self._fixed:  # headers and style words come again in every dialogue
            self._fixed[text] = self.encode(text)
        return self._fixed[text]

    def _style_piece(self, number: int, value: str) -> list[int]:
        return self._piece((", " if number else "(") + value)

    def _form(self, taught: frozenset[str]) -> list[tuple[list[list[int]], bool]]:
        """What a reply's style is made of, in turn: the pieces of which one is written, and whether they are taught."""
        if taught not in self._forms:
            values = [(STYLE_VALUES[name], True) if name in taught else ((UNKNOWN,), False) for name in STYLE_FIELDS]
            fields = [([self._style_piece(n, value) for value in own], known) for n, (own, known) in enumerate(values)]
            self._forms[taught] = [*fields, ([self._piece("):")], True)]
        return self._forms[taught]

    def _header(self, role: str) -> list[int]:
        form = self._format
        end = [self._special[form.end_header]] if form.end_header else []
        return [self._special[form.header], *self._piece(role), *end, *self._piece(form.after_header)]

    def _add_turn(self, out: "_Pieces", turn: Turn, target: bool) -> None:
        out.add(self._header(turn.role))
        if turn.role == "user":
            self._add_user(out, turn)
        else:
            self._add_assistant(out, turn, target)

    def _add_user(self, out: "_Pieces", turn: Turn) -> None:
        text = turn.text.strip()
        if self.input == "speech" and turn.audio is None:
            raise DataError("no_audio", "has no audio to hear; give it audio, or use input=text or input=speech+text")
        if self.input == "text" and not text:
            raise DataError("no_text", "has no transcript to read; give it text, or use input=speech")
        if self.input != "text" and turn.audio is not None:
            length = num_windows(turn.audio.num_samples, self.window) * self.queries
            out.slots.append(Slot(len(out.ids), length, turn.audio))
            out.add([self._audio] * length)
        if self.input != "speech" and text:
            between = self._piece("\n") if self.input == "speech+text" and turn.audio is not None else []
            out.add(between + self.encode(text))
        out.add([self.stop_id, *self.between])

    def _add_assistant(self, out: "_Pieces", turn: Turn, target: bool) -> None:
        known = turn.style.known()
        for number, name in enumerate(STYLE_FIELDS):
            taught = target and name in known
            out.add(self._style_piece(number, known.get(name, UNKNOWN)), STYLE_TARGET if taught else NO_TARGET)
            out.style_fields |= {name} if taught else set()
        out.add([*self.encode(f"): {turn.text.strip()}"), self.stop_id], CONTENT_TARGET if target else NO_TARGET)
        out.add(self.between)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json.

    Raises:
        DataError: `bad_tokenizer`.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing else
        message = f"cannot be read as a tokenizer ({error}); copy the model's folder again"
        raise DataError("bad_tokenizer", message, str(path)) from None


def parse_reply(text: str) -> Reply:
    """The generated text as a reply; style None and the text as it came where no style can be read.

    Exactly four fields with allowed values are a style; `unknown` gives None in its field. Nothing is guessed.
    """
    match = _REPLY.match(text)
    values = [value.strip().lower() for value in match[1].split(",")] if match else []
    if match is None or len(values) != len(STYLE_FIELDS):
        return Reply(None, text)
    fields = dict(zip(STYLE_FIELDS, values, strict=True))
    try:
        style = Style(**{name: None if value == UNKNOWN else value for name, value in fields.items()})
    except DataError:
        return Reply(None, text)
    return Reply(style, match[2].strip())


def styled(style: Style, text: str) -> str:
    """An assistant turn in words, as models read and write it: what `parse_reply` reads."""
    known = style.known()
    return f"({', '.join(known.get(name, UNKNOWN) for name in STYLE_FIELDS)}): {text.strip()}"


class _Pieces:
    """Tokens being put together."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.slots: list[Slot] = []
        self.style_fields: set[str] = set()

    def add(self, ids: list[int], kind: int = NO_TARGET) -> None:
        self.ids += ids
        self.kinds += [kind] * len(ids)

    def tokens(self) -> Tokens:
        ids, kinds = np.array(self.ids, dtype=np.int64), np.array(self.kinds, dtype=np.uint8)
        labels = np.where(kinds == NO_TARGET, IGNORE, ids)
        return Tokens(ids, labels, kinds, tuple(self.slots), frozenset(self.style_fields))
