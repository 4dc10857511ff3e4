"""Packing: dialogues end to end, nothing lost, nothing mixed up."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from omnichat.batch import Example, PackedBatch, SharedPrefix, pack, to_device
from omnichat.dialogue import AudioRef, Dialogue, Style, Turn
from omnichat.prompt import Prompt, Slot, Tokens

IDS = np.array([1, 9, 9, 2, 7, 8])
TOKENS = Tokens(
    ids=IDS,
    labels=np.array([-100, -100, -100, -100, 7, 8]),
    kinds=np.array([0, 0, 0, 0, 1, 2], dtype=np.uint8),
    slots=(Slot(1, 2, AudioRef("a.wav", 6_000)),),
)


def example(value: float = 0.5, **fields: object) -> Example:
    """A dialogue of one turn whose wave is constant."""
    wave = np.full(6_000, value, dtype=np.float32)
    return Example(**{"tokens": TOKENS, "waves": (wave,), "features": None, "dialogue_id": "a"} | fields)


def two_turns(samples: tuple[int, int]) -> Example:
    """A dialogue of two turns, of these lengths in samples."""
    slots = (Slot(0, 1, AudioRef("b.wav", samples[0])), Slot(3, 1, AudioRef("c.wav", samples[1])))
    tokens = Tokens(IDS[:4] + 10, np.full(4, -100), np.zeros(4, dtype=np.uint8), slots)
    waves = tuple(np.full(size, number + 1, dtype=np.float32) for number, size in enumerate(samples))
    return Example(tokens, waves, None, "b", "real", {"scenario": "rain"}, 7)


def test_pack_puts_dialogues_end_to_end() -> None:
    """By hand: a shifted start, slot or position trains one dialogue on another's audio."""
    batch = pack([example(), two_turns((200, 400)), example(0.25)])
    assert batch.ids.tolist() == [1, 9, 9, 2, 7, 8, 11, 19, 19, 12, 1, 9, 9, 2, 7, 8]
    assert batch.labels.tolist() == [-100] * 4 + [7, 8] + [-100] * 8 + [7, 8]
    assert batch.kinds.tolist() == [0] * 4 + [1, 2] + [0] * 8 + [1, 2]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert batch.starts.tolist() == [0, 6, 10, 16]
    assert batch.max_length == 6
    assert batch.slots.tolist() == [1, 2, 6, 9, 11, 12]
    assert batch.wave_lengths.tolist() == [6_000, 200, 400, 6_000]
    assert batch.clip_dialogues.tolist() == [0, 1, 1, 2]
    assert batch.num_targets == batch.global_targets == 4
    assert batch.dialogue_ids == ("a", "b", "a")
    assert batch.sources == ("", "real", "")
    assert batch.scenarios == ("", "rain", "")
    assert batch.indices == (-1, 7, -1)


def words(*ids: int) -> Example:
    """A dialogue without audio."""
    tokens = Tokens(np.array(ids), np.full(len(ids), -100), np.zeros(len(ids), dtype=np.uint8), ())
    return Example(tokens, (), None, "w")


def test_a_shared_prefix_by_hand() -> None:
    """A wrong place lets a dialogue see another, or miss a part of what all begin with."""
    shared = pack([words(1, 2, 3), words(1, 2, 4, 5)], share_prefix=True).shared
    assert shared is not None
    assert shared.length == 2
    assert shared.kept.tolist() == [0, 1, 2, 5, 6]  # 1 2 | 3 | 4 5
    assert shared.places.tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert shared.query_starts.tolist() == [0, 2, 3, 5]
    assert shared.keys.tolist() == [0, 1, 5, 6, 2, 7, 8, 3, 4]  # 5 to 8 are two copies of 1 2
    assert shared.key_starts.tolist() == [0, 2, 5, 9]
    assert shared.query_starts.dtype == shared.key_starts.dtype == torch.int32, "what attention kernels want"


@pytest.mark.parametrize(
    ("examples", "length"),
    [
        ([words(1, 2, 3)], None),
        ([words(1, 2), words(3, 2)], None),
        ([example(), example(0.25)], 1),  # the same ids, another wave
        ([two_turns((200, 400)), two_turns((200, 300))], None),  # audio comes first
        ([words(1, 2, 3), words(1, 2, 3)], 2),  # each keeps a token of its own
        ([words(1), words(1, 2)], None),
    ],
)
def test_a_shared_prefix_ends_before_what_differs(examples: list[Example], length: int | None) -> None:
    """Equal ids are not equal audio; a dialogue without a token of its own would be an empty piece of the row."""
    batch = pack(examples, share_prefix=True)
    assert (batch.shared.length if batch.shared is not None else None) == length
    assert pack(examples).shared is None


def test_waves_are_padded_with_zeros_only() -> None:
    """Padding that is not silence is heard by an encoder that forgets a mask."""
    batch = pack([example(), two_turns((200, 400))])
    assert batch.waves is not None
    assert batch.waves.shape == (3, 6_000)
    for row, length, value in zip(batch.waves, (6_000, 200, 400), (0.5, 1.0, 2.0), strict=True):
        assert (row[:length] == value).all()
        assert (row[length:] == 0).all()


def test_tensors_have_the_types_of_the_contract() -> None:
    """Attention kernels want int32 starts; embeddings want int64 ids."""
    batch = pack([example()])
    assert batch.starts.dtype == torch.int32
    assert batch.kinds.dtype == torch.uint8
    names = ("ids", "labels", "positions", "slots", "wave_lengths", "clip_dialogues")
    assert {getattr(batch, name).dtype for name in names} == {torch.int64}


def test_targets_of_the_whole_step_travel_with_the_batch() -> None:
    """Without them a micro-batch with few targets would weigh as much as one with many."""
    batch = pack([example()], global_targets=99)
    assert (batch.num_targets, batch.global_targets) == (2, 99)


def test_cached_features_lie_end_to_end_with_their_lengths() -> None:
    """By hand, two experts with different widths and frame counts."""

    def cached(frames: int) -> Example:
        ones = {"whisper": np.ones((frames, 2), np.float16), "beats": np.full((frames - 1, 3), 2, np.float16)}
        return example(waves=(), features=(ones,))

    batch = pack([cached(4), cached(2)])
    assert batch.waves is None
    assert batch.features is not None
    frames, counts = batch.features["whisper"]
    assert frames.dtype == torch.float16
    assert counts == (4, 2)
    assert frames.tolist() == [[1, 1]] * 6
    assert batch.features["beats"][0].shape == (4, 3)
    assert batch.features["beats"][1] == (3, 1)
    assert batch.wave_lengths.tolist() == [6_000, 6_000]


def test_a_dialogue_without_audio_goes_with_cached_features() -> None:
    """It has neither waves nor features, and is no mixture of the two."""
    cached = example(waves=(), features=({"whisper": np.ones((4, 2), np.float16)},))
    batch = pack([words(1, 2), cached])
    assert batch.waves is None
    assert batch.features is not None
    assert batch.features["whisper"][1] == (4,)
    assert batch.slots.tolist() == [3, 4]
    assert batch.clip_dialogues.tolist() == [1]


def test_all_tensors_of_a_batch_move_and_all_else_stays() -> None:
    """A tensor left behind stops the step on a GPU; a changed count is another loss."""
    cached = example(waves=(), features=({"whisper": np.ones((4, 2), np.float16)},))
    for batch in (pack([cached, cached], share_prefix=True), pack([example(), two_turns((200, 400))])):
        moved = to_device(batch, torch.device("meta"))
        assert type(moved.shared) is type(batch.shared)
        assert (moved.features is None) == (batch.features is None)
        for one, other in zip(_values(moved), _values(batch), strict=True):
            if isinstance(other, torch.Tensor):
                assert one.device.type == "meta"
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
            else:
                assert one == other


def _values(batch: PackedBatch) -> list[object]:
    """All fields, with those of the shared prefix and of the features."""
    values: list[object] = []
    for name, value in batch._asdict().items():
        if isinstance(value, SharedPrefix):
            values += value
        elif name == "features" and value is not None:
            values += [part for expert in value for part in (expert, *value[expert])]
        else:
            values.append(value)
    return values


def test_bits_of_bfloat16_become_bfloat16() -> None:
    """numpy has no bfloat16; taking its bits for numbers would give frames of up to 65,535."""
    frames = torch.tensor([[1.5, -3.0]], dtype=torch.bfloat16)
    bits = frames.view(torch.uint16).numpy()
    batch = pack([example(waves=(), features=({"whisper": bits},))])
    assert batch.features is not None
    assert batch.features["whisper"][0].dtype == torch.bfloat16
    assert batch.features["whisper"][0].tolist() == [[1.5, -3.0]]


@pytest.mark.parametrize("cached", [False, True])
def test_a_data_worker_writes_where_the_trainer_reads(cached: bool) -> None:
    """The same batch from a worker as from this process, and in memory that both share: no copy on its way out."""
    frames = {"whisper": np.arange(24, dtype=np.uint16).reshape(6, 4)}
    one = example(waves=(), features=(frames,)) if cached else example()
    loader = DataLoader([[one], [one, one]], batch_size=None, num_workers=1, collate_fn=_packed)  # type: ignore[arg-type]
    expected = [pack([one]), pack([one, one])]
    for (batch, shared), wanted in zip(loader, expected, strict=True):
        assert shared
        if cached:
            found, kept = batch.features["whisper"], wanted.features["whisper"]
            assert found[0].view(torch.uint16).equal(kept[0].view(torch.uint16))
            assert found[1] == kept[1]
        else:
            assert batch.waves.equal(wanted.waves)
        assert batch.ids.equal(wanted.ids)


def _packed(examples: list[Example]) -> tuple[PackedBatch, bool]:
    batch = pack(examples)
    heavy = batch.waves if batch.features is None else batch.features["whisper"][0]
    assert heavy is not None
    return batch, heavy.is_shared()


def test_a_dialogue_without_audio_packs(tokenizer: Tokenizer) -> None:
    """Text input has no slots and no waves, and may stand alone in a batch."""
    dialogue = Dialogue("t", (Turn("user", "hi"), Turn("assistant", "yes", Style())))
    batch = pack([Example(Prompt(tokenizer, input="text").render(dialogue), (), None, "t")])
    assert batch.slots.tolist() == batch.wave_lengths.tolist() == []
    assert batch.waves is not None
    assert batch.waves.shape == (0, 0)


def test_pieces_of_a_long_turn_follow_one_another() -> None:
    """65 s are heard as 30 + 30 + 5; a tail of less than a hop gives no frame and no piece."""
    tokens = Tokens(IDS, TOKENS.labels, TOKENS.kinds, (Slot(1, 2, AudioRef("a.wav", 65 * 16_000)),))
    waves = tuple(np.zeros(seconds * 16_000, np.float32) for seconds in (30, 30, 5))
    batch = pack([Example(tokens, waves, None, "long")])
    assert batch.wave_lengths.tolist() == [480_000, 480_000, 80_000]
    assert batch.clip_dialogues.tolist() == [0, 0, 0]


def test_audio_that_does_not_match_the_slots_is_refused() -> None:
    """The model would otherwise fail far from the fault, or hear another turn."""
    with pytest.raises(ValueError, match="'a': 2 audio pieces given, the slots hold 1"):
        example(waves=(np.zeros(6_000, np.float32),) * 2)
    with pytest.raises(ValueError, match=r"pieces of \[5999\] samples, slots for \[6000\]"):
        example(waves=(np.zeros(5_999, np.float32),))


def test_batches_that_cannot_be_are_refused() -> None:
    """Waves beside cached features, or experts that differ, have no common tensor."""
    frames = {"whisper": np.ones((2, 2), np.float32)}
    with pytest.raises(ValueError, match="at least one"):
        pack([])
    with pytest.raises(ValueError, match="not both"):
        pack([example(), example(waves=(), features=(frames,))])
    with pytest.raises(ValueError, match="same experts"):
        pack([example(waves=(), features=(frames,)), example(waves=(), features=({"beats": frames["whisper"]},))])
