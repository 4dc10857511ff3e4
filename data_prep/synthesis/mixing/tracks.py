"""Dialogues of a store whose turns overlap as two tracks in InteractSpeech's shape: a folder for each dialogue.

`information.json` and a mono track for each speaker, both as long as the conversation
(interactspeech/interactspeech.github.io@85c5534); `python -m data_prep.interactspeech` reads them. Every turn must be
spoken: make the store with speak_assistant=true.

example:
  python -m data_prep.synthesis.mixing.tracks data/interact/store data/interact/tracks
"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from data_prep.arguments import command_line
from omnichat.audio import SAMPLE_RATE, load_audio
from omnichat.data.corpora.interactspeech import INTERRUPT, RATE
from omnichat.data.info import read_info
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue, Turn
from omnichat.secrets import mask_output


def write_two_tracks(dialogue: Dialogue, folder: Path) -> Path:
    """Write a dialogue as two tracks; the folder it is in, named by its id.

    Samples and times are exact: the tracks stay at 16 kHz, and times in samples at 22,050 Hz, as the corpus has them,
    are finer than that.

    Raises:
        DataError: `no_audio` where a turn is not spoken, `no_times` where its start is not known.
    """
    for number, turn in enumerate(dialogue.turns):
        where = f"dialogue {dialogue.id!r}: turn {number}"
        if turn.audio is None:
            raise DataError("no_audio", "is not spoken; make the store with speak_assistant=true", where)
        if "start" not in turn.meta:
            raise DataError("no_times", "has no start; only the recipe `interact` writes turns that overlap", where)
    waves = [load_audio(turn.audio) for turn in dialogue.turns if turn.audio is not None]
    begins = [round(float(turn.meta["start"]) * SAMPLE_RATE) for turn in dialogue.turns]
    length = max(begin + len(wave) for begin, wave in zip(begins, waves, strict=True))
    first = dialogue.turns[0].role
    speakers = ["A" if turn.role == first else "B" for turn in dialogue.turns]
    tracks = {"A": np.zeros(length, np.float32), "B": np.zeros(length, np.float32)}
    times: dict[str, list[list[int]]] = {"A": [], "B": []}
    for speaker, wave, begin in zip(speakers, waves, begins, strict=True):
        tracks[speaker][begin : begin + len(wave)] += wave
        times[speaker].append([_at_track_rate(begin), _at_track_rate(begin + len(wave))])
    out = folder / dialogue.id
    out.mkdir(parents=True, exist_ok=True)
    for speaker, track in tracks.items():
        pcm = np.round(np.clip(track, -1, 1) * 32767).astype(np.int16)
        soundfile.write(out / f"dialogue_speaker{speaker.lower()}.wav", pcm, SAMPLE_RATE, subtype="PCM_16")
    lines = [f"{speaker}: {_marked(turn)}" for speaker, turn in zip(speakers, dialogue.turns, strict=True)]
    record = {
        "original_dialog_id": dialogue.id,
        "processed_dialogue": "\n".join(lines),
        "speakerA_time": times["A"],
        "speakerB_time": times["B"],
    }
    (out / "information.json").write_text(json.dumps(record, ensure_ascii=False, indent=4) + "\n", encoding="utf-8")
    return out


def write_store(store: Path, out: Path) -> dict[str, int]:
    """Write all dialogues of a store, each split in a folder of its own; how many of each.

    Raises:
        DataError: see `write_two_tracks`; what is wrong with the store.
    """
    from rich.console import Console
    from rich.progress import track

    counts: dict[str, int] = {}
    console = Console(stderr=True)
    for split in read_info(store).splits:
        dialogues = Store(store / split)
        rows = track(range(len(dialogues)), f"writing {split}", console=console, disable=not console.is_terminal)
        for row in rows:
            write_two_tracks(dialogues[row], out / split)
        counts[split] = len(dialogues)
    return counts


def main() -> int:
    """`python -m data_prep.synthesis.mixing.tracks STORE OUT`: 0 done, 1 failed, 2 wrong usage."""
    mask_output()
    parser = command_line("data_prep.synthesis.mixing.tracks", __doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="store of the recipe `interact`")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    arguments = parser.parse_args()
    try:
        counts = write_store(arguments.store, arguments.out)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{split}: {count} dialogues" for split, count in counts.items()))
    return 0


def _marked(turn: Turn) -> str:
    """The words with the mark of InteractSpeech between those that were said and those that were only planned."""
    if "planned" not in turn.meta:
        return turn.text
    return f"{turn.text} {INTERRUPT} {turn.meta['planned']}".strip()


def _at_track_rate(sample: int) -> int:
    return round(sample * RATE / SAMPLE_RATE)


if __name__ == "__main__":
    sys.exit(main())
