r"""Stochastic solvers of semi-discrete transport: averaged gradient descent, and the classical one for reference.

Both descend the convex energy :math:`E(h) = \mathbb E \max_i(\langle x, y_i\rangle + h_i) - \sum_i \nu_i h_i`, whose
gradient is the mass of each cell minus what it should be, from fresh samples of the source at every step.

References:
    Acceleration of Stochastic Approximation by Averaging (Polyak and Juditsky, 1992)
    Stochastic Optimization for Large-scale Optimal Transport (Genevay et al., 2016), https://arxiv.org/abs/1605.08527
    AE-OT: A New Generative Model Based on Extended Semi-discrete Optimal Transport (An et al., 2020),
    https://openreview.net/forum?id=HkldyTNYwH
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsegen.kernels import CellSearch
from sparsegen.transport.source import Source

__all__ = ["AveragedSGD", "ClassicalAdam", "gaussian_heights", "matrix_power"]


UNEVEN = 4
"""Up to this dimension cells differ so much that each height has its own step."""
NEAREST = 0.2
"""Share of the samples that counts as close to a wall."""
DRAWN = 8192
"""Source samples drawn at once."""


class AveragedSGD:
    r"""Polynomially averaged stochastic gradient with a step scaled by the Hessian.

    The gap between the best and the second-best score of a sample has, at zero, the density
    :math:`\sum_i \partial^2 E / \partial h_i^2`: it gives the scale of the step. Steps shrink like
    :math:`(1 + \text{seen} / 4n)^{-1/2}`; the average weights iterate t by t. In few dimensions, where some cells have
    far more wall than others, each height gets a step of its own, from the samples close to the walls of its cell.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        weights: ``(n,)``, sum 1.
        source: Where samples come from.
        heights: Where to start ``(n,)``.
        seen: Samples behind these heights: larger, smaller steps.
    """

    def __init__(self, targets: Tensor, weights: Tensor, source: Source, heights: Tensor, seen: int = 0) -> None:
        self.targets, self.weights, self.source = targets, weights.to(heights), source
        self._search = CellSearch(targets)
        self._uneven = targets.shape[1] <= UNEVEN
        self.iterate = heights.clone()
        self.average = heights.clone()
        self.seen = seen
        # steps count as much as samples: half the targets, but large enough to keep the machine busy
        self.batch = max(32, min(512, len(targets) // 2), len(targets) // 4)
        self._steps = 0
        self._density = 0.0
        self._measure_again = 0
        self._walls, self._curvature = torch.zeros_like(heights), torch.ones_like(heights)

    @property
    def heights(self) -> Tensor:
        """The averaged heights ``(n,)``."""
        return self.average

    def state_dict(self) -> dict[str, Tensor]:
        """Where the descent stands, as tensors."""
        return {
            "iterate": self.iterate,
            "average": self.average,
            "counters": torch.tensor([self.seen, self._steps, self._measure_again]),
            "density": torch.tensor(self._density, dtype=torch.float64),
            "walls": self._walls,
            "curvature": self._curvature,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from there."""
        self.iterate, self.average = state["iterate"].clone(), state["average"].clone()
        self.seen, self._steps, self._measure_again = state["counters"].tolist()
        self._density = float(state["density"])
        self._walls, self._curvature = state["walls"].clone(), state["curvature"].clone()

    def advance(self, samples: int, generator: torch.Generator | None) -> None:
        """Takes steps on at least that many fresh samples."""
        left = -(-samples // self.batch)
        while left > 0:
            # few large draws cost less than many small ones
            together = min(left, max(1, DRAWN // self.batch))
            for x in self.source.draw(together * self.batch, generator, self.targets).split(self.batch):
                self._step(x)
            left -= together

    def _step(self, x: Tensor) -> None:
        n = len(self.targets)
        if self._steps >= self._measure_again:
            self._measure_density(x)
        found = self._search.best(x, self.iterate, second=self._uneven)
        if self._uneven:
            close = found.cells[found.scores - found.seconds < NEAREST / self._density]
            self._walls += torch.bincount(close, minlength=n)
        excess = torch.bincount(found.cells, minlength=n).to(self.iterate) / self.batch - self.weights
        step = 0.7 * n / self._density * (1 + self.seen / (4 * n)) ** -0.5
        self.iterate -= step * excess / self._curvature
        self.seen += self.batch
        self._steps += 1
        self.average += (self.iterate - self.average) * (2 / (self._steps + 1))

    def _measure_density(self, x: Tensor) -> None:
        """Density of the gap at zero, from the closest fifth of the samples; again after as many steps as so far."""
        found = self._search.best(x, self.iterate, second=True)
        gaps = found.scores - found.seconds
        near = float(gaps.kthvalue(max(1, int(len(gaps) * NEAREST))).values)
        self._density = NEAREST / max(near, 1e-12)
        self._measure_again = max(8, 2 * self._steps)
        if float(self._walls.sum()) > 2 * len(self.targets):
            # drawn towards the mean, as counts of a few samples scatter
            self._curvature = ((self._walls / self._walls.mean() + 0.3) / 1.3).clamp(0.2, 5.0)
            self._walls = self._walls / 2


class ClassicalAdam:
    """The classical solver: Monte-Carlo gradients, Adam, step down and samples up whenever the error stalls.

    Kept as the reference that speed is measured against; `AveragedSGD` reaches the same error in a small part of
    the time. Adam has its bias correction and every step fresh samples.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        weights: ``(n,)``, sum 1.
        source: Where samples come from.
        heights: Where to start ``(n,)``.
        rate: The first step of Adam.
    """

    BATCHES, SIZE, PATIENCE = 20, 1000, 30

    def __init__(self, targets: Tensor, weights: Tensor, source: Source, heights: Tensor, rate: float = 0.05) -> None:
        self.targets, self.weights, self.source = targets, weights, source
        self._search = CellSearch(targets)
        self.heights = heights.clone()
        self.rate = rate
        self.seen = 0
        self._samples = self.BATCHES * self.SIZE
        self._first, self._second = torch.zeros_like(heights), torch.zeros_like(heights)
        self._steps, self._best, self._stalled = 0, float("inf"), 0

    def advance(self, samples: int, generator: torch.Generator | None) -> None:
        """Takes steps on at least that many fresh samples."""
        stop = self.seen + samples
        while self.seen < stop:
            counts = torch.zeros(len(self.targets), dtype=torch.int64, device=self.targets.device)
            for _ in range(self._samples // self.SIZE):
                cells = self._search.best(self.source.draw(self.SIZE, generator, self.targets), self.heights).cells
                counts += torch.bincount(cells, minlength=len(counts))
            self.seen += self._samples
            excess = (counts / self._samples - self.weights).to(self.heights)
            self._adam(excess - excess.mean())
            self._schedule(float(excess.norm()))

    def _adam(self, gradient: Tensor) -> None:
        self._steps += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient.square()
        first = self._first / (1 - 0.9**self._steps)
        second = self._second / (1 - 0.999**self._steps)
        self.heights -= self.rate * first / (second.sqrt() + 1e-8)

    def _schedule(self, error: float) -> None:
        if error < self._best:
            self._best, self._stalled = error, 0
            return
        self._stalled += 1
        if self._stalled >= self.PATIENCE:
            self.rate = max(self.rate * 0.9, 1e-6)
            self._samples, self._best, self._stalled = 2 * self._samples, float("inf"), 0


def gaussian_heights(targets: Tensor, weights: Tensor, source: Source, generator: torch.Generator | None) -> Tensor:
    r"""Heights that are optimal if source and targets are Gaussian with the covariances they have.

    The map is then :math:`x \mapsto m + A (x - m_0)`, :math:`A = \Sigma_0^{-1/2} (\Sigma_0^{1/2} \Sigma
    \Sigma_0^{1/2})^{1/2} \Sigma_0^{-1/2}`, and :math:`h_i = -\langle m_0, y_i \rangle - \tfrac12 (y_i - m)^\top
    A^{+} (y_i - m)`.
    """
    y = targets.double()
    mass = weights.double()
    centre0, spread0 = source.spread(generator, y)
    mean = mass @ y
    spread = (y - mean).T @ ((y - mean) * mass[:, None])
    inverse = matrix_power(spread0, -0.5)
    middle = matrix_power(matrix_power(spread0, 0.5) @ spread @ matrix_power(spread0, 0.5), 0.5)
    linear = torch.linalg.pinv(inverse @ middle @ inverse, hermitian=True, rtol=1e-6)
    return (-y @ centre0 - ((y - mean) @ linear * (y - mean)).sum(1) / 2).to(targets)


def matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a positive semi-definite matrix on its range."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-12 * values.max().clamp_min(np.finfo(np.float64).tiny)
    powers = torch.where(kept, values.clamp_min(np.finfo(np.float64).tiny) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T
