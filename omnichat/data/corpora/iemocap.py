"""IEMOCAP: acted dyadic sessions with emotions.

IEMOCAP_full_release/Session{1..5}/ (README of the release; speechbrain recipes/IEMOCAP; EmotionTalk's toolkit):
    dialog/EmoEvaluation/<dialogue>.txt     lines "[6.2901 - 8.2357]\\tSes01F_impro01_F000\\tneu\\t[2.5, 2.5, 2.5]"
    dialog/transcriptions/<dialogue>.txt    lines "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me."
    sentences/wav/<dialogue>/<turn>.wav     16 kHz

A turn's name ends in the speaker, F or M, and a number. Turns are ordered by when they begin; the two may overlap, and
times stay in `meta`. Turns without an emotion have no target; turns that were not cut out (no WAV) have words only.
Lines of the transcription that name no turn are counted in `scene["unnamed_lines"]`. Marks such as "[LAUGHTER]" stay in
the words: some turns consist of nothing else.

Each session has two actors of its own: the session is what a split must not divide. The usual way is to leave one
session out: `--test-session 5` tests on the fifth and trains on the others; without it one session is drawn for test,
one for val. All sessions play the same scripts, so that words of the scripted ones are known from training in any case.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from omnichat.audio import audio_ref
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, checked, read_one, said
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "iemocap"
SESSIONS = (1, 2, 3, 4, 5)
_GENDERS = {"F": "female", "M": "male"}
_TURN = re.compile(r"(Ses\d\d[FM]_\w+_([FM])\w*\d+)\s*\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\s*:\s*(.*)")
_EMOTION = re.compile(r"\[[^\]]*\]\s+(\w+)\s+(\w+)\s+\[.*\]")


def parts(source: Path, test_session: int | None = None) -> list[Part]:
    """One for each dialogue.

    Args:
        source: the release.
        test_session: goes to test, the others to train; None: the corpus has no split of its own.

    Raises:
        DataError: `no_file` where there are none.
    """
    listed = []
    for path in sorted(source.rglob("Session[1-5]/dialog/transcriptions/*.txt")):
        if path.name.startswith("."):  # "._Ses01F_impro01.txt": what macOS leaves in archives
            continue
        session = path.parents[2]
        split = None if test_session is None else ("test" if session.name == f"Session{test_session}" else "train")
        emotions = session / "dialog" / "EmoEvaluation" / path.name
        listed.append(Part(path.relative_to(source).as_posix(), (path, emotions), split))
    if not listed:
        message = "holds no Session<n>/dialog/transcriptions/*.txt; expected is IEMOCAP_full_release"
        raise DataError("no_file", message, str(source))
    return listed


def leave_out(session: int) -> Corpus:
    """The corpus with one session for test and the others for training."""
    return replace(CORPUS, parts=partial(parts, test_session=session))


def read(part: Part, choices: Choices) -> Reading:
    """One dialogue."""
    path, emotions = part.files
    return read_one(path, lambda: _dialogue(path, emotions, part.content, choices))


def _dialogue(path: Path, evaluation: Path, split: str | None, choices: Choices) -> Dialogue:
    if not evaluation.is_file():
        raise DataError("no_file", f"has no {evaluation.name} in dialog/EmoEvaluation; fetch it again")
    found, unnamed = _matches(path, _TURN, "Ses")
    found.sort(key=lambda match: (float(match[3]), match[1]))
    emotions = {match[1]: match[2] for match in _matches(evaluation, _EMOTION, "[")[0]}
    session = path.parents[2]
    folder = session / "sentences" / "wav" / path.stem
    turns = [_turn(match, emotions.get(match[1]), folder, choices) for match in found]
    scene = {"scenario": "emotion", "session": session.name, "script": path.stem.split("_", 1)[1]}
    scene |= {"split": split} if split is not None else {}
    scene |= {"unnamed_lines": str(unnamed)} if unnamed else {}
    return checked(path.stem, assign_roles(turns, [match[2] for match in found], choices.roles), NAME, scene)


def _matches(path: Path, form: re.Pattern[str], start: str) -> tuple[list[re.Match[str]], int]:
    """The lines of a list, all of which begin with `start`, and how many others there are."""
    # ASCII but for single characters in some evaluators' remarks, in Latin-1; none of these is kept.
    lines = [line.strip() for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]
    matches = []
    for line in lines:
        if (match := form.fullmatch(line)) is not None:
            matches.append(match)
        elif line.startswith(start):
            raise DataError("bad_layout", f"{path.name}: a line cannot be read: {line[:80]!r}; fetch it again")
    return matches, len(lines) - len(matches)


def _turn(match: re.Match[str], emotion: str | None, folder: Path, choices: Choices) -> Turn:
    wav = folder / f"{match[1]}.wav"
    style = Style(_GENDERS[match[2]], choices.emotion(emotion) if emotion is not None else None)
    meta = {"emotion": emotion, "turn": match[1], "start": match[3], "stop": match[4]}
    return said(match[5].strip(), audio_ref(wav) if wav.is_file() else None, style, meta)


def _session(dialogue: Dialogue) -> str:
    return dialogue.scene["session"]


CORPUS = Corpus(
    name=NAME,
    licence="by a signed release form, for research",
    source="sail.usc.edu/iemocap",
    parts=parts,
    read=read,
    labels=NAME,
    group=_session,
)
