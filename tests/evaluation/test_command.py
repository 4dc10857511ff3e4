"""The command line of eval/: what it accepts, what it answers, and the three stages on a real run folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from omnichat import build
from omnichat.checkpoint import save_checkpoint, trainable
from omnichat.config import RunConfig, load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.shards import finish_store, write_shard
from omnichat.evaluation import compare_command, judge_command, mos_command
from omnichat.evaluation.command import main
from omnichat.run_folder import REPLIES, SCORES

ROOT = Path(__file__).parents[2]
USAGE = "What it does."


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "eval").glob("*.py")))
def test_help_shows_an_example_and_is_light(script: str) -> None:
    """Of every program, started as a script from the root; nobody should wait for torch to be told how to call it."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "eval" / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stderr[-500:]
    assert "xample" in result.stdout
    assert f"python eval/{script} " in result.stdout
    assert "Exit codes: 0 done, 1 " in result.stdout
    assert "2 wrong usage." in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "numpy", "nltk"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run: is missing"),
        (["run=RUN", "stage=scoer"], "did you mean 'score'?"),
        (
            ["run=RUN", "slpit=a", "fast"],
            "slpit: unknown key; did you mean 'split'?; fast: is not of the form key=value",
        ),
        (["run=RUN", "split=nope"], "no set nope in the run's config; there are: val, test"),
        (["run=RUN", "split=val", "store=a.jsonl"], "name one of them"),
        (["run=RUN", "store=/nowhere/a.jsonl"], "no such file: /nowhere/a.jsonl"),
        (["run=RUN", "limit=0"], "limit: must be at least 1"),
        (["run=RUN", "limit=-3"], "limit: a whole number"),
        (["run=RUN", "batch_size=many"], "batch_size: a whole number, got 'many'"),
        (["run=RUN", "batch_size=0"], ": batch_size: Input should be greater than or equal to 1"),
        (["run=RUN", "turns=all"], ": turns: Input should be 'last', 'gold_history' or 'own_history'"),
        (["run=RUN", "partial=yes"], "partial: true or false"),
        (["run=RUN", "stage=score", "wordnet=/nowhere"], "wordnet: /nowhere is not a folder"),
        (["run=/nowhere", "stage=score"], "train the run first, or correct run="),
    ],
)
def test_wrong_usage_exits_with_2(
    run_dir: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that is wrong, and the cure; before anything is loaded or written."""
    before = sorted(run_dir.iterdir())
    assert main([argument.replace("RUN", str(run_dir)) for argument in arguments], USAGE) == 2
    assert message in capsys.readouterr().err
    assert sorted(run_dir.iterdir()) == before


@pytest.mark.parametrize("content", ["", "- a list", "{", "run_name: only"])
def test_a_broken_config_is_named(run_dir: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not with a traceback."""
    (run_dir / "config.yaml").write_text(content)
    assert main([f"run={run_dir}", "stage=score"], USAGE) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_failure_exits_with_1_and_the_cure(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken replies, a run without checkpoint, and a report without scores."""
    assert main([f"run={run_dir}", "stage=report"], USAGE) == 1
    assert "run stage=score first" in capsys.readouterr().err
    (run_dir / REPLIES).write_text("")
    assert main([f"run={run_dir}", "stage=score"], USAGE) == 1
    assert "holds no reply" in capsys.readouterr().err
    (run_dir / "dialogues.jsonl").write_text("{}\n")
    assert main([f"run={run_dir}", "stage=generate", f"store={run_dir / 'dialogues.jsonl'}"], USAGE) == 1
    assert "holds no valid checkpoint" in capsys.readouterr().err


def test_score_and_report_need_no_model(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They can be repeated anywhere, from the replies alone; settings on the command line win."""
    assert main([f"run={run_dir}", "stage=score", "bootstrap=20", "seed=3"], USAGE) == 0
    scores = json.loads((run_dir / SCORES).read_text())
    assert scores["bootstrap"]["resamples"] == 20
    assert scores["bootstrap"]["seed"] == 3
    assert main([f"run={run_dir}", "stage=report", "title=Mine"], USAGE) == 0
    assert f"report: {run_dir / 'report.html'}" in capsys.readouterr().out
    assert "<title>Mine</title>" in (run_dir / "report.html").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it: the smoke recipe's, at step 0."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    folder.mkdir()
    overrides = ("data.made_up=4", "evaluation.max_new_tokens=5", "evaluation.bootstrap=20")
    config: RunConfig = build.materialise(load_config("recipe=smoke", *overrides), folder)
    values = config.model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    parameters = trainable(build.build_model(config))
    save_checkpoint(folder / "checkpoints", 0, {"mixformer": parameters}, {"config": values})
    return folder


def test_all_stages_on_a_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a checkpoint to a report in one command."""
    assert main([f"run={trained}"], USAGE) == 2
    assert "split=val names the validation sets" in capsys.readouterr().err
    assert main([f"run={trained}", "split=val"], USAGE) == 0
    assert json.loads((trained / SCORES).read_text())["splits"]["val"]["n"] == 4
    assert (trained / "report.html").stat().st_size > 10_000


def test_the_checkpoint_can_be_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last step is not always the best; one that is not there must not be replaced by another in silence."""
    assert main([f"run={trained}", "split=val", "stage=generate", "checkpoint=7"], USAGE) == 1
    assert "no checkpoint of step 7; there are: 0" in capsys.readouterr().err
    assert main([f"run={trained}", "split=val", "stage=generate", "checkpoint=0", "limit=1"], USAGE) == 0


@pytest.mark.parametrize("form", ["mine.jsonl", "mine"])
def test_a_store_of_one_s_own(trained: Path, tmp_path: Path, form: str) -> None:
    """Any JSONL or folder of shards can be scored; its set is named after it, and joins those that are there."""
    dialogues = made_up_dialogues(tmp_path, 4, split="mine")
    shard = write_shard(tmp_path / ".0", dialogues)
    finish_store(tmp_path, name="x", licence="", source="", splits={"mine": [shard]})
    assert main([f"run={trained}", f"store={tmp_path / form}", "stage=generate", "limit=2"], USAGE) == 0
    assert main([f"run={trained}", "stage=score"], USAGE) == 0
    scores = json.loads((trained / SCORES).read_text())
    assert scores["splits"]["mine"]["partial"] == {"replies": 2, "of": 4}
    assert main([f"run={trained}", "stage=report"], USAGE) == 0
    assert "no audio" not in (trained / "report.html").read_text()  # the dialogues can be listened to


def test_dailytalk_is_scored_under_its_own_name(trained: Path, tmp_path: Path) -> None:
    """Its file is called test.jsonl, as every corpus's is."""
    made_up_dialogues(tmp_path / "dailytalk", 2, split="test")
    store = tmp_path / "dailytalk" / "test.jsonl"
    assert main([f"run={trained}", "stage=generate"], USAGE, str(store)) == 0
    about = json.loads((trained / "generation.json").read_text())
    assert about["splits"]["dailytalk"]["store"] == str(store)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "subset: one of emotion, audio, music"),
        (["subset=emotoin", "run=RUN"], "subset: one of emotion, audio, music"),
        (["subset=music", "run=RUN", "stage=generate"], "no such file: "),
        (["subset=music", "run=RUN", "stage=score"], ""),
    ],
)
def test_a_subset_of_sharechatx(run_dir: Path, arguments: list[str], message: str) -> None:
    """Its test set is the one that is answered; without a subset nobody knows which."""
    given = [argument.replace("RUN", str(run_dir)) for argument in arguments]
    command = [sys.executable, str(ROOT / "eval/run_sharechatx.py"), *given]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert result.returncode == (2 if message else 0)
    assert message in result.stderr
    if "stage=generate" in arguments:
        assert "corpora/sharechat_music/test" in result.stderr


def test_a_run_is_found_from_any_folder(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """train.py writes runs/NAME into the repository wherever it is called; the same words must name that run there."""
    monkeypatch.setattr("omnichat.recipes.ROOT", run_dir.parent)  # stands for the repository
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    name = run_dir.name
    assert main([f"run={name}", "stage=score", "bootstrap=0"], USAGE) == 0
    assert compare_command.main([name, name, "resamples=10"], USAGE) == 0
    assert judge_command.main([name, "model=m", "estimate=true"], USAGE) == 0
    assert mos_command.main(["page", name, "samples=2"], USAGE) == 0
    assert (run_dir / SCORES).is_file()
    assert [path.name for path in elsewhere.iterdir()] == ["mos"], capsys.readouterr().err
