"""Keys of the environment appear in nothing that a program prints or writes, even where it has to quote them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnichat.config import load_config
from omnichat.training.fit import fit

ROOT = Path(__file__).parents[1]
CANARIES = {  # none is anyone's
    "WANDB_API_KEY": "c0ffee" * 6 + "beef",
    "OPENAI_API_KEY": "sk-canary-2222-canary-2222",
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary1",
}
LEAK = "-".join(CANARIES.values())  # in a path, an address or a name that the program will quote


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, trained while the keys were there and one stood in its config, and its store."""
    folder = tmp_path_factory.mktemp("programs")
    steps = (
        "trainer.max_steps=1",
        "trainer.warmup_steps=1",
        "trainer.validate_every=0",
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CANARIES.items():
            environment.setenv(name, value)
        fit(load_config("recipe=smoke", "data.made_up=4", *steps, f"data.system={LEAK}"), folder / "run")
    return folder


PROGRAMS = {
    "train.py": ["train.py", f"recipe={LEAK}", f"data.real={LEAK}.jsonl"],
    "a reader fails": ["-m", "data_prep.dailytalk", f"{LEAK}.zip", "out"],
    "a reader is used wrongly": ["-m", "data_prep.table", LEAK, "out", "--emotion", LEAK],
    "check finds faults": ["-m", "data_prep.check", "STORE", "--json", "report.json"],
    "check finds nothing": ["-m", "data_prep.check", LEAK],
    "export of a store": ["-m", "data_prep.export_store", LEAK, "out"],
    "precompute": ["-m", "omnichat.training.precompute", "recipe=quickstart", f"data.synthetic={LEAK}.jsonl"],
    "export fails": ["-m", "omnichat.export", f"run={LEAK}", "out=exported"],
    "export": ["-m", "omnichat.export", "run=run", "out=exported"],
    "doctor": ["-m", "omnichat.doctor", "recipe=quickstart", f"data.synthetic={LEAK}"],
    "chat": ["-m", "omnichat.chat", f"run={LEAK}"],
    "convert_encoder": ["-m", "data_prep.convert_encoder", "beats", LEAK, "out"],
    "answer, score, report": ["eval/run_store.py", "run=run", "store=run/made_up/val.jsonl", f"title={LEAK}"],
    "evaluation fails": ["eval/run_store.py", "run=run", f"store={LEAK}.jsonl"],
    "sweep": ["eval/sweep.py", "run", "--title", LEAK, "--out", "overview"],
    "compare fails": ["eval/compare.py", LEAK, LEAK],
}
SUCCEED = ("export", "answer, score, report", "sweep")
SLOW = ("chat", "doctor", "precompute", "export fails", "convert_encoder")  # to start; the others stand for them in CI
CASES = [pytest.param(name, marks=pytest.mark.full if name in SLOW else ()) for name in PROGRAMS]


@pytest.mark.parametrize("name", CASES)
def test_no_key_in_what_a_program_prints_or_writes(name: str, folder: Path, tmp_path: Path) -> None:
    """A log, a report or a store goes to others; the key that a fault's message quotes goes with it."""
    for path in folder.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    record = json.loads((tmp_path / "run" / "made_up" / "val.jsonl").read_text().splitlines()[0])
    record["turns"][0]["audio"]["path"] = f"{LEAK}.wav"
    (tmp_path / "store.jsonl").write_text(json.dumps(record) + "\n")
    given = [str(ROOT / word) if word.endswith(".py") else word for word in PROGRAMS[name]]
    given = [str(tmp_path / "store.jsonl") if word == "STORE" else word for word in given]
    environment = os.environ | CANARIES | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    store = (tmp_path / "store.jsonl").read_bytes()
    ran = subprocess.run([sys.executable, *given], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.returncode == 0) == (name in SUCCEED), ran.stdout + ran.stderr
    assert ran.stdout + ran.stderr
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert written.pop(str(tmp_path / "store.jsonl")) == store
    for where, content in {"stdout": ran.stdout.encode(), "stderr": ran.stderr.encode(), **written}.items():
        for key, value in CANARIES.items():
            assert value.encode() not in content, f"{key} is in {where}"
