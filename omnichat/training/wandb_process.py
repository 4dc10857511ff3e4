"""W&B in a process of its own, which may wait for the network as long as it likes: training never waits for it.

`python -m omnichat.training.wandb_process` reads a JSON object a line from its standard input: first the settings of
the run, then metrics and replies; it ends with the input. Where W&B's service has not begun the run by then and gives
no answer, all is kept offline for `wandb sync`, and the exit code is `UNSENT`.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Queue
from typing import Any, Literal

import requests
import wandb

from omnichat.audio import SAMPLE_RATE
from omnichat.background import end_children
from omnichat.secrets import mask_logs, mask_output
from omnichat.training.reply_panels import COLUMNS, ROWS, emotion_pairs, heard_wave

START_SECONDS = 20.0  # for the service to answer; WANDB_INIT_TIMEOUT overrides it
ANSWER_SECONDS = 5.0  # for any answer at all, where the input ends before the run has begun
UNSENT = 75  # exit code: EX_TEMPFAIL of sysexits.h


def main() -> None:
    """Read until the input ends."""
    mask_output()
    lines = _Input()
    run: Any = None
    for line in lines:
        message = json.loads(line)
        if message["kind"] == "start":
            try:
                run = _start(message, lines.decided)
            except Exception:
                lines.decided()  # where another process makes the run, W&B of this one has been ended
                raise
        elif message["kind"] == "metrics":
            run.log({**message["values"], "step": message["step"]})
        elif message["kind"] == "replies":
            run.log({**_panels(message["rows"]), "step": message["step"]})
    if run is not None:
        run.finish()
        mask_logs(Path(run.dir).parents[1])


class _Input:
    """The lines of the standard input.

    A thread reads them, so that their end is seen while W&B is still waiting for its service to begin the run. Where
    that gives no answer even then, another process keeps all of them offline, and this one ends.
    """

    def __init__(self) -> None:
        self._lines: Queue[str | None] = Queue()
        self._kept: list[str] | None = []  # all so far, until it is decided who makes the run
        self._lock = threading.Lock()  # of that decision
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        """Each line, as soon as it is there."""
        while (line := self._lines.get()) is not None:
            yield line

    def decided(self) -> None:
        """This process makes the run, online or offline; does not return where it is too late for that."""
        with self._lock:
            self._kept = None

    def _read(self) -> None:
        for line in sys.stdin:
            with self._lock:
                if self._kept is not None:
                    self._kept.append(line)
            self._lines.put(line)
        self._lines.put(None)
        if not self._kept or json.loads(self._kept[0])["offline"] or _answers():
            return  # it ends by itself; whoever started this process has a limit for that
        with self._lock:  # to the end: from here on this process makes no run any more
            if self._kept is None:
                return
            print("W&B does not answer; the run is kept offline, send it with: wandb sync", flush=True)
            end_children(os.getpid())  # W&B's own, which would go on trying, and write its logs after they were masked
            _keep_offline(self._kept)
            os._exit(UNSENT)


def _answers() -> bool:
    """Whether W&B's service gives any answer, be it a refusal."""
    settings = wandb.setup().settings
    proxies = {name: getattr(settings, f"{name}_proxy", None) for name in ("http", "https")}
    try:
        requests.get(
            settings.base_url,
            timeout=ANSWER_SECONDS,
            proxies={name: proxy for name, proxy in proxies.items() if proxy},
            allow_redirects=False,
            stream=True,
        )
    except requests.exceptions.SSLError:
        return True
    except requests.exceptions.RequestException:
        return False
    return True


def _keep_offline(lines: list[str]) -> None:
    """Have another process make an offline run of all lines: W&B in this one still holds the run that did not begin."""
    start = json.loads(lines[0]) | {"offline": True}
    whole = "".join([json.dumps(start) + "\n", *lines[1:]])
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-m", "omnichat.training.wandb_process"]
    subprocess.run(command, input=whole, text=True, encoding="utf-8", env=environment, check=False)


def _start(message: Mapping[str, Any], decided: Callable[[], None]) -> Any:
    """The run; offline where the service does not answer in time: `wandb sync` can send it later.

    Args:
        message: its settings.
        decided: called once it is known that there will be a run.
    """
    # Neither output nor code nor git: an address with a password may stand there.
    settings: dict[str, Any] = {"console": "off", "silent": True, "x_stats_pid": message["pid"]}
    settings |= {"disable_git": True, "disable_code": True, "disable_job_creation": True}
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings["init_timeout"] = START_SECONDS
    known = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
    modes: list[Literal["online", "offline"]] = ["offline"] if message["offline"] else ["online", "offline"]
    for mode in modes:
        if mode == "offline":
            decided()
        try:
            run = wandb.init(**message["run"], mode=mode, settings=wandb.Settings(**known))
            break
        except (wandb.errors.Error, OSError) as error:
            if mode == modes[-1]:
                raise
            print(f"W&B does not answer ({error}); the run is kept offline, send it with: wandb sync", flush=True)
            wandb.teardown()  # W&B's own service still holds the run that did not begin, and would refuse its id
    decided()
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
