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

import math

import numpy as np
import torch
from torch import Tensor

from sparsegen.kernels import GROUPS, CellSearch, MirrorSearch
from sparsegen.transport.source import Source

__all__ = ["AveragedSGD", "ClassicalAdam", "best_search", "gaussian_heights", "matrix_power"]


NEAREST = 0.2
"""Share of the samples that counts as close to a wall."""
PROBES = 256
"""Samples that the density and the images' dependence are measured on."""
WORK = 2e9
"""Scores between two returns from the kernels: a fraction of a second."""


class AveragedSGD:
    r"""Polynomially averaged stochastic gradient with a step scaled by the Hessian.

    The gap between the best and the second-best score of a sample has, at zero, the density
    :math:`\sum_i \partial^2 E / \partial h_i^2`: it gives the scale of the step. Steps shrink like
    :math:`(1 + \text{seen} / 4n)^{-1/2}`; the average weights iterate t by :math:`t^p`: its variance is
    :math:`(1 + p)^2 / (1 + 2p)` of the least possible, n / samples, and the start is forgotten, the sooner the larger p
    is: a half up to eight dimensions, whose smooth errors fade slowly, and towards a quarter beyond.

    Where the law allows it, samples come with their mirror images (`MirrorSearch`): as good as independent ones
    unless few coordinates matter, and several times cheaper. How many images there are is settled at the start, by
    how often two of them share a cell.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        weights: ``(n,)``, sum 1.
        source: Where samples come from.
        heights: Where to start ``(n,)``.
        seen: Samples behind these heights: larger, smaller steps.
    """

    def __init__(self, targets: Tensor, weights: Tensor, source: Source, heights: Tensor, seen: int = 0) -> None:
        self.targets, self.weights, self.source = targets, weights.to(heights), source
        self._plain = CellSearch(targets)
        self.search: MirrorSearch | None = None
        self.iterate = heights.clone()
        self.average = heights.clone()
        self.seen = seen
        self._steps = 0
        self._density = 0.0
        self._measure_again = 0

    @property
    def heights(self) -> Tensor:
        """The averaged heights ``(n,)``."""
        return self.average

    def state_dict(self) -> dict[str, Tensor]:
        """Where the descent stands, as tensors."""
        groups = -1 if self.search is None else self.search.groups
        return {
            "iterate": self.iterate,
            "average": self.average,
            "counters": torch.tensor([self.seen, self._steps, self._measure_again, groups]),
            "density": torch.tensor(self._density, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from there."""
        self.iterate, self.average = state["iterate"].clone(), state["average"].clone()
        self.seen, self._steps, self._measure_again, groups = state["counters"].tolist()
        self.search = None if groups < 0 else MirrorSearch(self.targets, groups)
        self._density = float(state["density"])

    def advance(self, samples: int, generator: torch.Generator | None) -> None:
        """Takes steps on at least that many fresh samples."""
        n = len(self.targets)
        if self.search is None:
            self.search = best_search(self.targets, self.source, self.iterate, generator)
        # steps count as much as samples: half the targets, but large enough to keep the machine busy
        rows = max(1, max(32, min(512, n // 2), n // 4) // self.search.images)
        # points are multiplied four at a time
        rows -= rows % 4 if rows > 4 else 0
        batch = rows * self.search.images
        # errors that are smooth over many cells fade slowly in few dimensions
        first = 0.4 + 1.5 / self.source.dim
        power = min(0.5, 0.25 + 2 / self.source.dim)
        left = -(-samples // batch)
        while left > 0:
            if self._steps >= self._measure_again:
                self._measure_density(generator)
            steps = min(left, self._measure_again - self._steps, max(1, int(WORK / (n * batch))))
            x = self.source.draw(steps * rows, generator, self.targets)
            done = torch.arange(steps, dtype=torch.float64)
            length = first * n / self._density * (1 + (self.seen + done * batch) / (4 * n)) ** -0.5
            rate = (1 + power) / (self._steps + done + 1 + power)
            self.search.descend(x, self.weights, length, rate, self.iterate, self.average)
            self.seen += steps * batch
            self._steps += steps
            left -= steps

    def _measure_density(self, generator: torch.Generator | None) -> None:
        """Density of the gap at zero, from the closest fifth of some samples; again after as many steps as so far."""
        found = self._plain.best(self.source.draw(PROBES, generator, self.targets), self.iterate, second=True)
        gaps = found.scores - found.seconds
        near = float(gaps.kthvalue(max(1, int(len(gaps) * NEAREST))).values)
        self._density = NEAREST / max(near, 1e-12)
        self._measure_again = max(8, 4 * self._steps)


def best_search(targets: Tensor, source: Source, heights: Tensor, generator: torch.Generator | None) -> MirrorSearch:
    r"""The search at whose number of groups of signs a unit of variance costs least.

    K images of a point, two of which share a cell with probability p where independent samples do so with p_0, are
    worth :math:`K / (1 + (K - 1)(p - p_0))` samples.
    """
    dim = targets.shape[1]
    found, least = None, float(dim + 3)
    possible = GROUPS if source.symmetric and targets.dtype == torch.float32 else ()
    for groups in (g for g in possible if g <= dim):
        # operations for an image and a target: products, transform, maximum
        operations = dim / (2 * groups) + math.log2(groups) / 2 + 3
        if operations >= least:
            continue
        search = MirrorSearch(targets, groups)
        cells, _ = search.best(source.draw(PROBES // search.images, generator, targets), heights)
        images = search.images
        share = torch.bincount(cells.flatten(), minlength=len(targets)).double() / cells.numel()
        pairs = (cells[:, :, None] == cells[:, None]).double().mean() * images - 1
        crowding = 1 + max(float(pairs) - (images - 1) * float(share.square().sum()), 0.0)
        if crowding * operations < least:
            found, least = search, crowding * operations
    return found or MirrorSearch(targets, 0)


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
        engine: Of the cell search; ``torch`` is the product and maximum of published code.
    """

    BATCHES, SIZE, PATIENCE = 20, 1000, 30

    def __init__(
        self,
        targets: Tensor,
        weights: Tensor,
        source: Source,
        heights: Tensor,
        rate: float = 0.05,
        engine: str = "auto",
    ) -> None:
        self.targets, self.weights, self.source = targets, weights, source
        self._search = CellSearch(targets, engine)
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
    A^{-1} (y_i - m)`, A being inverted where the targets are.
    """
    y = targets.double()
    mass = weights.double()
    centre0, spread0 = source.spread(generator, y)
    mean = mass @ y
    spread = (y - mean).T @ ((y - mean) * mass[:, None])
    root = matrix_power(spread0, 0.5)
    backward = root @ matrix_power(root @ spread @ root, -0.5) @ root
    return (-y @ centre0 - ((y - mean) @ backward * (y - mean)).sum(1) / 2).to(targets)


def matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a positive semi-definite matrix on its range."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-12 * values.max().clamp_min(np.finfo(np.float64).tiny)
    powers = torch.where(kept, values.clamp_min(np.finfo(np.float64).tiny) ** exponent, 0.0)
    return (vectors * powers) @ vectors.T
