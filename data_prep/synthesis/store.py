"""From mixed dialogues to `store/`: shards, manifest and dataset card; nothing is done where they are there already."""

from collections import Counter
from collections.abc import Mapping

import yaml

from data_prep.synthesis.contracts import Mixed
from data_prep.synthesis.mixing.pack import MANIFEST, pack
from data_prep.synthesis.pipeline import Pipeline
from omnichat.audio import SAMPLE_RATE
from omnichat.data.info import INFO_FILE, StoreInfo, read_info

CARD = "README.md"
SOURCE = "python -m data_prep.synthesis"
CREDITS_SHOWN = 200  # clips; a card is read by people
PACKED = "packed"  # fact: the hash of what the store holds


def pack_store(pipeline: Pipeline) -> StoreInfo:
    """The packed store. Only one driver packs; the others wait and find it.

    Raises:
        DataError: see `pack`.
    """
    folder, config, ledger = pipeline.folder, pipeline.config, pipeline.ledger
    contents = pipeline.contents()
    with folder.locked("pack"):
        whole = (folder.store / INFO_FILE).exists() and (folder.store / CARD).exists()
        if whole and ledger.fact(PACKED) == contents:
            return read_info(folder.store)
        (folder.store / CARD).unlink(missing_ok=True)
        info = pack(
            pipeline.mixed(),
            folder.blobs,
            folder.store,
            name=config.name,
            licence=config.licence,
            source=SOURCE,
            seed=config.seed,
            engine=engine(pipeline),
        )
        (folder.store / CARD).write_text(card(pipeline, info), encoding="utf-8")
        ledger.set_fact(PACKED, contents)
    return info


def engine(pipeline: Pipeline) -> str:
    """Who speaks, in words."""
    identity = pipeline.stages["speak"].identity()
    speech = identity.get("speech", identity)
    return str(speech.get("engine") or speech.get("model") or pipeline.config.speech.kind)


def card(pipeline: Pipeline, info: StoreInfo) -> str:
    """The dataset card: what it is, how it was made, under which licences. The same store has the same card."""
    config = pipeline.config
    dialogues: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    emotions: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    credits: dict[str, str] = {}
    for mixed in pipeline.mixed():
        split = mixed.plan.brief.split
        dialogues[split] += 1
        seconds[split] += sum(piece.num_samples for piece in mixed.pieces if piece is not None)
        emotions[current_emotion(mixed)] += 1
        if mixed.clip:
            licences[mixed.licence or "not stated"] += 1
            if mixed.credit:
                credits[mixed.clip] = f"{mixed.credit} ({mixed.licence or 'licence not stated'})"
    rows = [f"| {split} | {dialogues[split]:,} | {seconds[split] / SAMPLE_RATE / 3600:.2f} |" for split in info.splits]
    clips = [f"- clips of {count:,} dialogues: {licence}" for licence, count in sorted(licences.items())]
    identities = {name: dict(stage.identity()) for name, stage in pipeline.stages.items()}
    kept = config.model_copy(update={"shard": None}).dump()
    del kept["execution"], kept["prices"]
    front = {"pretty_name": config.name, "language": ["en"], "tags": ["synthetic", "spoken-dialogue"]}
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
            f"# {config.name}\n",
            "Synthetic spoken dialogues: the user's turns are audio, the assistant's are a style and words. Made by",
            f"`{SOURCE}` with the config below; the same config and engines give the same bytes where the engines are",
            "deterministic. `manifest.jsonl` holds, for each turn, its file's hash, gains and peak.\n",
            "| split | dialogues | hours heard |\n|---|---|---|",
            *rows,
            "\nEmotion of the current turn: "
            + ", ".join(f"{name} {count:,}" for name, count in sorted(emotions.items())),
            "\n## Licences\n",
            f"- the corpus: {config.licence}",
            f"- speech: made by {info.engine}",
            *(clips or ["- clips: none"]),
            *credit_lines(credits),
            "\nNobody's voice was recorded for it. It must not be passed off as speech of real people.\n",
            "## How it was made\n\nVersions and thresholds of the stages:\n",
            f"```yaml\n{yaml.safe_dump(_plain(identities), width=120)}```\n\nConfig:\n",
            f"```yaml\n{yaml.safe_dump(kept, sort_keys=False, width=120)}```",
            "",
        ]
    )


def credit_lines(credits: Mapping[str, str]) -> list[str]:
    """Who is to be named for which clip. Of many clips the first are shown: all stand in `manifest.jsonl`."""
    if not credits:
        return []
    lines = [f"- `{clip}`: {' '.join(credit.split())}" for clip, credit in sorted(credits.items())]
    rest = len(lines) - CREDITS_SHOWN
    more = [f"- and {rest:,} more: `credit` in `{MANIFEST}`"] if rest > 0 else []
    return ["\nRecordings that are heard, and who is to be named for them:\n", *lines[:CREDITS_SHOWN], *more]


def current_emotion(mixed: Mixed) -> str:
    """How the last user turn is spoken."""
    return next(line.style.emotion or "unknown" for line in reversed(mixed.plan.lines) if line.speaker == "user")


def _plain(value: object) -> object:
    """Lists for tuples and dicts for mappings, as YAML writes them."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
