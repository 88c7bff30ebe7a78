"""How codes move with a condition that varies within its bin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Drift"]

_LEAST = 10
"""Codes for each column of the condition, below which no slope is fitted."""


class Drift:
    r"""The part of a code that its condition tells: :math:`S (c - \bar c)`, by least squares.

    The codes of showers move with their energy, also within a bin of energies. A law is fitted to what is left, and the
    part that belongs to the condition asked for is added to what it draws. The logarithm is taken of a condition that
    is positive throughout; a column that does not vary (a class) moves nothing.
    """

    def __init__(self) -> None:
        self.range = torch.zeros(2, 0, dtype=torch.float64)
        self.middle = torch.zeros(0, dtype=torch.float64)
        self.slope = torch.zeros(0, 0, dtype=torch.float64)

    def fit(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Learns the slope from codes ``(n, d)`` under conditions ``(n, K)``; returns what it leaves ``(n, d)``."""
        known = condition.double()
        if known.shape[1] == 0 or len(codes) < _LEAST * known.shape[1]:
            return codes
        self.range = torch.stack([known.amin(0), known.amax(0)])
        seen = self._seen(known)
        self.middle = seen.mean(0)
        c, centred = seen - self.middle, codes.double() - codes.double().mean(0)
        size = c.square().mean(0).sqrt()
        unit = torch.where(size > 1e-9 * (1 + self.middle.abs()), 1 / size, 0.0)
        self.slope = unit[:, None] * (torch.linalg.pinv(c * unit, rtol=1e-6) @ centred)
        return codes - self(condition).to(codes)

    def __call__(self, condition: Tensor) -> Tensor:
        """What conditions ``(n, K)`` add to codes ``(n, d)``; nothing is extrapolated beyond those fitted to."""
        if not len(self.slope):
            return torch.zeros(len(condition), 1, dtype=torch.float64)
        return (self._seen(condition.double()) - self.middle) @ self.slope

    def _seen(self, condition: Tensor) -> Tensor:
        inside = condition.clamp(self.range[0], self.range[1])
        return torch.where(self.range[0] > 0, inside.log(), inside)

    def state(self) -> dict[str, Any]:
        """Plain types and tensors, for a checkpoint."""
        return {"range": self.range, "middle": self.middle, "slope": self.slope}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over a state."""
        self.range, self.middle, self.slope = state["range"], state["middle"], state["slope"]
