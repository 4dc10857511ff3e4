"""What a spoken dialogue is, what can be wrong with one, and its JSONL form.

Standard library only, so that every other module, and every tool, can import it for free.

`types`   styles, turns, dialogues, references to audio; `check_dialogue`
`faults`  `DataError`
`jsonl`   reading and writing
"""

from omnichat.dialogue.faults import DataError, raise_together, shown
from omnichat.dialogue.jsonl import (
    MAX_LINE,
    MAX_SAMPLES,
    dialogue_from_json,
    dialogue_to_json,
    inside,
    read_dialogues,
    too_long_line,
    write_dialogues,
)
from omnichat.dialogue.types import (
    EMOTIONS,
    GENDERS,
    PITCHES,
    ROLES,
    SPEEDS,
    STYLE_FIELDS,
    STYLE_VALUES,
    AudioRef,
    Dialogue,
    Reply,
    Role,
    Style,
    Turn,
    check_dialogue,
)

__all__ = [
    "EMOTIONS",
    "GENDERS",
    "MAX_LINE",
    "MAX_SAMPLES",
    "PITCHES",
    "ROLES",
    "SPEEDS",
    "STYLE_FIELDS",
    "STYLE_VALUES",
    "AudioRef",
    "DataError",
    "Dialogue",
    "Reply",
    "Role",
    "Style",
    "Turn",
    "check_dialogue",
    "dialogue_from_json",
    "dialogue_to_json",
    "inside",
    "raise_together",
    "read_dialogues",
    "shown",
    "too_long_line",
    "write_dialogues",
]
