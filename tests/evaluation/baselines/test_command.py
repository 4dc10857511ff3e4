"""`python eval/baseline.py`: what it refuses, and that scoring, comparing and reporting take its folder as a run's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from omnichat import build
from omnichat.checkpoint import save_checkpoint, trainable
from omnichat.config import load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.dialogue import read_dialogues
from omnichat.evaluation.baselines.command import main
from omnichat.evaluation.command import main as score_main
from omnichat.evaluation.compare import compare_runs
from omnichat.evaluation.judge_command import main as judge_main
from omnichat.evaluation.mos_command import main as mos_main
from omnichat.evaluation.replies import read_answers, read_generation, writing_alone
from omnichat.run_folder import REPLIES
from tests.fake_endpoint import serve

ROOT = Path(__file__).parents[3]


def majority(out: Path, *more: str) -> Path:
    """A scored folder of the baseline."""
    assert main(["majority", f"out={out}", "bootstrap=20", *more], "") == 0
    return out


def test_help_is_light_and_has_an_example() -> None:
    """Nobody waits for torch to read a usage."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "eval/baseline.py"), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert "python eval/baseline.py qwen2_audio model=" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "numpy"}


def test_a_constant_reply_gets_the_majority_scores(store: Path, tmp_path: Path) -> None:
    """The two ways to the same number: the baseline that scores print, and replies scored as a model's."""
    out = majority(tmp_path / "out", f"store={store}")
    assert score_main([f"run={out}"], "") == 0
    scores = json.loads((out / "scores.json").read_text())
    for key in ("emotion_f1_weighted", "emotion_f1_macro", "style_accuracy_gender", "style_accuracy_pitch"):
        assert scores["metrics"][key]["value"] == pytest.approx(scores["baselines"][f"majority_{key}"])
    assert scores["unparsable_share"] == 0
    assert scores["input"] == "nothing"
    assert read_generation(out)["decoding"]["majority of"] == "the set itself"
    page = (out / "report.html").read_text()
    assert "Baseline, Majority: one reply to all: it hears and reads nothing." in page
    assert "Where this departs" not in page
    assert len({answer.raw for answer in read_answers(out / REPLIES)}) == 1


def test_the_majority_of_training_data(store: Path, tmp_path: Path) -> None:
    """Which store was counted is said, and decides the reply; an unknown field stays unknown."""
    dialogues = made_up_dialogues(tmp_path / "train", 8, seed=3, split="train")
    path = tmp_path / "train" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["turns"][-1] |= {"style": {"emotion": "disgusted"}, "text": "So it is."}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(dialogues) == 8
    out = majority(tmp_path / "out", f"store={store}", f"train={path}")
    assert {answer.raw for answer in read_answers(out / REPLIES)} == {
        "(unknown, disgusted, unknown, unknown): So it is."
    }
    assert str(path) in read_generation(out)["decoding"]["majority of"]
    assert "nothing to" not in (out / "config.yaml").read_text()
    first = (out / REPLIES).read_bytes()
    majority(out, f"store={store}")  # now of the set: the others' replies are dropped
    assert (out / REPLIES).read_bytes() != first


def test_a_second_command_changes_nothing(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was refused, but its settings had replaced those that the first one's replies were being made with."""
    out = majority(tmp_path / "out", f"store={store}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = ["majority", f"out={out}", f"store={store}", f"train={store}", "bootstrap=30"]
    with writing_alone(out):
        assert main(again, "") == 1
    assert "another process writes replies" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(again, "") == 0
    assert (out / "config.yaml").read_bytes() != before["config.yaml"]


def test_a_baseline_is_compared_with_a_run(store: Path, tmp_path: Path) -> None:
    """Sets under the run's names, every turn or the last, part of a set marked."""
    one = majority(tmp_path / "one", f"store={store}", "names=mine")
    other = majority(tmp_path / "other", f"store={store}", "names=mine", f"train={store}")
    found = compare_runs(one, other, resamples=20)
    assert found["splits"]["mine"]["n"] == 5
    majority(one, f"store={store}", "names=mine", "turns=gold_history")
    assert set(read_generation(one)["splits"]) == {"mine", "mine.gold_history"}
    majority(tmp_path / "part", f"store={store}", "limit=2")
    assert score_main([f"run={tmp_path / 'part'}", "stage=score"], "") == 0
    assert json.loads((tmp_path / "part" / "scores.json").read_text())["partial"] == {"replies": 2, "of": 5}


def test_a_baseline_is_judged_and_heard(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is a run's to the judge and to the listeners' page; what is broken is mended by its own command."""
    pytest.importorskip("httpx", reason="httpx (extra `eval`) is not installed")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = majority(tmp_path / "majority", f"store={store}", "names=mine")
    replies = (out / REPLIES).read_bytes()
    with serve(lambda number, body: json.dumps({"reason": "so so", "score": 3})) as fake:
        assert judge_main([str(out), "model=judge-1", f"url={fake.url}"], "") == 0
    assert "mine: 3.00 of 5, n=5" in capsys.readouterr().out
    assert score_main([f"run={out}", "stage=score"], "") == 0
    assert json.loads((out / "scores.json").read_text())["metrics"]["gpt_eval"]["value"] == 3
    page = ["page", str(out), f"out={tmp_path / 'mos'}", "samples=3", "reference=true"]
    assert mos_main(page, "") == 0
    key = json.loads((tmp_path / "mos" / "mos_key.json").read_text())
    assert sorted(item["system"] for item in key["items"].values()) == ["majority"] * 3 + ["reference"] * 3
    (out / REPLIES).write_bytes(replies[:-40])
    for main_of, arguments in ((judge_main, [str(out), "model=judge-1"]), (mos_main, page)):
        assert main_of(arguments, "") == 1
        assert "eval/baseline.py for a baseline): that mends it" in capsys.readouterr().err
    majority(out, f"store={store}", "names=mine")
    assert (out / REPLIES).read_bytes() == replies


def test_a_text_run_answers_transcripts(whisper: Path, store: Path, tmp_path: Path) -> None:
    """The run that read the true words reads what a recogniser heard; one that hears is refused."""
    runs = {}
    for given in ("text", "speech"):
        run = tmp_path / given
        run.mkdir()
        config = build.materialise(load_config("recipe=smoke", f"data.input={given}", "data.made_up=4"), run)
        values = config.model_dump(mode="json")
        (run / "config.yaml").write_text(yaml.safe_dump(values))
        parameters = trainable(build.build_model(config))
        save_checkpoint(run / "checkpoints", 0, {"mixformer": parameters}, {"config": values})
        runs[given] = run
    begin = ["asr_llm", f"asr={whisper}", f"store={store}", f"out={tmp_path / 'out'}", "max_new_tokens=4"]
    assert main([*begin, f"run={runs['speech']}"], "") == 1
    assert not (tmp_path / "out").exists()
    assert main([*begin, f"run={runs['text']}"], "") == 0
    assert len(read_answers(tmp_path / "out" / REPLIES)) == len(list(read_dialogues(store)))
    assert read_generation(tmp_path / "out")["parameters"]["llm"]["total"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "KIND: missing"),
        (["majorty", "store=S", "out=O"], "did you mean 'majority'?"),
        (["majority"], "store, out: missing"),
        (["majority", "store=S", "out=O", "model=x"], "model: unknown key"),
        (["majority", "store=/nowhere.jsonl", "out=O"], "no such file"),
        (["majority", "store=S,S", "out=O"], "name their sets with names="),
        (["majority", "store=S", "out=O", "names=a,b"], "names: 2 for 1 stores"),
        (["majority", "store=S", "out=O", "batch_size=0"], "evaluation.batch_size"),
        (["majority", "store=S", "out=O", "turns=all"], "evaluation.turns"),
        (["majority", "store=S", "out=O", "limit=0"], "limit: must be at least 1"),
        (["asr_llm", "store=S", "out=O"], "asr: missing"),
        (["asr_llm", "store=S", "out=O", "asr=S"], "llm, run: name one of them"),
        (["asr_llm", "store=S", "out=O", "asr=S", "llm=/nowhere"], "llm: /nowhere is not there"),
        (["qwen2_audio", "store=S", "out=O", "model=S", "device=tpu"], "device: one of cpu, cuda"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named with its cure, before anything is written."""
    given = [
        one.replace("=S", f"={store}").replace(",S", f",{store}").replace("=O", f"={tmp_path}/o") for one in arguments
    ]
    assert main(given, "") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_folders_are_not_mixed_up(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's config must not be overwritten, and a baseline's replies are not made by eval/run_store.py."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("run_name: mine\n")
    assert main(["majority", f"store={store}", f"out={tmp_path / 'run'}"], "") == 2
    assert "holds a run of train.py" in capsys.readouterr().err
    out = majority(tmp_path / "out", f"store={store}")
    assert score_main([f"run={out}", "stage=generate"], "") == 2
    assert "eval/baseline.py makes" in capsys.readouterr().err
    (out / "config.yaml").write_text("baseline: majority\nrun_name: x\n")
    assert score_main([f"run={out}", "stage=score"], "") == 2
    assert "config.yaml: evaluation: Field required" in capsys.readouterr().err


def test_a_model_that_is_none_is_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the start; and nothing is left behind."""
    (tmp_path / "empty").mkdir()
    given = ["qwen2_audio", f"model={tmp_path / 'empty'}", f"store={store}", f"out={tmp_path / 'out'}"]
    assert main(given, "") == 1
    assert "no config.json there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
