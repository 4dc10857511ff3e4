"""The scan: every fault of a store at once, each with file, line, turn and cure; nothing dropped unnamed."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tokenizers import Tokenizer

from omnichat.data.scan import raise_faults, scan
from omnichat.data.store import Store
from omnichat.dialogue import DataError, read_dialogues
from omnichat.prompt import Prompt

Record = dict[str, Any]


def rewrite(path: Path, change: Callable[[list[Record]], None]) -> Store:
    """A store after its lines were changed."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return Store(path)


def test_a_sound_store_has_its_lengths_known(made_up: Path, prompt: Prompt) -> None:
    """The loss divides by these targets, and ranks are balanced by these lengths."""
    store = Store(made_up)
    result = scan(store, prompt)
    rendered = [prompt.render(store[row]) for row in range(9)]
    assert result.rows.tolist() == list(range(9))
    assert result.lengths.tolist() == [len(tokens.ids) for tokens in rendered]
    assert result.targets.tolist() == [tokens.num_targets for tokens in rendered]
    samples = [sum(slot.audio.num_samples for slot in tokens.slots) for tokens in rendered]
    np.testing.assert_allclose(result.seconds, np.array(samples) / 16_000, rtol=1e-6)
    assert result.faults == result.dropped == ()
    assert result.style_fields.all()


def test_fields_of_style_that_no_dialogue_knows_are_found(made_up: Path, prompt: Prompt) -> None:
    """What was never taught must not be asked of a model; one dialogue that knows it is enough to be taught."""

    def forget(records: list[Record]) -> None:
        for number, record in enumerate(records):
            for turn in record["turns"]:
                turn["style"] = {"emotion": "sad", **({"pitch": "low"} if number == 8 else {})}

    assert scan(rewrite(made_up, forget), prompt).style_fields.tolist() == [False, True, False, True]


def test_all_faults_are_found_in_one_pass(made_up: Path, prompt: Prompt) -> None:
    """Mending a corpus one error a run at a time takes days."""
    root = made_up.parent

    def damage(records: list[Record]) -> None:
        (root / "audio/train-0-0.wav").unlink()
        (root / "audio/train-1-0.wav").write_text("<html>")
        soundfile.write(root / "audio/train-2-0.wav", np.zeros(0), 16_000)
        wave, _ = soundfile.read(root / "audio/train-3-0.wav")
        soundfile.write(root / "audio/train-3-0.wav", wave[:-1_000], 16_000)
        records[4]["turns"] = records[4]["turns"][:1]
        records[5]["turns"][1]["style"]["emotion"] = "joyful"
        records[6]["id"] = records[8]["id"]
        records[7]["turns"][0]["audio"]["num_samples"] = 100

    result = scan(rewrite(made_up, damage), prompt)
    expected = [
        (1, "turn 0", "no_file"),
        (2, "turn 0", "unreadable"),
        (3, "turn 0", "empty"),
        (4, "turn 0", "truncated"),
        (5, "dialogue", "no_assistant_turn"),
        (6, "turn 1", "unknown_style"),
        (8, "turn 0", "too_short"),
        (9, "train.jsonl:7", "duplicate_id"),
    ]
    assert [fault.reason for fault in result.faults] == [reason for _, _, reason in expected]
    for fault, (number, place, _) in zip(result.faults, expected, strict=True):
        assert f"{made_up}:{number}" in fault.where
        assert place in str(fault)
    assert result.rows.tolist() == [6]
    with pytest.raises(DataError, match="8 faults in the data:") as caught:
        raise_faults(result.faults)
    assert all(str(fault) in str(caught.value) for fault in result.faults)


def test_ids_are_not_kept(made_up: Path, tokenizer: Tokenizer) -> None:
    """With a rank for each GPU, the ids of a large corpus would fill the memory of a machine."""

    def lengthen(records: list[Record]) -> None:
        records[:] = [records[row % 9] | {"id": f"{row:04000d}"} for row in range(500)]

    store, prompt = rewrite(made_up, lengthen), Prompt(tokenizer, input="text")
    tracemalloc.start()
    assert len(scan(store, prompt).rows) == 500
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 * 4_000 / 3


def test_only_the_first_twenty_faults_are_shown() -> None:
    """A wrong root gives a fault a line: the message must stay readable, and say how many there are."""
    faults = [DataError("no_file", "no such file", f"a.jsonl:{number}") for number in range(1, 31)]
    with pytest.raises(DataError, match=r"(?s)30 faults .*and 10 more") as caught:
        raise_faults(faults)
    assert "a.jsonl:20:" in str(caught.value)
    assert "a.jsonl:21:" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        raise_faults(faults[:1])
    assert caught.value is faults[0]
    raise_faults([])


def test_decoding_finds_what_a_header_hides(made_up: Path, prompt: Prompt) -> None:
    """NaN and a broken stream lie behind a sound header; training would meet them at night."""
    path = made_up.parent / "audio/train-0-0.wav"
    wave, _ = soundfile.read(path)
    wave[50] = np.nan
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    assert scan(Store(made_up), prompt).faults == ()
    fault = scan(Store(made_up), prompt, decode=True).faults[0]
    assert (fault.reason, fault.where) == ("not_finite", f"{made_up}:1: dialogue 'train-0': turn 0: {path}")


def test_a_dialogue_over_the_limit_is_an_error_or_left_out_by_name(made_up: Path, tokenizer: Tokenizer) -> None:
    """Cut or skipped without a word, the longest dialogues would be missing from every result."""
    lengths = scan(Store(made_up), Prompt(tokenizer)).lengths
    limit = int(np.sort(lengths)[-3])
    over = np.flatnonzero(lengths > limit).tolist()
    strict = scan(Store(made_up), Prompt(tokenizer, max_tokens=limit))
    assert [fault.reason for fault in strict.faults] == ["too_long"] * len(over)
    named = f"{made_up}:{over[0] + 1}: dialogue 'train-{over[0]}': renders to {lengths[over[0]]} tokens"
    assert named in str(strict.faults[0])
    lenient = scan(Store(made_up), Prompt(tokenizer, max_tokens=limit), overlong="drop_dialogue")
    assert lenient.faults == ()
    assert [fault.where for fault in lenient.dropped] == [fault.where for fault in strict.faults]
    assert sorted([*lenient.rows.tolist(), *over]) == list(range(9))
    with pytest.raises(ValueError, match="drop_oldest"):
        scan(Store(made_up), Prompt(tokenizer), overlong="drop_oldest")  # type: ignore[arg-type]


def test_text_input_needs_no_audio_files(made_up: Path, tokenizer: Tokenizer) -> None:
    """The text baseline runs where the recordings are not."""
    for path in (made_up.parent / "audio").iterdir():
        path.unlink()
    assert scan(Store(made_up), Prompt(tokenizer, input="text")).faults == ()
    heard = sum(turn.role == "user" for dialogue in read_dialogues(made_up) for turn in dialogue.turns)
    assert len(scan(Store(made_up), Prompt(tokenizer)).faults) == heard > 9
