"""Voice, emotion and words as gates of the stage."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.emotion_check import EmotionSettings, make_emotion_check
from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.speaker_check import SpeakerSettings, make_speaker_check
from data_prep.synthesis.backends.speech import SpeechSettings
from data_prep.synthesis.contracts import Speech, Utterance, Voice
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import BackendError
from data_prep.synthesis.work import Outcome, Task, work
from omnichat.dialogue import Style
from tests.data_prep.synthesis.fakes.server import FakeServer, buzz

GOLDEN = Path(__file__).parents[3] / "golden" / "emotion2vec"
SAID = Utterance(
    text="It is raining again, and I have no umbrella with me.",
    style=Style("female", "happy"),
    voice=Voice(name="ann", gender="female"),
)
OWN = Utterance(text=SAID.text, style=SAID.style, voice=Voice(name="en-us+f2", gender="female"))


def server(fake: FakeServer, path: str = "/v1") -> dict[str, Any]:
    return {"endpoints": [f"{fake.address}{path}"], "timeout": 2, "retries": 0, "backoff": 0.01}


def served(fake: FakeServer) -> SpeechSettings:
    settings = server(fake) | {"speakers": [{"name": "ann", "gender": "female"}], "sample_rate": 16000}
    return SpeechSettings.model_validate({"kind": "openai", "server": settings})


def spoken(speech: SpeechSettings, gates: dict[str, Any], blobs: Path, item: Utterance = SAID) -> Outcome:
    """Two attempts at one item."""

    async def run() -> Outcome:
        stage = SpeakStage(speech, GateSettings.model_validate(gates))
        stage.max_attempts = 2
        await stage.open()
        try:
            return await work(stage, Task("abcdef", item.model_dump_json()), 0, blobs, "here")
        finally:
            await stage.close()

    return asyncio.run(run())


def test_right_words_pass_with_their_count(tmp_path: Path) -> None:
    """The rate of a conversation is pooled from them."""
    with FakeServer() as fake:
        done = spoken(served(fake), {"recogniser": {"kind": "http", "server": server(fake)}}, tmp_path)
    speech = Speech.model_validate_json(done.output or "{}")
    assert (speech.words, speech.errors, speech.transcript) == (11, 0, SAID.text)
    assert speech.measures["wer"] == 0


@pytest.mark.parametrize("fault", ["misheard", "instruction_aloud"])
def test_other_words_are_refused(fault: str, tmp_path: Path) -> None:
    """An instruction that is read aloud is the known fault of instructed synthesisers."""
    faults = ["", "", "misheard", "", "misheard"] if fault == "misheard" else ["", fault, "", fault, ""]
    loose = {"seconds_per_character": [0.01, 1.0], "recogniser": {}}
    with FakeServer(faults) as fake:
        loose["recogniser"] = {"kind": "http", "server": server(fake)}
        refused = spoken(served(fake), loose, tmp_path)
    assert (refused.reason, refused.refusals) == ("wer", ("wer", "wer")), refused
    assert "errors in 11 words" in refused.message


def test_a_recogniser_that_does_not_judge_only_counts(tmp_path: Path) -> None:
    """Its mistakes must neither refuse a turn nor weigh in the conversation's rate."""
    with FakeServer(["", "", "misheard"]) as fake:
        recogniser = {"kind": "http", "server": server(fake), "judges": False}
        done = spoken(served(fake), {"recogniser": recogniser}, tmp_path)
    speech = Speech.model_validate_json(done.output or "{}")
    assert (speech.words, speech.errors) == (0, 0)
    assert speech.measures["wer"] == 1


@pytest.fixture(scope="module")
def xvector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random WavLM with an x-vector head, as transformers stores it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 64), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, tdnn_dim=(16, 16, 16, 16, 32), xvector_output_dim=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("xvector")
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_a_voice_is_held_to_its_own_sentence(xvector: Path, espeak: Espeak, tmp_path: Path) -> None:
    """Whichever item comes first, the reference is the same, so that shards agree."""
    gates = {"speaker": {"model": str(xvector), "least": -1.0}}
    found = [
        Speech.model_validate_json(spoken(SpeechSettings(), gates, tmp_path, item).output or "{}").measures["speaker"]
        for item in (OWN, OWN)
    ]
    assert found[0] == found[1]
    refused = spoken(SpeechSettings(), {"speaker": {"model": str(xvector), "least": 1.0}}, tmp_path, OWN)
    assert refused.refusals == ("speaker", "speaker")


def test_cosines_are_those_of_the_model(xvector: Path) -> None:
    """1 for the same clip; and another for another one."""
    check = make_speaker_check(SpeakerSettings(model=str(xvector)))

    async def run() -> list[float]:
        await check.open()
        await check.remember("ann", buzz(1.0))
        return [await check.similarity("ann", wave) for wave in (buzz(1.0), buzz(2.0)[::-3].copy())]

    same, other = asyncio.run(run())
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < 1 - 1e-4


def test_an_encoder_without_the_head_is_refused(xvector: Path, tmp_path: Path) -> None:
    """transformers would fill the head with random numbers and say so in a warning only."""
    import transformers

    config = transformers.WavLMConfig.from_pretrained(xvector)
    transformers.WavLMModel(config).save_pretrained(tmp_path)
    shutil.copy(xvector / "preprocessor_config.json", tmp_path)
    with pytest.raises(BackendError, match="no x-vector model: it lacks"):
        asyncio.run(make_speaker_check(SpeakerSettings(model=str(tmp_path))).open())
    with pytest.raises(BackendError, match="nowhere: no x-vector model"):
        asyncio.run(make_speaker_check(SpeakerSettings(model="nowhere")).open())


def test_an_emotion_server_s_verdict_is_kept(tmp_path: Path) -> None:
    """A style whose emotion is not heard teaches the wrong thing."""
    with FakeServer() as fake:
        gates = {"emotion": {"kind": "http", "server": server(fake, ""), "route": "emotion"}}
        fake.emotion = {"happiness": 0.8, "sad": 0.2, "other": 0.9}
        done = spoken(served(fake), gates, tmp_path)
        assert Speech.model_validate_json(done.output or "{}").measures["emotion"] == 0.8
        fake.emotion = {"happy": 0.2, "sad": 0.7}
        assert spoken(served(fake), gates, tmp_path).refusals == ("emotion", "emotion")
        fake.emotion = {"happy": 0.4, "sad": 0.6}  # not the first, and enough
        assert spoken(served(fake), gates, tmp_path).status == "done"
        fake.emotion = {"LABEL_0": 1.0}
        assert spoken(served(fake), gates, tmp_path).refusals == ("asr_http", "asr_http")


def test_emotion2vec_classifies_as_its_head_says(tmp_path: Path) -> None:
    """Labels in the order of tokens.txt; a base model without the head is refused."""
    plus = tmp_path / "plus"
    shutil.copytree(GOLDEN / "plus", plus)
    contents = torch.load(plus / "model.pt", weights_only=True)
    width = contents["model"]["proj.weight"].shape[1]
    contents["model"]["proj.weight"] = torch.zeros(3, width)
    contents["model"]["proj.bias"] = torch.tensor([0.0, 2.0, 1.0])
    torch.save(contents, plus / "model.pt")
    (plus / "tokens.txt").write_text("生气/angry\n开心/happy\n<unk>\n", encoding="utf-8")

    async def scores(folder: Path) -> dict[str, float]:
        check = make_emotion_check(EmotionSettings(kind="emotion2vec", model=str(folder)))
        await check.open()
        return await check.scores(buzz(1.0))

    found = asyncio.run(scores(plus))
    expected = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    assert found == pytest.approx({"angry": expected[0], "happy": expected[1]}, abs=1e-6)
    (plus / "tokens.txt").write_text("angry\n")
    with pytest.raises(BackendError, match="no classifier for the 1 labels"):
        asyncio.run(scores(plus))
    (plus / "tokens.txt").unlink()
    with pytest.raises(BackendError, match=r"tokens\.txt"):
        asyncio.run(scores(plus))


def test_all_checkers_stand_in_the_identity(xvector: Path) -> None:
    """Speech that other thresholds let pass must not be taken over."""
    plain = SpeakStage(SpeechSettings(jitter=False), GateSettings()).gates.identity()
    with FakeServer() as fake:
        gates = {
            "speaker": {"model": str(xvector)},
            "recogniser": {"kind": "http", "server": server(fake)},
            "emotion": {"kind": "http", "server": server(fake)},
        }
        checked = SpeakStage(SpeechSettings(), GateSettings.model_validate(gates)).gates.identity()
    assert checked.keys() - plain.keys() == {"speaker", "recogniser", "emotion"}
    assert "127.0.0.1" not in str(checked)


def test_other_weights_make_another_checker(xvector: Path, tmp_path: Path) -> None:
    """By the folder's name alone, what a model of the same name let pass would be kept after the model was replaced."""
    folder = tmp_path / "model"
    shutil.copytree(xvector, folder)

    def identity() -> dict[str, Any]:
        return dict(make_speaker_check(SpeakerSettings(model=str(folder))).identity())

    before = identity()
    assert before == identity()
    shutil.copytree(folder, tmp_path / "elsewhere" / "model")
    moved = make_speaker_check(SpeakerSettings(model=str(tmp_path / "elsewhere" / "model"), device="cuda"))
    assert moved.identity() == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert identity() != before
    served = EmotionSettings.model_validate(
        {"kind": "http", "model": str(folder), "server": {"endpoints": ["http://a"]}}
    )
    assert dict(make_emotion_check(served).identity()) == {"kind": "http", "model": "model", "least": served.least}


def test_a_checker_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    """With the package or folder to get."""
    with pytest.raises(BackendError, match=r"pip install pyannote\.audio"):
        asyncio.run(make_speaker_check(SpeakerSettings(kind="pyannote", model="x")).open())
    with pytest.raises(BackendError, match="emotion2vec"):
        asyncio.run(make_emotion_check(EmotionSettings(kind="emotion2vec", model=str(tmp_path))).open())
