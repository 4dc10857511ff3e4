"""The Llama's lessons, and that they are learnt from."""

import itertools

import numpy as np
import pytest
import torch

from data_prep.synthesis.mixing.sounds import SOUND_NAMES
from data_prep.synthesis.writing.quickstart_grammar import CONTENT_WORDS, TEMPLATES
from data_prep.tiny_weights.language import (
    Lesson,
    Teacher,
    draw_sentence,
    embed,
    learn_dialogues,
    learn_to_copy,
    make_llama,
    score_llama,
    tokenizer_texts,
)
from omnichat.chat_format import LLAMA3
from omnichat.dialogue import EMOTIONS
from omnichat.models.tiny import write_tokenizer
from omnichat.prompt import IGNORE


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return Teacher(write_tokenizer(tmp_path_factory.mktemp("llama"), tokenizer_texts(), 1024))


def lessons(teacher: Teacher, kind: str, count: int = 40) -> list[Lesson]:
    rng = np.random.default_rng(1)
    return [teacher.lesson(rng, kind, echo_share=0.0) for _ in range(count)]


def test_no_current_turn_of_the_corpus_is_read() -> None:
    """Would catch a language model that has read the scripts of the tests."""
    scripts = {template.format(word) for template, word in itertools.product(TEMPLATES, CONTENT_WORDS)}
    rng = np.random.default_rng(0)
    assert not {draw_sentence(rng)[1] for _ in range(5000)} & scripts


def test_the_corpus_has_a_token_for_each_word_that_matters(teacher: Teacher) -> None:
    """Would catch content words cut into pieces, which one window in three would have to spell."""
    for word in (*EMOTIONS, *CONTENT_WORDS, *SOUND_NAMES):
        assert len(teacher.written.encode(f" {word}")) == 1, word


def test_written_lessons_say_what_is_heard(teacher: Teacher) -> None:
    """Would catch directions that miss the emotion or sound which the reply is about, or lie in the reply itself."""
    for lesson in lessons(teacher, "written"):
        shown = teacher.tokenizer.decode(lesson.tokens.ids.tolist(), skip_special_tokens=False)
        last_turn = shown.split("<|start_header_id|>")[-2]
        assert (f"[{lesson.sound}]" in last_turn) == bool(lesson.sound)
        assert lesson.noun in last_turn
        assert not lesson.blends
        assert lesson.tokens.num_targets > 0


def test_silent_lessons_say_nothing_of_it(teacher: Teacher) -> None:
    """Would catch scores "without directions" that were given them."""
    for lesson in lessons(teacher, "silent"):
        last_turn = teacher.tokenizer.decode(lesson.tokens.ids.tolist(), skip_special_tokens=False).split("user")[-1]
        assert "(" not in last_turn.split("assistant")[0]
        assert "[" not in last_turn.split("assistant")[0]


def test_blended_lessons_fill_their_slots(teacher: Teacher) -> None:
    """Would catch vectors beside the slots, words out of order, and an emotion or sound that is in no vector."""
    audio = teacher.tokenizer.token_to_id(LLAMA3.audio[0])
    for lesson in lessons(teacher, "blended"):
        slots = {at for slot in lesson.tokens.slots for at in range(slot.start, slot.start + slot.length)}
        assert {position for position, _, _ in lesson.blends} <= slots
        assert all(lesson.tokens.ids[at] == audio and lesson.tokens.labels[at] == IGNORE for at in slots)
        assert all(weight > 0 for _, _, weight in lesson.blends)
        last = lesson.tokens.slots[-1]
        tokens = {token for position, token, _ in lesson.blends if position >= last.start}
        noun, sound = teacher.written.encode(f" {lesson.noun}"), teacher.written.encode(f" {lesson.sound}")
        assert set(noun) <= tokens
        assert not lesson.sound or set(sound) <= tokens
        feelings = {teacher.written.encode(f" {emotion}")[0] for emotion in EMOTIONS} - set(noun)
        assert len(tokens & feelings) == 1


def test_embed(teacher: Teacher) -> None:
    """Would catch sums that are not the weighted sum of embeddings, noise outside the slots, and no gradient."""
    torch.manual_seed(0)
    llm = make_llama(teacher.tokenizer, 16, 2, 1)
    lesson = lessons(teacher, "blended", 1)[0]
    table = llm.model.embed_tokens.weight
    embeds = embed(llm, lesson)
    position = lesson.tokens.slots[0].start
    expected = sum(weight * table[token] for at, token, weight in lesson.blends if at == position)
    torch.testing.assert_close(embeds[position], expected)
    torch.testing.assert_close(embeds[0], table[lesson.tokens.ids[0]])
    noisy = embed(llm, lesson, noise=1.0)
    changed = (noisy != embeds).any(-1).nonzero()[:, 0].tolist()
    assert changed == [at for slot in lesson.tokens.slots for at in range(slot.start, slot.start + slot.length)]
    embeds.sum().backward()
    assert table.grad is not None


def test_learning(teacher: Teacher) -> None:
    """Would catch a loop that does not learn; that the whole is learnt is what the shipped weights' scores show."""
    torch.manual_seed(0)
    llm = make_llama(teacher.tokenizer, 32, 2, 1)
    lines: list[str] = []
    learn_to_copy(llm, 3, np.random.default_rng(0), lines.append)
    before = float(lines[-1].split("loss ")[1].split(",")[0])
    learn_dialogues(llm, teacher, 40, np.random.default_rng(0), lines.append)
    after = float(lines[-1].split("loss ")[1].split(",")[0])
    assert after < 0.9 * before
    scores = score_llama(llm, teacher, "silent", 4, seed=0)
    assert set(scores) == {"emotion", "noun", "sound"}
    assert all(0 <= share <= 1 for share in scores.values())
