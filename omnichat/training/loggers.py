"""Where metrics go: `metrics.jsonl` always, TensorBoard and W&B by config."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from omnichat.config import RunConfig
from omnichat.training.guard import TrainingError

METRICS = "metrics.jsonl"


class JsonLinesLogger(Logger):
    """One JSON object a line, flushed at once: the readable record that no service can lose."""

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self._forget_after(resume_step)

    @property
    def name(self) -> str:
        """Lightning asks for it; the file has no other use for a name."""
        return "metrics"

    @property
    def version(self) -> str:
        """One run folder holds one record."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append `{"step": step, **metrics}`.

        Raises:
            TrainingError: the disk refuses.
        """
        line = json.dumps({"step": step, **{name: float(value) for name, value in metrics.items()}}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(line)
        except OSError as error:
            raise TrainingError(
                f"{self.path}: step {step} cannot be written ({error.strerror}); free disk space, and the same "
                "command goes on from the last checkpoint"
            ) from None

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml is the record of the config."""

    @rank_zero_only
    def _forget_after(self, step: int) -> None:
        # Steps after the checkpoint will be trained, and logged, again.
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # a line that a kill cut short
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def build_loggers(config: RunConfig, run_dir: Path, first_step: int) -> list[Logger]:
    """The loggers that `config.logger` asks for; W&B runs offline where there is no key."""
    loggers: list[Logger] = [JsonLinesLogger(run_dir / METRICS, first_step)]
    if config.logger.tensorboard:
        loggers.append(TensorBoardLogger(str(run_dir), name="tensorboard", version=""))
    wandb = config.logger.wandb
    if wandb.mode != "disabled":
        offline = wandb.mode == "offline" or (wandb.mode == "auto" and not os.environ.get("WANDB_API_KEY"))
        logger = WandbLogger(
            name=config.run_name,
            save_dir=str(run_dir),
            project=wandb.project,
            entity=wandb.entity,
            group=wandb.group,
            offline=offline,
        )
        logger.log_hyperparams(config.model_dump(mode="json"))
        loggers.append(logger)
    return loggers
