"""The chain with a recogniser that mishears: which turns are spoken again, how often, and what is given up."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.backends.speech import CANARY
from data_prep.synthesis.ledger import Ledger
from tests.data_prep.synthesis.fakes.server import FakeServer
from tests.data_prep.synthesis.test_models import report_rows

Hears = Callable[[str, int], str]


def run(folder: Path, server: FakeServer, *settings: str) -> Path:
    """A run of four scripts whose speech is made and heard by the server."""
    out = folder / "run"
    endpoints = {"endpoints": [f"{server.address}/v1"], "backoff": 0.01}
    speakers = [
        {"name": f"{name} {gender}", "gender": gender} for gender in ("male", "female") for name in ("one", "two")
    ]
    values = {
        "name": "heard",
        "scripts": 4,
        "splits": {"train": 1.0},
        "writing": {"history_turns": [2]},
        "speech": {"kind": "openai", "server": {**endpoints, "speakers": speakers}},
        "gates": {"recogniser": {"kind": "http", "server": endpoints}},
        "execution": {"executor": "inline"},
    }
    (folder / "heard.yaml").write_text(json.dumps(values))  # JSON is YAML
    assert main(["run", str(out), f"recipe={folder / 'heard.yaml'}", *settings]) == 0
    return out


def spoken(server: FakeServer) -> Counter[tuple[str, str, str]]:
    """How often each turn was spoken: words, instructions, voice."""
    return Counter(
        (call["input"], call.get("instructions", ""), call["voice"])
        for path, call in server.calls
        if path.endswith("/audio/speech") and call["input"] != CANARY
    )


def takes(server: FakeServer, text: str) -> int:
    """How often these words were spoken."""
    return sum(count for turn, count in spoken(server).items() if turn[0] == text)


def outcomes(out: Path) -> tuple[Counter[str], Counter[str]]:
    """Reasons of the turns and of the conversations, "" for those that are good."""
    with Ledger(out / "ledger.sqlite") as ledger:
        turns, conversations = (
            Counter(found.reason for found in ledger.results(stage)) for stage in ("speak", "conversation")
        )
    return turns, conversations


@pytest.fixture
def turns(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The turns of an undisturbed run; those of the histories, which three dialogues share, come first."""
    with FakeServer() as server:
        out = run(tmp_path_factory.mktemp("undisturbed"), server)
        counts = spoken(server)
    assert set(counts.values()) == {1}
    assert outcomes(out) == (Counter({"": len(counts)}), Counter({"": 12}))
    return sorted(counts)


@pytest.fixture
def shared(turns: list[tuple[str, str, str]]) -> str:
    """Words that are spoken once, and heard in the three dialogues of one script."""
    texts = Counter(text for text, _, _ in turns)
    return max((text for text, count in texts.items() if count == 1), key=len)


def wrong(text: str) -> str:
    """One word of it is another."""
    return f"{text.rpartition(' ')[0]} bananas"


def test_a_turn_that_fails_is_spoken_again_alone(
    tmp_path: Path, turns: list[tuple[str, str, str]], shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten attempts at a turn, not at a conversation: what was good is neither paid nor heard again."""
    with FakeServer() as server:
        server.hears = lambda said, number: "nothing of the kind" if said == shared and number < 2 else said
        out = run(tmp_path, server)
        assert spoken(server) == {turn: 3 if turn[0] == shared else 1 for turn in turns}
        calls = len(server.calls)
        assert main(["resume", str(out)]) == 0
        assert len(server.calls) == calls
    assert outcomes(out) == (Counter({"": len(turns)}), Counter({"": 12}))
    assert report_rows(out)["wer"][1:] == ["0", "2"]
    capsys.readouterr()


def test_the_worst_turn_of_a_bad_conversation_is_spoken_again(
    tmp_path: Path, turns: list[tuple[str, str, str]], shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word in a turn may be wrong, but not one word in ten of a conversation; the better recording is packed."""
    with FakeServer() as server:
        server.hears = lambda said, number: wrong(said) if said == shared and number < 1 else said
        out = run(tmp_path, server)
        counts = spoken(server)
    assert counts == {turn: 2 if turn[0] == shared else 1 for turn in turns}
    assert outcomes(out) == (Counter({"": len(turns) + 1}), Counter({"": 12}))
    with Ledger(out / "ledger.sqlite") as ledger:
        mixes = [json.loads(text) for (text,) in ledger.query("SELECT input FROM items WHERE stage = 'mix' AND wanted")]
    packed = [one for mix in mixes for one in mix["speech"] if one is not None]
    assert len(packed) == 24
    assert all(one["errors"] == 0 for one in packed)
    capsys.readouterr()


def test_a_conversation_that_stays_bad_is_refused(
    tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named as `wer`, costs no further call, and comes back where more takes are allowed, as it says."""
    with FakeServer() as server:
        server.hears = lambda said, number: wrong(said) if said == shared and number < 5 else said
        out = run(tmp_path, server)
        assert takes(server, shared) == 4
        assert outcomes(out)[1] == Counter({"": 9, "wer": 3})
        assert report_rows(out)["wer"][1:] == ["3", "0"]
        calls = len(server.calls)
        capsys.readouterr()
        assert main(["retry", str(out), "--reason", "wer"]) == 0
        assert "3 more in stage conversation stay refused: raise conversation.max_takes" in capsys.readouterr().out
        assert len(server.calls) == calls
        assert main(["run", str(out), "conversation.max_takes=6", "--change"]) == 0
        assert takes(server, shared) == 6
        assert outcomes(out)[1] == Counter({"": 12})
    assert "wer" not in report_rows(out)
    capsys.readouterr()


def test_a_turn_that_stays_bad_costs_its_dialogues(
    tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After ten attempts it is refused with the three dialogues that need it; a retry brings them back."""
    with FakeServer() as server:
        server.hears = lambda said, number: "nothing of the kind" if said == shared and number < 10 else said
        out = run(tmp_path, server)
        assert takes(server, shared) == 10
        assert outcomes(out)[0]["wer"] == 1
        assert outcomes(out)[1] == Counter({"": 9, "turn_missing": 3})
        assert {name: row[1:] for name, row in report_rows(out).items()} == {
            "turn_missing": ["3", "0"],
            "wer": ["1", "10"],
        }
        capsys.readouterr()
        assert main(["retry", str(out), "--reason", "turn_missing"]) == 0
        assert "`retry` the reason of their turn" in capsys.readouterr().out
        assert main(["retry", str(out), "--reason", "wer"]) == 0
        assert takes(server, shared) == 11
        assert outcomes(out)[1] == Counter({"": 12})
    capsys.readouterr()


@pytest.mark.parametrize("send_speed", [False, True])
def test_a_server_that_repeats_itself_is_not_asked_the_same_again(
    send_speed: bool, tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another take of the same request is paid and is the same; with a speed of its own it is worth its call."""
    with FakeServer() as server:
        server.hears = lambda said, number: wrong(said) if said == shared else said
        out = run(tmp_path, server, "speech.server.repeats=true", f"speech.server.send_speed={send_speed}")
        asked = [call for path, call in server.calls if path.endswith("/audio/speech") and call["input"] == shared]
    assert outcomes(out)[1] == Counter({"": 9, "wer": 3})
    assert len(asked) == len({call["speed"] for call in asked} if send_speed else {""}) == (4 if send_speed else 1)
    capsys.readouterr()


@pytest.mark.full
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_real_words_are_really_heard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """flite speaks and pocketsphinx judges: what is kept has its words, and what is lost has its reason."""
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    out = tmp_path / "run"
    settings = ["recipe=sharechat_emotion_mini", "scripts=1", "splits={train: 1}", "writing.history_turns=[2]"]
    settings += ["speech.kind=flite", "gates.recogniser={kind: pocketsphinx, judges: true}"]
    assert main(["run", str(out), *settings, "conversation.max_takes=2", "execution.executor=inline"]) == 0
    with Ledger(out / "ledger.sqlite") as ledger:
        mixes = [json.loads(text) for (text,) in ledger.query("SELECT input FROM items WHERE stage = 'mix' AND wanted")]
    _, conversations = outcomes(out)
    assert len(mixes) == conversations.pop("") >= 1
    assert set(conversations) <= {"wer", "turn_missing"}
    assert len(mixes) + conversations.total() == 3
    for mix in mixes:
        heard = [one for one in mix["speech"] if one is not None]
        assert sum(one["errors"] for one in heard) <= 0.05 * sum(one["words"] for one in heard)
        assert all(one["words"] and "alignment" in one["measures"] for one in heard)
    capsys.readouterr()
