"""Two-track dialogues in two voices (tones), and a quick run of `task: events` on them."""

from pathlib import Path

import numpy as np
import soundfile

from omnichat.config import RunConfig, load_config
from omnichat.data.corpora.interactspeech import RATE
from omnichat.data.store import write_store
from omnichat.dialogue import AudioRef, Dialogue, Turn

TIMES = (
    *(("user", 0, 2.5), ("assistant", 3, 5), ("user", 4.6, 7.5), ("assistant", 6, 6.4)),
    *(("assistant", 8, 9), ("assistant", 9.4, 11)),
)


def write_two_tracks(folder: Path) -> Path:
    """A store of eight dialogues: an answer, an interruption, a backchannel, a turn resumed, in each."""
    random = np.random.default_rng(0)
    dialogues = []
    for number in range(8):
        turns = []
        for place, (role, start, stop) in enumerate(TIMES):
            shift = 0.1 * float(random.random())
            path, length = folder / f"{number}-{place}.wav", round((stop - start) * 16_000)
            tone = np.sin(np.arange(length) * (0.08 if role == "user" else 0.3))
            soundfile.write(path, 0.3 * tone + 0.01 * random.normal(size=length), 16_000)
            meta = {"start": str(round((start + shift) * RATE)), "stop": str(round((stop + shift) * RATE))}
            turns.append(Turn(role, "words", audio=AudioRef(str(path), length), meta=meta))  # type: ignore[arg-type]
        dialogues.append(Dialogue(f"d{number}", tuple(turns)))
    write_store(folder, {"all": dialogues}, "x", "", "")
    return folder / "all.jsonl"


def events_config(store: Path, *more: str) -> RunConfig:
    """The recipe on random experts, on this store; two micro-batches a step, no validation."""
    data = [f"data.synthetic={store}", f"data.val.val={store}", f"data.test.test={store}"]
    trainer = ["dialogues_per_step=8", "micro_batch=4", "warmup_steps=2", "validate_every=0"]
    settings = ["model=random", *(f"trainer.{setting}" for setting in trainer), "evaluation.bootstrap=20"]
    return load_config("recipe=interact_events", *settings, *data, *more)
