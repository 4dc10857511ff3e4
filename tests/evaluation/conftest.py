"""A run folder with hand-written replies: four dialogues of one set, two of another, real audio, no model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from omnichat.config import RunConfig, load_config
from omnichat.dialogue import AudioRef, Reply, Style, Turn
from omnichat.evaluation.replies import Answer, write_answers
from omnichat.evaluation.score import score_run
from omnichat.evaluation.sweep import note_point
from omnichat.run_folder import GENERATION, REPLIES

SAD, HAPPY = Style("female", "sad", "slow", "low"), Style("female", "happy", "fast", "high")
MODEL = "0123456789abcdef"
SWEEP_STEPS = 400


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> AudioRef:
    """Half a second of a tone, at 24 kHz: the report has to resample it."""
    path = tmp_path_factory.mktemp("audio") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(12_000) * 0.1), 24_000)
    return AudioRef(str(path), 8_000)


@pytest.fixture
def answers(clip: AudioRef) -> list[Answer]:
    """Replies right, wrong in emotion, wrong in words, unreadable; and two of an unseen voice."""

    def answer(split: str, number: int, scene: dict[str, str], wanted: Reply, reply: Reply, raw: str = "") -> Answer:
        history = (
            Turn("user", "good morning.", audio=clip),
            Turn("assistant", "good morning. <b>how</b> can i help?", Style("female", "neutral")),
            Turn("user", "we are going to the market.", audio=clip),
        )
        gates = {"whisper": 0.4 + number / 100, "emotion2vec": 0.8, "beats": 0.9 if scene["sound"] else 0.1}
        scene = {"script": f"s{number // 2}", "content": "market", **scene}
        identity = f"{split}-{number}"
        return Answer(identity, split, scene, history, wanted, reply, raw or reply.text, gates, 0.02, MODEL, "p")

    sad = Reply(SAD, "i am so sorry. think of the market.")
    happy = Reply(HAPPY, "wonderful! enjoy the market. i hear the dog.")
    rain = Reply(HAPPY, "wonderful! enjoy the market. i hear the rain.")
    quiet, dog = {"scenario": "emotion", "sound": ""}, {"scenario": "audio", "sound": "dog"}
    wet = {"scenario": "audio", "sound": "rain"}
    return [
        answer("scripts", 0, quiet, sad, sad),
        answer("scripts", 1, quiet, sad, Reply(HAPPY, "wonderful! enjoy the beach.")),
        answer("scripts", 2, dog, happy, rain),
        answer("scripts", 3, wet, rain, Reply(None, "oh oh oh"), "oh oh oh"),
        answer("voices", 0, quiet, sad, sad),
        answer("voices", 1, dog, happy, happy),
    ]


@pytest.fixture(scope="session")
def config() -> RunConfig:
    """Of the quickstart, with few resamples."""
    steps = ("trainer.max_steps=400", "trainer.warmup_steps=40")
    return load_config("recipe=quickstart", "evaluation.bootstrap=50", *steps)


@pytest.fixture
def run_dir(tmp_path: Path, answers: list[Answer], config: RunConfig) -> Path:
    """The folder as stage 1 leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, answers, config)
    return folder


@pytest.fixture
def sweep(tmp_path: Path, answers: list[Any]) -> Path:
    """Runs of DailyTalk at five alphas: two scored, one done, one stopped, one failed before it had a config."""
    folder = tmp_path / "sweeps" / "dailytalk"
    for alpha in (0.0, 0.2, 0.5, 1.0):
        run = tmp_path / f"dailytalk_alpha_{alpha}"
        run.mkdir()
        changed = (f"data.alpha={alpha}", "evaluation.bootstrap=50", f"trainer.max_steps={SWEEP_STEPS}")
        config = load_config("recipe=dailytalk", *changed, "trainer.warmup_steps=40")
        write_run(run, answers, config)
        drawn = {f"data/share/{unit}/synthetic": alpha + 0.01 for unit in ("dialogues", "seconds", "targets")}
        with (run / "metrics.jsonl").open("a") as out:
            out.write("\n" + json.dumps({"step": SWEEP_STEPS if alpha != 0.5 else 123, **drawn}) + "\n")
        if alpha == 0.5:
            lines = [line for line in (run / "metrics.jsonl").read_text().splitlines() if line.startswith("{")]
            kept = [line for line in lines[:-1] if "401" not in line and json.loads(line)["step"] <= 123]
            (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
        else:
            (run / "checkpoints" / str(SWEEP_STEPS)).mkdir(parents=True)
            (run / "checkpoints" / str(SWEEP_STEPS) / "manifest.json").write_text("{}")
        if alpha in (0.0, 0.2):
            score_run(run, config)
        note_point(folder, run.name, run, changed[:1], 143 if alpha == 0.5 else 0)
    note_point(folder, "dailytalk_alpha_0.4", tmp_path / "dailytalk_alpha_0.4", ["data.alpha=0.4"], 1)
    return folder


def write_run(folder: Path, answers: Iterable[Answer], config: RunConfig) -> None:
    """Replies, their description, a config and some steps of training."""
    answers = list(answers)
    write_answers(folder / REPLIES, answers)
    (folder / GENERATION).write_text(json.dumps(description(answers)))
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with (folder / "metrics.jsonl").open("w") as out:
        for step in range(1, 401):
            gates = {f"gate/{name}/emotion": 0.5 for name in ("whisper", "emotion2vec", "beats")}
            record = {"step": step, "loss/total": 3 / step, "loss/style": 2 / step, "perf/seconds": 0.5, **gates}
            out.write(json.dumps(record) + "\n")
            if step % 100 == 0:
                out.write(json.dumps({"step": step, "validation/total": 4 / step, "validation/exact": 0.5}) + "\n")
        out.write('{"step": 401, "loss/to')  # a kill cut this line short


def description(answers: Iterable[Answer]) -> dict[str, Any]:
    """What generation.json says of these replies: complete."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.split] = counts.get(answer.split, 0) + 1
    return {
        "model": MODEL,
        "step": 400,
        "parameters": {"mixformer": {"total": 9000, "trained": 9000}, "llm": {"total": 800_000, "trained": 0}},
        "decoding": {"method": "greedy", "max_new_tokens": 64},
        "splits": {
            name: {"store": f"{name}.jsonl", "replies": count, "of": count, "limit": None}
            for name, count in counts.items()
        },
    }
