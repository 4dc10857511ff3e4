"""Everything that a run lacks is named at once, with the key that asks for it and where to get it."""

import json
import struct
from pathlib import Path

import pytest

from omnichat.config import RunConfig, checked, load_config
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


def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    """In a folder of somebody else's, as with a name too long for any file, the check itself ended in a traceback."""
    long = "a" * 300
    for path in (f"{tmp_path}/{long}", long):
        (line,) = missing(
            load_config("recipe=smoke", "data=base", f"data.synthetic={path}", "trainer.validate_every=0")
        )
        assert line.startswith(f"data.synthetic: {path} cannot be read (File name too long)")


def test_an_expert_that_there_is_not_has_no_weights_to_look_for() -> None:
    """`train.py model.experts=[whispr]` ended in an AttributeError, before the config's own fault was shown."""
    config, faults = checked(["recipe=smoke", "model.experts=[whispr]"])
    assert config is not None
    assert missing(config) == []
    assert [fault.partition(";")[0] for fault in faults] == ["model.experts: no expert 'whispr'"]


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
    (folder / "config.json").write_text("{}")
    lacks = [line.partition(";")[0] for line in missing(elsewhere) if line.startswith("model.llm")]
    assert lacks == [f"model.llm.checkpoint: no file {folder}/{name}" for name in ("tokenizer.json", "*.safetensors")]
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert not any(line.startswith("model.llm") for line in missing(elsewhere))


def test_downloads_that_broke_off_are_named_before_anything_is_loaded(elsewhere: RunConfig, tmp_path: Path) -> None:
    """Experts load for a minute before the language model's first missing shard was met, and then its second."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 361312000\n"
    (tmp_path / "beats.pt").write_bytes(pointer)
    (tmp_path / "large-v3.pt").write_bytes(b"PK\x03\x04 the first of three gigabytes")
    (tmp_path / "emotion2vec_base").mkdir()
    (tmp_path / "emotion2vec_base/config.yaml").write_text("model: Emotion2vec")
    (tmp_path / "emotion2vec_base/emotion2vec_base.pt").write_bytes(b"")
    folder = tmp_path / "llama"
    folder.mkdir()
    shards = [f"model-{number}-of-00002.safetensors" for number in ("00001", "00002")]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / shards[0]).write_bytes(struct.pack("<Q", 2) + b"{}")
    lines = [line for line in missing(elsewhere) if line.startswith("model.")]
    for line, (place, said) in zip(
        lines,
        (
            ("large-v3.pt", "is truncated"),
            ("emotion2vec_base/emotion2vec_base.pt", "is empty"),
            ("beats.pt", "is a Git LFS pointer"),
            (f"llama/{shards[1]}", "no such file, but model.safetensors.index.json asks for it"),
        ),
        strict=True,
    ):
        assert f"{tmp_path}/{place}: {said}" in line


def test_the_hubs_cache_is_pointed_into(elsewhere: RunConfig, tmp_path: Path) -> None:
    """Its folder has all that is asked for, two levels down: `no file config.json` would be no help."""
    for name in ("llama", "emotion2vec_base"):
        (tmp_path / name / "snapshots/0a1b").mkdir(parents=True)
    lines = [line for line in missing(elsewhere) if "hub's cache" in line]
    assert [line.partition(":")[0] for line in lines] == [
        "model.encoders.emotion2vec.checkpoint",
        "model.llm.checkpoint",
    ]
    assert all(line.endswith("snapshots/0a1b") for line in lines)


def test_a_converted_expert_is_a_checkpoint(elsewhere: RunConfig, tmp_path: Path) -> None:
    """What `omnichat.models.encoders.converted` wrote loads; it has no config.yaml, and was refused for that."""
    folder = tmp_path / "emotion2vec_base"
    folder.mkdir()
    (folder / "encoder.json").write_text("{}")
    assert not any(line.startswith("model.encoders.emotion2vec") for line in missing(elsewhere))


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


def test_packages_that_are_asked_for_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a run that trained for hours without the logger it was to have, or a traceback of another package."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing(load_config("recipe=smoke")) == []
    asked = {
        ("trainer=deepspeed", "trainer.devices=1"): ("trainer.strategy=deepspeed", "deepspeed", "deepspeed"),
        ("model.llm.quantization=nf4",): ("model.llm.quantization=nf4", "bitsandbytes", "qlora"),
        ("logger.tensorboard=true",): ("logger.tensorboard=true", "tensorboard", "tensorboard"),
        ("logger.wandb.mode=offline",): ("logger.wandb.mode=offline", "wandb", "wandb"),
    }
    for overrides, (key, package, extra) in asked.items():
        (line,) = (line for line in missing(load_config("recipe=smoke", *overrides)) if "needs the package" in line)
        assert line.startswith(key)
        assert line.endswith(f"needs the package {package}; pip install -e '.[{extra}]'")


def test_a_checkpoint_to_start_from_must_be_there(tmp_path: Path) -> None:
    """Otherwise the run would fail after loading everything else."""
    assert missing(load_config(f"resume={tmp_path}/checkpoints/8"))[0].startswith("resume: no file")
    assert missing(load_config("resume=never")) == []
