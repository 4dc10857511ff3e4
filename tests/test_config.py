"""The schema names every fault at once, and refuses what would be taken wrongly in silence."""

import pickle

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from pydantic import ValidationError

from omnichat.config import ConfigError, load_config, saved_config, validate
from omnichat.recipes import CONF_DIR, compose, with_own_keys

SOURCES = (
    "data=base", "++data.val.v=v.jsonl", "data.alpha=null",
    "++data.sources.a.path=a.jsonl", "++data.sources.b.path=b.jsonl",
    "++data.sources.a.weight=3", "++data.sources.b.weight=1",
)  # fmt: skip


def faults(*overrides: str, **added: object) -> list[str]:
    """The faults of a config; `added` are merged as a recipe would, without Hydra's checks."""
    cfg = compose(*overrides)
    OmegaConf.set_struct(cfg, False)
    with pytest.raises(ConfigError) as caught:
        validate(OmegaConf.merge(cfg, added))
    return caught.value.faults


def test_all_faults_are_named_at_once_with_near_matches() -> None:
    """One fault a run would cost one start a fault."""
    found = faults(
        "trainer.learning_rate=fast",
        "data.alpha=1.5",
        "model.gate=chanel",
        data={"alhpa": 0.3},
        trainer={"max_stepz": 5},
        modle="tiny",
    )
    assert found == [
        "model.gate: Input should be 'scalar', 'channel' or 'none' (got 'chanel'); did you mean 'channel'?",
        "data.alpha: Input should be less than or equal to 1 (got 1.5)",
        "data.alhpa: unknown key; did you mean 'data.alpha'?",
        "trainer.learning_rate: Input should be a valid number (got 'fast')",
        "trainer.max_stepz: unknown key; did you mean 'trainer.max_steps'?",
        "modle: unknown key; did you mean 'model'?",
    ]


def test_a_key_in_the_wrong_place_is_pointed_to_the_right_one() -> None:
    """People remember `alpha`, not its section."""
    assert faults(alpha=0.5) == ["alpha: unknown key; did you mean 'data.alpha'?"]


def test_a_key_like_no_other_gets_the_list_of_its_section() -> None:
    """A far guess would mislead."""
    assert faults(model={"lora": {"zzz": 1}}) == [
        "model.lora.zzz: unknown key; model.lora has enabled, rank, alpha, dropout, targets"
    ]


def test_a_shared_prefix_and_dropout_are_refused() -> None:
    """Dropout drawn once for all dialogues would be another training than the one that was asked for."""
    (found,) = faults("trainer.shared_prefix=true", "model.lora.dropout=0.1")
    assert found.startswith("trainer.shared_prefix: ")


def test_a_source_is_explained_though_its_name_is_the_users() -> None:
    """The schema cannot list the names of sources; what belongs below one must be said all the same."""
    assert faults(*SOURCES, data={"sources": {"a": {"wieght": 1}}}) == [
        "data.sources.a.wieght: unknown key; did you mean 'data.sources.a.weight'?"
    ]
    assert faults(*SOURCES[:-1])[0] == "data.sources.b.weight: is missing; every source has a path and a weight"
    assert faults(*SOURCES, "data.sources.b.weight=-1") == [
        "data.sources.b.weight: Input should be greater than or equal to 0 (got -1)"
    ]


def test_unknown_keys_do_not_hide_contradictions() -> None:
    """The rest of the config is checked as a whole even so."""
    found = faults("trainer.micro_batch=3", data={"alhpa": 0.3})
    assert len(found) == 2
    assert found[1].startswith("trainer.micro_batch: 8 dialogues a step on 1 rank(s)")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.max_steps=true", "trainer.max_steps"),  # lax reading makes it 1
        ("trainer.max_steps=10.0", "trainer.max_steps"),
        ("model.lora.enabled=1", "model.lora.enabled"),
        ("seed='7'", "seed"),
        ("seed=-1", "seed"),
        ("trainer.learning_rate=inf", "trainer.learning_rate"),
        ("trainer.learning_rate=nan", "trainer.learning_rate"),
        ("trainer.devices=0", "trainer.devices"),
        ("trainer.betas=[0.9]", "trainer.betas.1"),
        ("model.experts=[]", "model.experts"),
        ("model.experts=whisper", "model.experts"),
        ("run_name=a/b", "run_name"),
        ("run_name=..", "run_name"),
        ("resume=true", "resume"),
        ("data.system=null", "data.system"),
    ],
)
def test_values_are_taken_strictly(override: str, key: str) -> None:
    """A value that is quietly converted trains something else than was asked for."""
    assert [fault.partition(": ")[0] for fault in faults(override)] == [key]


def test_a_key_of_two_types_has_one_fault() -> None:
    """pydantic reports one for each type, under names that nobody typed."""
    assert faults("trainer.devices=many") == [
        "trainer.devices: Input should be a valid integer (got 'many'); or: Input should be 'auto'"
    ]
    assert load_config("trainer.devices=auto").trainer.devices == "auto"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data=sharechat_emotion", "data.alpha=0.5"], "data.alpha: 0.5 draws real dialogues"),
        (["data=sharechat_emotion", "data.alpha=0"], "data.alpha: 0 draws real dialogues"),
        (["data=dailytalk", "data.synthetic=null"], "data.alpha: 0.2 draws synthetic dialogues"),
        (["data=dailytalk", "data.made_up=3"], "data.made_up: stands in for both sources"),
        (["data=base", "data.alpha=0", "data.real=x", "data.val={}"], "trainer.validate_every: there is nothing"),
        (["data.features=cached"], "data.features_dir: "),
        (["model.experts=[beats,beats]"], "model.experts: names an expert twice"),
        (["model=omnichat", "model.encoders.beats.checkpoint=null"], "model.encoders.beats.checkpoint: is null"),
        (["model.random=false", "model.experts=[whisper]"], "model.encoders.whisper.checkpoint: is null"),
        (["model.llm.checkpoint=x"], "model.llm.checkpoint: is set, but model.random=true"),
        (["model.qformer.heads=5"], "model.qformer: hidden 32 cannot be cut into 5 heads"),
        (["trainer.warmup_steps=9"], "trainer.warmup_steps: 9 is more than trainer.max_steps 8"),
        (["data.alpha=null"], "data.alpha: is null, and data.sources has no source"),
        ([*SOURCES, "data.alpha=0.5"], "data.alpha: data.sources gives the shares; set data.alpha=null"),
        ([*SOURCES, "data.synthetic=x"], "data.synthetic: data.sources gives the shares; set data.synthetic=null"),
        ([*SOURCES, "data.real=x"], "data.real: data.sources gives the shares"),
        ([*SOURCES, "data.made_up=3"], "data.made_up: data.sources gives the shares"),
        ([*SOURCES[:-2], "++data.sources.b.weight=0", "++data.sources.a.weight=0"], "data.sources: every weight is 0"),
        (["trainer.tokens_per_step=100"], "trainer.tokens_per_step: a step is so many tokens or so many dialogues"),
        (["trainer.micro_batch_tokens=400"], "trainer.micro_batch_tokens: a step of so many dialogues is cut by"),
        (["init_from=runs/a", "resume=runs/b/checkpoints/4"], "init_from: resume=PATH begins with its weights"),
        (["trainer.dialogues_per_step=null"], "trainer.dialogues_per_step: is null, and so is trainer.tokens_per_step"),
        (["trainer.compile_experts=true", "trainer.strategy=deepspeed_stage_3"], "trainer.compile_experts: compiled Q"),
        (["trainer.devices=3"], "trainer.micro_batch: 8 dialogues a step on 3 rank(s) cannot be cut"),
        (["data=dailytalk", "++data.first.reel=3"], "data.first.reel: there is no such source; did you mean 'real'?"),
    ],
)
def test_keys_that_contradict_each_other(overrides: list[str], fault: str) -> None:
    """Each key is fine by itself; the run would fail late, or train on something else."""
    assert any(found.startswith(fault) for found in faults(*overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=dailytalk", "data.alpha=0", "data.synthetic=null"],
        ["data=dailytalk", "data.alpha=1", "data.real=null"],
        ["model=omnichat", "model.experts=[whisper]", "model.encoders.beats.checkpoint=null"],
        ["trainer.devices=2", "trainer.num_nodes=2", "trainer.micro_batch=2"],
        ["trainer.validate_every=0", "data=base", "data.synthetic=x"],
        [*SOURCES, "trainer.devices=3", "trainer.dialogues_per_step=null", "trainer.tokens_per_step=4096"],
    ],
)
def test_what_is_not_used_need_not_be_there(overrides: list[str]) -> None:
    """The ends of alpha and a subset of experts are experiments of their own."""
    assert load_config(*overrides)


def test_micro_batches_that_fit_are_listed() -> None:
    """The cure is part of the message."""
    assert faults("trainer.micro_batch=5")[0].endswith("into micro-batches of 5; choose 1, 2, 4 or 8")


def test_missing_key_is_named() -> None:
    """A run folder's config of an older version lacks new keys."""
    cfg = compose()
    OmegaConf.set_struct(cfg, False)
    del cfg.data["alpha"]
    with pytest.raises(ConfigError, match=r"data\.alpha: is missing"):
        validate(cfg)


def test_unresolved_interpolation_is_named() -> None:
    """OmegaConf resolves late; its error must not come as a traceback."""
    assert "nope" in faults("run_name=${nope}")[0]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.alhpa=1", "data.alhpa: unknown key; did you mean 'data.alpha'?"),
        ("model=null", "model=null: no such model; there are: "),
        ("data.val=[a]", "Error merging override data.val=[a]"),
        ("data.val.a=[b", "data.val.a=[b: is not of the form key=value"),
        ("trainer=gpus", "trainer=gpus: no such trainer; there are: base, cpu, ddp, deepspeed"),
        ("quickstart", "quickstart: is not of the form key=value"),
        ("data.alpha=0.1,0.2", "data.alpha: has 2 values; give one, only train.py -m takes several"),
        ("--markdown", "--markdown: there is no such option; settings are key=value"),
        (
            "+data.sources={1:{path:x,weight:1,foo:2}}",
            "data.sources.1.foo: unknown key; data.sources.1 has path, weight",
        ),
    ],
)
def test_overrides_that_cannot_be_applied_are_faults(override: str, fault: str) -> None:
    """Hydra's own errors, and a KeyError for a source that is named by a number, are no answers to a user."""
    with pytest.raises(ConfigError) as caught:
        load_config("recipe=smoke", override)
    assert any(fault in one for one in caught.value.faults)


def test_the_users_own_keys_need_no_mark() -> None:
    """What `python train.py` takes, `precompute` and `estimate` of the same run must take too."""
    shares = ("data.alpha=null", "data.synthetic=null", "data.real=null", "data.sources.mine.path=my/train")
    more = ("data.sources.mine.weight=1", "data.val.mine=my/val.jsonl", "data.first.mine=3")
    config = load_config("recipe=dailytalk", *shares, *more)
    assert config.data.sources["mine"].path == "my/train"
    assert config.data.val["mine"] == "my/val.jsonl"
    assert config.data.first == {"mine": 3}


def test_a_whole_section_of_own_keys_replaces_the_recipes() -> None:
    """Merged, `data.val={}` did nothing at all, nor did `data.sources={}`, which our own message advises."""
    config = load_config("recipe=quickstart", "data.val.b=b.jsonl", "data.val={a: a.jsonl}", "data.test={}")
    assert config.data.val == {"a": "a.jsonl"}
    assert config.data.test == {}
    assert load_config("recipe=quickstart", "+data.val={a:b}").data.val.keys() == {"a", "val"}, "as Hydra reads a +"
    paper = ("data.sources={}", "data.alpha=1", "data.synthetic=x")
    back = load_config("recipe=quickstart", "data=sharechat_mini", *paper)
    assert back.data.sources == {}
    swept = ["data.first={real:1},{real:2}", "data.val={a"]
    assert with_own_keys(swept) == swept


def test_config_cannot_be_changed_and_survives_the_run_folder() -> None:
    """What was checked is what runs, and what is read back from config.yaml."""
    config = load_config("recipe=sharechat_emotion")
    with pytest.raises(ValidationError):
        config.data.alpha = 0.5  # type: ignore[misc]
    assert validate(OmegaConf.create(config.model_dump(mode="json"))) == config


def test_defaults_are_looked_up_while_hydra_runs() -> None:
    """train.py, in the folder of a run older than some key, ended with 'GlobalHydra is already initialized'."""
    values = load_config("recipe=smoke").model_dump(mode="json")
    del values["threads"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert saved_config(values, "runs/old/config.yaml").threads is None
        assert GlobalHydra.instance().hydra is running
    assert not GlobalHydra.instance().is_initialized()


def test_a_run_of_before_a_key_was_added_is_read_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """A new key must not make every older run unreadable; what is assumed of such a run has to be said."""
    config = load_config("recipe=sharechat_emotion", "seed=3", "data.sources={}")
    values = config.model_dump(mode="json")
    del values["threads"], values["trainer"]["compile"], values["model"]["encoders"]["whisper"]["context"]
    read = saved_config(values, "runs/old/config.yaml")
    assert read == config.model_copy(update={"trainer": config.trainer.model_copy(update={"compile": False})})
    assert capsys.readouterr().err == (
        "runs/old/config.yaml: is older than some keys, which get their defaults: threads=null, "
        'model.encoders.whisper.context="pad30", trainer.compile=false\n'
    )
    assert "threads" not in values, "what was read is left as it was"


def test_a_saved_config_that_is_not_one_is_refused_with_all_its_faults() -> None:
    """Defaults may not hide a key of another version, a typing error, or a file that is no run's."""
    values = load_config("recipe=sharechat_emotion").model_dump(mode="json")
    del values["threads"]
    values["trainer"] |= {"compil": True, "max_steps": "many"}
    values["data"]["sources"] = {"a": {"path": "a"}}
    with pytest.raises(ConfigError) as caught:
        saved_config(values, "old.yaml")
    found = sorted(fault.removeprefix("old.yaml: ") for fault in caught.value.faults)
    assert [fault.partition(":")[0] for fault in found] == [
        "data.sources.a.weight", "trainer.compil", "trainer.max_steps"
    ]  # fmt: skip
    assert "did you mean 'trainer.compile'" in found[1]
    with pytest.raises(ConfigError, match=r"old\.yaml: model: is missing"):
        saved_config({"run_name": "only"}, "old.yaml")


def test_error_crosses_process_boundaries() -> None:
    """Data workers and launchers pickle exceptions; an error that cannot be unpickled hides its message."""
    error = pickle.loads(pickle.dumps(ConfigError(["a: wrong", "b: wrong"])))
    assert str(error) == "2 faults in the config:\n  a: wrong\n  b: wrong"
