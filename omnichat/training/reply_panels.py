"""What W&B and TensorBoard show of replies, from the rows of `reply_rows`: what was heard, and a matrix of emotions.

Light to import: W&B's process needs no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE, load_audio
from omnichat.dialogue import AudioRef, DataError

LONGEST = 15  # seconds of a turn that are shown
ROWS = 32  # dialogues in the table after each validation: what is uploaded stays small
COLUMNS = ("dialogue", "scenario", "heard", "reference style", "reference", "reply style", "reply", "BLEU", "gates")


def heard_wave(row: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """The start of the turn that was answered, float32 (S,) at 16 kHz; None where it was not heard or is gone."""
    if row["audio"] is None:
        return None
    try:
        wave = load_audio(AudioRef(**row["audio"]))
    except DataError as error:
        print(error, flush=True)
        return None
    return wave[: LONGEST * SAMPLE_RATE]


def emotion_pairs(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int], list[int]]:
    """Names of emotions, and for each row whose reference has one, the places of the reference's and the reply's."""
    pairs = [(row["emotion"], row["reply emotion"]) for row in rows if row["emotion"] is not None]
    names = sorted({name for pair in pairs for name in pair})
    return names, [names.index(wanted) for wanted, _ in pairs], [names.index(found) for _, found in pairs]
