"""The normal law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted

__all__ = ["Normal"]


@PRIORS.register("normal")
class Normal(LatentPrior):
    """N(0, I) at the codes' scale: what a plain autoencoder would have to be sampled from."""

    def __init__(self) -> None:
        self.dim: int | None = None

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.dim = codes.shape[1]
        return {"dimensions": self.dim}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(n, fitted(self.dim), generator=generator)

    def state(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def load(self, state: dict[str, Any]) -> None:
        self.dim = state["dim"]
