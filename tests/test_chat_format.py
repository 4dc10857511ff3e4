"""The families of chat formats: which one a tokenizer is of, and whether its model was taught it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template

from omnichat.chat_format import CHATML, LLAMA3, Taught, find_format, read_taught
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
    with pytest.raises(ValueError, match=r"of ChatML it lacks <\|im_end\|>, <\|endoftext\|> or <unk> or </s> or"):
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


def model_folder(path: Path, **files: Any) -> Path:
    """A folder with these JSON files, and `jinja` as its chat_template.jinja."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        if name == "jinja":
            (path / "chat_template.jinja").write_text(content)
        else:
            (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_chatml_in_llama3s_vocabulary_is_told_by_the_template(tmp_path: Path) -> None:
    """Hermes-3 keeps Llama-3's tokens and has never seen a message in them: it was rendered in Llama-3's format."""
    tokenizer = make_tokenizer([*LLAMA3_SPECIAL, "<|im_start|>", "<|im_end|>"])
    template = "{{ bos_token }}" + CHATML_TEMPLATE
    about = {"bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|im_end|>", "chat_template": template}
    folder = model_folder(tmp_path, tokenizer_config=about)
    prompt = Prompt(tokenizer, system="Listen.", input="text", taught=read_taught(folder))
    ids = prompt.render(Dialogue("d", (Turn("user", "hi"),)), generation=True).ids.tolist()
    messages = [{"role": "system", "content": "Listen."}, {"role": "user", "content": "hi"}]
    expected = Template(template, keep_trailing_newline=True).render(
        messages=messages, add_generation_prompt=True, bos_token="<|begin_of_text|>"
    )
    assert tokenizer.decode(ids, skip_special_tokens=False) == expected
    assert prompt.stop_id == tokenizer.token_to_id("<|im_end|>")
    assert (prompt.family, prompt.begin) == ("ChatML", "<|begin_of_text|>")
    assert find_format(tokenizer.token_to_id, read_taught(model_folder(tmp_path, tokenizer_config={}))) is LLAMA3


def test_a_template_that_writes_no_bos_gets_none(tmp_path: Path) -> None:
    """SmolLM2's bos_token is the header itself: it would stand there twice."""
    about = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHATML_TEMPLATE}
    taught = read_taught(model_folder(tmp_path, tokenizer_config=about))
    assert find_format(make_tokenizer(CHATML_SPECIAL).token_to_id, taught) is CHATML


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"chat_template": CHATML_TEMPLATE}},
        {
            "tokenizer_config": {
                "chat_template": [{"name": "default", "template": CHATML_TEMPLATE}, {"name": "tool_use"}]
            }
        },
        {"tokenizer_config": {}, "jinja": CHATML_TEMPLATE},
        {"jinja": CHATML_TEMPLATE},
    ],
)
def test_a_template_is_found_wherever_transformers_puts_it(tmp_path: Path, files: dict[str, Any]) -> None:
    """Versions differ: a string, a list of named ones, a file of its own."""
    assert read_taught(model_folder(tmp_path, **files)).template == CHATML_TEMPLATE


@pytest.mark.parametrize("end", [128_001, [128_001], "nothing"])
def test_a_base_model_is_refused(tmp_path: Path, end: Any) -> None:
    """It has its sibling's tokenizer, loads, trains, and its replies never end: LoRA teaches no tokens."""
    tokenizer = make_tokenizer()
    files = {"config": {} if end == "nothing" else {"eos_token_id": end}}
    folder = model_folder(tmp_path, **files, tokenizer_config={"eos_token": "<|end_of_text|>"})
    with pytest.raises(ValueError, match=r"looks like a base model.*<\|eot_id\|>.*-Instruct") as caught:
        Prompt(tokenizer, taught=read_taught(folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config", "generation_config", "tokenizer_config", "template", "nothing said"])
def test_an_instruction_tuned_model_is_not(tmp_path: Path, name: str) -> None:
    """Llama-3's first config.json said `<|end_of_text|>`; its generation_config and template knew better."""
    tokenizer = make_tokenizer()
    files: dict[str, Any] = {"config": {"eos_token_id": 128_001}}
    if name == "template":
        files["jinja"] = "<|start_header_id|>{{ role }}<|end_header_id|>"
    elif name == "tokenizer_config":
        files[name] = {"eos_token": "<|eot_id|>"}
    elif name == "nothing said":
        files = {"config": {}}
    else:
        files[name] = {"eos_token_id": [128_001, tokenizer.token_to_id("<|eot_id|>")]}
    assert find_format(tokenizer.token_to_id, read_taught(model_folder(tmp_path, **files))) is LLAMA3


def test_files_that_say_nothing(tmp_path: Path) -> None:
    """A broken tokenizer_config.json is the loader's to name."""
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    (tmp_path / "config.json").write_text("{")
    assert read_taught(tmp_path) == Taught(tmp_path)
