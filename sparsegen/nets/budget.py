"""Equal parameters for unequal networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sparsegen.errors import ConfigError

__all__ = ["count_parameters", "match_budget"]


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def match_budget(make: Callable[[float], nn.Module], parameters: int, tolerance: float = 0.05) -> float:
    """The width at which ``make(width)`` has the wanted number of parameters.

    Args:
        make: Builds the module at a width.
        parameters: Wanted number of trainable parameters.
        tolerance: Largest relative deviation.

    Returns:
        The width, to be passed to :func:`sparsegen.nets.build`.

    Raises:
        ConfigError: No width comes near enough; the message names the nearest count.

    Example:
        >>> width = match_budget(lambda w: nn.Linear(round(w), 10, bias=False), 1000)
        >>> round(width)
        100
    """

    def size(width: float) -> int:
        # Meta tensors have shapes and no memory, so that a trial costs nothing.
        with torch.device("meta"):
            return count_parameters(make(width))

    low, high = 1.0, 2.0
    while size(high) < parameters:
        low, high = high, 2 * high
        if high > 1e6:
            raise ConfigError(f"match_budget: {parameters:,} parameters are out of reach of any width")
    best = min((low, high), key=lambda w: abs(size(w) - parameters))
    for _ in range(40):
        middle = (low + high) / 2
        count = size(middle)
        if abs(count - parameters) < abs(size(best) - parameters):
            best = middle
        low, high = (middle, high) if count < parameters else (low, middle)
    if abs(size(best) - parameters) > tolerance * parameters:
        raise ConfigError(
            f"match_budget: the nearest to {parameters:,} parameters is {size(best):,} at width {best:.2f}; "
            "change the budget or the latent width"
        )
    return best
