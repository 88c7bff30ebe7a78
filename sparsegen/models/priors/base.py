"""What a law of latent codes is, and the table of those that can be named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.options import check_options
from sparsegen.registry import Registry

__all__ = ["PRIORS", "LatentPrior", "build_prior", "fitted", "fresh_seed"]

T = TypeVar("T")


class LatentPrior(ABC):
    """A law on ``R^d`` that is fitted to codes of unit scale; its options are those of its constructor."""

    @abstractmethod
    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Fits to codes ``(n, d)``; returns scalars for the log."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """New codes ``(n, d)``."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and plain types from which :meth:`load` restores the law."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Takes over the state of another law of the same kind."""

    def report(self) -> dict[str, Any]:
        """What whoever uses the samples should know of the law that they were drawn from, in plain types."""
        return {}


PRIORS: Registry[Callable[..., LatentPrior]] = Registry("latent prior")
"""Every law by name; a new one is a file of this folder that registers itself."""


def build_prior(prior: str | Mapping[str, Any]) -> LatentPrior:
    """A law from its name, or from its name and options.

    Raises:
        ConfigError: An unknown name or option, or an option of another type.

    Example:
        >>> type(build_prior({"name": "mixture", "components": 8})).__name__
        'Mixture'
    """
    options = {"name": prior} if isinstance(prior, str) else dict(prior)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"prior: expected a name, or keys and values with a name, got {prior!r}")
    kind = PRIORS[name]
    check_options(f"prior {name}", options, kind)
    return kind(**options)


def fitted(value: T | None) -> T:
    """The value itself, or an error where the law that holds it is not fitted."""
    if value is None:
        raise DataError("the latent prior is not fitted; train the model through all its stages first")
    return value


def fresh_seed(generator: torch.Generator) -> int:
    """A seed for something that cannot draw from the generator itself."""
    return int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
