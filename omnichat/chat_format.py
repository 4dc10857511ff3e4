"""How a language model's family writes down who speaks: the control tokens and fixed texts around a message.

The family is told by the control tokens of the model's own `tokenizer.json`; where it has those of both (Hermes-3 and
others write ChatML with Llama-3's vocabulary) by the model's chat template:

- Llama-3 (model card "Prompt Template"; without its dates, which say nothing about a dialogue):
  `<|begin_of_text|>`, then for each message `<|start_header_id|>role<|end_header_id|>\\n\\n...<|eot_id|>`.
- ChatML, as of SmolLM2 (`chat_template` in tokenizer_config.json of HuggingFaceTB/SmolLM2-1.7B-Instruct) and others of
  Llama's architecture: `<|im_start|>role\\n...<|im_end|>\\n`. A system message that a template adds where there is none
  is not added: `data.system` says what there is. Before everything stands the template's `bos_token`, if it writes one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omnichat.weight_files import json_object


@dataclass(frozen=True)
class ChatFormat:
    """A family's format.

    Attributes:
        name: of the family.
        begin: control token before everything; none where empty.
        header: control token before the role.
        end_header: control token after the role; none where empty.
        after_header: text after that.
        end: control token that ends a message, and so a reply.
        after_end: text after that.
        audio: control tokens of which the first that is there holds the place of audio: its embedding is overwritten
            by the Mix-Former's.
    """

    name: str
    begin: str
    header: str
    end_header: str
    after_header: str
    end: str
    after_end: str
    audio: tuple[str, ...]

    @property
    def control(self) -> tuple[str, ...]:
        """The control tokens, but for that of audio."""
        return tuple(token for token in (self.begin, self.header, self.end_header, self.end) if token)


LLAMA3 = ChatFormat(
    "Llama-3", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", "",
    ("<|reserved_special_token_0|>",),
)  # fmt: skip
CHATML = ChatFormat(
    "ChatML", "", "<|im_start|>", "", "\n", "<|im_end|>", "\n",
    ("<|endoftext|>", "<unk>", "</s>", "<|reserved_special_token_0|>"),
)  # fmt: skip
FORMATS = (LLAMA3, CHATML)


@dataclass(frozen=True)
class Taught:
    """What a model's folder says of the format that the model was taught.

    Attributes:
        folder: for messages.
        template: its chat template; empty where it has none.
        bos: its `bos_token`; empty where it has none.
        ends: what ends its writing: names and ids of tokens.
    """

    folder: Path
    template: str = ""
    bos: str = ""
    ends: frozenset[str | int] = frozenset()


def read_taught(folder: Path) -> Taught:
    """What the JSON files of a Hugging Face folder say; those that are missing or cannot be read say nothing."""
    about, jinja = json_object(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    template = about.get("chat_template")
    if jinja.is_file():
        template = jinja.read_text(encoding="utf-8", errors="replace")
    elif isinstance(template, list):  # named ones: the default is for dialogues, others are for tools
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    ends = [json_object(folder / name).get("eos_token_id") for name in ("config.json", "generation_config.json")]
    flat = [end for found in ends for end in (found if isinstance(found, list) else [found])]
    known = {end for end in [*flat, _name(about.get("eos_token"))] if isinstance(end, str | int) and end != ""}
    return Taught(
        folder, template if isinstance(template, str) else "", _name(about.get("bos_token")), frozenset(known)
    )


def _name(token: Any) -> str:
    """Of a token that tokenizer_config.json has as a string, or as an object with its options."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def find_format(token_to_id: Callable[[str], int | None], taught: Taught | None = None) -> ChatFormat:
    """The format of a tokenizer, and of the model that it belongs to where that is `taught`.

    Raises:
        ValueError: it has the control tokens of no family (names what it lacks of each), or the model was not taught
            the format that its control tokens are for.
    """
    fitting = _fitting(token_to_id)
    if taught is None:
        return fitting[0]
    form = next((form for form in fitting if form.header in taught.template), fitting[0])
    _check_taught(form, token_to_id(form.end), taught)
    if not form.begin and "bos_token" in taught.template and token_to_id(taught.bos) is not None:
        form = replace(form, begin=taught.bos)
    return form


def _check_taught(form: ChatFormat, end: int | None, taught: Taught) -> None:
    """Base models share the tokenizer of their instruction-tuned sibling, and have never seen its control tokens."""
    if taught.ends and not taught.ends & {form.end, end} and form.header not in taught.template:
        raise ValueError(
            f"{taught.folder}: looks like a base model: it has no chat template, and does not end what it writes with "
            f"{form.end}, so it was never taught its control tokens, and LoRA does not teach them. Use the "
            "instruction-tuned model of the same name (...-Instruct); if this one was taught that format, put its "
            "chat template into tokenizer_config.json"
        )


def _fitting(token_to_id: Callable[[str], int | None]) -> list[ChatFormat]:
    """The families of which a tokenizer has all control tokens, one at least."""
    lacking, fitting = {}, []
    for form in FORMATS:
        missing = [token for token in form.control if token_to_id(token) is None]
        if not any(token_to_id(token) is not None for token in form.audio):
            missing.append(" or ".join(form.audio))
        if not missing:
            fitting.append(form)
        lacking[form.name] = missing
    if fitting:
        return fitting
    named = "; of ".join(f"{name} it lacks {', '.join(missing)}" for name, missing in lacking.items())
    raise ValueError(
        f"the tokenizer is of no chat format that is known here: of {named}. Use an instruction-tuned model "
        "of Llama's architecture (Llama-3, SmolLM2, ...) with its own tokenizer.json"
    )
