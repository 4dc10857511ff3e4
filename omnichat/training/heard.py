"""What the frozen experts hear around moments, and which events a model takes them for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from omnichat.data.moments import EVENTS, Moments
from omnichat.models.events import EventModel


class Heard:
    """The experts' frames of moments: kept in memory with `features="cached"`, else computed when asked for."""

    def __init__(self, model: EventModel, moments: Moments, features: str) -> None:
        self.model, self.moments = model, moments
        self._kept: dict[int, dict[str, Tensor]] | None = {} if features == "cached" else None

    def frames(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Frames (A, N, D) of each expert around moments.

        Raises:
            DataError: see `load_audio`.
        """
        kept = self._kept if self._kept is not None else {}
        if lacking := [number for number in dict.fromkeys(numbers) if number not in kept]:
            waves = torch.from_numpy(np.stack([self.moments.clip(number) for number in lacking]))
            frames = self.model.hear(waves.to(self.model.classify.weight.device))
            kept |= {number: {name: one[place] for name, one in frames.items()} for place, number in enumerate(lacking)}
        # The experts may compute in half precision; what is trained does not.
        return {name: torch.stack([kept[one][name] for one in numbers]).float() for name in self.model.encoders}

    def wanted(self, numbers: Sequence[int]) -> Tensor:
        """Places (A,) of their events in `EVENTS`, on the model's device."""
        places = [EVENTS.index(self.moments.found[number].event) for number in numbers]
        return torch.tensor(places, device=self.model.classify.weight.device)


@torch.no_grad()
def classify(model: EventModel, heard: Heard, batch_size: int) -> Tensor:
    """Logits (A, C) of all moments, in order.

    Raises:
        DataError: see `load_audio`.
    """
    count = len(heard.moments)
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    return torch.cat([model(heard.frames(batch)) for batch in batches])


def likeliest(logits: Tensor) -> list[str]:
    """The event of each row of logits (A, C)."""
    return [EVENTS[place] for place in logits.argmax(-1).tolist()]
