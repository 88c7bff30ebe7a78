"""The semi-discrete optimal transport map."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted
from sparsegen.transport import SemiDiscreteOT

__all__ = ["Transport"]


@PRIORS.register("ot")
class Transport(LatentPrior):
    """The optimal map from normal noise to the codes, extended between neighbouring codes.

    The map on cells gives training codes back; the extended one goes on linearly to the neighbouring cell, unless the
    two cells belong to different modes: then a point keeps its own code, so that modes keep their masses.

    References:
        AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport (An et al., 2020),
        https://openreview.net/forum?id=HkldyTNYwH

    Args:
        theta: Largest angle between the planes of two cells of one mode, in rad; None: no such test.
        reach: Largest distance between the codes of two cells of one mode, in medians of that distance over all cells;
            unlike the angle, it is the same near the codes' mean and far from it. None: no such test.
        tol: Root-mean-square relative error of the cells' masses to reach.
        max_seconds: Wall time of the fit; what is reached by then is kept, with its certificate.
    """

    def __init__(
        self,
        theta: float | None = 0.5,
        tol: float = 0.1,
        max_seconds: float = 120.0,
        reach: float | None = None,
    ) -> None:
        if theta is not None and not theta > 0:
            raise ConfigError(f"prior ot: theta={theta}; expected a positive angle in rad, or none to switch it off")
        if reach is not None and not reach > 0:
            raise ConfigError(f"prior ot: reach={reach}; expected a positive number, or none to switch it off")
        if not (tol > 0 and max_seconds > 0):
            raise ConfigError(f"prior ot: tol={tol}, max_seconds={max_seconds}; both must be positive")
        self.theta, self.reach, self.tol, self.max_seconds = theta, reach, tol, max_seconds
        self.map: SemiDiscreteOT | None = None
        self.certificate: dict[str, Any] = {}
        self.drawn = 0
        self.accepted = 0.0

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.map = SemiDiscreteOT(codes, source="normal")
        certificate = self.map.fit(self.tol, self.max_seconds, generator)
        plain = dataclasses.asdict(certificate)
        self.certificate = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
        self.drawn, self.accepted = 0, 0.0
        return {k: v for k, v in self.certificate.items() if isinstance(v, int | float)} | {"merged": self.map.merged}

    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        theta = math.pi if self.theta is None else self.theta
        codes, share = fitted(self.map).sample(n, generator, theta=theta, reach=self.reach)
        self.drawn += n
        self.accepted += n * share
        return codes

    def report(self) -> dict[str, Any]:
        """The share of samples that found a neighbour, since the fit or the load, and the map's certificate."""
        tests = {"theta": self.theta} | ({} if self.reach is None else {"reach": self.reach})
        share = {"acceptance": self.accepted / self.drawn} if self.drawn else {}
        return {**tests, **share, "certificate": self.certificate}

    def state(self) -> dict[str, Any]:
        return {"certificate": self.certificate, "map": None if self.map is None else self.map.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.certificate = state["certificate"]
        self.drawn, self.accepted, self.map = 0, 0.0, None
        if state["map"] is not None:
            self.map = SemiDiscreteOT(state["map"]["targets"], source="normal")
            self.map.load_state_dict(state["map"])
