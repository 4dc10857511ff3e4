"""The families of chat formats: which one a tokenizer is of."""

import pytest
from jinja2 import Template

from omnichat.chat_format import CHATML, LLAMA3, find_format
from omnichat.dialogue import Dialogue, Style, Turn
from omnichat.prompt import Prompt
from tests.conftest import CHATML_SPECIAL, LLAMA3_SPECIAL, make_tokenizer

# The loop that SmolLM2's chat_template has around its default system message.
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_the_family_is_told_by_the_control_tokens() -> None:
    """A name in a path would be a guess; a tokenizer with another's tokens must not be taken for it."""
    assert find_format(make_tokenizer(LLAMA3_SPECIAL).token_to_id) is LLAMA3
    assert find_format(make_tokenizer(CHATML_SPECIAL).token_to_id) is CHATML
    assert find_format(make_tokenizer(["<unk>", "<|im_start|>", "<|im_end|>"]).token_to_id) is CHATML
    with pytest.raises(ValueError, match=r"of ChatML it lacks <\|im_end\|>, <\|endoftext\|> or <unk> or </s>"):
        find_format(make_tokenizer(["<|im_start|>"]).token_to_id)


@pytest.mark.parametrize("generation", [False, True])
def test_chatml_is_what_the_models_template_makes(generation: bool) -> None:
    """The model was trained on its template's text; another line end is another prompt."""
    prompt = Prompt(make_tokenizer(CHATML_SPECIAL), system="Listen.", input="text")
    turns = (Turn("user", "hi"), Turn("assistant", "yes?", Style("male", "sad", "slow", "low")), Turn("user", "bye"))
    ids = prompt.render(Dialogue("d", turns), generation).ids.tolist()
    messages = [{"role": "system", "content": "Listen."}] + [
        {"role": turn.role, "content": turn.text if turn.role == "user" else f"(male, sad, slow, low): {turn.text}"}
        for turn in turns
    ]
    expected = Template(CHATML_TEMPLATE, keep_trailing_newline=True).render(
        messages=messages, add_generation_prompt=generation
    )
    assert prompt.tokenizer.decode(ids, skip_special_tokens=False) == expected
