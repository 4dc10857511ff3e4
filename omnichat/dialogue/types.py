"""Styles, turns, dialogues and references to audio, and what makes a dialogue fit to be learnt from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from omnichat.dialogue.faults import DataError, raise_together, shown

# The paper's style set (OmniChat, section 3 and Figs 11-13): the values its script prompts allow.
GENDERS = ("male", "female")
EMOTIONS = ("neutral", "happy", "angry", "sad", "surprised", "fearful", "disgusted")
SPEEDS = ("slow", "normal", "fast")
PITCHES = ("low", "normal", "high")

# In the order of the paper's generation prompts: (gender, emotion, speed, pitch).
STYLE_VALUES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "emotion": EMOTIONS,
    "speed": SPEEDS,
    "pitch": PITCHES,
}
STYLE_FIELDS = tuple(STYLE_VALUES)

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Style:
    """How a turn is spoken. `None` means unknown: no target, and never invented.

    Raises:
        DataError: `unknown_style` where a value is outside the paper's set; names the nearest allowed value.
    """

    gender: str | None = None
    emotion: str | None = None
    speed: str | None = None
    pitch: str | None = None

    def __post_init__(self) -> None:
        wrong = []
        for name, allowed in STYLE_VALUES.items():
            value = getattr(self, name)
            if value is None or value in allowed:
                continue
            close = get_close_matches(str(value).lower()[:100], allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            wrong.append(f"{name} {shown(value)} is not one of {', '.join(allowed)}{hint}")
        if wrong:
            raise DataError("unknown_style", "; ".join(wrong))

    def known(self) -> dict[str, str]:
        """The fields that are known, in the order of `STYLE_FIELDS`."""
        return {name: value for name in STYLE_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class AudioRef:
    """A stretch of an audio file, counted in samples at 16 kHz whatever the file's own rate.

    The length is known without decoding, so that audio slots can be counted before any audio is read.

    Attributes:
        path: the file, or the store's shard that holds the file's bytes.
        num_samples: of the stretch, at 16 kHz.
        start: of the stretch, at 16 kHz.
        channel: the one that is heard; None averages all. A telephone recording has a speaker on each.
        offset: where the audio file begins within `path`, in bytes.
        size: bytes of the audio file; 0 where `path` is the audio file itself.
        sha256: of the audio file's bytes, where it is known.
    """

    path: str
    num_samples: int
    start: int = 0
    channel: int | None = None
    offset: int = 0
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. A user turn is heard (`audio`), an assistant turn is read (`style` and `text`).

    `learn` says whether an assistant turn counts in the loss; one that does not is context for what follows. User turns
    never do. `meta` is what its corpus says of it beyond that (its own emotion label, when it was interrupted): used
    for splits and reports, never shown to the model.
    """

    role: Role
    text: str
    style: Style = Style()
    audio: AudioRef | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue that ends in an assistant turn to be learnt.

    `scene` is free metadata about what was recorded (scenario, sound, voice, script): used for
    splits and reports, never shown to the model. Dialogues of one `script` stay in one split; those of one `group`
    say the same and sound otherwise (see metrics/counterfactual.py).
    """

    id: str
    turns: tuple[Turn, ...]
    source: str = ""
    scene: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant answers. `style` is None where the model's text held no readable style."""

    style: Style | None
    text: str


def check_dialogue(dialogue: Dialogue) -> None:
    """Raise a `DataError` that names the turn if the dialogue cannot be trained on; what else is wrong is in tow.

    Several turns of one role in a row are allowed, and so is an assistant turn that opens the dialogue.

    Raises:
        DataError: `wrong_type`, `no_turns`, `unknown_role`, `empty_text`, `bad_encoding`, `no_assistant_turn`,
            `last_turn_not_assistant`, `no_target`, `last_turn_not_learnt` or `no_user_turn`.
    """
    where = f"dialogue {shown(dialogue.id)}"
    if not _are_texts(dialogue.id, dialogue.source, *dialogue.scene.values()):  # a list may hold anything
        found = shown([dialogue.id, dialogue.source, dict(dialogue.scene)])
        raise DataError("wrong_type", f"id, source and what scene holds must be texts, got {found}", where)
    if not dialogue.turns:
        raise DataError("no_turns", "has no turns", where)
    faults = [fault.at(f"{where}: turn {n}") for n, turn in enumerate(dialogue.turns) if (fault := _turn_fault(turn))]
    if "\0" in dialogue.id:
        faults.append(DataError("bad_encoding", "its id holds a NUL character; write the id again", where))
    roles = [turn.role for turn in dialogue.turns]
    if any(role not in ROLES for role in roles):
        pass  # who speaks last is not known
    elif "assistant" not in roles:
        message = "has no assistant turn, so nothing to learn; give one turn role 'assistant'"
        faults.append(DataError("no_assistant_turn", message, where))
    elif roles[-1] != "assistant":
        message = "must end in an assistant turn; drop the last user turn or swap roles"
        faults.append(DataError("last_turn_not_assistant", message, where))
    elif not dialogue.turns[-1].learn:
        faults.append(_last_turn_fault(dialogue).at(where))
    elif "user" not in roles:
        faults.append(DataError("no_user_turn", "has no user turn, so nothing to hear; add what was said", where))
    raise_together(faults)


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _last_turn_fault(dialogue: Dialogue) -> DataError:
    """Of a dialogue whose last turn is not to be learnt: what stands there would be computed for nothing."""
    learnt = [number for number, turn in enumerate(dialogue.turns) if turn.role == "assistant" and turn.learn]
    if not learnt:
        return DataError("no_target", "no assistant turn is learnt (learn is false in all); leave the dialogue out")
    message = f"the last turn is not learnt (learn is false); drop what follows turn {learnt[-1]}, the last that is"
    return DataError("last_turn_not_learnt", message)


def _turn_fault(turn: Turn) -> DataError | None:
    if not _are_texts(turn.text, *turn.meta.values()):
        found = shown([turn.text, dict(turn.meta)])
        return DataError("wrong_type", f"text and what meta holds must be texts, got {found}")
    if turn.role not in ROLES:
        return DataError("unknown_role", f"role {shown(turn.role)} is not one of {', '.join(ROLES)}")
    if not turn.text.strip() and (turn.role == "assistant" or turn.audio is None):
        needs = "words to be learnt" if turn.role == "assistant" else "audio or words"
        return DataError("empty_text", f"this {turn.role} turn needs {needs}; add them, or leave the turn out")
    if "\0" in turn.text:
        return DataError("bad_encoding", "its text holds a NUL character; write the text again")
    return None
