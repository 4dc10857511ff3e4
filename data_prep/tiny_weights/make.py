"""All four parts, trained, scored and written."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.synthesis.backends.embedded.engine import Voice
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, UNSEEN_VOICES, Espeak
from data_prep.tiny_weights.experts import (
    SOUND_LABELS,
    Expert,
    FeelingExpert,
    Labels,
    SoundExpert,
    WordExpert,
    learn,
    score,
)
from data_prep.tiny_weights.language import (
    Teacher,
    learn_dialogues,
    learn_to_copy,
    make_llama,
    score_llama,
    tokenizer_texts,
)
from data_prep.tiny_weights.speech import VOICES, Spoken, pronunciations, speak_randomly
from omnichat.models.tiny import write_beats, write_emotion2vec, write_llama, write_tokenizer, write_whisper

EXPERTS = ("whisper", "emotion2vec", "beats")
TRAIN_CLIPS, TEST_CLIPS = 6000, 400
STEPS = {"whisper": 1500, "emotion2vec": 1200, "beats": 800, "copying": 700, "dialogues": 1600}


@dataclass(frozen=True)
class Pool:
    """Utterances to learn from, and two sets to score: training voices and unseen ones."""

    train: list[Spoken]
    seen: list[Spoken]
    unseen: list[Spoken]


def make_pool(scale: float, seed: int, report: Callable[[str], None]) -> Pool:
    """Speak everything.

    Raises:
        EngineError: no engine, or it died.
    """
    with Espeak() as espeak:
        pronounced = pronunciations(espeak)

        def spoken(count: int, voices: Sequence[Voice], stream: int) -> list[Spoken]:
            rng = np.random.default_rng([seed, stream])
            return [speak_randomly(espeak, pronounced, voices, rng) for _ in range(max(24, round(scale * count)))]

        pool = Pool(
            spoken(TRAIN_CLIPS, VOICES, 0), spoken(TEST_CLIPS, TRAIN_VOICES, 1), spoken(TEST_CLIPS, UNSEEN_VOICES, 2)
        )
    seconds = sum(len(clip.pcm) for clip in pool.train) / 16_000
    report(f"spoken: {len(pool.train)} utterances, {seconds / 3600:.1f} h")
    return pool


def make_expert(
    name: str, out: Path, pool: Pool, steps: int, seed: int, report: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Train and write one expert; its scores on voices of training and on unseen ones."""
    labels = Labels(pool.train)
    expert: Expert
    if name == "whisper":
        words = WordExpert(width=128, heads=4, layers=3, labels=labels)
        expert, peak = words, 1.5e-3
    elif name == "emotion2vec":
        feelings = FeelingExpert(width=96, heads=4, prenet_depth=1, depth=2)
        expert, peak = feelings, 2e-3
    else:
        sounds = SoundExpert(width=96, heads=4, layers=2)
        expert, peak = sounds, 2e-3
    learn(expert, pool.train, labels, steps, peak, np.random.default_rng(seed), report, name)
    if name == "whisper":
        write_whisper(out / "whisper.pt", words.net)
    elif name == "emotion2vec":
        write_emotion2vec(out / "emotion2vec", feelings.net, feelings.proj)
    else:
        write_beats(out / "beats.pt", sounds.net, SOUND_LABELS)
    return {"seen voices": score(expert, pool.seen, labels), "unseen voices": score(expert, pool.unseen, labels)}


def make_language_model(
    out: Path, copying: int, dialogues: int, seed: int, report: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Train and write the Llama and its tokenizer; its scores with and without stage directions."""
    tokenizer = write_tokenizer(out / "llama", tokenizer_texts(), vocab_size=1024)
    teacher, rng = Teacher(tokenizer), np.random.default_rng(seed)
    llm = make_llama(tokenizer, width=128, heads=4, layers=4)
    learn_to_copy(llm, copying, rng, report)
    learn_dialogues(llm, teacher, dialogues, rng, report)
    write_llama(out / "llama", llm)
    return {kind: score_llama(llm, teacher, kind, 100, seed + 1) for kind in ("written", "blended", "silent")}


def make(out: Path, parts: Sequence[str], seed: int, scale: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Train and write `parts`; all scores known in `out`, those of parts made before included.

    Raises:
        EngineError: no engine, or it died.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "scores.json"
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    steps = {name: max(1, round(scale * count)) for name, count in STEPS.items()}
    pool = make_pool(scale, seed, report) if set(parts) & set(EXPERTS) else None
    for part in parts:
        torch.manual_seed(seed)
        if part == "llama":
            scores[part] = make_language_model(out, steps["copying"], steps["dialogues"], seed, report)
        else:
            assert pool is not None
            scores[part] = make_expert(part, out, pool, steps[part], seed, report)
        report(f"{part}: {json.dumps(scores[part])}")
        path.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores
