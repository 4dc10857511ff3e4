"""Layers of one kind, one after another, as they are or through torch.compile."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class Layers(nn.ModuleList):
    """Layers of one kind: each is given what the one before made, and what is alike for all.

    Attributes:
        compiled: whether to run them through torch.compile, once for all layers of their kind and sizes, and for inputs
            of all lengths: fewer passes over memory, for some time at the start.
    """

    compiled = False

    def forward(self, x: Tensor, *alike: Tensor | None) -> Tensor:
        """What the last layer makes of `x` and `alike`."""
        for layer in self:
            kind: Any = type(layer)
            x = compiled_forward(kind)(layer, x, *alike) if self.compiled else layer(x, *alike)
        return x


@cache
def compiled_forward(kind: type[nn.Module]) -> Callable[..., Tensor]:
    """The forward of a kind of layer, compiled; the layer is its first argument.

    Of the kind instead of each layer: what is compiled for the first serves all.
    """
    return torch.compile(kind.forward, dynamic=True)


def compile_layers(module: nn.Module, compiled: bool = True) -> None:
    """Have all `Layers` in a module run through torch.compile from now on, or not."""
    for part in module.modules():
        if isinstance(part, Layers):
            part.compiled = compiled
