"""docs/own_data.md, from a table of somebody's own to an export that answers: what it tells people to type works."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)).replace("\\\n", " ").splitlines()


def run(command: str, *more: str) -> str:
    """Run a command of the guide, training in a process of its own: one import of torch does for the others."""
    words = command.partition("  #")[0].replace('"CC BY 4.0"', "CC-BY-4.0").split()[1:] + list(more)
    if words[0] == "train.py":
        shell = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, ROOT / words[0], *words[1:]], timeout=250, check=True, env=shell)
        return ""
    heard, code = io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(heard):
        patch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
        try:
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    assert not code, f"{command}: {heard.getvalue()}"
    return heard.getvalue()


def found(start: str) -> str:
    """The guide's first command that begins so."""
    return next(line for line in COMMANDS if line.startswith(start))


@pytest.mark.slow
def test_from_a_dataset_to_an_export_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fewest steps to one's own model; each was tried by hand once, and this keeps them true."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "hub").mkdir()
    tone = 0.3 * np.sin(np.arange(9_600) * 0.05)
    rows = [
        {
            "conversation": f"c{number}",
            "speaker": speaker,
            "text": "hello" if speaker == "caller" else "fine",
            "audio": {"array": tone, "sampling_rate": 16_000} if speaker == "caller" else None,
        }
        for number in range(10)
        for speaker in ("caller", "agent")
    ]
    features = {name: datasets.Value("string") for name in ("conversation", "speaker", "text")}
    written = written_by(tmp_path / "hub", rows)
    published = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}  # what `Audio` is on the disk
    table = datasets.Dataset.from_list(written, features=datasets.Features({**features, "audio": published}))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[0], "docs/own_data.md", "exec"), {})
    assert len((tmp_path / "downloads" / "mine" / "mine.jsonl").read_text().splitlines()) == 20

    assert "rejected: 0" in run(found("python -m data_prep.table"), "--workers", "1")
    run(found("python -m data_prep.check"), "--workers", "1")
    short = ("trainer.max_steps=1", "trainer.warmup_steps=0", "trainer.generate_dialogues=0", "data.num_workers=0")
    short = (*short, "trainer.dialogues_per_step=2", "trainer.micro_batch=2", "preflight=off")
    run(found("python train.py recipe=quickstart"), *short, f"hydra.run.dir={tmp_path}/runs/mine")
    run(found("python eval/run_store.py"), "max_new_tokens=8", "bootstrap=0")
    assert json.loads((tmp_path / "runs" / "mine" / "scores.json").read_text())["splits"]["test"]["n"] == 1
    run(found("python -m omnichat.export"))

    for name in ("a.wav", "b.wav", "first_turn.wav", "second_turn.wav"):
        (tmp_path / name).write_bytes((tmp_path / "hub" / "0.wav").read_bytes())
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        exec(compile(PYTHON[1], "docs/own_data.md", "exec"), {})
    assert "a.wav Reply(" in heard.getvalue()


def written_by(folder: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows with their audio in files, as `datasets` takes it without decoding."""
    import soundfile

    out = []
    for number, row in enumerate(rows):
        audio = row["audio"]
        if isinstance(audio, dict):
            path = folder / f"{number}.wav"
            soundfile.write(path, audio["array"], audio["sampling_rate"])
            row = {**row, "audio": {"path": str(path), "bytes": path.read_bytes() if number % 4 else None}}
        out.append(row)
    return out
