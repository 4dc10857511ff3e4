"""How a language model's family writes down who speaks: the control tokens and fixed texts around a message.

The family is told by the control tokens of the model's own `tokenizer.json`:

- Llama-3 (model card "Prompt Template"; without its dates, which say nothing about a dialogue):
  `<|begin_of_text|>`, then for each message `<|start_header_id|>role<|end_header_id|>\\n\\n...<|eot_id|>`.
- ChatML, as of SmolLM2 (`chat_template` in tokenizer_config.json of HuggingFaceTB/SmolLM2-1.7B-Instruct) and others of
  Llama's architecture: `<|im_start|>role\\n...<|im_end|>\\n`. A system message that a template adds where there is none
  is not added: `data.system` says what there is.
"""

from collections.abc import Callable
from dataclasses import dataclass


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
CHATML = ChatFormat("ChatML", "", "<|im_start|>", "", "\n", "<|im_end|>", "\n", ("<|endoftext|>", "<unk>", "</s>"))
FORMATS = (LLAMA3, CHATML)


def find_format(token_to_id: Callable[[str], int | None]) -> ChatFormat:
    """The format of a tokenizer; where it is of no family, the first is asked of it.

    Raises:
        ValueError: it has the control tokens of no family; names what it lacks of each.
    """
    lacking = {}
    for form in FORMATS:
        missing = [token for token in form.control if token_to_id(token) is None]
        if not any(token_to_id(token) is not None for token in form.audio):
            missing.append(" or ".join(form.audio))
        if not missing:
            return form
        lacking[form.name] = missing
    named = "; of ".join(f"{name} it lacks {', '.join(missing)}" for name, missing in lacking.items())
    raise ValueError(
        f"the tokenizer is of no chat format that is known here: of {named}. Use an instruction-tuned model "
        "of Llama's architecture (Llama-3, SmolLM2, ...) with its own tokenizer.json"
    )
