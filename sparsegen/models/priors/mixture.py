"""The Gaussian mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, MissingExtraError
from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted, fresh_seed

__all__ = ["Mixture"]


@PRIORS.register("mixture")
class Mixture(LatentPrior):
    """A Gaussian mixture with full covariances: the cheap law that a map has to beat.

    References:
        Learning Representations and Generative Models for 3D Point Clouds (Achlioptas et al., 2018),
        https://arxiv.org/abs/1707.02392

    Args:
        components: At most this many; at least ``2 d`` codes are left for each.
    """

    def __init__(self, components: int = 32) -> None:
        if components < 1:
            raise ConfigError(f"prior mixture: components={components}; expected at least 1")
        self.components = components
        self.weights: Tensor | None = None
        self.means = torch.zeros(0)
        self.factors = torch.zeros(0)

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise MissingExtraError("scikit-learn", "mixtures", "a Gaussian mixture of codes") from error
        components = min(self.components, len(codes) // (2 * codes.shape[1]) + 1)
        found = GaussianMixture(components, random_state=fresh_seed(generator), reg_covar=1e-4)
        found.fit(codes.double().numpy())
        self.weights = torch.from_numpy(found.weights_).to(codes.dtype)
        self.means = torch.from_numpy(found.means_).to(codes.dtype)
        self.factors = torch.linalg.cholesky(torch.from_numpy(found.covariances_)).to(codes.dtype)
        return {"components": components, "log_likelihood": float(found.lower_bound_)}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        chosen = torch.multinomial(fitted(self.weights), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}

    def load(self, state: dict[str, Any]) -> None:
        self.weights, self.means, self.factors = state["weights"], state["means"], state["factors"]
