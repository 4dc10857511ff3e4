"""An exported run is the trained model: what PEFT and transformers make of it has our logits."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from omnichat import build
from omnichat.chat import Chat, LoadedRun, load_run
from omnichat.checkpoint import CheckpointError, load_checkpoint, mark_best, save_checkpoint
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.evaluation.command import main as score
from omnichat.export.__main__ import main
from omnichat.export.formats import export, readable_by_4
from omnichat.exported import load_trained
from omnichat.models.tiny import write_llama
from omnichat.recipes import ROOT
from omnichat.training.fit import fit

OVERRIDES = (
    "recipe=smoke", "data.made_up=4", "trainer.max_steps=2", "trainer.save_every=1", "trainer.warmup_steps=1",
    "trainer.validate_every=0", "trainer.learning_rate=0.05", "preflight=off",
)  # fmt: skip
# The values of Llama-3.1's own config.json.
LLAMA31_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a run whose language model has Llama-3.1's rope."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    made = build.materialise(load_config(*OVERRIDES), folder)
    llama = Path(str(made.model.llm.checkpoint))
    base = LlamaForCausalLM.from_pretrained(llama)
    base.config.rope_parameters = {**LLAMA31_ROPE, "rope_theta": 500_000.0}
    write_llama(llama, base)
    assert fit(made, folder) == 0
    return folder


@pytest.fixture(scope="module")
def out(run_dir: Path) -> Path:
    """Exported by the command, merged too."""
    folder = run_dir.parent / "exports" / "one"
    assert main([f"run={run_dir}", f"out={folder}", "merge=true"]) == 0
    return folder


@pytest.fixture(scope="module")
def ours(run_dir: Path) -> LoadedRun:
    """The run as chat loads it."""
    return load_run(run_dir)


def base_of(ours: LoadedRun) -> LlamaForCausalLM:
    """The frozen language model, as transformers alone loads it."""
    return AutoModelForCausalLM.from_pretrained(ours.config.model.llm.checkpoint, dtype=torch.float32)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of a row of token ids."""
    return model(torch.arange(3, 260, 4)[None]).logits


def test_peft_and_the_merged_folder_have_our_logits(out: Path, ours: LoadedRun) -> None:
    """A name that PEFT does not know is passed over with a warning, and the adapter is then no adapter."""
    expected = logits(ours.model.llm)
    base = base_of(ours)
    assert (logits(base) - expected).abs().max() > 1e-2  # the adapter does something
    adapted = PeftModel.from_pretrained(base, out)
    merged = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.float32)
    assert (logits(adapted) - expected).abs().max() <= 1e-5
    assert (logits(merged) - expected).abs().max() <= 1e-5


def test_names_are_those_that_peft_itself_writes(out: Path, ours: LoadedRun, tmp_path: Path) -> None:
    """Also for other readers of the format, which look for names rather than ask PEFT."""
    PeftModel.from_pretrained(base_of(ours), out).save_pretrained(tmp_path)
    written, found = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, out))
    assert found.keys() == written.keys()
    about, lora = json.loads((out / "adapter_config.json").read_text()), ours.config.model.lora
    assert (about["peft_type"], about["task_type"], about["inference_mode"]) == ("LORA", "CAUSAL_LM", True)
    assert (about["r"], about["lora_alpha"], about["bias"]) == (lora.rank, lora.alpha, "none")
    assert about["base_model_name_or_path"] == ours.config.model.llm.checkpoint


def test_the_mixformer_and_the_config_are_the_runs(out: Path, run_dir: Path, ours: LoadedRun) -> None:
    """With both, whoever has the experts can build the model again."""
    mixformer = load_file(out / "mixformer.safetensors")
    state = ours.model.mixformer.state_dict()
    assert mixformer.keys() == state.keys()
    assert all(torch.equal(mixformer[name], tensor) for name, tensor in state.items())
    config = RunConfig.model_validate_json(json.dumps(yaml.safe_load((out / "omnichat_config.yaml").read_text())))
    assert config == ours.config


def test_an_export_answers_as_its_run_does(out: Path, run_dir: Path, ours: LoadedRun, tmp_path: Path) -> None:
    """Whoever gets an export alone must get the model: every trained tensor, and the style fields it learnt."""
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    loaded = load_run(moved)
    assert (loaded.step, loaded.style_fields, loaded.config) == (ours.step, ours.style_fields, ours.config)
    found, expected = loaded.model.state_dict(), ours.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    clip = next((run_dir / "made_up").rglob("*.wav"))
    assert Chat(loaded).reply(clip) == Chat(ours).reply(clip)
    with pytest.raises(CheckpointError, match="is an export of step 2 and holds no other"):
        load_run(moved, "best")


def test_an_export_is_scored_as_a_run_is(out: Path, run_dir: Path, tmp_path: Path) -> None:
    """Whoever was given it will want to see how it does on their own dialogues."""
    moved, store = tmp_path / "moved", run_dir / "made_up" / "val.jsonl"
    shutil.copytree(out, moved, ignore=shutil.ignore_patterns("merged"))
    assert score([f"run={moved}", f"store={store}", "bootstrap=0", "max_new_tokens=5"], "How.") == 0
    assert json.loads((moved / "scores.json").read_text())["splits"]["val"]["n"] == 4
    assert (moved / "report.html").stat().st_size > 10_000


def test_a_run_begins_with_an_export(out: Path, run_dir: Path, tmp_path: Path) -> None:
    """To go on from somebody's adapter on one's own data: its weights, a new optimizer, step 0."""
    start = load_checkpoint(run_dir / "checkpoints" / "2")
    made = build.materialise(load_config(*OVERRIDES, f"init_from={out}", "trainer.max_steps=1"), tmp_path)
    llm = load_run(out).config.model
    frozen = {name: {"checkpoint": getattr(llm.encoders, name).checkpoint} for name in llm.experts}
    values = json.loads(made.model_dump_json())
    values["model"]["llm"] = json.loads(llm.llm.model_dump_json())
    for name, one in frozen.items():
        values["model"]["encoders"][name] |= one
    values["trainer"] |= {"learning_rate": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}
    assert fit(RunConfig.model_validate_json(json.dumps(values)), tmp_path / "next") == 0
    went_on = load_checkpoint(tmp_path / "next" / "checkpoints" / "1").weights()
    assert went_on.keys() == start.weights().keys()
    assert all(torch.allclose(went_on[name], tensor, atol=1e-9) for name, tensor in start.weights().items())


def test_damaged_exports_are_refused_by_file(out: Path, tmp_path: Path) -> None:
    """A flipped bit passes safetensors unnoticed; a list of files must not lead out of the folder."""
    for number, (name, damage, said) in enumerate(
        (
            ("mixformer.safetensors", flipped, r"mixformer\.safetensors: does not match its sha256"),
            ("adapter_model.safetensors", None, r"adapter_model\.safetensors: is missing"),
            ("omnichat_config.yaml", lambda content: b"a: [", r"omnichat_config\.yaml: cannot be read"),
            ("omnichat_export.json", lambda content: content[:50], r"omnichat_export\.json: is damaged"),
            (
                "omnichat_export.json",
                lambda content: content.replace(b'"format": 1', b'"format": 2'),
                "update omnichat",
            ),
            ("omnichat_export.json", lambda content: content.replace(b'"adapter_', b'"../adapter_'), "list of files"),
            ("omnichat_export.json", unlisted, "list of files"),
            ("omnichat_export.json", lambda content: content.replace(b'"step": 2', b'"step": null'), "is damaged"),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(out, folder, ignore=shutil.ignore_patterns("merged"))
        if damage is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damage((folder / name).read_bytes()))
        with pytest.raises(CheckpointError, match=said):
            load_trained(folder)


def unlisted(content: bytes) -> bytes:
    """The record without the Mix-Former: its file would be taken whatever is in it."""
    record = json.loads(content)
    del record["files"]["mixformer.safetensors"]
    return json.dumps(record).encode()


def flipped(content: bytes) -> bytes:
    """One bit of the last byte is another."""
    return content[:-1] + bytes([content[-1] ^ 1])


def test_transformers_4_finds_what_it_looks_for(out: Path, ours: LoadedRun) -> None:
    """4.57 reads a config of 5 with rope_theta 10000 and without scaling, in silence, and fails on its tokenizer."""
    values = json.loads((out / "merged" / "config.json").read_text())
    assert values["rope_theta"] == 500_000.0
    assert values["rope_scaling"] == LLAMA31_ROPE
    assert values["torch_dtype"] == "float32"
    for folder in (out, out / "merged"):
        about = json.loads((folder / "tokenizer_config.json").read_text())
        assert about["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert not isinstance(about.get("extra_special_tokens"), list)
        text = "(female, sad, slow, low): I am home.<|eot_id|>"
        base = Tokenizer.from_file(f"{ours.config.model.llm.checkpoint}/tokenizer.json")  # a Prompt changes its own
        expected = base.encode(text, add_special_tokens=False).ids
        assert AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"] == expected
    # The keys for 4 must not lead 5 astray.
    again = AutoConfig.from_pretrained(out / "merged")
    assert isinstance(again, LlamaConfig)
    assert again.rope_parameters == {**LLAMA31_ROPE, "rope_theta": 500_000.0}


def test_a_rope_that_is_not_scaled_has_no_scaling() -> None:
    """4.57 refuses a scaling of the kind `default`; a config without a rope stays as it is."""
    values = {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    four = {"rope_theta": 1e4, "rope_scaling": None, "torch_dtype": "bfloat16"}
    assert readable_by_4(values) == values | four
    assert readable_by_4({"dtype": "bfloat16"}) == {"dtype": "bfloat16"}


def test_the_card_says_all_there_is_to_say(out: Path, run_dir: Path, ours: LoadedRun) -> None:
    """A card with blanks is no card; weights without their origin and licence may not be passed on."""
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "peft"
    for said in (
        "step 2 of 2", "synthetic", "held out as val", "random weights", "the paper's: Llama-3.1-8B-Instruct",
        "not scored", "share asked for 0.5", *ours.config.model.experts,
    ):  # fmt: skip
        assert said in card, said
    state = load_checkpoint(run_dir / "checkpoints" / "2").state
    assert all(identity["sha256"] in card for identity in state["frozen"].values())
    assert not re.search(r"More Information Needed|None|\bTODO\b|<[a-z_]+>", card)
    assert str(run_dir.parent) not in card  # a path of one machine


def test_scores_are_shown_where_they_are_of_these_weights(run_dir: Path, tmp_path: Path) -> None:
    """Figures of another step beside these weights would be wrong figures."""
    metrics = {"bleu": {"value": 0.1234, "ci95": [0.1, 0.2]}, "meteor": {"value": None}}
    split = {"n": 4, "partial": None, "metrics": metrics}
    scores = run_dir / "scores.json"
    try:
        for step in (1, 2):
            scores.write_text(json.dumps({"step": step, "splits": {"val": split}}))
            export(run_dir, tmp_path / str(step))
    finally:
        scores.unlink()
    assert "the run's scores are of step 1" in (tmp_path / "1" / "README.md").read_text()
    assert "| BLEU-4 | 12.3 (10.0 to 20.0) |" in (tmp_path / "2" / "README.md").read_text()
    cards = [ModelCard.load(tmp_path / str(step) / "README.md") for step in (1, 2)]
    assert cards[0].data.eval_results is None
    (result,) = cards[1].data.eval_results
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("val", "bleu", 12.34)


def test_licences_are_read_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The licence of a base model is that of its own card, not what its name suggests."""
    from omnichat.model_card import NOT_STATED, licence_of

    for name in ("Llama-3.1-8B-Instruct", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Mine\n")
    assert licence_of(str(tmp_path / "mine")).startswith("cc-by-4.0")
    assert licence_of(str(tmp_path / "Llama-3.1-8B-Instruct")) == "Llama 3.1 Community License"
    assert licence_of(str(tmp_path / "unknown.pt")) == NOT_STATED
    monkeypatch.chdir(ROOT)  # as the README's commands are run; the path of a config is relative then
    assert licence_of("checkpoints/tiny/whisper.pt") == "Apache License 2.0 (made by omnichat)"


def test_llamas_licence_is_obeyed(run_dir: Path, tmp_path: Path) -> None:
    """It asks for its text, a notice and a name; a hub's link must lead to the page of the base model."""
    start = load_checkpoint(run_dir / "checkpoints" / "2")
    state = json.loads(json.dumps(start.state))
    base = tmp_path / "Llama-3.2-1B-Instruct"
    shutil.copytree(state["config"]["model"]["llm"]["checkpoint"], base)
    for name in ("LICENSE.txt", "NOTICE", "USE_POLICY.md"):
        (base / name).write_text(f"the text of {name}")
    state["config"]["model"]["llm"]["checkpoint"] = str(base)
    parts = {name: part for name, part in start.tensors.items() if name != "optimizer"}
    save_checkpoint(tmp_path / "run" / "checkpoints", 2, parts, state)
    export(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "meta-llama/Llama-3.2-1B-Instruct"
    assert "**Built with Llama.** Llama 3.2 is licensed under the Llama 3.2 Community License" in card
    for name in ("LICENSE.txt", "NOTICE", "USE_POLICY.md"):
        assert (tmp_path / "out" / name).read_text() == f"the text of {name}"
    (base / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"Llama-3.2-1B-Instruct, the language model .* has no tokenizer\.json"):
        export(tmp_path / "run", tmp_path / "without")
    export(run_dir, tmp_path / "random")
    plain = (tmp_path / "random" / "README.md").read_text()
    assert "Built with Llama" not in plain
    assert "base_model" not in yaml.safe_load(plain.split("---")[1])


def test_which_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    """The last step is not always the one to pass on."""
    checkpoints = run_dir / "checkpoints"
    with pytest.raises(CheckpointError, match=r"no checkpoint is noted as the best.*\(1, 2\)"):
        export(run_dir, tmp_path / "no", "best")
    mark_best(checkpoints, 1, "validation/total", 0.5)
    try:
        assert export(run_dir, tmp_path / "best", "best").step == 1
        assert load_run(run_dir, "best").step == 1
    finally:
        (checkpoints / "best.json").unlink()
    assert export(run_dir, tmp_path / "step", "1").step == 1
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; there are: 1, 2"):
        export(run_dir, tmp_path / "no", "7")
    with pytest.raises(CheckpointError, match="is not newest, best or a step"):
        export(run_dir, tmp_path / "no", "last")
    assert not (tmp_path / "no").exists()


def test_nothing_is_overwritten_and_nothing_left_half_made(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with something in it may be somebody's only copy; a half export looks like a whole one."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("mine")
    assert main([f"run={run_dir}", f"out={tmp_path / 'full'}"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert os.listdir(tmp_path / "full") == ["kept"]
    assert main([f"run={run_dir}", f"out={tmp_path / 'full' / 'kept'}"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "full" / "kept").read_text() == "mine"

    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omnichat.export.formats.model_card", full)
    assert main([f"run={run_dir}", f"out={tmp_path / 'half'}"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["full"]


def test_a_run_without_an_adapter(run_dir: Path, tmp_path: Path) -> None:
    """The Mix-Former alone can be passed on; there is nothing to merge."""
    start = load_checkpoint(run_dir / "checkpoints" / "2")
    state = json.loads(json.dumps(start.state))
    state["config"]["model"]["lora"]["enabled"] = False
    state["style_fields"] = ["emotion"]
    save_checkpoint(tmp_path / "run" / "checkpoints", 2, {"mixformer": start.tensors["mixformer"]}, state)
    with pytest.raises(ConfigError, match="no adapter to merge"):
        export(tmp_path / "run", tmp_path / "merged", merge=True)
    export(tmp_path / "run", tmp_path / "out")
    assert not list((tmp_path / "out").glob("adapter*"))
    assert "trained no adapter" in (tmp_path / "out" / "README.md").read_text()
    found = load_trained(tmp_path / "out")
    assert found.tensors.keys() == {"mixformer"}
    assert found.state["style_fields"] == ["emotion"]  # else chat would ask for what was never learnt
    assert found.state["frozen"] == state["frozen"]  # else other experts would pass for these


def test_all_faults_of_a_command_line_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One per try would be a bad joke; --help shows an example."""
    assert main(["rnu=x", "merge", "out=y"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'run'" in said
    assert "merge: is not of the form key=value" in said
    assert main(["--help"]) == 0
    assert "python -m omnichat.export run=runs/quickstart" in capsys.readouterr().out
