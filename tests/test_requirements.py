"""Everything that a run lacks is named at once, with the key that asks for it and where to get it."""

from pathlib import Path

import pytest

from omnichat.config import RunConfig, load_config
from omnichat.requirements import missing


@pytest.fixture
def elsewhere(tmp_path: Path) -> RunConfig:
    """A full-size config whose files would lie in an empty folder."""
    return load_config(
        "recipe=dailytalk",
        f"model.encoders.whisper.checkpoint={tmp_path}/large-v3.pt",
        f"model.encoders.emotion2vec.checkpoint={tmp_path}/emotion2vec_base",
        f"model.encoders.beats.checkpoint={tmp_path}/beats.pt",
        f"model.llm.checkpoint={tmp_path}/llama",
        f"data.synthetic={tmp_path}/corpora/sharechat_emotion/train.jsonl",
        f"data.real={tmp_path}/real.jsonl",
        f"data.val.val={tmp_path}/corpora/dailytalk/val",
    )


def test_every_missing_file_is_named_with_its_key_and_its_source(elsewhere: RunConfig, tmp_path: Path) -> None:
    """One missing file a start would cost a day of waiting for downloads one by one."""
    lines = dict(line.split(": no file ", 1) for line in missing(elsewhere))
    assert list(lines) == [
        "model.encoders.whisper.checkpoint",
        "model.encoders.emotion2vec.checkpoint",
        "model.encoders.beats.checkpoint",
        "model.llm.checkpoint",
        "data.synthetic",
        "data.real",
        "data.val.val",
    ]
    assert all(line.startswith(str(tmp_path)) for line in lines.values())
    assert "openai/whisper" in lines["model.encoders.whisper.checkpoint"]
    assert "emotion2vec/emotion2vec_base" in lines["model.encoders.emotion2vec.checkpoint"]
    assert "microsoft/unilm" in lines["model.encoders.beats.checkpoint"]
    assert "meta-llama/Llama-3.1-8B-Instruct" in lines["model.llm.checkpoint"]
    assert "sharechatx.github.io" in lines["data.synthetic"]
    assert "docs/synthesis.md" in lines["data.synthetic"], "it is not released: the way out is to make one"
    assert lines["data.real"].endswith("correct the path")
    assert "keonlee9420/DailyTalk" in lines["data.val.val"]
    assert "python -m data_prep.dailytalk" in lines["data.val.val"]


def test_the_one_billion_llama_is_looked_up_under_its_own_name() -> None:
    """`model=omnichat_1b` lacked a 1B model and was sent to the page of the 8B one."""
    config = load_config("recipe=dailytalk", "model=omnichat_1b", "model.llm.checkpoint=nowhere/Llama-3.2-1B-Instruct")
    (line,) = (line for line in missing(config) if line.startswith("model.llm.checkpoint"))
    assert "meta-llama/Llama-3.2-1B-Instruct" in line
    assert "8B" not in line


def test_a_store_in_its_other_form_is_pointed_to(elsewhere: RunConfig, tmp_path: Path) -> None:
    """Dialogues are a JSONL file or a folder of shards: who names the wrong one has the data all the same."""
    (tmp_path / "corpora/dailytalk").mkdir(parents=True)
    (tmp_path / "corpora/dailytalk/val.jsonl").touch()
    assert f"data.val.val: no folder {tmp_path}/corpora/dailytalk/val; there is a file val.jsonl: name it in full" in (
        missing(elsewhere)
    )


def test_half_a_folder_is_not_a_checkpoint(elsewhere: RunConfig, tmp_path: Path) -> None:
    """An interrupted download leaves the folder and lacks the file."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").touch()
    lacks = [line.partition(";")[0] for line in missing(elsewhere) if line.startswith("model.llm")]
    assert lacks == [f"model.llm.checkpoint: no file {folder}/{name}" for name in ("tokenizer.json", "*.safetensors")]
    (folder / "tokenizer.json").touch()
    (folder / "model-00001-of-00004.safetensors").touch()
    assert not any(line.startswith("model.llm") for line in missing(elsewhere))


def test_what_alpha_and_experts_leave_out_is_not_asked_for(tmp_path: Path) -> None:
    """Training on one source must not need the other."""
    config = load_config(
        "recipe=dailytalk",
        "data.alpha=0",
        "model.experts=[beats]",
        f"data.real={tmp_path}",
        "data.val={}",
        "trainer.validate_every=0",
    )
    keys = [line.partition(":")[0] for line in missing(config)]
    assert "data.synthetic" not in keys
    assert "data.real" not in keys
    assert [key for key in keys if key.startswith("model.encoders")] == ["model.encoders.beats.checkpoint"]


def test_a_checkpoint_to_start_from_must_be_there(tmp_path: Path) -> None:
    """Otherwise the run would fail after loading everything else."""
    assert missing(load_config(f"resume={tmp_path}/checkpoints/8"))[0].startswith("resume: no file")
    assert missing(load_config("resume=never")) == []
