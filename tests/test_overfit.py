"""The whole model can learn by heart what it heard: the proof that gradients reach everything that should train."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from omnichat.batch import Example, pack
from omnichat.dialogue import EMOTIONS, Style
from omnichat.models.encoders import load_encoder
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.tiny import default_texts, llama_config, write_llama, write_tokenizer
from omnichat.prompt import Prompt
from tests.spoken import OPTIONS, cached, checkpoints, make_dialogue, make_example

REPLIES = (
    "I am sorry to hear that.",
    "That is wonderful news!",
    "Please calm down, I can help.",
    "What was that loud noise?",
    "Take your time, there is no hurry.",
    "You sound tired today.",
    "I like this music too.",
    "Shall we go for a walk?",
)
WIDTH = 64


def make_overfit_model(folder: Path) -> tuple[OmniChat, Prompt]:
    """A random frozen Llama with LoRA; its weights are large, because the logits of a frozen output layer must grow."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder, [*default_texts(), *REPLIES], 400)
    write_llama(folder, LlamaForCausalLM(llama_config(tokenizer, WIDTH, heads=4, layers=2, initializer_range=0.3)))
    llm = load_llm(folder)
    add_lora(llm, rank=16, alpha=32)
    encoders = {name: load_encoder(name, checkpoints()[name], **options) for name, options in OPTIONS.items()}
    widths = {name: encoder.dim for name, encoder in encoders.items()}
    mixformer = MixFormer(widths, WIDTH, hidden=WIDTH, layers=2, heads=4, ffn=2 * WIDTH)
    return OmniChat(encoders, mixformer, llm, window=17, queries=1), Prompt(tokenizer, system="")


def test_eight_dialogues_are_learnt_by_heart(tmp_path: Path) -> None:
    """Fails when something is heard, placed, trained or decoded wrongly: only the sound tells the eight apart."""
    model, prompt = make_overfit_model(tmp_path)
    styles = [Style("female" if number % 2 else "male", EMOTIONS[number % 7], "normal", "high") for number in range(8)]
    dialogues = [
        make_dialogue(str(number), [1.0], [reply]) for number, reply in enumerate(zip(styles, REPLIES, strict=True))
    ]
    learnt = [cached(model, make_example(prompt, dialogue, seed)) for seed, dialogue in enumerate(dialogues)]
    asked = [cached(model, make_example(prompt, dialogue, seed, True)) for seed, dialogue in enumerate(dialogues)]
    learn(model, learnt)
    written = model.generate(asked, 60, prompt.stop_id)
    for style, words, reply in zip(styles, REPLIES, written, strict=True):
        assert reply.ids[-1] == prompt.stop_id
        parsed = prompt.parse(prompt.decode(reply.ids))
        assert (parsed.style, parsed.text) == (style, words)


def test_where_the_emotion_alone_is_known_replies_stay_readable(tmp_path: Path) -> None:
    """Recorded corpora know no gender or speed of a reply: written "unknown" there, and never a target."""
    model, prompt = make_overfit_model(tmp_path)
    styles = [Style(emotion=emotion) for emotion in EMOTIONS[:3]]
    dialogues = [make_dialogue(str(n), [1.0], [pair]) for n, pair in enumerate(zip(styles, REPLIES[:3], strict=True))]
    learnt = [cached(model, make_example(prompt, dialogue, seed)) for seed, dialogue in enumerate(dialogues)]
    asked = [cached(model, make_example(prompt, dialogue, seed, True)) for seed, dialogue in enumerate(dialogues)]
    learn(model, learnt)
    written = model.generate(asked, 60, prompt.stop_id, form=lambda reply: prompt.allowed(reply, {"emotion"}))
    parsed = [prompt.parse(prompt.decode(reply.ids)) for reply in written]
    assert [(one.style, one.text) for one in parsed] == list(zip(styles, REPLIES[:3], strict=True))
    assert not any(reply.guided for reply in written), "nothing that it could have learnt was wrong"
    alone = model.generate(asked, 60, prompt.stop_id)  # what it is for: the model by itself has not learnt the form
    assert all(prompt.parse(prompt.decode(reply.ids)).style is None for reply in alone)


def learn(model: OmniChat, examples: Sequence[Example]) -> None:
    """Train until these examples are known by heart."""
    batch = pack(examples)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    loss = torch.tensor(float("inf"))
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1.0, (step + 1) / 20)
        loss = model(batch).total / batch.num_targets
        if loss < 0.03:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert loss < 0.05
