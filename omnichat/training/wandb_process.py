"""W&B in a process of its own, which may wait for the network as long as it likes: training never waits for it.

`python -m omnichat.training.wandb_process` reads a JSON object a line from its standard input: first the settings of
the run, then metrics and replies; it ends with the input.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from omnichat.audio import SAMPLE_RATE
from omnichat.secrets import mask_logs, mask_output
from omnichat.training.reply_panels import COLUMNS, ROWS, emotion_pairs, heard_wave

START_SECONDS = 20.0  # for the service to answer; WANDB_INIT_TIMEOUT overrides it


def main() -> None:
    """Read until the input ends."""
    mask_output()
    run: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        if message["kind"] == "start":
            run = _start(message)
        elif message["kind"] == "metrics":
            run.log({**message["values"], "step": message["step"]})
        elif message["kind"] == "replies":
            run.log({**_panels(message["rows"]), "step": message["step"]})
    if run is not None:
        run.finish()
        mask_logs(Path(run.dir).parents[1])


def _start(message: Mapping[str, Any]) -> Any:
    """The run; offline where the service does not answer in time: `wandb sync` can send it later."""
    # Neither output nor code nor git: an address with a password may stand there.
    settings: dict[str, Any] = {"console": "off", "silent": True, "x_stats_pid": message["pid"]}
    settings |= {"disable_git": True, "disable_code": True, "disable_job_creation": True}
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = START_SECONDS
    known = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
    modes: list[Literal["online", "offline"]] = ["offline"] if message["offline"] else ["online", "offline"]
    for mode in modes:
        try:
            run = wandb.init(**message["run"], mode=mode, settings=wandb.Settings(**known))
            break
        except (wandb.errors.Error, OSError) as error:
            if mode == modes[-1]:
                raise
            print(f"W&B does not answer ({error}); the run is kept offline, send it with: wandb sync", flush=True)
            wandb.teardown()  # W&B's own service still holds the run that did not begin, and would refuse its id
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _panels(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of the first `ROWS` to listen to, and the matrix of all emotions where the references have any."""
    table = wandb.Table(columns=list(COLUMNS))
    heard = [_heard(row) for row in rows[:ROWS]]
    for row, audio in zip(rows[:ROWS], heard, strict=True):
        table.add_data(row["dialogue"], row["scenario"], audio, *(row[name] for name in COLUMNS[3:]))
    panels: dict[str, Any] = {"validation/replies": table}
    if clips := [audio for audio in heard if audio is not None]:
        panels["validation/heard"] = clips  # by itself too: of a table, an offline run's folder holds the words alone
    names, wanted, found = emotion_pairs(rows)
    if names:
        panels["validation/confusion"] = wandb.plot.confusion_matrix(
            y_true=wanted,
            preds=found,
            class_names=names,
            title="Emotion of the reply",
        )
    return panels


def _heard(row: Mapping[str, Any]) -> Any:
    """The turn that was answered; None where nothing was heard, or where it cannot be read any more."""
    wave = heard_wave(row)
    if wave is None:
        return None
    return wandb.Audio(wave, sample_rate=SAMPLE_RATE, caption=row["dialogue"])


if __name__ == "__main__":
    main()
