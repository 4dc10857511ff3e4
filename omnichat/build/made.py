"""What is made for one run, once: random weights and made-up dialogues."""

import fcntl
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from omnichat.build.data import SOURCES
from omnichat.config import ConfigError, RunConfig
from omnichat.data.made_up import made_up_dialogues
from omnichat.models.tiny import write_random_checkpoints
from omnichat.run_folder import CHECKPOINTS


def materialise(config: RunConfig, run_dir: Path) -> RunConfig:
    """The config with all that is made for one run (random weights, made-up dialogues) made and pointed to.

    Raises:
        ConfigError: checkpoints in the folder were trained with what was made from another seed or count, which stays.
    """
    values, run_dir = config.model_dump(mode="json"), run_dir.resolve()  # a link to a run is that run
    if config.model.random:
        folder = run_dir / "random_weights"
        paths = _made_once(folder, {"seed": config.seed}, lambda: write_random_checkpoints(folder, config.seed))
        for name in set(config.model.experts) - set(config.model.encoders.own):
            values["model"]["encoders"][name]["checkpoint"] = paths[name]
        values["model"]["llm"]["checkpoint"] = paths["llama"]
        values["model"]["random"] = False
    if config.data.made_up is not None:
        folder, count = run_dir / "made_up", config.data.made_up
        splits = (*SOURCES, "val")
        _made_once(
            folder,
            {"seed": config.seed, "data.made_up": count},
            lambda: _made_up_splits(folder, count, config.seed, splits),
        )
        drawn = {"synthetic": config.data.alpha != 0, "real": config.data.alpha != 1}
        values["data"] |= {source: str(folder / f"{source}.jsonl") for source in SOURCES if drawn[source]}
        values["data"]["val"] = {"val": str(folder / "val.jsonl")} | config.data.val
        values["data"]["made_up"] = None
    return RunConfig.model_validate_json(json.dumps(values))


def _made_once(folder: Path, key: dict[str, int], make: Callable[[], Mapping[str, Path]]) -> dict[str, str]:
    """What `make` puts into a folder, by name; the ranks of one machine make it once and wait for each other.

    Args:
        folder: in a run's.
        key: what it is made from, by the config's names.
        make: makes it anew, where there is none or that of another key.

    Raises:
        ConfigError: see `materialise`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "made.json"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = json.loads(done.read_text(encoding="utf-8")) if done.is_file() else None
        if made is None or made["key"] != [*key.values()]:
            if made is not None and any((folder.parent / CHECKPOINTS).glob("[0-9]*")):
                faults = [
                    f"{name}: {before} there, {now} here"
                    for before, (name, now) in zip(made["key"], key.items(), strict=True)
                    if before != now
                ]
                where = f"run_name: {folder.parent} holds checkpoints of another config"
                raise ConfigError(
                    [*faults, f"{where}; train this one elsewhere with run_name=NAME, or set the keys back"]
                )
            paths = {name: path.relative_to(folder).as_posix() for name, path in make().items()}
            made = {"key": [*key.values()], "paths": paths}
            done.write_text(json.dumps(made), encoding="utf-8")
    return {name: str(folder / path) for name, path in made["paths"].items()}


def _made_up_splits(folder: Path, count: int, seed: int, splits: Sequence[str]) -> dict[str, Path]:
    for split in splits:
        made_up_dialogues(folder, count, seed, split)
    return {split: folder / f"{split}.jsonl" for split in splits}
