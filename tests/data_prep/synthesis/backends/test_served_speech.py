"""Speech servers of both protocols, well and ill behaved."""

import asyncio
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.http import Answer
from data_prep.synthesis.backends.served_speech import Instructions, decoded
from data_prep.synthesis.backends.speech import SpeechSettings, make_speech
from data_prep.synthesis.blobs import read_audio
from data_prep.synthesis.contracts import Speech, Utterance, Voice
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import Attempt, BackendError, Retry
from data_prep.synthesis.work import Outcome, Task, work
from omnichat.dialogue import EMOTIONS, PITCHES, SPEEDS, Style
from tests.data_prep.synthesis.fakes.server import FakeServer

ANN = {"name": "ann", "gender": "female"}
BOB = {"name": "bob", "gender": "male", "unseen": True}
SAID = Utterance(
    text="It is raining again, and I have no umbrella with me.",
    style=Style("female", "sad", "slow", "high"),
    voice=Voice(name="ann", gender="female"),
)


def openai(fake: FakeServer, **given: Any) -> SpeechSettings:
    quick = {"timeout": 20.0, "retries": 1, "backoff": 0.01, "sample_rate": 16000}
    server = {"endpoints": [f"{fake.address}/v1"], "speakers": [ANN, BOB], "model": "some-tts", **quick, **given}
    return SpeechSettings.model_validate({"kind": "openai", "server": server})


def cosyvoice(fake: FakeServer, **given: Any) -> SpeechSettings:
    settings = openai(fake, **given).model_dump()
    settings["server"]["endpoints"] = [fake.address]
    return SpeechSettings.model_validate(settings | {"kind": "cosyvoice"})


def spoken(settings: SpeechSettings, blobs: Path, gates: GateSettings | None = None, attempts: int = 2) -> Outcome:
    """One item through all its attempts, as the runner does it."""

    async def run() -> Outcome:
        stage = SpeakStage(settings, gates or GateSettings())
        stage.max_attempts = min(stage.max_attempts, attempts)
        await stage.open()
        try:
            return await work(stage, Task("abcdef", SAID.model_dump_json()), 0, blobs, "here")
        finally:
            await stage.close()

    return asyncio.run(run())


@pytest.mark.parametrize("form", ["wav", "flac", "pcm"])
def test_openai_s_request_holds_words_voice_and_style(tmp_path: Path, form: str) -> None:
    """A style that is not asked for is not spoken."""
    with FakeServer() as fake:
        done = spoken(
            openai(fake, format=form, send_seed=True, send_speed=True, extra={"language": "English"}), tmp_path
        )
        path, fields = fake.calls[-1]
    assert done.status == "done", done
    speech = Speech.model_validate_json(done.output or "")
    assert len(read_audio(tmp_path, speech.blob)) == speech.num_samples
    assert path == "/v1/audio/speech"
    assert fields["input"] == SAID.text
    assert (fields["voice"], fields["model"], fields["response_format"]) == ("ann", "some-tts", form)
    assert (fields["speed"], fields["language"]) == (0.8, "English")
    assert "sadly" in fields["instructions"]
    assert "slowly" in fields["instructions"]
    assert "pitch high" in fields["instructions"]
    assert isinstance(fields["seed"], int)
    assert done.cost.calls == 1


def test_cosyvoice_s_form_fields_and_raw_samples(tmp_path: Path) -> None:
    """Its server takes forms, and answers without a header."""
    with FakeServer() as fake:
        done = spoken(cosyvoice(fake), tmp_path)
        path, fields = fake.calls[-1]
    assert done.status == "done", done
    assert path == "/inference_instruct"
    assert fields["tts_text"] == SAID.text
    assert fields["spk_id"] == "ann"
    assert fields["instruct_text"].startswith("Say this very sadly.")
    assert fields["instruct_text"].endswith(".<|endofprompt|>")


def test_cosyvoice_2_copies_a_recording(tmp_path: Path) -> None:
    """Its voices are recordings; they are part of what the speech hangs on."""
    prompt = tmp_path / "ann.wav"
    soundfile.write(prompt, np.zeros(1600), 16000)
    ann = {**ANN, "prompt_wav": str(prompt)}
    with FakeServer() as fake:
        settings = cosyvoice(fake, route="inference_instruct2", speakers=[ann])
        done = spoken(settings, tmp_path)
        path, fields = fake.calls[-1]
        before = make_speech(settings).identity()
        soundfile.write(prompt, np.zeros(1700), 16000)
        assert make_speech(settings).identity() != before
        with pytest.raises(BackendError, match="needs a prompt_wav of the voices bob"):
            make_speech(cosyvoice(fake, route="inference_instruct2", speakers=[ann, BOB]))
    assert done.status == "done", done
    assert path == "/inference_instruct2"
    assert fields["prompt_wav"][:4] == b"RIFF"
    assert "spk_id" not in fields


FAULTS = [
    ("openai", "429", "tts_http"),
    ("openai", "429_wait", "tts_http"),
    ("openai", "500", "tts_http"),
    ("openai", "503", "tts_http"),
    ("openai", "reset", "tts_http"),
    ("openai", "cut_off", "tts_http"),
    ("openai", "timeout", "tts_timeout"),
    ("openai", "drip", "tts_timeout"),
    ("openai", "html", "tts_format"),
    ("openai", "garbage", "tts_format"),
    ("openai", "empty", "tts_empty"),
    ("openai", "no_samples", "tts_empty"),
    ("openai", "silence", "tts_silent"),
    ("openai", "clipped", "tts_clipped"),
    ("openai", "long", "dur_ratio"),
    ("openai", "short", "dur_ratio"),
    ("openai", "instruction_aloud", "dur_ratio"),  # longer than its words take; a recogniser finds it in any case
    ("cosyvoice", "odd", "tts_format"),
    ("cosyvoice", "html", "tts_format"),
    ("cosyvoice", "empty", "tts_empty"),
    ("cosyvoice", "500", "tts_http"),
    ("cosyvoice", "instruction_aloud", "dur_ratio"),
]


@pytest.mark.parametrize(("kind", "fault", "reason"), FAULTS, ids=lambda value: value)
def test_a_fault_that_stays_ends_in_its_reason(kind: str, fault: str, reason: str, tmp_path: Path) -> None:
    """Each has its row in the report, after no more calls than are allowed."""
    make: Callable[..., SpeechSettings] = openai if kind == "openai" else cosyvoice
    with FakeServer([""], always=fault) as fake:  # the first sentence, at the start, goes well
        patience = 0.5 if reason == "tts_timeout" else 20.0  # what answers may take long on a busy machine
        refused = spoken(make(fake, timeout=patience), tmp_path)
        calls = len(fake.calls) - 1
    assert (refused.status, refused.reason, refused.refusals) == ("rejected", reason, (reason, reason)), refused
    assert calls == (4 if reason in ("tts_http", "tts_timeout") else 2)
    assert not list(tmp_path.rglob("*.flac"))


@pytest.mark.parametrize("fault", sorted({fault for kind, fault, _ in FAULTS if kind == "openai"}))
def test_a_fault_that_passes_loses_nothing(fault: str, tmp_path: Path) -> None:
    """The second attempt, or the retry within the first, makes the item."""
    with FakeServer(["", fault]) as fake:
        done = spoken(openai(fake), tmp_path)
    assert done.status == "done", done


@pytest.mark.parametrize(("fault", "said"), [("html", "instead of"), ("long", "sample_rate 16000"), ("401", "401")])
def test_a_server_that_fails_at_the_first_sentence_is_told_at_the_start(fault: str, said: str, tmp_path: Path) -> None:
    """A wrong route or rate would otherwise refuse every item."""
    with FakeServer(always=fault) as fake, pytest.raises(BackendError, match=said):
        spoken(openai(fake), tmp_path)


def test_a_retry_of_a_server_that_repeats_itself_asks_for_another_speed(tmp_path: Path) -> None:
    """The same call would give the same refusal."""
    with FakeServer([""], always="silence") as fake:
        spoken(openai(fake, repeats=True, send_speed=True), tmp_path, attempts=4)
        speeds = [fields["speed"] for _, fields in fake.calls[1:]]
        assert len(set(speeds)) == 4
        assert all(abs(speed / 0.8 - 1) < 0.07 for speed in speeds)
    with FakeServer([""], always="silence") as fake:
        spoken(openai(fake, repeats=True), tmp_path, attempts=4)
        assert len(fake.calls) == 2


def test_what_the_speech_hangs_on_is_its_identity_and_addresses_are_not() -> None:
    """Another port is no reason to speak ten thousand hours again; another model is."""
    with FakeServer() as fake:
        same = make_speech(openai(fake)).identity()
        assert make_speech(openai(fake, endpoints=["http://other:1/v1"], timeout=9, concurrency=3)).identity() == same
        assert "127.0.0.1" not in str(same)
        for changed in ({"model": "b"}, {"version": "2"}, {"instructions": "none"}, {"extra": {"top_p": 0.9}}):
            assert make_speech(openai(fake, **changed)).identity() != same


def test_voices_for_tests_are_kept_apart() -> None:
    """Those of `unseen` must not be heard in training."""
    with FakeServer() as fake:
        speech = make_speech(openai(fake))
        assert [voice.name for voice in speech.voices] == ["ann"]
        assert [voice.name for voice in speech.unseen_voices] == ["bob"]


@pytest.mark.parametrize("name", ["openai", "cosyvoice", "cosyvoice3", "none"])
def test_every_style_has_words(name: str) -> None:
    """A value without an instruction would be spoken as another one."""
    table = Instructions(name)
    said = {table.words(Style("male", *values)) for values in product(EMOTIONS, SPEEDS, PITCHES)}
    assert len(said) == (1 if name == "none" else 63)
    assert all(text == text.strip() and "  " not in text and " <" not in text for text in said)


def test_a_table_that_lacks_a_value_is_refused(tmp_path: Path) -> None:
    """By name, before anything is spoken."""
    path = tmp_path / "mine.yaml"
    path.write_text("template: '{emotion}'\nemotion: {happy: Laugh.}\n")
    with pytest.raises(BackendError, match=r"mine\.yaml: not a table of instructions \(KeyError: 'neutral'"):
        Instructions(str(path))
    with pytest.raises(BackendError, match="the tables are cosyvoice, cosyvoice3, none, openai"):
        Instructions("nonsense")


def test_audio_of_any_rate_and_channels_becomes_16_khz_mono() -> None:
    """CosyVoice 1 sends 22,050 Hz, the others 24,000."""
    samples = np.round(8000 * np.sin(np.arange(24000) / 5)).astype("<i2")
    assert decoded(Answer(samples.tobytes(), "audio/pcm"), "pcm", 24000).shape == (16000,)
    with pytest.raises(Retry, match="a RIFF file instead of raw samples"):
        decoded(Answer(b"RIFF" + samples.tobytes(), "audio/pcm"), "pcm", 24000)
    with pytest.raises(Retry, match="application/json instead of audio"):
        decoded(Answer(b'{"error": 1}', "application/json; charset=utf-8"), "wav", 0)


def test_a_section_that_is_missing_is_named() -> None:
    """At the time the configuration is read."""
    with pytest.raises(ValueError, match="kind openai: needs section server"):
        SpeechSettings(kind="openai")
    assert Attempt(0, np.random.default_rng(0), Path()).cost.calls == 0
