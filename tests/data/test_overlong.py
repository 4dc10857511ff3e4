"""Dialogues over the limit: whole rounds go, oldest first, the same ones in the scan and in training, and all named."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from omnichat.audio import load_audio
from omnichat.config import load_config
from omnichat.data.dataset import DialogueDataset, StoreDataset
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.overlong import round_starts, shorten, without_oldest
from omnichat.data.scan import Scan, scan
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Turn
from omnichat.prompt import Prompt
from omnichat.training.fit import fit

WINDOW = 17 * 320  # samples of one audio slot at the default window
# Header, role, end of header, two newlines, end of turn; the tests' tokenizer writes "assistant" with three tokens.
USER_TOKENS, ASSISTANT_TOKENS = 6, 8


def heard(slots: int) -> Turn:
    """A user turn that takes so many audio slots."""
    return Turn("user", "", audio=AudioRef("x.wav", slots * WINDOW))


def conversation(opening: bool = False) -> Dialogue:
    """Three rounds, the second of two user turns: 10, 20 + 30 and 40 slots; an answer of one word each."""
    said = Turn("assistant", "yes")
    rounds = [heard(10), said, heard(20), heard(30), said, heard(40), said]
    return Dialogue("d", (said, *rounds) if opening else tuple(rounds))


def length(prompt: Prompt, slots: list[int], answers: int) -> int:
    """Tokens of a dialogue by counting its parts."""
    user = sum(slots) + USER_TOKENS * len(slots)
    styles = sum(len(prompt.encode(text)) for text in ("(unknown", ", unknown", ", unknown", ", unknown"))
    return 1 + user + answers * (ASSISTANT_TOKENS + styles + len(prompt.encode("): yes")))


@pytest.mark.parametrize("opening", [False, True])
def test_as_few_of_the_oldest_rounds_go_as_needed(tokenizer: Tokenizer, opening: bool) -> None:
    """At the exact limits, counted by hand: one token less and another round goes, never a turn without its answer."""
    dialogue, prompt = conversation(opening), Prompt(tokenizer)
    wholes = [
        *([(0, length(prompt, [10, 20, 30, 40], 4))] if opening else []),
        (opening, length(prompt, [10, 20, 30, 40], 3)),
        (2 + opening, length(prompt, [20, 30, 40], 2)),
        (5 + opening, length(prompt, [40], 1)),
    ]
    for (first, fits), (next_first, _) in zip(wholes, [*wholes[1:], (None, 0)], strict=True):
        prompt.max_tokens = fits
        assert shorten(dialogue, prompt)[0] == first
        assert len(shorten(dialogue, prompt)[1].ids) == fits
        prompt.max_tokens = fits - 1
        if next_first is not None:
            assert shorten(dialogue, prompt)[0] == next_first
        else:
            with pytest.raises(DataError, match=r"dialogue 'd': .*over the limit of \d+.*overlong=drop_dialogue") as e:
                shorten(dialogue, prompt)
            assert e.value.reason == "last_round_too_long"


def test_a_round_begins_with_the_user() -> None:
    """Fails when a dialogue is cut between two assistant turns: the second would then answer nobody."""
    said = Turn("assistant", "yes")
    turns = (said, heard(1), said, said, heard(1), heard(1), said, heard(1), said)
    assert round_starts(Dialogue("d", turns)) == [1, 4, 7]
    assert round_starts(conversation()) == [2, 5], "the first turn is left out: nothing is left out before it"


def test_what_is_kept_is_kept_whole(tokenizer: Tokenizer) -> None:
    """The rest is what the dialogue without its oldest turns renders to: every slot, every target."""
    prompt = Prompt(tokenizer)
    prompt.max_tokens = length(prompt, [20, 30, 40], 2) + 3
    first, tokens = shorten(conversation(), prompt)
    alone = prompt.render(Dialogue("d", conversation().turns[2:]))
    assert first == 2
    assert tokens.ids.tolist() == alone.ids.tolist()
    assert tokens.labels.tolist() == alone.labels.tolist()
    assert [slot.length for slot in tokens.slots] == [20, 30, 40]


def test_other_faults_are_not_taken_for_length(tokenizer: Tokenizer) -> None:
    """A turn without audio is a fault whether or not shortening would drop it."""
    silent = Dialogue("d", (Turn("user", "hello"), *conversation().turns))
    with pytest.raises(DataError, match=r"turn 0.*\[no_audio\]"):
        shorten(silent, Prompt(tokenizer, max_tokens=60))


@pytest.fixture
def shortened(tmp_path: Path, tokenizer: Tokenizer) -> tuple[Scan, Prompt]:
    """A made-up store whose longest dialogues lose rounds."""
    made_up_dialogues(tmp_path, 24)
    store = Store(tmp_path / "train.jsonl")
    prompt = Prompt(tokenizer, max_tokens=int(np.quantile(scan(store, Prompt(tokenizer)).lengths, 0.6)))
    return scan(store, prompt, "drop_oldest_turns"), prompt


def test_scan_and_training_shorten_alike(shortened: tuple[Scan, Prompt]) -> None:
    """The loss is divided by the scan's targets: they must be those of the batch, and the audio whole."""
    part, prompt = shortened
    assert part.faults == part.dropped == ()
    assert part.rows.tolist() == list(range(24))
    assert 0 < np.count_nonzero(part.first_turns) < 24
    assert part.lengths.max() <= prompt.max_tokens
    stream = DialogueDataset({"real": part}, {"real": 1.0}, prompt)
    held_out = StoreDataset(part.store, prompt, rows=part.rows, first_turns=part.first_turns)
    by_id = {stream[index].dialogue_id: stream[index] for index in range(24)}
    for place, row in enumerate(part.rows.tolist()):
        dialogue = part.store[row]
        expected = without_oldest(dialogue, int(part.first_turns[place]))
        assert held_out.dialogue(place) == expected
        for example in (by_id[dialogue.id], held_out[place]):
            assert (len(example.tokens.ids), example.tokens.num_targets) == (part.lengths[place], part.targets[place])
            refs = [turn.audio for turn in expected.turns if turn.role == "user" and turn.audio is not None]
            assert [len(wave) for wave in example.waves] == [len(load_audio(ref)) for ref in refs]


def test_the_policy_is_part_of_the_fingerprint(shortened: tuple[Scan, Prompt]) -> None:
    """A run that shortened its dialogues must not go on with whole ones, were they as long by chance."""
    part, prompt = shortened
    whole = Scan(
        part.store, part.rows, part.lengths, part.targets, part.seconds, np.zeros_like(part.first_turns), (), ()
    )
    streams = [DialogueDataset({"real": one}, {"real": 1.0}, prompt) for one in (part, whole)]
    assert streams[0].fingerprint() != streams[1].fingerprint()


def test_a_run_says_what_it_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the config: the count, the first places, and steps that train on what the scan promised."""
    made_up_dialogues(tmp_path, 12)
    found = [
        "recipe=smoke", "data.made_up=null", "data.alpha=1", f"data.synthetic={tmp_path / 'train.jsonl'}",
        "trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.validate_every=0", "trainer.save_every=0",
        "data.system=", "data.max_tokens=110", "data.overlong=drop_oldest_turns",
    ]  # fmt: skip
    assert fit(load_config(*found), tmp_path / "run") == 0
    printed = capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert "too long, without their oldest turns" in printed
    listed = (tmp_path / "run" / "overlong.txt").read_text("utf-8").splitlines()
    assert f"{len(listed)} dialogues are over data.max_tokens" in printed
    assert all(line.endswith(("without its first 2 turns", "without its first 4 turns")) for line in listed)
    rounds = {f"{tmp_path / 'train.jsonl'}:{n + 1}": len(record["turns"]) // 2 for n, record in enumerate(records)}
    assert {rounds[line.partition(": ")[0]] for line in listed} <= {2, 3}
    assert {place for place, count in rounds.items() if count == 3} <= {line.partition(": ")[0] for line in listed}
    changed = [*found[:-1], "data.overlong=drop_dialogue", "resume=never"]
    assert fit(load_config(*changed), tmp_path / "other") == 0
    dropped = (tmp_path / "other" / "overlong.txt").read_text("utf-8").splitlines()
    assert [line.partition("jsonl:")[2].partition(":")[0] for line in dropped] == [
        line.partition("jsonl:")[2].partition(":")[0] for line in listed
    ]
    assert all(line.startswith("left out: ") and line.endswith("[too_long]") for line in dropped)
