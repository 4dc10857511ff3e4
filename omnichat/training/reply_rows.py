"""How held-out dialogues were answered, as the rows of a table to look through and listen to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from omnichat.dialogue import STYLE_FIELDS, Dialogue, Reply, Style
from omnichat.metrics.text import sentence_bleu
from omnichat.models.omnichat import Generated

NO_STYLE = "unreadable"


@runtime_checkable
class RepliesLogger(Protocol):
    """A logger that can show replies."""

    def log_replies(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Show the rows of `reply_rows`."""


def reply_rows(
    dialogues: Sequence[Dialogue], replies: Sequence[Reply], generated: Sequence[Generated], experts: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each dialogue: what was heard last, reference and reply, their BLEU (0..100), the mean gates."""
    rows: list[dict[str, Any]] = []
    for dialogue, reply, one in zip(dialogues, replies, generated, strict=True):
        wanted = dialogue.turns[-1]
        heard = next((turn.audio for turn in reversed(dialogue.turns[:-1]) if turn.role == "user"), None)
        means = one.gates.mean(0).tolist() if len(one.gates) else []
        rows.append(
            {
                "dialogue": dialogue.id,
                "scenario": dialogue.scene.get("scenario", ""),
                "audio": None if heard is None else asdict(heard) | {"path": str(Path(heard.path).absolute())},
                "reference style": _style(wanted.style),
                "reference": wanted.text,
                "reply style": NO_STYLE if reply.style is None else _style(reply.style),
                "reply": reply.text,
                "BLEU": round(100 * sentence_bleu(wanted.text, reply.text), 1),
                "gates": ", ".join(f"{name} {mean:.2f}" for name, mean in zip(experts, means, strict=False)),
                "emotion": wanted.style.emotion,
                "reply emotion": (reply.style and reply.style.emotion) or NO_STYLE,
            }
        )
    return rows


def _style(style: Style) -> str:
    known = style.known()
    return ", ".join(known.get(name, "unknown") for name in STYLE_FIELDS)
