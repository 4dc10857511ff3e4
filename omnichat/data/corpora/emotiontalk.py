"""EmotionTalk: acted Chinese dialogues with emotions (NKU-HLT/EmotionTalk@6ff3022, dataset/mm-process).

transcription.csv (name, emotion, chinese) holds every utterance, mm.csv (file_name, emotion) the emotion that was both
heard and seen, audio.csv that of the sound alone. Names are G00009/G00009_42/G00009_42_14/G00009_42_14_024: pair of
actors, conversation, speaker, number. A conversation's numbers run on over its two speakers' folders, so that their
order is that of the numbers (in the whole lists, 742 conversations, no number comes twice; some are missing).

The emotion is audio.csv's where it is there, else mm.csv's, else the transcription's own, which was told from the
words. The labels that come as pickles (*_label.npz) are not read. They also hold the corpus's split, which is one by
pairs of actors and stands below: nobody of the training is heard in val or test, while two actors are heard in both of
these. Words are given without their marks, "[over/]...[/over]" (both speak), "[interrupted]", "[laughing]"; `meta`
keeps the text as it was. Turns are heard where a WAV of the utterance's name lies anywhere in the corpus's folder (the
release's own places were not at hand); without any they have words only.
"""

import re
from pathlib import Path
from typing import Any

from omnichat.audio import audio_ref
from omnichat.data.corpora.lists import read_csv
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, checked, read_one, said
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "emotiontalk"
WORDS = "transcription.csv"
_LABELS = ("audio.csv", "mm.csv")  # the first that is there is taken
_UTTERANCE = re.compile(r"((G\d+)_\d+)_(\d+)_(\d+)")
_SPLITS = {"G00001": "val", "G00012": "val", "G00003": "test", "G00015": "test"}  # the 11 others: train
_MARK = re.compile(r"\[/?(over|interrupted|laughing)/?\]")


def parts(source: Path) -> list[Part]:
    """One for each conversation.

    Raises:
        DataError: `no_file`, or what is wrong with a list (`missing_column`, `bad_encoding`, `bad_layout`).
    """
    if not (found := sorted(source.rglob(WORDS))):
        raise DataError("no_file", f"holds no {WORDS}; expected is dataset/mm-process of the repository", str(source))
    folder = found[0].parent
    labels = next((folder / name for name in _LABELS if (folder / name).exists()), folder / WORDS)
    emotions = {}
    if labels.name != WORDS:
        rows = read_csv(labels, ("file_name", "emotion"))
        emotions = {_stem(row["file_name"]): row["emotion"] for row in rows if "emotion" in row}  # not cut short
    wavs = {path.stem: path for path in sorted(source.rglob("G*_*_*_*.wav"))}
    conversations: dict[str, list[dict[str, Any]]] = {}
    for row in read_csv(folder / WORDS, ("name", "emotion", "chinese")):
        name = _stem(row.get("name", ""))
        emotion = row.get("emotion") if labels.name == WORDS else emotions.get(name)
        utterance = {"name": name, "text": row.get("chinese"), "emotion": emotion, "wav": wavs.get(name)}
        conversations.setdefault(name.rsplit("_", 2)[0], []).append(utterance)
    files = tuple(dict.fromkeys((folder / WORDS, labels)))
    return [Part(name, files, (labels.stem, bool(wavs), spoken)) for name, spoken in conversations.items()]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".mp4").removesuffix(".wav")


def read(part: Part, choices: Choices) -> Reading:
    """One conversation."""
    return read_one(f"{part.files[0]}: conversation {part.key!r}", lambda: _dialogue(part, choices))


def _dialogue(part: Part, choices: Choices) -> Dialogue:
    label, heard, utterances = part.content
    named = {}
    for utterance in utterances:
        if (match := _UTTERANCE.fullmatch(utterance["name"])) is None:
            message = f"an utterance is called G<pair>_<conversation>_<speaker>_<number>, not {utterance['name']!r}"
            raise DataError("bad_layout", message)
        if int(match[4]) in named:
            raise DataError("segment_mismatch", f"two utterances have the number {match[4]}; fetch the list again")
        named[int(match[4])] = (match, utterance)
    ordered = [named[number] for number in sorted(named)]
    turns = [_turn(utterance, match[3], heard, choices) for match, utterance in ordered]
    speakers = [match[3] for match, _ in ordered]
    pair = ordered[0][0][2]
    scene = {"scenario": "emotion", "script": pair, "split": _SPLITS.get(pair, "train"), "labels": label}
    return checked(part.key, assign_roles(turns, speakers, choices.roles), NAME, scene)


def _turn(utterance: dict[str, Any], speaker: str, heard: bool, choices: Choices) -> Turn:
    if utterance["emotion"] is None:
        raise DataError("no_emotion", f"{utterance['name']} has no emotion in the list; fetch it again")
    if heard and utterance["wav"] is None:
        raise DataError("no_file", f"{utterance['name']}.wav is missing, while others are there; fetch it again")
    text = utterance["text"].strip()
    audio = audio_ref(utterance["wav"]) if heard else None
    meta = {"emotion": utterance["emotion"], "speaker": speaker, "marked": text if _MARK.search(text) else None}
    return said(_MARK.sub("", text).strip(), audio, Style(emotion=choices.emotion(utterance["emotion"])), meta)


CORPUS = Corpus(
    name=NAME,
    licence="none stated; for academic purposes",
    source="NKU-HLT/EmotionTalk (lists); Kaggle (recordings)",
    parts=parts,
    read=read,
    labels=NAME,
)
