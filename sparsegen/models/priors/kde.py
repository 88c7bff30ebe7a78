"""Kernel density estimation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted

__all__ = ["KernelDensity"]


@PRIORS.register("kde")
class KernelDensity(LatentPrior):
    """A training code plus normal noise.

    References:
        Density Estimation for Statistics and Data Analysis (Silverman, 1986), section 4.3

    Args:
        width: Standard deviation of the noise in units of the codes' own along each axis; Silverman's
            ``(4 / ((d + 2) n))^(1 / (d + 4))`` by default.
    """

    def __init__(self, width: float | None = None) -> None:
        if width is not None and not width > 0:
            raise ConfigError(f"prior kde: width={width}; expected a positive number")
        self.width = width
        self.codes: Tensor | None = None

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.codes = codes
        return {"width": self._width()}

    def _width(self) -> float:
        if self.width is not None:
            return self.width
        n, d = fitted(self.codes).shape
        return float((4 / (d + 2) / n) ** (1 / (d + 4)))

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        codes = fitted(self.codes)
        chosen = codes[torch.randint(len(codes), (n,), generator=generator)]
        noise = torch.randn(chosen.shape, generator=generator, dtype=codes.dtype)
        return chosen + self._width() * codes.std(0, correction=0) * noise

    def state(self) -> dict[str, Any]:
        return {"codes": self.codes}

    def load(self, state: dict[str, Any]) -> None:
        self.codes = state["codes"]
