"""omnichat: multi-turn spoken-dialogue models that hear what is said, how it is said, and what sounds behind it.

`from omnichat import Chat, Dialogue, Style, Turn`: each is imported when first asked for, so that this stays light.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnichat.chat import Chat
    from omnichat.dialogue import Dialogue, Style, Turn

# peft imports bitsandbytes where it is installed, which warns of a kernel that it could download for CPUs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__all__ = ["Chat", "Dialogue", "Style", "Turn"]

_MODULES = {"Chat": "omnichat.chat"} | dict.fromkeys(("Dialogue", "Style", "Turn"), "omnichat.dialogue")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'omnichat' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
