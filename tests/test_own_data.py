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
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

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
    monkeypatch.chdir(tmp_path)
    Path("downloads/hub/data").mkdir(parents=True)
    soundfile.write("a.wav", 0.3 * np.sin(np.arange(9_600) * 0.05), 16_000)
    rows = [
        {
            "dialogue": f"c{number}",
            "speaker": speaker,
            "text": "hello" if speaker == "caller" else "fine",
            "audio": {"bytes": Path("a.wav").read_bytes(), "path": "a.wav"} if speaker == "caller" else None,
        }
        for number in range(10)
        for speaker in ("caller", "agent")
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "downloads/hub/data/0000.parquet")
    run(found("python -m data_prep.hugging_face"))
    assert "rejected: 0" in run(found("python -m data_prep.table"), "--workers", "1")
    run(found("python -m data_prep.check"), "--workers", "1")
    short = ("trainer.max_steps=1", "trainer.warmup_steps=0", "trainer.generate_dialogues=0", "data.num_workers=0")
    short = (*short, "trainer.dialogues_per_step=2", "trainer.micro_batch=2", "preflight=off")
    run(found("python train.py recipe=quickstart"), *short, f"hydra.run.dir={tmp_path}/runs/mine")
    run(found("python eval/run_store.py"), "max_new_tokens=8", "bootstrap=0")
    assert json.loads((tmp_path / "runs" / "mine" / "scores.json").read_text())["splits"]["test"]["n"] == 1
    run(found("python -m omnichat.export"))

    for name in ("b.wav", "first_turn.wav", "second_turn.wav"):
        Path(name).write_bytes(Path("a.wav").read_bytes())
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        exec(compile(PYTHON[0], "docs/own_data.md", "exec"), {})
    assert "a.wav Reply(" in heard.getvalue()
