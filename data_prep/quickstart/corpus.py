"""Scenes, audio files and the store.

A script is branched into all seven emotions, as ShareChatX branches a script into three styles: same history (same
audio files), same current words, same voice; only how they are spoken differs, and with it the reply. So every split
is balanced over emotions, and words, history and voice say nothing about the emotion by construction. Sounds are drawn
per branch and stand in the current turn alone: a history already noisy would have been remarked on.
"""

import hashlib
import json
import queue
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from data_prep.quickstart.scripts import NEUTRAL, Script, combinations, make_scripts, reply
from data_prep.quickstart.sounds import SOUNDS, render
from data_prep.synthesis.backends import embedded
from data_prep.synthesis.backends.embedded.engine import Engine, speak
from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.embedded.flite import Flite
from data_prep.synthesis.backends.embedded.prosody import LEVEL, PEAK
from data_prep.synthesis.contracts import Voice
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import EMOTIONS, GENDERS, AudioRef, Dialogue, Style, Turn, write_dialogues

ENGINES: dict[str, type[Engine]] = {"espeak": Espeak, "flite": Flite}
SCENARIOS = ("emotion", *SOUNDS)
PLACEMENTS = ("before", "under")
# Levels against neutral speech in dB, +-2 drawn per clip: the distances between the classes of Divide-and-Remaster
# (dnr-utils config.py: speech -17, foreground effects -21, background effects -29, music -24 LUFS), as RMS; music
# under speech 2 dB lower, so that quiet (sad) speech stays above it.
SOUND_LEVELS = {("audio", "before"): -4, ("audio", "under"): -12, ("music", "before"): -7, ("music", "under"): -9}
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Options:
    """What the corpus depends on; `engine` is a key of `ENGINES`.

    Scripts are counted before branching: each gives seven dialogues.
    """

    seed: int = 0
    engine: str = "espeak"
    train_scripts: int = 100
    val_scripts: int = 9
    test_scripts: int = 36


@dataclass(frozen=True, slots=True)
class Scene:
    """One script as one voice speaks it, with a sound for each branch that has one."""

    name: str
    script: Script
    voice: Voice
    assistant: str
    scenario: str
    sounds: tuple[tuple[str, str], ...]  # (sound, placement) per emotion, ("", "") for none


def plan(options: Options) -> dict[str, list[Scene]]:
    """The scenes of every split; nothing is spoken yet.

    `test_scripts` are held-out combinations in training voices; `test_voices` are other held-out combinations in
    unseen voices, so that its words are no more familiar than those of `test_scripts`.

    Raises:
        ValueError: a split without scripts, or more than there are combinations for.
    """
    speakers = ENGINES[options.engine]
    train, held_out = combinations(options.seed)
    half = len(held_out) // 2
    counts = (options.train_scripts, options.val_scripts, options.test_scripts, options.test_scripts)
    limits = (len(train) - options.val_scripts, len(train) // 3, half, half)
    for name, count, limit in zip(("train", "val", "test", "test"), counts, limits, strict=True):
        if not 1 <= count <= limit:
            raise ValueError(f"--{name}-scripts must be 1 to {limit}, as the grammar has no more; got {count}")
    pools = {
        "train": (train[: options.train_scripts], speakers.train_voices),
        "val": (train[-options.val_scripts :], speakers.train_voices),
        "test_scripts": (held_out[: options.test_scripts], speakers.train_voices),
        "test_voices": (held_out[half : half + options.test_scripts], speakers.unseen_voices),
    }
    return {split: _scenes(split, pairs, voices, options.seed) for split, (pairs, voices) in pools.items()}


def _scenes(split: str, pairs: list[tuple[int, str]], voices: Sequence[Voice], seed: int) -> list[Scene]:
    rng = _rng(seed, split)
    speakers, assistants = _balanced(voices, rng), _balanced(GENDERS, rng)
    scenarios, placements = _balanced(SCENARIOS, rng), _balanced(PLACEMENTS, rng)
    # A stream per emotion: each emotion meets each sound equally often, so that neither tells the other.
    sounds = {(kind, emotion): _balanced(tuple(SOUNDS[kind]), rng) for kind in SOUNDS for emotion in EMOTIONS}
    scenes = []
    for number, script in enumerate(make_scripts(pairs, int(rng.integers(2**31)))):
        scenario = next(scenarios)
        drawn = tuple(
            (next(sounds[scenario, emotion]), next(placements)) if scenario in SOUNDS else ("", "")
            for emotion in EMOTIONS
        )
        name = f"{split}-{number:04d}"
        scenes.append(Scene(name, script, next(speakers), next(assistants), scenario, drawn))
    return scenes


def _balanced(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    """The items in shuffled rounds, without end."""
    while True:
        yield from (items[index] for index in rng.permutation(len(items)))


def _rng(seed: int, key: str) -> np.random.Generator:
    """Randomness of one thing by its name, whatever is made before it or beside it."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def mix(
    speech: NDArray[np.float32], kind: str, sound: str, placement: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Speech (S,) with a sound before it (0.6 to 0.9 s longer) or under it (S,), below `PEAK`."""
    level = LEVEL * 10 ** ((SOUND_LEVELS[kind, placement] + rng.uniform(-2, 2)) / 20)
    if placement == "under":
        mixed = speech + np.float32(level) * render(sound, len(speech), rng)
    else:
        ahead = np.float32(level) * render(sound, int(rng.uniform(0.6, 0.9) * SAMPLE_RATE), rng)
        mixed = np.concatenate([ahead, np.zeros(SAMPLE_RATE // 20, np.float32), speech])
    return mixed * np.float32(min(1.0, PEAK / float(np.abs(mixed).max())))


def branches(scene: Scene) -> list[Dialogue]:
    """The dialogues of a scene, one per emotion, in words: no audio yet."""
    script, gender = scene.script, scene.assistant
    history: list[Turn] = []
    for question, answer in script.history:
        history += [Turn("user", question), Turn("assistant", answer, Style(gender, *NEUTRAL))]
    dialogues = []
    for emotion, (sound, placement) in zip(EMOTIONS, scene.sounds, strict=True):
        about = {
            "scenario": scene.scenario,
            "script": script.id,
            "voice": scene.voice.name,
            "voice_gender": scene.voice.gender,
            "emotion": emotion,
            "sound": sound,
            "placement": placement,
            "content": script.content,
        }
        style, words = reply(emotion, script.content, sound, gender)
        turns = (*history, Turn("user", script.current), Turn("assistant", words, style))
        dialogues.append(Dialogue(f"{scene.name}-{emotion}", turns, "quickstart", about))
    return dialogues


def record(scene: Scene, engine: Engine, root: Path, seed: int) -> list[Dialogue]:
    """Speak one scene into files below `root`: its dialogues with their audio.

    Raises:
        EngineError: see `Engine.say`.
    """
    dialogues = branches(scene)

    def write(name: str, pcm: NDArray[np.float32]) -> AudioRef:
        path = root / "audio" / f"{name}.flac"
        soundfile.write(path, np.round(pcm * 32767).astype(np.int16), SAMPLE_RATE, subtype="PCM_16")
        return AudioRef(str(path), len(pcm))

    history = list(dialogues[0].turns[:-2])
    for number, turn in enumerate(history):
        if turn.role == "user":
            name = f"{scene.name}-history{number // 2}"
            pcm = speak(engine, turn.text, scene.voice, Style(emotion="neutral"), _rng(seed, name)).pcm
            history[number] = replace(turn, audio=write(name, pcm))
    recorded = []
    for dialogue in dialogues:
        rng = _rng(seed, dialogue.id)
        question, answer = dialogue.turns[-2:]
        pcm = speak(engine, question.text, scene.voice, Style(emotion=dialogue.scene["emotion"]), rng).pcm
        if dialogue.scene["sound"]:
            pcm = mix(pcm, scene.scenario, dialogue.scene["sound"], dialogue.scene["placement"], rng)
        current = replace(question, audio=write(dialogue.id, pcm))
        recorded.append(replace(dialogue, turns=(*history, current, answer)))
    return recorded


def description(options: Options, engine: str) -> dict[str, Any]:
    """What identifies a corpus: two with the same description have the same bytes."""
    folders = (Path(__file__).parent, Path(embedded.__file__).parent)
    sources = b"".join(path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py")))
    return {
        "name": "quickstart",
        "licence": f"Apache-2.0 (text); speech made by {engine}, sounds by this repository",
        "source": "python -m data_prep.quickstart",
        "seed": options.seed,
        "engine": engine,
        "code": hashlib.sha256(sources).hexdigest()[:16],
        "options": asdict(options),
    }


def made_in(out: Path) -> dict[str, Any] | None:
    """What `store.json` says of the quickstart corpus in `out`; None where there is none."""
    try:
        found = json.loads((out / "store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("name") == "quickstart" else None


def make(out: Path, options: Options, workers: int = 2, file: str | None = None) -> dict[str, int]:
    """Make the corpus in `out`, which appears complete or not at all; the dialogues per split.

    Args:
        out: the store's folder; replaced where it exists, so look first.
        options: what to make.
        workers: engines that speak side by side; the result does not depend on their number.
        file: see `Engine`.

    Raises:
        ValueError: see `plan`.
        EngineError: no engine, or it died.
    """
    splits = plan(options)
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "audio").mkdir(parents=True)
    counts = {}
    with ExitStack() as stack:
        engines = [stack.enter_context(ENGINES[options.engine](file)) for _ in range(workers)]
        free: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for engine in engines:
            free.put(engine)

        def work(scene: Scene) -> list[Dialogue]:
            engine = free.get()
            try:
                return record(scene, engine, partial, options.seed)
            finally:
                free.put(engine)

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        console = Console(stderr=True)
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        progress = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
        bar = progress.add_task("speaking scripts", total=sum(len(scenes) for scenes in splits.values()))
        for split, scenes in splits.items():
            futures = [pool.submit(work, scene) for scene in scenes]
            dialogues: list[Dialogue] = []
            try:
                for future in futures:
                    dialogues += future.result()
                    progress.advance(bar)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # don't speak the rest before the fault is told
                raise
            counts[split] = write_dialogues(partial / f"{split}.jsonl", dialogues)
    store = description(options, engines[0].version) | {"splits": counts}
    (partial / "store.json").write_text(json.dumps(store, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return counts
