"""What lies in a run's folder, by name. Standard library only: reading a run need not load torch."""

import json
from pathlib import Path

CONFIG_FILE = "config.yaml"  # composed and complete
METRICS = "metrics.jsonl"  # a JSON object a step
SKIPPED_FILE = "skipped.jsonl"  # dialogues, or moments, of a step that was skipped
CHECKPOINTS = "checkpoints"  # a folder for each step that was saved
MANIFEST = "manifest.json"  # in each of them: without it, it is no checkpoint
EXPORTED_CONFIG = "omnichat_config.yaml"  # in an export, its run's config
REPLIES = "replies.jsonl"
GENERATION = "generation.json"  # how the replies came about
SCORES = "scores.json"
REPORT = "report.html"
OVERLONG_FILE = "overlong.txt"  # dialogues over the limit, and what was done with each


def config_file(folder: Path) -> Path:
    """The config of a run's folder, or of an export's; that of a run where there is neither."""
    exported = folder / EXPORTED_CONFIG
    return exported if exported.is_file() and not (folder / CONFIG_FILE).exists() else folder / CONFIG_FILE


def has_checkpoint(run_dir: Path, step: int) -> bool:
    """Whether the run saved a checkpoint of this step; its files are not verified, which takes loading them."""
    return (run_dir / CHECKPOINTS / str(step) / MANIFEST).is_file()


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`, none where there is no file; a line that a kill cut short is passed over."""
    path, steps = run_dir / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            steps.append(record)
    return steps


def lacks_validation(run_dir: Path, step: int) -> bool:
    """Whether the run saved this step, and `metrics.jsonl` does not tell how a validation after it went."""
    records = (record for record in read_metrics(run_dir) if record["step"] == step)
    told = any(key.startswith("validation/") for record in records for key in record)
    return has_checkpoint(run_dir, step) and not told
