"""Dialogues as chat frameworks write them, a line of JSONL each, as turns of a table.

    {"messages": [{"role": "user", "content": "<audio>I am home."}, ...], "audios": ["a.wav"]}
        ms-swift and LLaMA-Factory (their docs on custom datasets); content may be a list of parts as well, as in
        Qwen2-Audio's chat template: [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "I am home."}]
    {"conversations": [{"from": "human", "value": "<audio>I am home."}, {"from": "gpt", ...}], "audios": [...]}
        ShareGPT's, as LLaMA-Factory reads it

`"loss": false` of an assistant's message (ms-swift's) is our `"learn": false`: it is context only.
System messages are left out: `data.system` says what the model is told.
"""

from collections.abc import Iterator, Mapping
from typing import Any

TAG = "<audio>"
LISTS = ("messages", "conversations")
RECORDINGS = ("audios", "audio")  # of a line: a list, or one path
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def is_chat(record: Mapping[str, Any]) -> bool:
    """Whether a line is of one of these forms."""
    return any(isinstance(record.get(name), list) for name in LISTS)


def turns_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns of a line: role, text, audio (a path), learn (where it is said).

    Raises:
        ValueError: an unknown role, a turn of two recordings, a user turn that counts in the loss, or tags and
            recordings that do not match.
    """
    messages = next(record[name] for name in LISTS if isinstance(record.get(name), list))
    named: Any = next((record[name] for name in RECORDINGS if record.get(name)), [])
    recordings = iter([named] if isinstance(named, str) else named)
    turns = [turn for message in messages if (turn := _turn(message, recordings)) is not None]
    if left := list(recordings):
        raise ValueError(f"{len(left)} recordings have no {TAG}: {left[0]!r}")
    return turns


def _turn(message: Mapping[str, Any], recordings: Iterator[str]) -> dict[str, Any] | None:
    said, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    role = ROLES.get(str(said))
    if role is None:
        raise ValueError(f"role {said!r} is none of {', '.join(ROLES)}")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    audio, words = [], []
    for part in parts:
        if part.get("type") == "audio":
            audio.append(str(part.get("audio", part.get("audio_url"))))
        else:
            text = str(part.get("text", ""))
            for _ in range(text.count(TAG)):
                path = next(recordings, None)
                if path is None:
                    raise ValueError(f"there are more {TAG} than recordings")
                audio.append(path)
            words.append(text.replace(TAG, " "))
    if role == "system":
        return None
    if len(audio) > 1:
        raise ValueError(f"a turn has {len(audio)} recordings: {', '.join(audio[:3])}; a turn is one, join them")
    turn = {"role": role, "text": " ".join(" ".join(words).split())} | ({"audio": audio[0]} if audio else {})
    loss = message.get("loss")
    if loss and role == "user":
        raise ValueError("loss is true in a user turn, which is heard and never learnt")
    return turn if loss is None else turn | {"learn": loss}
