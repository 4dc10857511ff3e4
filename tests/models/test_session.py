"""Cached decoding: what was read once is not read again, and changes nothing."""

from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM

from omnichat.models.session import Decoded, Session
from omnichat.prompt import Allowed
from tests.models.conftest import embeddings, packed


def test_session_equals_full_recompute(llm: LlamaForCausalLM) -> None:
    """Fails when the cache, the positions or the mask after it are off: reading in parts must equal reading at once."""
    (row,) = embeddings([12])
    session = Session(llm)
    for start, stop in ((0, 4), (4, 5), (5, 12)):
        logits = session.extend([row[start:stop]])
        assert session.length == stop
        with torch.no_grad():
            expected = llm.lm_head(packed(llm, [row[:stop]])[0][-1])
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)


def test_session_of_unequal_rows_equals_each_alone(llm: LlamaForCausalLM) -> None:
    """Fails when left padding is attended to or shifts positions, also in a second turn."""
    rows, turns = embeddings(), [row[:2] for row in reversed(embeddings())]
    session = Session(llm)
    session.extend(rows)
    together = session.extend([turns[0][:1], *turns[1:]])
    turns[0] = turns[0][:1]
    for number, (row, turn) in enumerate(zip(rows, turns, strict=True)):
        alone = Session(llm)
        alone.extend([row])
        torch.testing.assert_close(together[number], alone.extend([turn])[0], atol=1e-4, rtol=0)


def ids_of(replies: Sequence[Decoded]) -> list[list[int]]:
    return [reply.ids for reply in replies]


def test_of_the_allowed_tokens_the_likeliest_is_written(llm: LlamaForCausalLM) -> None:
    """Any other would not be the model's choice; and who reads scores has to know where it was kept from its own."""
    rows = embeddings([5, 9, 3])
    own = ids_of(Session(llm).reply(rows, 3, stop_id=-1))
    second = [int(Session(llm).extend([row])[0].topk(2).indices[1]) for row in rows]
    pair = frozenset({*second, *(ids[0] for ids in own)} - {own[0][0]})

    def form(written: Sequence[int]) -> Allowed | None:
        return Allowed(pair, taught=True) if not written else None

    led = Session(llm).reply(rows, 3, -1, form)
    for row, ids, reply in zip(rows, own, led, strict=True):
        allowed = torch.tensor(sorted(pair))
        assert reply.ids[0] == int(allowed[Session(llm).extend([row])[0][allowed].argmax()])
        assert reply.guided == (ids[0] not in pair)
        assert reply.ids == ids or reply.guided
        assert reply == Session(llm).reply([row], 3, -1, form)[0]
    assert led[0].guided

    def untaught(written: Sequence[int]) -> Allowed | None:
        return Allowed(pair, taught=False) if not written else None

    unlearnt = Session(llm).reply(rows, 3, -1, untaught)
    assert ids_of(unlearnt) == ids_of(led)
    assert not any(reply.guided for reply in unlearnt)


def test_a_reply_that_was_led_once_stays_marked(llm: LlamaForCausalLM) -> None:
    """Fails when a later field, which nobody taught, takes back that the model left the form before."""
    (row,) = embeddings([5])
    own = Session(llm).reply([row], 2, stop_id=-1)[0].ids

    def form(written: Sequence[int]) -> Allowed | None:
        read = torch.cat([row, llm.model.embed_tokens(torch.tensor(written, dtype=torch.int64))])
        unlikely = int(Session(llm).extend([read])[0].argmin())
        return Allowed(frozenset({unlikely}), taught=not written)

    led = Session(llm).reply([row], 2, -1, form)[0]
    assert led.guided
    assert led.ids[0] != own[0]


def test_in_half_precision_logits_are_float32(llm: LlamaForCausalLM) -> None:
    """Fails when embeddings in float32 meet a language model in bfloat16, or near logits are told apart no more."""
    logits = Session(llm.to(torch.bfloat16)).extend(embeddings())
    assert logits.dtype == torch.float32


def test_replies_do_not_depend_on_the_batch(llm: LlamaForCausalLM) -> None:
    """Fails when batched greedy decoding differs from decoding alone, runs past the stop token, or never stops."""
    rows = embeddings([5, 9, 3, 9, 1, 2, 14, 6])
    free = ids_of(Session(llm).reply(rows, 12, stop_id=-1))
    assert all(len(ids) == 12 for ids in free)
    assert len({tuple(ids) for ids in free}) > 4, "the rows all say the same: the test shows nothing"
    for stop in (free[0][5], max(free)[0]):  # the second ends the row at once whose ids are the largest
        together = ids_of(Session(llm).reply(rows, 12, stop))
        assert len({len(ids) for ids in together}) > 1
        for row, ids, unstopped in zip(rows, together, free, strict=True):
            assert ids == Session(llm).reply([row], 12, stop)[0].ids
            assert ids == (unstopped[: unstopped.index(stop) + 1] if stop in unstopped else unstopped)


def test_reply_equals_recompute_token_by_token(llm: LlamaForCausalLM) -> None:
    """Fails when a decoding step sees another prefix than the tokens written so far."""
    (row,) = embeddings([6])
    written = Session(llm).reply([row], 8, stop_id=-1)[0].ids
    with torch.no_grad():
        for number, token in enumerate(written):
            before = llm.model.embed_tokens(torch.tensor(written[:number], dtype=torch.int64))
            assert llm.lm_head(packed(llm, [torch.cat([row, before])])[0][-1]).argmax() == token
