"""What corpora hold may be damaged anywhere: it is rejected by name, and never stops a conversion with an exception."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from omnichat.data.corpora import (
    af_dialogue,
    cped,
    dailytalk,
    deepdialogue,
    echat_200k,
    emotiontalk,
    expresso,
    iemocap,
    interactspeech,
    lp_musicdialog,
    meld,
    sharechat,
    sharechat_demo,
    spokenwoz,
    styletalk,
    table,
)
from omnichat.data.corpora.reading import Corpus
from omnichat.dialogue import DataError, dialogue_from_json, dialogue_to_json
from tests.corpora import read
from tests.data.corpora import (
    test_af_dialogue,
    test_cped,
    test_dailytalk,
    test_deepdialogue,
    test_echat_200k,
    test_emotiontalk,
    test_expresso,
    test_iemocap,
    test_interactspeech,
    test_lp_musicdialog,
    test_meld,
    test_sharechat,
    test_sharechat_demo,
    test_spokenwoz,
    test_styletalk,
    test_table,
)

ODD: list[Any] = [
    None,
    True,
    -1,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    "inf",
    "y" * 300,
    "",
    "x",
    "\ud800",
    "\0",
    "../../x",
    [],
    {},
    [[]],
    {"a": []},
]


def _interactspeech(folder: Path) -> None:
    times = ([[0, 20_000], [40_000, 50_000]], [[10_000, 30_000], [50_000, 66_150]])
    test_interactspeech.dialogue(folder / "one", "A: I [interrupt] go.\nB: Stop!\nA: Yes.\nB: Good.", *times)


def _cped(folder: Path) -> None:
    said = [
        ("1", "a", "female", "worried", "喂"),
        ("1", "b", "unknown", "happy", "嗯"),
        ("2", "c", "male", "happy", "好"),
    ]
    test_cped.rows(folder, "test_split.csv", *said)


def _af_dialogue(folder: Path) -> None:
    records = [{"audio_id": name, "dialogue": test_af_dialogue.ROUNDS} for name in ("a.wav", "b.wav")]
    test_af_dialogue.written(folder / "dialogues_audioset_thresholded.json", records)


def _lp_musicdialog(folder: Path) -> None:
    turns = [{"role": role, "content": words} for role, words in test_lp_musicdialog.SAID]
    test_lp_musicdialog.parquet(folder, dialogue=[json.dumps(turns)] * 3)


CORPORA: dict[str, tuple[Corpus, Callable[[Path], object]]] = {
    "af_dialogue": (af_dialogue.CORPUS, _af_dialogue),
    "cped": (cped.CORPUS, _cped),
    "dailytalk": (
        dailytalk.CORPUS,
        lambda folder: test_dailytalk.release(folder, {1: test_dailytalk.spoken(2), 2: test_dailytalk.spoken(3)}),
    ),
    "deepdialogue": (deepdialogue.CORPUS, test_deepdialogue.hub),
    "echat_200k": (echat_200k.CORPUS, lambda folder: test_echat_200k.corpus(folder, *_echat())),
    "emotiontalk": (
        emotiontalk.CORPUS,
        lambda folder: test_emotiontalk.corpus(folder, mm=dict.fromkeys(test_emotiontalk.SAID, "sad")),
    ),
    "expresso": (expresso.CORPUS, lambda folder: test_expresso.corpus(folder, words=test_expresso.WORDS)),
    "iemocap": (iemocap.CORPUS, lambda folder: test_iemocap.session(folder, 1)),
    "interactspeech": (interactspeech.CORPUS, _interactspeech),
    "lp_musicdialog": (lp_musicdialog.CORPUS, _lp_musicdialog),
    "meld": (meld.CORPUS, lambda folder: test_meld.corpus(folder, *(f"dia7_utt{n}.wav" for n in (1, 4, 5, 6)))),
    "sharechat": (sharechat.CORPUS, test_sharechat.store),
    "sharechat_demo": (sharechat_demo.CORPUS, test_sharechat_demo.demo),
    "spokenwoz": (
        spokenwoz.CORPUS,
        lambda folder: test_spokenwoz.corpus(folder, "train_dev", {"MUL1": test_spokenwoz.LOG}, ["MUL1"]),
    ),
    "styletalk": (styletalk.CORPUS, lambda folder: test_styletalk.corpus(folder, *[test_styletalk.ROW] * 2)),
    "table": (
        table.corpus("calls", "CC0-1.0", "", "table", table.Layout(test_table.COLUMNS, audio_folder="wavs")),
        test_table.calls,
    ),
}


def _echat() -> list[dict[str, Any]]:
    history = [{"wav": "raw/wav/q2.wav", "txt": "<SAD>唉"}]
    return [test_echat_200k.record("1", history=history), test_echat_200k.record("2")]


def damaged(content: bytes, dice: random.Random) -> bytes:
    """The content with one value of its JSON replaced, or some of its bytes lost, repeated, or changed."""
    try:
        lines = content.splitlines(keepends=True)
        number = dice.randrange(len(lines))
        whole = json.loads(content) if dice.random() < 0.5 or len(lines) == 1 else None
        record = whole if whole is not None else json.loads(lines[number])
        changed = json.dumps(_replaced(record, dice)).encode()
        if dice.random() < 0.8:
            return changed if whole is not None else b"".join([*lines[:number], changed, b"\n", *lines[number + 1 :]])
    except ValueError:
        pass
    start = dice.randrange(len(content))
    stop = min(len(content), start + dice.choice([1, 1, 5, 40]))
    new = dice.choice([b"", b"\xff", b"\0", b'"', b"\n", b"\t", b"-9", content[start:stop] * 2, b"(", b"["])
    return content[:start] + new + content[stop:]


def _replaced(record: Any, dice: random.Random) -> Any:
    """One value somewhere within, or the record itself, is now an odd one."""
    if isinstance(record, (dict, list)) and record and dice.random() < 0.85:
        key = dice.choice(list(record)) if isinstance(record, dict) else dice.randrange(len(record))
        copy = dict(record) if isinstance(record, dict) else list(record)
        copy[key] = _replaced(record[key], dice)
        return copy
    return dice.choice(ODD)


@pytest.mark.parametrize("name", CORPORA)
def test_damage_is_rejected_and_never_raised(name: str, tmp_path: Path) -> None:
    """100 damages of a list: an exception would stop a conversion of days; what is read can be stored and read."""
    corpus, make = CORPORA[name]
    make(tmp_path)
    lists = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".wav")
    dice = random.Random(name)
    outcomes = set()
    for _ in range(100):
        path = dice.choice(lists)
        content = path.read_bytes()
        path.write_bytes(damaged_parquet(path, dice) if path.suffix == ".parquet" else damaged(content, dice))
        try:
            reading = read(corpus, tmp_path)
        except DataError as error:
            outcomes.add(error.reason)
        else:
            outcomes |= {error.reason for error in reading.rejects} | ({"read"} if reading.dialogues else set())
            for dialogue in reading.dialogues:
                assert dialogue_from_json(dialogue_to_json(dialogue)) == dialogue
        path.write_bytes(content)
    assert "read" in outcomes  # not every damage does harm
    assert len(outcomes) > 1
    for dialogue in read(corpus, tmp_path).dialogues:
        assert dialogue_from_json(dialogue_to_json(dialogue)) == dialogue


def damaged_parquet(path: Path, dice: random.Random) -> bytes:
    """The same of one row of a column, or of the file itself."""
    if dice.random() < 0.2:
        return damaged(path.read_bytes(), dice)
    rows = pyarrow.parquet.read_table(path).column("dialogue").to_pylist()
    number = dice.randrange(len(rows))
    rows[number] = damaged(rows[number].encode(), dice).decode(errors="ignore")
    pyarrow.parquet.write_table(pyarrow.table({"dialogue": rows}), path)
    return path.read_bytes()
