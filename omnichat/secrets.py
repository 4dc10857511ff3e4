"""Keys and tokens stay out of what a run writes: `masked` is what every text passes before it is kept or shown."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

MASK = "[masked]"
SHORTEST = 8  # of a secret: masking shorter values would tear words apart
UNSENDABLE = "holds what no key can: the end of a line, or a letter that is not ASCII; correct it"

# The last words of a name that holds a secret: HF_TOKEN, WANDB_API_KEY, aws-secret-access-key, authToken, PGPASSWORD;
# yet neither `use_cls_token`, whose value is no text, nor `num_memory_tokens`, nor `monkey`.
_SECRET_NAME = re.compile(r"(^|[_.-])(key|token|credentials?)$|(api_?key|secret|password|passwd|passphrase)$", re.I)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What services issue, by its form: Hugging Face, OpenAI and Anthropic, GitHub, GitLab, AWS, Google, Slack, Weights &
# Biases' newer keys, JSON web tokens.
_ISSUED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[A-Za-z0-9_-]{20,}|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|wandb_v\d_[A-Za-z0-9_]{20,}|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"
)
_IN_ADDRESS = re.compile(  # scheme://user:password@host, scheme://token@host
    rf"(?<=://)(?:[^/\s:@]*:[^/\s@]+|[^/\s:@]{{{SHORTEST},}})(?=@)"
)
_GIVEN = re.compile(  # name=value and "name": "value"; after a bare colon stand words
    r"(?P<name>[A-Za-z0-9_.-]*(?:key|token|secret|password|passwd|passphrase))"
    r"(?P<between>=|['\"]\s*[=:]\s*['\"])(?P<value>[^\s'\"&,;]{8,})",
    re.I,
)


def looks_secret(name: str) -> bool:
    """Whether a variable or key of this name holds a secret."""
    return bool(_SECRET_NAME.search(_CAMEL.sub("_", name)))


def secret_values(environment: Mapping[str, str] | None = None) -> list[str]:
    """Secrets of the environment (`os.environ` by default), longest first; paths to key files are none."""
    environment = os.environ if environment is None else environment
    values = {
        value
        for name, value in environment.items()
        if looks_secret(name) and len(value) >= SHORTEST and not (value.startswith("/") and Path(value).exists())
    }
    return sorted(values, key=len, reverse=True)


def can_be_sent(key: str) -> bool:
    """Whether a key can stand in a header: an HTTP library that cannot send one says so with the key, escaped."""
    return key.isascii() and key.isprintable()


def masked(value: Any) -> Any:
    """The same text, list or mapping with `[masked]` in place of what looks like a key, token or password.

    Masked are the environment's secrets wherever they stand, what has the form of a token that a service issues,
    passwords in addresses, and texts under a key, or after a name, that tells of a secret. Numbers stay.
    """
    return _masked(value, secret_values())


def mask_output() -> None:
    """From now on mask what is written to the screen, tracebacks included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _MaskedStream):
            setattr(sys, name, cast(TextIO, _MaskedStream(stream)))


def mask_logs(folder: Path) -> None:
    """Mask the `*.log` files below a folder that another program wrote, which knows nothing of our secrets.

    Raises:
        OSError: a file cannot be read or written; names it.
    """
    for path in folder.rglob("*.log"):
        if path.is_file() and not path.is_symlink():
            text = path.read_text(encoding="utf-8", errors="replace")
            if (hidden := masked(text)) != text:
                path.write_text(hidden, encoding="utf-8")


def _masked(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        value = _IN_ADDRESS.sub(MASK, _ISSUED.sub(MASK, value))
        return _GIVEN.sub(_hide_given, value)
    if isinstance(value, Mapping):
        return {
            _masked(key, secrets): MASK
            if isinstance(key, str) and isinstance(one, str) and len(one) >= SHORTEST and looks_secret(key)
            else _masked(one, secrets)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_masked(one, secrets) for one in value]
    return value


def _hide_given(match: re.Match[str]) -> str:
    return match[0] if not looks_secret(match["name"]) else f"{match['name']}{match['between']}{MASK}"


class _MaskedStream:
    """A text stream that masks each piece as it is written.

    Where nobody reads it any more (`| head`), the rest goes nowhere, and the work goes on: a store is still written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it masked; the length is that of what was given."""
        try:
            self._stream.write(masked(text))
        except BrokenPipeError:
            self._turn_away()
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._turn_away()

    def _turn_away(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # Python flushes once more at its end

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
