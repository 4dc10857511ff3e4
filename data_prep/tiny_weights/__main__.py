"""Make the tiny weights of the quickstart: python -m data_prep.tiny_weights OUT."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.synthesis.backends.embedded.engine import EngineError, Voice
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
from omnichat.secrets import mask_output

EXPERTS = ("whisper", "emotion2vec", "beats")
PARTS = (*EXPERTS, "llama")
TRAIN_CLIPS, TEST_CLIPS = 6000, 400
STEPS = {"whisper": 1500, "emotion2vec": 1200, "beats": 800, "copying": 700, "dialogues": 1600}
EPILOG = """\
example:
  python -m data_prep.tiny_weights checkpoints/tiny --only llama

About 35 minutes of one CPU core for all four. Every part is written as soon as it is trained, so what was interrupted
goes on with --only. scores.json, beside the weights, has the scores that are printed. Another machine or torch gives
other weights with the same scores within a few points.
exit codes: 0 done, 1 failed, 2 wrong usage
"""


@dataclass(frozen=True)
class Pool:
    """Utterances to learn from, and two sets to score: training voices and unseen ones."""

    train: list[Spoken]
    seen: list[Spoken]
    unseen: list[Spoken]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.tiny_weights",
        description="Train the quickstart's tiny experts and Llama, and write them in upstream's formats.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("out", type=Path, metavar="OUT", help="folder for the weights; its files are replaced")
    result.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    result.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    result.add_argument(
        "--scale", type=float, default=1.0, help="of all steps and utterances; below 1 to try it (default: %(default)s)"
    )
    return result


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


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    mask_output()
    command = parser()
    arguments = command.parse_args(argv)
    if arguments.scale <= 0 or arguments.seed < 0:
        command.error("--scale must be above 0, and --seed at least 0")
    torch.set_num_threads(1)  # so small nets gain nothing from a second thread
    started = time.process_time()
    try:
        make(arguments.out, arguments.only, arguments.seed, arguments.scale, lambda line: print(line, flush=True))
    except (EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {time.process_time() - started:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
