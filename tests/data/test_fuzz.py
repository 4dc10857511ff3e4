"""Mutated manifests and store descriptions: nothing but named errors, however they are broken."""

import copy
import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnichat.data.faults import audio_faults
from omnichat.data.info import read_info
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.data.store_check import Options as CheckOptions
from omnichat.data.store_check import check_part, fault_record, parts_of
from omnichat.dialogue import DataError, Dialogue, dialogue_from_json, dialogue_to_json
from tests.data.bad_input import Draft, sound_record

ALPHABET = b'{}[]",:\\ud800 \x00\xff-1e9nullfalse../'
VALUES: list[Any] = [
    *(None, True, 0, -1, 1.5, 1e308, float("nan"), 2**31, 2**63, 10**40, "", " ", "\0", "\ud800", "user", "../x", "/"),
    *([], {}, [None], {"": None}, [[[]]], "x" * 5_000, "file:///etc/passwd", "happy", {"path": "audio/1-0.wav"}),
]


def mutated_bytes(text: str, generator: random.Random) -> bytes:
    """Some bytes changed, lost or put in."""
    raw = bytearray(text, "utf-8")
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(raw))
        kind = generator.randrange(3)
        if kind == 0:
            raw[place] = generator.choice(ALPHABET)
        elif kind == 1:
            del raw[place : place + generator.randint(1, 20)]
        else:
            raw[place:place] = bytes(generator.choices(ALPHABET, k=3))
        raw = raw or bytearray(b"x")
    return bytes(raw)


def mutated_values(record: Any, generator: random.Random) -> bytes:
    """Some values of the JSON changed, lost, renamed or doubled."""
    record = json.loads(json.dumps(record))
    for _ in range(generator.randint(1, 2)):
        holders = list(containers(record))
        holder = generator.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key, kind = generator.choice(keys), generator.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[generator.choice(["", "path", "text", key.upper(), "\0"])] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = copy.deepcopy(generator.choice(VALUES))
    return json.dumps(record).encode()


def same_paths(dialogue: Dialogue) -> Dialogue:
    """The dialogue with `a//b` and `a/./b`, which are one file, spelled alike."""
    turns = [
        replace(turn, audio=replace(turn.audio, path=os.path.normpath(turn.audio.path))) if turn.audio else turn
        for turn in dialogue.turns
    ]
    return replace(dialogue, turns=tuple(turns))


def containers(value: Any) -> list[Any]:
    """The lists and objects of a JSON value, itself first."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = [value] if isinstance(value, (dict, list)) else []
    return here + [found for one in inner for found in containers(one)]


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_mutated_lines_raise_nothing_but_named_errors(count: int, tmp_path: Path) -> None:
    """One line that crashes the reader in an unforeseen way stops a scan of 80,000."""
    generator = random.Random(count)
    draft = Draft(tmp_path / "store")
    record, path = sound_record(1), draft.write()
    text = json.dumps(record)
    reasons: Counter[str] = Counter()
    for number in range(1, count + 1):
        raw = mutated_bytes(text, generator) if number % 2 else mutated_values(record, generator)
        try:
            dialogue = dialogue_from_json(raw.decode("utf-8", "replace"), path.parent)
        except DataError as error:
            for fault in error.all():
                reasons[fault.reason] += 1
                place = fault_record(fault.at(f"{path}:{number}"), path, number)
                assert place["line"] == number
                assert len(str(fault)) < 2_000, str(fault)[:300]
            continue
        found = audio_faults(dialogue, every_role=True)
        reasons.update(fault.reason for fault in found)
        reasons["sound"] += not found
        again = dialogue_from_json(dialogue_to_json(dialogue, path.parent), path.parent)
        assert same_paths(again) == same_paths(dialogue)
    assert reasons["bad_json"] > count / 10
    assert reasons["sound"] > count / 20
    assert len(reasons) >= 14, reasons


def test_mutated_descriptions_of_stores_raise_nothing_but_named_errors(tmp_path: Path) -> None:
    """`store.json` is what is read first of a corpus that someone else made."""
    generator = random.Random(0)
    dialogues = made_up_dialogues(tmp_path / "made_up", 2)
    store = tmp_path / "store"
    finish_store(store, name="x", licence="y", source="z", splits={"train": [write_shard(store / ".a", dialogues)]})
    description = store / "store.json"
    text = description.read_text("utf-8")
    record, outcome = json.loads(text), Counter[str]()
    for number in range(2_000):
        raw = mutated_bytes(text, generator) if number % 2 else mutated_values(record, generator)
        description.write_bytes(raw)
        try:
            read_info(store)
            outcome["read"] += len(Store(store / "train")) == 2
        except DataError as error:
            outcome[error.reason] += 1
        try:
            parts, faults = parts_of(store)
            if number % 20 == 0:
                for part in parts:
                    check_part(part, CheckOptions(decode=False))
            outcome["named"] += bool(faults)
        except DataError as error:
            outcome[f"check: {error.reason}"] += 1
    assert outcome["bad_json"] > 500, outcome
    assert outcome["named"] > 500, outcome
    assert outcome["read"] > 100, outcome
