"""Codes at unit scale, along the directions in which they vary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import DataError

__all__ = ["Whitening"]


class Whitening:
    """Codes to centred coordinates along the directions in which they vary, at unit scale, and back.

    An autoencoder may use fewer dimensions than it is given; directions with less than a millionth of the variance are
    left out, so that no law is fitted to rounding noise.
    """

    def __init__(self) -> None:
        self.mean = torch.zeros(0)
        self.axes = torch.zeros(0, 0)
        self.scale = 1.0

    def fit(self, codes: Tensor) -> Tensor:
        """Learns the directions from codes ``(n, d)`` and returns their coordinates ``(n, r)``.

        Raises:
            DataError: Fewer than two different codes, or codes that are not finite.
        """
        if not bool(codes.isfinite().all()):
            row = int((~codes.isfinite().all(1)).nonzero()[0, 0])
            raise DataError(
                f"the code of training event {row} is not finite; train the autoencoder again at a lower rate"
            )
        self.mean = codes.mean(0)
        centred = codes - self.mean
        variance, directions = torch.linalg.eigh(centred.t() @ centred / max(1, len(codes)))
        if float(variance.max()) <= 0:
            raise DataError(f"all {len(codes)} codes are equal: the encoder has collapsed; there is no law to fit")
        kept = variance > 1e-6 * variance.max()
        self.axes = directions[:, kept]
        self.scale = float(variance[kept].mean().sqrt())
        return self.forward(codes)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes ``(n, d)`` to coordinates ``(n, r)``."""
        return (codes - self.mean) @ self.axes / self.scale

    def inverse(self, coordinates: Tensor) -> Tensor:
        """Coordinates ``(n, r)`` to codes ``(n, d)``."""
        return coordinates * self.scale @ self.axes.t() + self.mean

    def state(self) -> dict[str, Any]:
        """Plain types and tensors, for a checkpoint."""
        return {"mean": self.mean, "axes": self.axes, "scale": self.scale}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over a state."""
        self.mean, self.axes, self.scale = state["mean"], state["axes"], float(state["scale"])
