"""Expresso: improvised dialogues in 26 styles, and read sentences (facebookresearch/textlesslib@ba33d66).

The layout is that of its examples/expresso:

    VAD_segments.txt                      "<file>/channel<1 or 2>\\t(start, stop) (start, stop) ...", in seconds
    audio_48khz/conversational/<speaker>-<speaker>/<style>[-<style>]/<pair>_<styles>_<id>.wav
    audio_48khz/read/<speaker>/<style>/{base,longform}/*.wav                                    mono

A dialogue's first speaker and style belong to channel 1, the second ones to channel 2; one style is both speakers'.

**The release has no words for the dialogues**, and an answer without words cannot be learnt: as released, each dialogue
is rejected (`no_transcript`). Who has them transcribed puts `conversational_transcriptions.txt` beside
VAD_segments.txt, a line for each segment: "<file>/channel<k>\\t(start, stop)\\t<words>". Then each segment is a turn,
in the order of when they begin, heard in its own channel; one without words can be the user's only. The words are not
the corpus's, and `meta` says so. Read sentences have words, but nobody answers them: they are rejected (`no_answer`),
one for each folder.

The styles are kept; where one is a feeling it is the emotion, and "fast" is the speed.
"""

import re
from pathlib import Path

from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, checked, find_layout, said
from omnichat.data.corpora.recordings import stretch
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "expresso"
SEGMENTS, WORDS = "VAD_segments.txt", "conversational_transcriptions.txt"
_SEGMENT = re.compile(r"\(([\d.]+), ?([\d.]+)\)")


def parts(source: Path) -> list[Part]:
    """One for each dialogue, with its segments, and one for each folder of read sentences.

    Raises:
        DataError: `no_file` where there are none.
    """
    top = find_layout(source, SEGMENTS, f"{SEGMENTS} beside audio_48khz (expresso.tar)")
    segments = _lists(top / SEGMENTS)
    words = _lists(top / WORDS) if (top / WORDS).is_file() else {}
    files = (top / SEGMENTS, *([top / WORDS] if words else []))
    listed = []
    for path in sorted(top.glob("audio_48khz/conversational/*/*/*.wav")):
        channels = [f"{path.stem}/channel{channel}" for channel in (1, 2)]
        content = (path, [segments.get(name, []) for name in channels], [words.get(name, []) for name in channels])
        listed.append(Part(path.relative_to(top).as_posix(), files, content))
    for folder in sorted(path for path in top.glob("audio_48khz/read/*/*/*") if path.is_dir()):
        listed.append(Part(folder.relative_to(top).as_posix(), (), folder))
    if not listed:
        raise DataError("no_file", "holds no audio_48khz/conversational or audio_48khz/read", str(top))
    return listed


def _lists(path: Path) -> dict[str, list[str]]:
    """What follows each name in a list, line by line."""
    lists: dict[str, list[str]] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("bad_encoding", f"is not UTF-8 ({error}); write it again", str(path)) from None
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition("\t")
            lists.setdefault(name, []).append(rest)
    return lists


def read(part: Part, choices: Choices) -> Reading:
    """One dialogue, or why a folder of read sentences is none."""
    reading = Reading()
    place = part.content if isinstance(part.content, Path) else part.content[0]
    with reading.rejecting(place):
        if isinstance(part.content, Path):
            count = sum(1 for _ in part.content.glob("*.wav"))
            message = f"{count} sentences read by one speaker: nobody answers, so there is no dialogue to learn"
            raise DataError("no_answer", message)
        reading.dialogues.append(_dialogue(part.content, choices))
    return reading


def _dialogue(content: tuple[Path, list[list[str]], list[list[str]]], choices: Choices) -> Dialogue:
    path, segments, words = content
    if not any(words):
        message = f"has no words in {WORDS}; the release has none for dialogues: transcribe its segments first"
        raise DataError("no_transcript", message)
    pair, styles, _ = path.stem.split("_")
    of_channel = [names * 2 if len(names) == 1 else names for names in (pair.split("-"), styles.split("-"))]
    spoken = []
    for channel in (0, 1):
        texts = {_times(line.partition("\t")[0]): line.partition("\t")[2] for line in words[channel]}
        times = [_times(shown) for line in segments[channel] for shown in re.findall(r"\([^)]*\)", line)]
        if unknown := sorted(set(texts) - set(times)):
            message = f"channel {channel + 1} has words for {unknown[0]} s, which is no segment of {SEGMENTS}"
            raise DataError("segment_mismatch", message)
        spoken += [(*time, channel, texts.get(time, "")) for time in times]
    turns = [_turn(path, *one, of_channel[1][one[2]], choices) for one in sorted(spoken)]
    speakers = [of_channel[0][channel] for _, _, channel, _ in sorted(spoken)]
    scene = {"scenario": "style", "script": pair, "styles": styles}
    return checked(path.stem, assign_roles(turns, speakers, choices.roles), NAME, scene)


def _times(shown: str) -> tuple[float, float]:
    if (match := _SEGMENT.fullmatch(shown.strip())) is None:
        raise DataError("bad_layout", f"{shown!r} is not (start, stop) in seconds")
    return float(match[1]), float(match[2])


def _turn(path: Path, start: float, stop: float, channel: int, words: str, style: str, choices: Choices) -> Turn:
    meta = {"emotion": style, "start": str(start), "stop": str(stop), "text": "not the corpus's own"}
    sound = Style(emotion=choices.emotion(style), speed="fast" if style == "fast" else None)
    return said(words.strip(), stretch(path, start, stop, channel), sound, meta)


CORPUS = Corpus(
    name=NAME,
    licence="CC BY-NC 4.0",
    source="facebookresearch/textlesslib, examples/expresso (expresso.tar)",
    parts=parts,
    read=read,
    labels=NAME,
)
