"""Talk with a trained run: `Chat.load("runs/NAME").reply("turn.wav")`, or `python -m omnichat.chat run=runs/NAME`.

Each name is imported when first asked for: the command's `--help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnichat.chat.chat import Chat, LoadedRun, load_run

__all__ = ["Chat", "LoadedRun", "load_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'omnichat.chat' has no attribute {name!r}")
    return getattr(import_module("omnichat.chat.chat"), name)
