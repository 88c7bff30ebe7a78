"""Laws of latent codes, fitted after an autoencoder is trained: one class each, interchangeable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from sparsegen.errors import DataError, MissingExtraError
from sparsegen.registry import Registry
from sparsegen.transport import SemiDiscreteOT

__all__ = ["PRIORS", "KernelDensity", "LatentPrior", "Mixture", "Normal", "Transport", "Whitening"]


T = TypeVar("T")


class LatentPrior(Protocol):
    """A law on ``R^d`` that is fitted to codes of unit scale."""

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Fits to codes ``(n, d)``; returns scalars for the log."""
        ...

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """New codes ``(n, d)``."""
        ...

    def state(self) -> dict[str, Any]:
        """Tensors and plain types from which :meth:`load` restores the law."""
        ...

    def load(self, state: dict[str, Any]) -> None: ...


PRIORS: Registry[Callable[[], LatentPrior]] = Registry("latent prior")


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
        kept = variance > 1e-6 * variance.max()
        if float(variance.max()) <= 0:
            raise DataError(f"all {len(codes)} codes are equal: the encoder has collapsed; there is no law to fit")
        self.axes = directions[:, kept]
        self.scale = float(variance[kept].mean().sqrt())
        return self.forward(codes)

    def forward(self, codes: Tensor) -> Tensor:
        return (codes - self.mean) @ self.axes / self.scale

    def inverse(self, coordinates: Tensor) -> Tensor:
        return coordinates * self.scale @ self.axes.t() + self.mean

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "axes": self.axes, "scale": self.scale}

    def load(self, state: dict[str, Any]) -> None:
        self.mean, self.axes, self.scale = state["mean"], state["axes"], float(state["scale"])


@PRIORS.register("ot")
class Transport:
    """The optimal map from normal noise to the codes, extended between neighbouring codes.

    References:
        AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport (An et al., 2020),
        https://openreview.net/forum?id=HkldyTNYwH
    """

    tol = 0.1
    max_seconds = 120.0

    def __init__(self) -> None:
        self.map: SemiDiscreteOT | None = None
        self.certificate: dict[str, Any] = {}

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.map = SemiDiscreteOT(codes, source="normal")
        certificate = self.map.fit(self.tol, self.max_seconds, generator)
        plain = dataclasses.asdict(certificate)
        self.certificate = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
        return {k: v for k, v in self.certificate.items() if isinstance(v, int | float)}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return _fitted(self.map).sample(n, generator)[0]

    def state(self) -> dict[str, Any]:
        return {"certificate": self.certificate, "map": None if self.map is None else self.map.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.certificate = state["certificate"]
        if state["map"] is not None:
            self.map = SemiDiscreteOT(state["map"]["targets"], source="normal")
            self.map.load_state_dict(state["map"])


@PRIORS.register("normal")
class Normal:
    """``N(0, I)`` at the codes' scale: what a plain autoencoder would have to be sampled from."""

    def __init__(self) -> None:
        self.dim: int | None = None

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.dim = codes.shape[1]
        return {"dimensions": self.dim}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(n, _fitted(self.dim), generator=generator)

    def state(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def load(self, state: dict[str, Any]) -> None:
        self.dim = state["dim"]


@PRIORS.register("kde")
class KernelDensity:
    """A training code plus normal noise of Silverman's width."""

    def __init__(self) -> None:
        self.codes: Tensor | None = None

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.codes = codes
        return {"width": self._width()}

    def _width(self) -> float:
        n, d = _fitted(self.codes).shape
        return float((4 / (d + 2) / n) ** (1 / (d + 4)))

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        codes = _fitted(self.codes)
        chosen = codes[torch.randint(len(codes), (n,), generator=generator)]
        return chosen + self._width() * codes.std(0) * torch.randn(chosen.shape, generator=generator, dtype=codes.dtype)

    def state(self) -> dict[str, Any]:
        return {"codes": self.codes}

    def load(self, state: dict[str, Any]) -> None:
        self.codes = state["codes"]


@PRIORS.register("mixture")
class Mixture:
    """A Gaussian mixture with full covariances: the cheap law that a map has to beat (Achlioptas et al. 2018)."""

    components = 32

    def __init__(self) -> None:
        self.weights: Tensor | None = None
        self.means = torch.zeros(0)
        self.factors = torch.zeros(0)

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise MissingExtraError("scikit-learn", "mixtures", "a Gaussian mixture of codes") from error
        seed = int(torch.randint(2**31, (1,), generator=generator))
        components = min(self.components, len(codes) // (2 * codes.shape[1]) + 1)
        found = GaussianMixture(components, random_state=seed, reg_covar=1e-4).fit(codes.double().numpy())
        self.weights = torch.from_numpy(found.weights_).to(codes.dtype)
        self.means = torch.from_numpy(found.means_).to(codes.dtype)
        self.factors = torch.linalg.cholesky(torch.from_numpy(found.covariances_)).to(codes.dtype)
        return {"components": components, "log_likelihood": float(found.lower_bound_)}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        chosen = torch.multinomial(_fitted(self.weights), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}

    def load(self, state: dict[str, Any]) -> None:
        self.weights, self.means, self.factors = state["weights"], state["means"], state["factors"]


def _fitted(value: T | None) -> T:
    if value is None:
        raise DataError("the latent prior is not fitted; train the model through all its stages first")
    return value
