"""Metrics reach TensorBoard and W&B where a config asks for it, and metrics.jsonl always."""

import importlib.util
import io
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnichat.config import load_config
from omnichat.requirements import missing
from omnichat.secrets import MASK
from omnichat.training.fit import fit
from omnichat.training.loggers import QUEUE, UNSENT, JsonLinesLogger, WandbProcess, build_loggers
from omnichat.training.reply_panels import COLUMNS, ROWS
from omnichat.training.tensorboard import TensorBoard
from tests.wandb_file import read_wandb

EXPERTS = ("whisper", "emotion2vec", "beats")
SOURCES = ("synthetic", "real")
PANELS = {  # what a run of the paper's two sources shows, key by key; `perf/mfu` where the device's peak is known
    *("loss/total", "loss/style", "loss/content", "loss/by_turn/1", *(f"loss/by_source/{name}" for name in SOURCES)),
    *(f"gate/{name}/tones{part}" for name in EXPERTS for part in ("", "/p10", "/p90")),
    *(f"qformer/out_norm/{name}" for name in EXPERTS),
    *("grad_norm/mixformer", "grad_norm/lora", "optim/learning_rate", "optim/skipped"),
    *("data/alpha_realised", "data/dialogues", "data/tokens", "data/dialogue_turns", "data/skipped/too_long"),
    *(f"data/share/{unit}/{name}" for unit in ("dialogues", "seconds", "targets") for name in SOURCES),
    *(f"data/passes/{name}" for name in SOURCES),
    *("perf/seconds", "perf/tokens_per_s", "perf/audio_s_per_s", "perf/data_wait", "perf/memory_gib"),
    *("perf/tflops_per_s", "perf/save_seconds", "validation/total", "validation/style", "validation/content"),
    *("validation/exact", "validation/guided", "validation/unparsable", "validation/emotion_f1_weighted"),
}
PANELLED = ("data.made_up=8", "data.max_tokens=300", "data.overlong=drop_dialogue", "trainer.save_every=1")
QUICK = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=2", "trainer.warmup_steps=1", "trainer.validate_every=0")


def held_out(run_dir: Path, names: list[str]) -> list[Any]:
    """The four dialogues that were answered, the first of those that are not too long."""
    store = [json.loads(line) for line in (run_dir / "made_up" / "val.jsonl").read_text().splitlines()]
    assert len(names) == 4
    assert [one["id"] for one in store if one["id"] in names] == names
    return [one for one in store if one["id"] in names]


def test_tensorboard(tmp_path: Path) -> None:
    """A run that asks for TensorBoard leaves every metric of every step, and what was answered, in an event file.

    Read back as TensorBoard's own pages read it.
    """
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    asked = ("logger.tensorboard=true", "trainer.generate_dialogues=4", "trainer.validate_every=2")
    fit(load_config(*QUICK[:-1], *asked, *PANELLED), tmp_path)
    everything = {kind: 0 for kind in ("scalars", "audio", "images", "tensors")}
    board = events.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance=everything)
    board.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {(line["step"], name): value for line in lines for name, value in line.items() if name != "step"}
    shown = {(event.step, tag): event.value for tag in board.Tags()["scalars"] for event in board.Scalars(tag)}
    shown = {key: value for key, value in shown.items() if key[1] not in ("epoch", "hp_metric")}
    assert shown == {key: pytest.approx(value, rel=1e-6) for key, value in written.items()}
    assert set(board.Tags()["scalars"]) >= PANELS

    def text(tag: str) -> list[list[str]]:
        (event,) = board.Tensors(f"{tag}/text_summary")
        assert event.step == 2
        rows = make_ndarray(event.tensor_proto)[0].decode().splitlines()
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]

    head, _, *replies = text("validation/replies")
    store = held_out(tmp_path, [row[head.index("dialogue")] for row in replies])
    assert [row[head.index("reference")] for row in replies] == [one["turns"][-1]["text"] for one in store]
    assert all(row[head.index("gates")].startswith("whisper 0.") for row in replies)
    wanted = [one["turns"][-1]["style"]["emotion"] for one in store]
    head, _, *matrix = text("validation/confusion")
    assert {row[0]: sum(map(int, row[1:])) for row in matrix if row[0] in wanted} == dict(Counter(wanted))
    (image,) = board.Images("validation/confusion")
    assert image.height == image.width == 24 * len(matrix)
    for number, one in enumerate(store, start=1):
        (clip,) = board.Audio(f"validation/heard/{number}")
        heard, rate = soundfile.read(io.BytesIO(clip.encoded_audio_string))
        original, _ = soundfile.read(tmp_path / "made_up" / one["turns"][-2]["audio"]["path"])
        assert rate == 16_000
        assert np.abs(heard - original).max() < 1e-3


def test_full_size_recipes_fill_dashboards_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A day of eight GPUs must not end without a curve, nor be refused for a package that only shows one."""
    recipes = ("dailytalk", "dailytalk_alpha_sweep", "sharechat_emotion", "sharechat_audio", "sharechat_music")
    modes = [(one.tensorboard, one.wandb.mode) for one in (load_config(f"recipe={name}").logger for name in recipes)]
    assert modes == [("auto", "auto")] * 5
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("tensorboard", "wandb") else found(name)
    )
    config = load_config(*QUICK, "logger=dashboards")
    assert missing(config) == []
    assert len(missing(load_config(*QUICK, "logger.tensorboard=true", "logger.wandb.mode=offline"))) == 2
    assert [type(logger) for logger in build_loggers(config, tmp_path, 0)] == [JsonLinesLogger]
    assert "no tensorboard nor wandb here (pip install -e '.[tensorboard,wandb]')" in capsys.readouterr().out


def test_wandb_without_a_key_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mode=auto on a machine without a key must neither ask for one nor wait for the network; replies can be heard."""
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    asked = ("logger=dashboards", "trainer.validate_every=2", "trainer.generate_dialogues=4")
    assert fit(load_config(*QUICK, *asked, *PANELLED), tmp_path / "run") == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    folder = next((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert (tmp_path / "run" / "wandb" / "process.log").read_text() == ""
    table = json.loads(next(folder.glob("files/media/table/validation/replies_*.json")).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    store = held_out(tmp_path / "run", [row["dialogue"] for row in rows])
    assert [row["reference"] for row in rows] == [one["turns"][-1]["text"] for one in store]
    heard = [soundfile.info(path) for path in folder.glob("files/media/audio/validation/heard_*.wav")]
    assert [(one.samplerate, one.channels) for one in heard] == [(16_000, 1)] * 4
    assert all(0 < one.duration <= 15 for one in heard)
    assert rows[0]["gates"].startswith("whisper 0.")
    shown = {
        item.key or "/".join(item.nested_key) for record in read_wandb(tmp_path / "run") for item in record.history.item
    }
    assert shown >= PANELS
    for panel in ("validation/replies", "validation/heard", "validation/confusion"):
        assert any(key.startswith(panel) for key in shown), panel
    assert list(folder.glob("files/media/table/validation/confusion_table_*.json"))


def test_metrics_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    """Steps that a resumed run trains again, and a line that a kill cut short, must not stand in the record twice."""
    path = tmp_path / "metrics.jsonl"
    first = JsonLinesLogger(path)
    for step in (1, 2, 3):
        first.log_metrics({"loss/total": float(step)}, step)
    with path.open("a") as out:
        out.write('{"step": 4, "lo')
    JsonLinesLogger(path, resume_step=2).log_metrics({"loss/total": 3.5}, 3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss/total": 1.0},
        {"step": 2, "loss/total": 2.0},
        {"step": 3, "loss/total": 3.5},
    ]


CANARIES = {  # eight secrets, by the variable that holds them; none is anyone's
    "WANDB_API_KEY": "c0ffee" * 6 + "beef",
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary1",
    "OPENAI_API_KEY": "sk-canary-2222-canary-2222",
    "AWS_SECRET_ACCESS_KEY": "canary/3333+canary/3333+canary/3333",
    "GITHUB_TOKEN": "ghp_canary4444canary4444canary4444",
    "DB_PASSWORD": "canary-five-five",
    "MY_SECRET": "canary six, with spaces",
    "azureApiKey": "canary-7777-canary",
}


def test_no_secret_in_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a run writes is shown to others: neither the environment's secrets nor those in its config may be there.

    The checkpoint with a masked config must still be gone on from.
    """
    pytest.importorskip("wandb")
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    first, *others = CANARIES.values()
    given = ", ".join(others)
    run = (
        *("recipe=smoke", "data.made_up=4", "trainer.warmup_steps=1", "trainer.validate_every=1"),
        *("trainer.save_every=1", "logger.tensorboard=true", "logger.wandb.mode=offline"),
        f'data.system="{first} {given}"',
        f'logger.wandb.group="{given[:100]}"',
    )
    for steps in (1, 2):
        assert fit(load_config(*run, f"trainer.max_steps={steps}"), tmp_path) == 0
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kinds = {"config.yaml", "metrics.jsonl", "process.log"} | {path.suffix for path in written}
    assert {".wandb", ".safetensors", ".json"} <= kinds, "the run did not write what is looked at"
    for path, content in written.items():
        for name, value in CANARIES.items():
            assert value.encode() not in content, f"{name} is in {path}"
    assert b"[masked]" in (tmp_path / "config.yaml").read_bytes()


def test_nothing_of_wandb_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A W&B that does nothing at all costs neither the start nor a step a wait, and the end a limited one.

    Its process is stopped as soon as it is there: whoever waits for it without a limit hangs. What it does not take is
    dropped and counted. What W&B logged until then is masked all the same.
    """
    pytest.importorskip("wandb")
    waits: list[float | None] = []

    class Stopped(subprocess.Popen[str]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            os.kill(self.pid, signal.SIGSTOP)

        def wait(self, timeout: float | None = None) -> int:
            waits.append(timeout)
            return super().wait(timeout)

    class Queue(queue.Queue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            if block:
                waits.append(timeout)
            super().put(item, block, timeout)

    monkeypatch.setattr("omnichat.training.loggers.subprocess.Popen", Stopped)
    monkeypatch.setattr("omnichat.training.loggers.queue.Queue", Queue)
    monkeypatch.setattr("omnichat.training.loggers.FINISH_SECONDS", 1.0)
    loggers: list[WandbProcess] = []

    def train() -> None:
        loggers.append(WandbProcess(tmp_path, load_config("recipe=smoke", "logger.wandb.mode=online")))
        for step in range(5000):
            loggers[0].log_metrics({f"loss/{number}": 0.5 for number in range(50)}, step)

    training = threading.Thread(target=train, daemon=True)
    training.start()
    training.join(120)
    assert not training.is_alive()
    assert waits == []
    assert 5000 - QUEUE - 200 < loggers[0].dropped <= 5000 - QUEUE + 1  # the pipe holds some, the start is one more
    process = loggers[0]._process
    assert process is not None
    log = tmp_path / "wandb" / "run-1" / "logs" / "debug.log"  # as W&B writes one, before it is killed
    log.parent.mkdir(parents=True)
    log.write_text(f"key {CANARIES['WANDB_API_KEY']}, proxy http://me:correct-horse@host\n")
    monkeypatch.setenv("WANDB_API_KEY", CANARIES["WANDB_API_KEY"])
    loggers[0].finalize("success")
    assert log.read_text() == f"key {MASK}, proxy http://{MASK}@host\n"
    limits = [limit for limit in waits if limit is not None]
    assert limits == waits
    # For the queue, where it is full, and for the process, both up to FINISH_SECONDS; then for SIGTERM and for SIGKILL.
    assert sum(limits) <= 2 * 1.0 + 2 * 2.0
    assert process.wait(120) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("accepts", "patience"),
    [(True, 2), (False, 2), (True, 150)],
    ids=["accepts and never answers", "closed port", "the run ends first"],
)
def test_a_service_that_does_not_answer_leaves_an_offline_run(
    accepts: bool,
    patience: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a key but no answer, all that was logged is kept for `wandb sync`: a second start must not be refused.

    A run that ends while W&B still tries does not wait until it gives up, and loses nothing by that either.
    """
    assert pytest.importorskip("omnichat.training.wandb_process").UNSENT == UNSENT
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:  # the kernel accepts; nobody answers
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://someone:correct-horse@{address}/a?api_key=battery-staple")
        if not accepts:
            server.close()
        monkeypatch.setenv("WANDB_API_KEY", CANARIES["WANDB_API_KEY"])
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", str(patience))
        monkeypatch.setattr("omnichat.training.loggers.FINISH_SECONDS", 200.0)  # for a machine that is busy
        logger = WandbProcess(tmp_path, load_config("recipe=smoke", "logger.wandb.mode=online"))
        for step in range(1, 51):
            logger.log_metrics({"loss/total": float(step)}, step)
        process = logger._process
        assert process is not None
        logger.finalize("success")
    assert logger.dropped == 0
    said = "W&B does not answer; send the run later with: wandb sync" in capsys.readouterr().out
    assert said == (process.returncode == UNSENT)
    if patience > 2:
        assert said
    assert "the run is kept offline" in (tmp_path / "wandb" / "process.log").read_text()
    history = [record.history.item for record in read_wandb(tmp_path) if record.HasField("history")]
    values = [{item.key or item.nested_key[0]: item.value_json for item in items} for items in history]
    assert [(int(one["step"]), float(one["loss/total"])) for one in values] == [(step, step) for step in range(1, 51)]
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        for secret in ("correct-horse", "battery-staple", CANARIES["WANDB_API_KEY"]):
            assert secret.encode() not in path.read_bytes(), path


def test_every_answer_is_in_the_matrix(tmp_path: Path) -> None:
    """The table to listen to is cut to what is small to upload; the matrix was cut with it, unlike the F1 beside it."""
    wandb_process = pytest.importorskip("omnichat.training.wandb_process")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    rows = [
        {name: "" for name in COLUMNS}
        | {"audio": None, "BLEU": 0.0, "emotion": "happy" if number % 2 else "sad", "reply emotion": "sad"}
        for number in range(40)
    ]
    panels = wandb_process._panels(rows)
    assert len(panels["validation/replies"].data) == ROWS
    counts = [row[-1] for row in panels["validation/confusion"].table.data]
    assert sum(counts) == 40
    board = TensorBoard(tmp_path)
    board.log_replies(rows, 1)
    board.finalize("success")
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()

    def lines(tag: str) -> list[str]:
        text: str = make_ndarray(read.Tensors(f"{tag}/text_summary")[0].tensor_proto)[0].decode()
        return text.splitlines()[2:]

    assert len(lines("validation/replies")) == ROWS
    assert lines("validation/confusion") == ["| happy | 0 | 20 |", "| sad | 0 | 20 |"]


def test_a_key_of_wandb_login_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wandb login` puts it into ~/.netrc; mode=auto stayed offline beside it, and for other services must."""
    pytest.importorskip("wandb")
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(WandbProcess, "_put", lambda self, message: started.append(message))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def offline() -> bool:
        logger = WandbProcess(tmp_path / "run", load_config("recipe=smoke", "logger.wandb.mode=auto"))
        logger._queue.put(None)
        assert logger._process is not None
        logger._process.wait(120)
        return bool(started.pop()["offline"])

    assert offline()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert not offline()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443")
    assert offline()
    (tmp_path / "netrc").write_text("machine wandb.example.org:8443 login user password " + "0" * 40)
    assert not offline()
