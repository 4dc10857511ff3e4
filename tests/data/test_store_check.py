"""The check of a store: every fault once, by reason, file, line and turn; what is merely odd passes, and is counted."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from omnichat.audio import load_audio
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.data.store_check import Found, Ids, Options, check_part, parts_of
from omnichat.prompt import Prompt
from tests.data.bad_input import (
    CASES,
    FILES,
    LENGTHS,
    ODD,
    RATE,
    SAMPLES,
    Case,
    Draft,
    Odd,
    cut,
    flip,
    sound_record,
    speech,
)

DECODE = Options()


def check(path: Path, options: Options = DECODE) -> Found:
    """What is found in a store, its parts one after the other."""
    parts, faults = parts_of(path)
    each = [Found(**check_part(part, options)) for part in parts]
    found, ids = Found(faults=faults), Ids(parts)
    for one in each:
        found.add(one)
    for number, one in enumerate(each):
        found.faults += ids.twice(number, one)
    return found


def test_there_is_a_case_for_every_kind_of_fault() -> None:
    """A table that shrinks would still be green."""
    assert len(CASES) >= 120
    assert len(ODD) >= 35
    assert len({case.name for case in [*CASES, *ODD]}) == len(CASES) + len(ODD)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named_once_with_its_place(case: Case, tmp_path: Path) -> None:
    """Whoever mends a corpus of 80,000 lines needs reason, line and turn; a traceback has none of them."""
    draft = Draft(tmp_path / "store")
    case.make(draft)
    path = draft.write()
    found = check(path)
    assert [(fault["reason"], fault["line"], fault["turn"]) for fault in found.faults] == [
        (case.reason, case.line, case.turn)
    ]
    fault = found.faults[0]
    assert fault["file"] == str(path)
    assert fault["where"].startswith(f"{path}:{case.line}")
    assert re.search(case.says, fault["message"])
    assert "System error" not in fault["message"]
    assert len(fault["message"]) < 1_000
    assert found.dialogues == 3 if fault["turn"] == 2 and "audio/" in fault["where"] else found.dialogues >= 2


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_what_is_odd_is_no_fault(odd: Odd, tmp_path: Path) -> None:
    """A check that refuses sound corpora is switched off."""
    draft = Draft(tmp_path / "store")
    odd.make(draft)
    found = check(draft.write())
    assert found.faults == []
    assert found.dialogues == 3
    assert [notice["reason"] for notice in found.notices] == ([odd.notice] if odd.notice else [])
    assert all(notice["line"] is not None and notice["turn"] is not None for notice in found.notices)


# The most that each form may change a sample: its own steps, and the edges of resampling.
FORMS = {
    "pcm_u8": 1 / 127,
    "pcm_24": 1e-6,
    "pcm_32": 1e-6,
    "float": 1e-7,
    "double": 1e-7,
    "alaw": 1 / 40,
    "ulaw": 1 / 40,
    **dict.fromkeys(("2_channels", "6_channels", "8_channels"), 1e-6),
    **dict.fromkeys(("8000_hz", "44100_hz", "48000_hz"), 2e-3),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_audio_is_heard_as_its_16_khz_source(form: str, tmp_path: Path) -> None:
    """A form that is read, but wrongly (half the pitch, one channel, a wrong scale), is worse than one refused."""
    draft = Draft(tmp_path / "store")
    next(odd for odd in ODD if odd.name == form).make(draft)
    audio = Store(draft.write())[1].turns[2].audio
    assert audio is not None
    wave, source = load_audio(audio), speech(2)
    assert len(wave) == RATE
    inner = slice(400, -400)
    np.testing.assert_allclose(wave[inner], source[inner], atol=FORMS[form])
    assert np.corrcoef(wave, source)[0, 1] > 0.999


def test_every_fault_of_a_dialogue_and_of_a_store_is_listed(tmp_path: Path) -> None:
    """One at a time, a corpus is mended in as many runs as it has faults."""
    draft = Draft(tmp_path / "store")
    for number in (0, 1):
        (draft.root / f"audio/1-{number}.wav").unlink()
    draft.turns[1]["style"] = {"emotion": "sadd", "speed": "quick"}
    draft.turns[3]["role"] = 5
    draft.turns[2]["text"] = None
    draft.lines.append(sound_record(3))
    found = check(draft.write())
    assert [(fault["line"], fault["turn"], fault["reason"]) for fault in found.faults] == [
        (1, 0, "no_file"),
        (1, 2, "no_file"),
        (2, 1, "unknown_style"),
        (2, 2, "wrong_type"),
        (4, None, "duplicate_id"),
    ]
    assert "emotion 'sadd'" in found.faults[2]["message"]
    assert "speed 'quick'" in found.faults[2]["message"]


def test_an_id_cannot_pose_as_a_place(tmp_path: Path) -> None:
    """Places are taken apart for the JSON report; the id is the user's."""
    draft = Draft(tmp_path / "store")
    draft.record["id"] = "x': turn 9: /y.wav \" \\"
    draft.file.unlink()
    fault: dict[str, Any] = check(draft.write()).faults[0]
    assert (fault["line"], fault["turn"], fault["reason"]) == (2, 2, "no_file")


def test_headers_alone_are_quick_and_find_less(tmp_path: Path) -> None:
    """`--no-decode` must still find what a header says, and must not read the rest."""
    found = {}
    for case in [*FILES, *LENGTHS, *SAMPLES]:
        draft = Draft(tmp_path / case.name)
        case.make(draft)
        found[case.name] = [fault["reason"] for fault in check(draft.write(), Options(decode=False)).faults]
    missed = {name for name, reasons in found.items() if not reasons}
    assert missed == {
        *("nan", "infinite", "minus_infinite", "all_nan", "beyond_float32", "other_bytes"),
        *("flac_cut", "flac_flipped", "flac_named_wav_flipped", "mp3_cut", "mp3_named_wav_cut", "half_a_wav_as_listed"),
    }


def shards(root: Path, audio: str = "flac") -> Path:
    """A store of seven made-up dialogues in two shards."""
    dialogues = made_up_dialogues(root / "made_up" if audio == "flac" else root / "store", 7)
    where = root / "store" if audio == "reference" else None
    parts = [
        write_shard(root / f"store/.{part.start}", dialogues[part], audio, where)  # type: ignore[arg-type]
        for part in (slice(0, 5), slice(5, 7))
    ]
    finish_store(root / "store", name="x", licence="", source="", splits={"train": parts})
    return root / "store"


def test_a_store_in_shards_is_checked_whole_or_by_split(tmp_path: Path) -> None:
    """The form that conversion writes; either path is what people type."""
    store = shards(tmp_path)
    for path in (store, store / "train", store / "store.json"):
        found = check(path)
        assert (found.faults, found.notices, found.dialogues) == ([], [], 7)
        assert found.samples > 7 * 0.3 * RATE


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_flipped_bit_or_a_cut_of_a_shard_is_one_fault(share: float, tmp_path: Path) -> None:
    """A thousand faults for one damaged file would bury the others; its neighbours are still checked."""
    store = shards(tmp_path)
    path = store / "train/data-00000-of-00002.arrow"
    flip(path, share)
    found = check(store)
    assert [(fault["reason"], fault["file"]) for fault in found.faults] == [("damaged", str(path))]
    assert found.dialogues == 2
    cut(path, share)
    assert [(fault["reason"], fault["file"]) for fault in check(store / "train").faults] == [("truncated", str(path))]
    path.unlink()
    assert [(fault["reason"], fault["file"]) for fault in check(store).faults] == [("no_file", str(path))]


def test_audio_beside_shards_is_checked_by_row_and_turn(tmp_path: Path) -> None:
    """References carry a sha256: a file that was replaced by another of the same length is found."""
    store = shards(tmp_path, "reference")
    flip(store / "audio/train-6-0.wav", 0.9)
    (store / "audio/train-0-0.wav").unlink()
    found = [(fault["reason"], fault["row"], fault["turn"]) for fault in check(store).faults]
    assert found == [("no_file", 0, 0), ("other_bytes", 1, 0)]


def test_a_split_that_lost_lines_is_told_from_a_smaller_one(tmp_path: Path) -> None:
    """A copy that stopped at the end of a line has no broken line; only `store.json` knows how many there were."""
    made_up_dialogues(tmp_path, 3, split="val")
    made_up_dialogues(tmp_path, 9)
    path = tmp_path / "train.jsonl"
    assert check(tmp_path).faults == []
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:5]), "utf-8")
    for where in (tmp_path, path):
        assert [(fault["reason"], fault["file"]) for fault in check(where).faults] == [("wrong_count", str(path))]
    path.write_text("\n\n")
    assert [fault["reason"] for fault in check(tmp_path).faults] == ["empty_file"]
    path.unlink()
    assert [fault["reason"] for fault in check(tmp_path).faults] == ["no_file"]
    (tmp_path / "store.json").write_text("{")
    assert [fault["reason"] for fault in check(tmp_path).faults] == ["bad_json"]


def test_an_id_of_two_splits_is_a_fault(tmp_path: Path) -> None:
    """A dialogue that is trained on and tested on makes every score wrong."""
    draft = Draft(tmp_path / "store")
    path = draft.write()
    path.with_name("test.jsonl").write_text(json.dumps(draft.lines[1]) + "\n")
    faults = check(tmp_path / "store").faults
    assert [(fault["reason"], fault["file"], fault["line"]) for fault in faults] == [("duplicate_id", str(path), 2)]
    assert "test.jsonl:1 too" in faults[0]["message"]


def test_what_the_assistant_says_aloud_is_checked_too(tmp_path: Path) -> None:
    """No run of today hears it; a corpus that is published is for others as well."""
    made_up_dialogues(tmp_path, 1)
    record = json.loads((tmp_path / "train.jsonl").read_text())
    record["turns"][-1]["audio"] = {"path": "audio/none.wav", "num_samples": 16_000}
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    (fault,) = check(tmp_path / "train.jsonl").faults
    assert (fault["reason"], fault["turn"]) == ("no_file", len(record["turns"]) - 1)


def test_what_a_reader_refused_is_no_split(tmp_path: Path) -> None:
    """Its list lies beside what was kept, and is none of dialogues."""
    made_up_dialogues(tmp_path, 2)
    (tmp_path / "store.json").unlink(missing_ok=True)
    (tmp_path / "rejects.jsonl").write_text('{"reason": "no_file"}\n')
    parts, faults = parts_of(tmp_path)
    assert ([part.split for part in parts], faults) == (["train"], [])


def test_lengths_in_tokens_are_checked_where_they_are_asked_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The context is a run's matter; who knows it can ask ahead."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    draft = Draft(tmp_path / "store")
    draft.turns[3]["text"] = "word " * 200
    found = check(draft.write(), Options(tokenizer=tmp_path / "tokenizer.json", max_tokens=400))
    assert [(fault["reason"], fault["line"], fault["turn"]) for fault in found.faults] == [("too_long", 2, None)]


def test_control_tokens_in_texts_stay_text(tmp_path: Path, prompt: Prompt) -> None:
    """Data that can end a turn can put words into the assistant's mouth."""
    draft = Draft(tmp_path / "store")
    next(odd for odd in ODD if odd.name == "control_token_in_text").make(draft)
    store = Store(draft.write())
    special = [prompt.tokenizer.token_to_id(name) for name in ("<|eot_id|>", "<|start_header_id|>")]
    told, plain = (prompt.render(store[row]).ids for row in (1, 0))
    assert [int(np.sum(told == token)) for token in special] == [int(np.sum(plain == token)) for token in special]
