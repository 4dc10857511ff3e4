"""Examples: what is heard belongs to what is read, in order and in the mixed stream."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tokenizers import Tokenizer

from omnichat.audio import load_audio
from omnichat.batch import pack
from omnichat.data.dataset import DialogueDataset, StoreDataset, make_example
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.mixture import BLOCK
from omnichat.data.scan import Scan, scan
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, AudioRef, DataError, Dialogue, Turn
from omnichat.prompt import Prompt


@pytest.fixture
def stream(tmp_path: Path, prompt: Prompt) -> DialogueDataset:
    """Seven synthetic and five real dialogues at alpha 0.3."""
    scans = {}
    for name, count, seed in (("synthetic", 7, 1), ("real", 5, 2)):
        made_up_dialogues(tmp_path / name, count, seed)
        scans[name] = scan(Store(tmp_path / name / "train.jsonl"), prompt)
    return DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7}, prompt, seed=4)


def test_an_example_holds_the_audio_of_its_turns(made_up: Path, prompt: Prompt) -> None:
    """Waves in another order than the slots would give each turn another's voice."""
    dataset = StoreDataset(made_up, prompt)
    for number in range(9):
        dialogue, example = dataset.dialogue(number), dataset[number]
        heard = [turn.audio for turn in dialogue.turns if turn.role == "user" and turn.audio is not None]
        assert [slot.audio for slot in example.tokens.slots] == heard
        assert all(np.array_equal(wave, load_audio(ref)) for wave, ref in zip(example.waves, heard, strict=True))
        assert (example.dialogue_id, example.source, example.index) == (f"train-{number}", "made-up", -1)
        assert example.scene == {"scenario": "tones"}


def test_long_turns_are_heard_in_pieces_that_lose_nothing(tmp_path: Path, prompt: Prompt) -> None:
    """61 s of audio in three pieces, put together again."""
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 61 * 16_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    turns = (Turn("user", "", audio=AudioRef(str(tmp_path / "a.wav"), len(wave))), Turn("assistant", "yes"))
    example = make_example(Dialogue("long", turns), prompt)
    assert [len(piece) for piece in example.waves] == [480_000, 480_000, 16_000]
    assert np.array_equal(np.concatenate(example.waves), wave)


def test_generation_examples_end_before_the_answer(made_up: Path, prompt: Prompt) -> None:
    """An evaluation that shows the answer measures nothing."""
    dataset = StoreDataset(made_up, prompt, generation=True, rows=[3, 1])
    assert len(dataset) == 2
    answer = dataset.dialogue(0).turns[-1].text
    assert dataset[0].dialogue_id == "train-3"
    assert prompt.decode(dataset[0].tokens.ids.tolist()).count(answer) == sum(
        turn.text == answer for turn in dataset.dialogue(0).turns[:-1]
    )


def test_broken_audio_names_the_dialogue(made_up: Path, prompt: Prompt) -> None:
    """A file that breaks after the scan stops the run with its name, and is never swapped for another."""
    (made_up.parent / "audio/train-2-0.wav").unlink()
    with pytest.raises(DataError, match=r"dialogue 'train-2': .*train-2-0.wav: .*\[no_file\]"):
        StoreDataset(made_up, prompt)[2]


def test_broken_audio_names_the_turn_of_the_stored_dialogue(made_up: Path, prompt: Prompt) -> None:
    """Whoever looks for the turn looks in the store, where the oldest turns still stand."""
    store = Store(made_up)
    row = next(row for row in range(9) if len(store[row].turns) >= 4)
    turn = len(store[row].turns) - 2
    (made_up.parent / f"audio/train-{row}-{turn // 2}.wav").unlink()
    wanted = rf"train.jsonl:{row + 1}: dialogue 'train-{row}': turn {turn}: .*\[no_file\]"
    with pytest.raises(DataError, match=wanted):
        StoreDataset(store, prompt)[row]
    with pytest.raises(DataError, match=wanted):
        StoreDataset(store, prompt, rows=[row], first_turns=np.array([2]))[0]
    with pytest.raises(DataError, match=rf"^dialogue 'train-{row}': turn {turn}: "):
        make_example(store[row], prompt)
    whole = replace(scan(Store(made_up), Prompt(prompt.tokenizer, input="text")), first_turns=np.full(9, 2, np.int32))
    stream = DialogueDataset({"real": whole.first(row + 1)}, {"real": 1.0}, prompt)
    index = next(index for index in range(row + 1) if stream.mixture[index][1] == row)
    with pytest.raises(DataError, match=wanted):
        stream[index]


def test_the_stream_draws_what_the_mixture_says(stream: DialogueDataset) -> None:
    """Index, source and dialogue must agree, in this process and in a worker's copy."""
    copy = pickle.loads(pickle.dumps(stream))
    for index in (0, 1, 2, 40, 100_000):
        source, row = stream.mixture[index]
        example = stream[index]
        assert example.index == index
        assert example.source == ("synthetic", "real")[source]
        assert example.dialogue_id == stream.scans[example.source].store[row].id
        assert pack([copy[index]]).waves.equal(pack([example]).waves)


def test_lengths_and_targets_are_known_without_reading(stream: DialogueDataset) -> None:
    """The loss is divided by these on every rank, before any rank has read another's dialogues."""
    indices = range(90, 110)
    examples = [stream[index] for index in indices]
    assert stream.lengths(indices).tolist() == [len(example.tokens.ids) for example in examples]
    assert stream.num_targets(indices) == pack(examples).num_targets


def test_shares_count_every_index_once(stream: DialogueDataset) -> None:
    """Far into a run, where they are counted in several pieces: a piece lost or counted twice shifts every share."""
    stop = 2 * BLOCK + 5
    found = stream.shares(stop)
    assert tuple(drawn.dialogues for drawn in found.drawn.values()) == stream.mixture.counts(stop)
    assert sum(drawn.targets for drawn in found.drawn.values()) == stream.num_targets(range(stop))


def test_the_longest_are_those_of_all_sources_that_are_drawn(stream: DialogueDataset) -> None:
    """They are tried before the first step: a longer one later would end the run for lack of memory."""
    lengths = {name: sorted(scan.lengths.tolist(), reverse=True) for name, scan in stream.scans.items()}
    both = sorted(lengths["synthetic"] + lengths["real"], reverse=True)
    for count in (1, 3, 12, 50):
        assert [len(example.tokens.ids) for example in stream.longest(count)] == both[:count]
    alone = DialogueDataset(stream.scans, {"synthetic": 0.0, "real": 1.0}, stream.prompt)
    assert [len(example.tokens.ids) for example in alone.longest(50)] == lengths["real"]
    assert {example.source for example in alone.longest(50)} == {"real"}


def test_a_field_that_any_source_knows_is_taught(stream: DialogueDataset) -> None:
    """Replies would otherwise be written `unknown` in a field that the model has learnt, or guessed in one it has not.

    A source that is not drawn teaches nothing.
    """
    known = {"synthetic": [True, False, False, True], "real": [False, True, False, True]}
    scans = {name: replace(part, style_fields=np.array(known[name])) for name, part in stream.scans.items()}
    both = DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7}, stream.prompt)
    assert both.style_fields() == (STYLE_FIELDS[0], STYLE_FIELDS[1], STYLE_FIELDS[3])
    one = DialogueDataset(scans, {"synthetic": 0.0, "real": 1.0}, stream.prompt)
    assert one.style_fields() == (STYLE_FIELDS[1], STYLE_FIELDS[3])


def test_what_is_over_the_limit_is_listed_for_every_source(stream: DialogueDataset) -> None:
    """The places in the store, and what was done: a dialogue that is left out of the list is lost in silence."""
    scans = {}
    for name, part in stream.scans.items():
        first_turns = np.zeros_like(part.first_turns)
        first_turns[1:3] = 2, 4
        fault = DataError("too_long", "too long", f"{name}:9")
        scans[name] = replace(part, rows=part.rows + 1, first_turns=first_turns, dropped=(fault,))
    lines = DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7}, stream.prompt).overlong()
    paths = {name: part.store.path for name, part in scans.items()}
    assert lines == [
        line
        for name in ("synthetic", "real")
        for line in (
            f"{paths[name]}:3: without its first 2 turns",
            f"{paths[name]}:4: without its first 4 turns",
            f"left out: {name}:9: too long [too_long]",
        )
    ]
    assert len(DialogueDataset(scans, {"synthetic": 0.0, "real": 1.0}, stream.prompt).overlong()) == 3


def test_dropped_dialogues_never_come_up(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The exclusions of the scan hold for the whole run, and shift no other dialogue."""
    made_up_dialogues(tmp_path, 12)
    lengths = scan(Store(tmp_path / "train.jsonl"), Prompt(tokenizer)).lengths
    prompt = Prompt(tokenizer, max_tokens=int(np.median(lengths)))
    result = scan(Store(tmp_path / "train.jsonl"), prompt, "drop_dialogue")
    dataset = DialogueDataset({"synthetic": result}, {"synthetic": 1.0}, prompt)
    size = len(result.rows)
    drawn = sorted(dataset[index].dialogue_id for index in range(size))
    assert 0 < size < 12
    assert drawn == sorted(f"train-{row}" for row in result.rows)


def test_turns_that_are_not_learnt_are_part_of_the_fingerprint(made_up: Path, prompt: Prompt) -> None:
    """A run that goes on after answers were ruled out would mix two trainings; other data is as it was."""

    def stream() -> tuple[str, Scan]:
        part = scan(Store(made_up), prompt)
        return DialogueDataset({"synthetic": part}, {"synthetic": 1.0}, prompt).fingerprint(), part

    before, part = stream()
    assert part.context_only.tolist() == [0] * 9
    old = replace(part, context_only=np.zeros(0, dtype=np.int32))  # of before they could be ruled out
    assert DialogueDataset({"synthetic": old}, {"synthetic": 1.0}, prompt).fingerprint() == before
    records = [json.loads(line) for line in made_up.read_text("utf-8").splitlines()]
    row = next(number for number, record in enumerate(records) if len(record["turns"]) > 3)
    records[row]["turns"][1]["learn"] = False
    made_up.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    after, part = stream()
    assert part.context_only.tolist() == [int(number == row) for number in range(9)]
    assert after != before


def test_the_fingerprint_tells_streams_apart(stream: DialogueDataset) -> None:
    """A resume over other data must be noticed."""
    sources = stream.scans
    weights = {"synthetic": 0.3, "real": 0.7}
    same = DialogueDataset(sources, weights, stream.prompt, seed=4)
    fewer = sources | {"real": replace(sources["real"], rows=sources["real"].rows[1:])}
    other = replace(sources["real"], rows=sources["real"].rows[::-1])
    longer = replace(sources["real"], lengths=sources["real"].lengths + 1)
    renamed = {"made": 0.3, "real": 0.7}
    others = [
        DialogueDataset(sources, weights, stream.prompt, seed=5),
        DialogueDataset(sources, {"synthetic": 0.4, "real": 0.6}, stream.prompt, seed=4),
        DialogueDataset(fewer, weights, stream.prompt, seed=4),
        DialogueDataset(sources | {"real": other}, weights, stream.prompt, seed=4),
        DialogueDataset(sources | {"real": longer}, weights, stream.prompt, seed=4),
        DialogueDataset({"made": sources["synthetic"], "real": sources["real"]}, renamed, stream.prompt, seed=4),
    ]
    assert same.fingerprint() == stream.fingerprint()
    assert len({stream.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def test_a_stream_that_cannot_be_is_named(stream: DialogueDataset, tokenizer: Tokenizer) -> None:
    """Faults of the scan, a source that is empty, or a weight for none stop a run before its first step."""
    sources = stream.scans
    weights = {"synthetic": 0.5, "real": 0.5}
    broken = replace(sources["real"], faults=(DataError("no_file", "no such file", "real.jsonl:3"),))
    with pytest.raises(DataError, match=r"real.jsonl:3: no such file"):
        DialogueDataset(sources | {"real": broken}, weights, stream.prompt)
    nothing = scan(sources["real"].store, Prompt(tokenizer, max_tokens=5), "drop_dialogue")
    with pytest.raises(DataError, match=r"real/train.jsonl: has no usable dialogue, 5 are over .*\[empty_source\]"):
        DialogueDataset(sources | {"real": nothing}, weights, stream.prompt)
    with pytest.raises(DataError, match=r"real has the weight 0.5, but there are only synthetic \[no_source\]"):
        DialogueDataset({"synthetic": sources["synthetic"]}, weights, stream.prompt)
    with pytest.raises(DataError, match=r"no weight for real.*\[bad_weights\]"):
        DialogueDataset(sources, {"synthetic": 1.0}, stream.prompt)


def test_a_source_that_is_not_drawn_may_be_absent(stream: DialogueDataset) -> None:
    """At alpha 0 the real dialogues come in the order they have at any other alpha, with or without the synthetic."""
    alone = DialogueDataset({"real": stream.scans["real"]}, {"synthetic": 0.0, "real": 1.0}, stream.prompt, seed=4)
    mixed = [stream[index] for index in range(40)]
    real = [example.dialogue_id for example in mixed if example.source == "real"]
    assert [alone[index].dialogue_id for index in range(len(real))] == real
