"""What all readers share: what a corpus is, what was read of it, and the question who is the assistant."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from omnichat.audio import audio_ref
from omnichat.data.corpora.emotions import EmotionMap
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn, check_dialogue

RolePolicy = Literal["last_speaker", "second_speaker"]
ROLE_POLICIES: tuple[RolePolicy, ...] = ("last_speaker", "second_speaker")
SPLITS = ("train", "val", "test")
_UNKNOWN = Style()
NO_AUDIO = {"audio": "none"}  # the `meta` of a turn that has words only: it says so, and nobody need wonder


@dataclass(frozen=True, slots=True)
class Part:
    """What can be read by itself: a conversation's folder, a stretch of a table.

    Attributes:
        key: unique within the corpus.
        files: the lists it is read from; where one has changed, it is read again. Recordings need not be named.
        content: what the reader wants to know; it is sent to another process.
    """

    key: str
    files: tuple[Path, ...] = ()
    content: Any = None


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A corpus's row of OmniChat's Table 1; None where it gives none."""

    dialogues: int | None = None
    turns: int | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user decides: who is the assistant, and what the corpus's emotions become (None: it has no labels)."""

    roles: RolePolicy = "last_speaker"
    emotions: EmotionMap | None = None

    def emotion(self, label: str) -> str | None:
        """One of `omnichat.dialogue.EMOTIONS`, or None for no target.

        Raises:
            DataError: `unknown_emotion`.
        """
        assert self.emotions is not None, "a corpus with emotions names its table: Corpus(labels=...)"
        return self.emotions[label]


@dataclass
class Reading:
    """A part of a corpus as it was read.

    Attributes:
        dialogues: the usable ones. Their audio points into the corpus as it was downloaded; a turn's own emotion label
            stands in `meta["emotion"]`, and is what the tables count.
        rejects: why the others are not, each with its place.
    """

    dialogues: list[Dialogue] = field(default_factory=list)
    rejects: list[DataError] = field(default_factory=list)

    @contextmanager
    def rejecting(self, place: Path | str) -> Iterator[None]:
        """Turn whatever is wrong with one file or line into a reject that names it: it must not stop a corpus."""
        try:
            yield
        except DataError as error:
            self.rejects.append(error.at(str(place)))
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            message = f"is not laid out as expected ({type(error).__name__}: {error}); fetch it again"
            self.rejects.append(DataError("bad_layout", message, str(place)))
        except OSError as error:
            self.rejects.append(DataError("no_file", f"cannot be read ({error}); fetch it again", str(place)))


def read_one(place: Path | str, dialogue: Callable[[], Dialogue]) -> Reading:
    """A part that is one dialogue: the dialogue, or why it is none."""
    reading = Reading()
    with reading.rejecting(place):
        reading.dialogues.append(dialogue())
    return reading


def dialogue_folders(source: Path, name: str, layout: str) -> list[Part]:
    """The parts of a corpus with a folder for each dialogue: one for each file of this name.

    Raises:
        DataError: `no_file` where there is none, saying which layout was expected.
    """
    paths = sorted(source.rglob(name))
    if not paths:
        raise DataError("no_file", f"holds no dialogue; expected is {layout}", str(source))
    return [Part(path.parent.relative_to(source).as_posix(), (path,)) for path in paths]


def read_folder(part: Part, choices: Choices, dialogue: Callable[[Path, Choices], Dialogue]) -> Reading:
    """A part of `dialogue_folders`."""
    (path,) = part.files
    return read_one(path, lambda: dialogue(path, choices))


def group_of_script(dialogue: Dialogue) -> str:
    """What must not be spread over train, val and test: `scene["script"]`, or the dialogue itself."""
    return dialogue.scene.get("script", dialogue.id)


@dataclass(frozen=True)
class Corpus:
    """A corpus and how it is read. Its functions belong to modules, so that they can be sent to other processes.

    Attributes:
        name: the `source` of its dialogues.
        licence: as its owners state it.
        source: where it is had.
        parts: lists what can be read independently, quickly and always in the same order; raises `DataError` `no_file`
            that names the layout it expected.
        read: one part. Bad content is rejected with its place, never raised.
        labels: its table in emotions.json; None where it has no emotions.
        paper: its row of OmniChat's Table 1.
        group: the script, speaker or dialogue that must not be spread over several splits. A corpus that ships splits
            says so in `scene["split"]` (one of `SPLITS`), and is obeyed.
    """

    name: str
    licence: str
    source: str
    parts: Callable[[Path], list[Part]]
    read: Callable[[Part, Choices], Reading]
    labels: str | None = None
    paper: PaperRow | None = None
    group: Callable[[Dialogue], str] = group_of_script


def read_all(corpus: Corpus, source: Path | str, choices: Choices) -> Reading:
    """All parts of a corpus, one after the other."""
    reading = Reading()
    for part in corpus.parts(Path(source)):
        one = corpus.read(part, choices)
        reading.dialogues += one.dialogues
        reading.rejects += one.rejects
    return reading


def find_layout(source: Path, name: str, layout: str) -> Path:
    """The folder that holds `name`: the source itself, or up to two folders down, as archives have them around all.

    Raises:
        DataError: `no_file`, saying which layout was expected.
    """
    for depth in ("", "*/", "*/*/"):
        for path in sorted(source.glob(depth + name)):
            return path.parent
    raise DataError("no_file", f"holds no {name}; expected is {layout}", str(source))


def audio_below(folder: Path, name: str) -> AudioRef:
    """A whole recording that a list names by its path below a folder.

    Raises:
        DataError: `path_outside_root` where the path leaves the folder, before it is opened; see `load_audio`.
    """
    if not name or name.startswith("/") or "\0" in name or ".." in Path(name).parts:
        raise DataError("path_outside_root", f"audio path {name!r} does not lie below {folder}; correct the list")
    return audio_ref(folder / name)


def assign_roles(turns: Sequence[Turn], speakers: Sequence[str], policy: RolePolicy) -> tuple[Turn, ...]:
    """Turns with the assistant's role given to one speaker, ending in a turn of theirs.

    Args:
        turns: as read; their roles are overwritten.
        speakers: of each turn.
        policy: `last_speaker` keeps every turn; `second_speaker` lets the one who answers first be the assistant and
            drops what the user says after the assistant's last turn.

    Raises:
        DataError: `not_two_speakers`.
    """
    order = list(dict.fromkeys(speakers))
    if len(order) != 2:
        raise DataError("not_two_speakers", f"has {len(order)} speakers ({', '.join(order)}); a dialogue needs two")
    return give_roles(turns, speakers, speakers[-1] if policy == "last_speaker" else order[1])


def give_roles(turns: Sequence[Turn], speakers: Sequence[str], assistant: str) -> tuple[Turn, ...]:
    """Turns up to the last one of `assistant`, whose role is the assistant's; everyone else's is the user's.

    Utterances of one speaker in a row stay turns of their own, each with its audio and style: the prompt takes several
    turns of one role, while joined ones would need joined audio, which a reference cannot name.

    Raises:
        DataError: `no_assistant_turn`.
    """
    if assistant not in speakers:
        raise DataError("no_assistant_turn", f"{assistant}, who would be the assistant, says nothing")
    return with_roles(turns, ["assistant" if speaker == assistant else "user" for speaker in speakers])


def with_roles(turns: Sequence[Turn], roles: Sequence[str]) -> tuple[Turn, ...]:
    """Turns with these roles, up to the last one of the assistant that is to be learnt: nothing is learnt behind it."""
    answers = [number for number, role in enumerate(roles) if role == "assistant"]
    last = max([number for number in answers if turns[number].learn] or answers, default=len(roles) - 1)
    return tuple(
        replace(turn, role=role, learn=turn.learn or role == "user")  # type: ignore[arg-type]
        for turn, role in zip(turns[: last + 1], roles, strict=False)
    )


def said(
    text: str, audio: AudioRef | None = None, style: Style = _UNKNOWN, meta: Mapping[str, str | None] | None = None
) -> Turn:
    """A turn whose role is still to be given. Empty notes are left out; without audio its `meta` says so."""
    notes = {name: value for name, value in (meta or {}).items() if value}
    return Turn("user", text, style, audio, notes if audio is not None else NO_AUDIO | notes)


def checked(name: str, turns: tuple[Turn, ...], corpus: str, scene: Mapping[str, str]) -> Dialogue:
    """The dialogue of these turns.

    Raises:
        DataError: see `check_dialogue`.
    """
    dialogue = Dialogue(name, turns, corpus, scene)
    check_dialogue(dialogue)
    return dialogue
