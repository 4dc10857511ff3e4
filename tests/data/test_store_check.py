"""The check of a store: every fault once, by reason, file, line and turn; what is merely odd passes, and is counted."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnichat.audio import load_audio
from omnichat.data.store import Store
from omnichat.data.store_check import Found, Options, check_part, parts_of, twice
from tests.data.bad_input import CASES, ODD, RATE, Case, Draft, Odd, sound_record, speech

DECODE = Options()


def check(path: Path, options: Options = DECODE) -> Found:
    """What is found in a store, its parts one after the other."""
    parts, faults = parts_of(path)
    each = [Found(**check_part(part, options)) for part in parts]
    found = Found(faults=faults)
    for one in each:
        found.add(one)
    found.faults += twice(parts, each)
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
    for case in CASES:
        draft = Draft(tmp_path / case.name)
        case.make(draft)
        found[case.name] = [fault["reason"] for fault in check(draft.write(), Options(decode=False)).faults]
    missed = {name for name, reasons in found.items() if not reasons}
    assert missed == {
        *("nan", "infinite", "minus_infinite", "all_nan", "beyond_float32", "other_bytes"),
        *("flac_cut", "flac_flipped", "flac_named_wav_flipped", "mp3_cut", "mp3_named_wav_cut"),
    }
