"""QLoRA: a language model of 4-bit weights trains, goes on, answers and is exported; or says why it cannot."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from omnichat import build, export, requirements
from omnichat.chat import load_run
from omnichat.checkpoint import load_checkpoint, tensors_sha256
from omnichat.config import ConfigError, load_config
from omnichat.data.store import Store
from omnichat.models import quantization
from omnichat.models.llm import load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.training.fit import fit
from omnichat.training.memory import frozen_bytes
from tests.spoken import checkpoints

QLORA = (
    "recipe=smoke",
    "model.llm.quantization=nf4",
    "data.made_up=8",
    "data.num_workers=0",
    "trainer.validate_every=0",
    "trainer.save_every=2",
    "trainer.keep_last=0",
)
needed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)"
)


def frozen_sha256(model: OmniChat) -> str:
    """Of every weight of the language model that is not trained, with the constants that turn codes into numbers."""
    state = model.llm.state_dict()
    return tensors_sha256({name: tensor for name, tensor in state.items() if ".lora_" not in name})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps in one go; the frozen weights' hash before and after lies beside."""
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed (extra qlora)")
    folder = tmp_path_factory.mktemp("runs") / "qlora"
    models, make = [], build.build_model

    def noted(*arguments: object) -> OmniChat:
        models.append((model := make(*arguments), frozen_sha256(model)))  # type: ignore[arg-type]
        return model

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "build_model", noted)
        assert fit(load_config(*QLORA, "trainer.max_steps=6"), folder) == 0
    ((model, before),) = models
    packed = [p for p in model.llm.model.layers.parameters() if p.dtype == torch.uint8]
    assert len(packed) == 7 * len(model.llm.model.layers), "all linear layers are of 4 bits"
    (folder / "hashes.json").write_text(json.dumps([before, frozen_sha256(model)]))
    return folder


def saved(run_dir: Path, step: int) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    files = (run_dir / "checkpoints" / str(step)).glob("*.safetensors")
    return {f"{file.stem} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def test_loss_falls_and_the_quantised_weights_stay(run_dir: Path) -> None:
    """A CPU's repacking, or an optimizer that sees them, would change them; without gradients nothing is learnt."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/total"] for line in lines if "loss/total" in line]
    assert losses[-1] < 0.9 * losses[0]
    before, after = json.loads((run_dir / "hashes.json").read_text())
    assert before == after


def test_only_what_is_trained_is_saved(run_dir: Path) -> None:
    """Adapters, Mix-Former and their moments; a byte of the base would make checkpoints of gigabytes."""
    found = saved(run_dir, 6)
    assert {name.partition(" ")[0] for name in found} == {"mixformer", "adapter", "optimizer"}
    assert all(".lora_" in name for name in found if name.startswith("adapter"))
    assert not any("absmax" in name or "quant" in name for name in found)
    assert load_checkpoint(run_dir / "checkpoints" / "6").state["config"]["model"]["llm"]["quantization"] == "nf4"


def test_it_goes_on_as_if_it_had_not_stopped(run_dir: Path, tmp_path: Path) -> None:
    """Quantising again at the start must give the same weights; another base is another function, and refused."""
    again = ("trainer.max_steps=6", f"resume={run_dir / 'checkpoints' / '4'}")
    assert fit(load_config(*QLORA, *again), tmp_path) == 0
    assert tensors_sha256(saved(tmp_path, 6)) == tensors_sha256(saved(run_dir, 6))
    with pytest.raises(ConfigError, match=r'model\.llm\.quantization: "nf4" there, null here'):
        fit(load_config(*QLORA, "model.llm.quantization=null", "trainer.max_steps=8"), tmp_path)


def test_it_answers_and_is_exported(run_dir: Path, tmp_path: Path) -> None:
    """Answers come from the 4-bit base that was trained on; the adapter merges into the base's own weights."""
    loaded = load_run(run_dir)
    assert any(parameter.dtype == torch.uint8 for parameter in loaded.model.llm.parameters())
    config = loaded.config
    store = Store(run_dir / "made_up" / "val.jsonl")
    _, examples = build.eval_examples(config, loaded.prompt, str(store.path), limit=2)
    replies = loaded.model.generate(examples, 4, loaded.prompt.stop_id)
    assert all(reply.ids for reply in replies)
    export.export(run_dir, tmp_path / "out", merge=True)
    base = load_llm(str(config.model.llm.checkpoint))
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "out" / "merged", local_files_only=True)
    adapter = load_checkpoint(run_dir / "checkpoints" / "6").tensors["adapter"]
    name = "model.layers.0.self_attn.q_proj"
    scale = config.model.lora.alpha / config.model.lora.rank
    a, b = (adapter[f"llm.{name}.lora_{part}.default.weight"] for part in "AB")
    wanted = base.get_submodule(name).weight + scale * b @ a
    torch.testing.assert_close(merged.get_submodule(name).weight, wanted)
    assert "4-bit" in (tmp_path / "out" / "README.md").read_text()


@needed
def test_bytes_of_quantised_weights_are_those_counted(tmp_path: Path) -> None:
    """The estimate's 0.516 bytes a weight, codes and both levels of constants, against what is really held."""
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=348,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((checkpoints()["llama"] / "tokenizer.json").read_bytes())
    llm = load_llm(tmp_path, torch.bfloat16, "nf4", "cpu")
    held = sum(parameter.nbytes for parameter in llm.parameters())
    for parameter in llm.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes  # the codes' tables are shared or of fixed size
    model = OmniChat({}, MixFormer({"whisper": 8}, 256, hidden=8, heads=1, ffn=8, layers=1), llm, 17, 1)
    run = load_config("recipe=dailytalk", "model=omnichat_4bit", "trainer.devices=1")
    assert frozen_bytes(model, run) == pytest.approx(held, rel=0.002)


def test_a_missing_package_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ImportError from inside transformers, after minutes, says neither which key asked nor what to install."""
    find = importlib.util.find_spec
    for part in (requirements, quantization):
        monkeypatch.setattr(
            part.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
        )
    cure = r"model\.llm\.quantization=nf4: needs the package bitsandbytes; pip install -e '\.\[qlora\]'"
    with pytest.raises(ConfigError, match=cure):
        fit(load_config(*QLORA), tmp_path / "run")
    assert not (tmp_path / "run" / "random_weights").exists()
    with pytest.raises(ValueError, match=cure):
        load_llm(checkpoints()["llama"], quantization="nf4")


@needed
def test_a_backend_that_cannot_compute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes installs everywhere, and fails at the first product where it has no library for the device."""
    import bitsandbytes.functional

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", fails)
    with pytest.raises(ValueError, match=r"cannot compute on cpu \(no kernel image\).*quantization=null"):
        load_llm(checkpoints()["llama"], quantization="nf4", accelerator="cpu")


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_3"])
def test_engines_that_cut_weights_are_refused(strategy: str) -> None:
    """They would cut codes apart from the constants that belong to them."""
    with pytest.raises(ConfigError, match=rf"trainer\.strategy: {strategy} cuts the LLM into shards"):
        load_config("recipe=dailytalk", "model=omnichat_4bit", f"trainer.strategy={strategy}")
