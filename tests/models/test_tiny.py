"""The writers of upstream file formats: what they write is what the upstream files hold, and loads again."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from omnichat.models import tiny
from omnichat.models.encoders import load_encoder
from omnichat.models.encoders.beats import BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet
from omnichat.models.llm import load_llm

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny.write_random_checkpoints(tmp_path_factory.mktemp("tiny"), seed=1, width=32, layers=2)


def shapes(path: Path, key: str) -> dict[str, tuple[int, ...]]:
    content = torch.load(path, weights_only=True)
    return {name: tuple(tensor.shape) for name, tensor in content[key].items()}


@pytest.mark.parametrize(("name", "options"), [("whisper", {"context": "trim"}), ("emotion2vec", {}), ("beats", {})])
def test_encoders_load(written: dict[str, Path], name: str, options: dict[str, str]) -> None:
    """Would catch a file that our own strict loaders refuse, and weights that give no usable frames."""
    encoder = load_encoder(name, written[name], **options)
    frames, lengths = encoder(torch.randn(2, 8000), torch.tensor([8000, 6000]))
    assert encoder.dim == 32
    assert lengths.tolist() == [encoder.num_frames(8000), encoder.num_frames(6000)]
    assert frames.isfinite().all()
    assert frames[0].std() > 0.1


@pytest.mark.parametrize(
    ("name", "file", "golden", "key"),
    [
        ("whisper", "", "whisper/whisper80.pt", "model_state_dict"),
        ("emotion2vec", "model.pt", "emotion2vec/plus/model.pt", "model"),
        ("beats", "", "beats/beats_pretrained.pt", "model"),
    ],
)
def test_names_are_upstreams(written: dict[str, Path], name: str, file: str, golden: str, key: str) -> None:
    """Would catch a weight that upstream's own code would miss, or one too many."""
    ours, theirs = shapes(written[name] / file, key), shapes(GOLDEN / golden, key)
    assert set(ours) == set(theirs)
    assert {n: len(shape) for n, shape in ours.items()} == {n: len(shape) for n, shape in theirs.items()}


def test_whisper_is_stored_in_half_with_its_dims(written: dict[str, Path]) -> None:
    """Would catch dims that do not describe the tensors beside them, and files of twice the size."""
    content = torch.load(written["whisper"], weights_only=True)
    dims, state = content["dims"], content["model_state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert state["encoder.positional_embedding"].shape == (dims["n_audio_ctx"], dims["n_audio_state"]) == (1500, 32)
    assert state["encoder.conv1.weight"].shape == (dims["n_audio_state"], dims["n_mels"], 3)
    assert state["decoder.token_embedding.weight"].shape == (dims["n_vocab"], dims["n_text_state"])
    assert f"encoder.blocks.{dims['n_audio_layer'] - 1}.attn.query.weight" in state
    assert f"encoder.blocks.{dims['n_audio_layer']}.attn.query.weight" not in state


def test_trained_nets_come_back(tmp_path: Path) -> None:
    """Would catch a writer that stores other weights, or another configuration, than those of the net it was given."""
    torch.manual_seed(0)
    convolutions = ((8, 10, 5), (12, 3, 2), *((16, 3, 2),) * 3, *((16, 2, 2),) * 2)
    nets = {
        "whisper": WhisperEncoderNet(WhisperDims(80, 32, 2, 1), context="trim"),
        "emotion2vec": Emotion2vecNet(tiny.emotion2vec_config(48, 4, 1, 2, convolutions)),
        "beats": BeatsNet(tiny.beats_config(32, 4, 1, classes=3)),
    }
    for net in nets.values():
        for parameter in net.parameters():
            parameter.data = (parameter + 0.1 * torch.randn_like(parameter)).half().float()
    classifier = nn.Linear(48, 9)
    tiny.write_whisper(tmp_path / "whisper", nets["whisper"])
    tiny.write_emotion2vec(tmp_path / "emotion2vec", nets["emotion2vec"], classifier)
    tiny.write_beats(tmp_path / "beats", nets["beats"], ["rain", "dog", "bell"])
    waves, lengths = torch.randn(1, 8000), torch.tensor([8000])
    for name, net in nets.items():
        options = {"context": "trim"} if name == "whisper" else {}
        torch.testing.assert_close(
            load_encoder(name, tmp_path / name, **options)(waves, lengths)[0],
            net.eval()(waves, lengths)[0],
            atol=1e-3,
            rtol=0,
        )
    stored = torch.load(tmp_path / "emotion2vec" / "model.pt", weights_only=True)["model"]
    torch.testing.assert_close(stored["proj.weight"], classifier.weight.detach().half())
    assert torch.load(tmp_path / "beats", weights_only=True)["label_dict"] == {0: "rain", 1: "dog", 2: "bell"}


def test_llama_comes_back(written: dict[str, Path], tmp_path: Path) -> None:
    """Would catch weights under other names than transformers', and a model changed by being written."""
    llm = load_llm(written["llama"])
    ids = torch.arange(12)[None]
    assert llm.config.num_key_value_heads < llm.config.num_attention_heads
    tiny.write_llama(tmp_path, llm)
    assert llm.dtype == torch.float32
    again = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(again(ids).logits, llm(ids).logits, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"


def test_same_seed_same_weights(tmp_path: Path) -> None:
    """Would catch weights that hang on the caller's random state, or a caller whose random state is consumed."""

    def weights(folder: str, seed: int) -> dict[str, Tensor]:
        paths = tiny.write_random_checkpoints(tmp_path / folder, seed=seed, width=16, heads=2)
        return {name: tensor for name, tensor in load_llm(paths["llama"]).state_dict().items()}

    state = torch.random.get_rng_state()
    first = weights("first", 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(11)
    again, other = weights("again", 3), weights("other", 4)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_tokenizer_is_llama_3s_kind(tmp_path: Path) -> None:
    """Would catch text that does not survive, numbers or words split otherwise, and special tokens out of order."""
    tokenizer = tiny.write_tokenizer(tmp_path, ["we are going to the market"] * 5, 400)
    for text in ("Ünïcode ✓ 12345\n\n tabs\tand  spaces ", "we'll go, 'tis (happy) [rain]"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    split = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("we'll pay 12345 (now)\n\n ok")]
    assert split == ["we", "'ll", "Ġpay", "Ġ", "123", "45", "Ġ(", "now", ")ĊĊ", "Ġok"]
    size = tokenizer.get_vocab_size()
    specials = [tokenizer.id_to_token(number) for number in range(size - len(tiny.SPECIAL_TOKENS), size)]
    assert tuple(specials) == tiny.SPECIAL_TOKENS
    assert tokenizer.encode("a").ids[0] == tokenizer.token_to_id("<|begin_of_text|>")
    assert tokenizer.encode(" market", add_special_tokens=False).tokens == ["Ġmarket"]
    with pytest.raises(ValueError, match="at least 267"):
        tiny.write_tokenizer(tmp_path, ["a"], 266)


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Would catch a checkpoint of infinities."""
    net = BeatsNet(tiny.beats_config(16, 2, 1))
    net.layer_norm.weight.data[0] = 1e6
    with pytest.raises(ValueError, match=r"not finite in float16: layer_norm\.weight"):
        tiny.write_beats(tmp_path / "beats.pt", net)


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Would catch a crash deep in torch instead of a message."""
    with pytest.raises(ValueError, match="multiple of 16"):
        tiny.write_random_checkpoints(tmp_path, width=24)
