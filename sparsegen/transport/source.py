"""The law that a semi-discrete map starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, unknown_name

__all__ = ["Sampler", "Source", "SourceName"]

SourceName = Literal["uniform", "normal"]
Sampler = Callable[[int, "torch.Generator | None"], Tensor]
"""Draws ``(n, d)`` samples: ``sampler(n, generator)``."""


class Source:
    """A continuous law in d dimensions.

    Args:
        kind: ``uniform`` (the cube [-1/2, 1/2]^d), ``normal`` (N(0, I)), or a sampler.
        dim: d.

    Raises:
        ConfigError: An unknown name.
    """

    def __init__(self, kind: SourceName | Sampler, dim: int) -> None:
        if isinstance(kind, str) and kind not in ("uniform", "normal"):
            raise ConfigError(unknown_name("source", kind, ("uniform", "normal")))
        self.kind = kind
        self.dim = dim

    @property
    def name(self) -> str:
        """``uniform``, ``normal`` or ``sampler``."""
        return self.kind if isinstance(self.kind, str) else "sampler"

    @property
    def symmetric(self) -> bool:
        """Whether any coordinate may change its sign; nothing is known of a sampler."""
        return self.name != "sampler"

    def draw(self, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Independent samples ``(n, d)`` in the type and on the device of ``like``.

        Raises:
            ConfigError: The sampler returns something else than ``(n, d)`` finite floats.
        """
        device = like.device if generator is None else generator.device
        if self.kind == "uniform":
            x = torch.rand(n, self.dim, generator=generator, dtype=like.dtype, device=device)
            return x.sub_(0.5).to(like.device)
        if self.kind == "normal":
            return torch.randn(n, self.dim, generator=generator, dtype=like.dtype, device=device).to(like.device)
        assert callable(self.kind)
        x = self.kind(n, generator)
        if tuple(x.shape) != (n, self.dim):
            raise ConfigError(f"the source gave {tuple(x.shape)}; the targets need samples of shape {(n, self.dim)}")
        if not bool(x.isfinite().all()):
            raise ConfigError("the source gave samples that are not finite")
        return x.detach().to(like)

    def spread(self, generator: torch.Generator | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(d,)`` and covariance ``(d, d)``; of a sampler from 10,000 samples."""
        eye = torch.eye(self.dim, dtype=like.dtype, device=like.device)
        if self.kind == "uniform":
            return eye[0] * 0, eye / 12
        if self.kind == "normal":
            return eye[0] * 0, eye
        x = self.draw(10_000, generator, like)
        return x.mean(0), x.T.cov().reshape(self.dim, self.dim)
