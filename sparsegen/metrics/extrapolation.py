"""Fréchet distances of many batches of a sample, extrapolated to infinite ones.

References:
    Effectively unbiased FID and Inception Score and where to find them, Chong, Forsyth, 2020,
    https://arxiv.org/abs/1911.07023
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from sparsegen.metrics.features import BLOCK
from sparsegen.metrics.gaussians import MeanAndCovariance, frechet_distance

__all__ = ["Draws", "batch_moments", "frechet_infinity"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
ROWS = 2048
"""Rows whose products are formed at a time."""


def frechet_infinity(
    generated: Array,
    reference: Array,
    *,
    smallest: int = 20_000,
    largest: int = 50_000,
    points: int = 10,
    batches: int = 20,
    seed: int = 42,
) -> tuple[float, float]:
    """The Fréchet distance extrapolated to infinite batches, linearly in one over the batch size.

    Batches are drawn with replacement; intercept and slope are not negative. The defaults, the order of the draws and
    the error (that of the fitted intercept) are those of the published definition, so that equal features and seeds
    give equal numbers.

    Args:
        generated: ``(n, F)`` features.
        reference: ``(m, F)`` features.
        smallest: Smallest batch.
        largest: Largest batch.
        points: Batch sizes between them, equally spaced in their inverse.
        batches: Batches of each size.
        seed: Of the draws.

    Returns:
        The intercept and its error.
    """
    draws = Draws(len(generated), len(reference), smallest, largest, points, batches, seed)
    return draws.extrapolate(
        batch_moments(_blocks(generated), draws.generated), batch_moments(_blocks(reference), draws.reference)
    )


@dataclass(frozen=True)
class Draws:
    """The batches behind an extrapolated distance, drawn anew each time that they are asked for: none is kept.

    Args:
        n: Generated rows to draw from.
        m: Reference rows.
        smallest: Smallest batch.
        largest: Largest batch.
        points: Batch sizes.
        batches: Batches of each size.
        seed: Of the draws.
    """

    n: int
    m: int
    smallest: int
    largest: int
    points: int
    batches: int
    seed: int

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The batch sizes."""
        return (1 / np.linspace(1.0 / self.smallest, 1.0 / self.largest, self.points)).astype(np.int32)

    def _pairs(self) -> Iterator[tuple[Index, Index]]:
        rng = np.random.default_rng(self.seed)
        for size in np.repeat(self.sizes, self.batches):
            theirs = rng.choice(self.m, size=size)
            yield rng.choice(self.n, size=size), theirs

    def generated(self) -> Iterator[Index]:
        """Generated rows of each batch."""
        return (ours for ours, _ in self._pairs())

    def reference(self) -> Iterator[Index]:
        """Reference rows of each batch."""
        return (theirs for _, theirs in self._pairs())

    def extrapolate(
        self, generated: list[MeanAndCovariance], reference: list[MeanAndCovariance]
    ) -> tuple[float, float]:
        """The distance of infinite batches and its error, from the moments of each batch."""
        values = [frechet_distance(*ours, *theirs) for ours, theirs in zip(generated, reference, strict=True)]
        return _intercept(1.0 / self.sizes, np.mean(np.reshape(values, (self.points, self.batches)), axis=1))


def _blocks(rows: Array) -> Iterator[Array]:
    """Rows in blocks."""
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def batch_moments(blocks: Iterable[Array], drawn: Callable[[], Iterator[Index]]) -> list[MeanAndCovariance]:
    """Mean and unbiased covariance of each of many batches of rows, in one pass over the rows.

    Args:
        blocks: All rows, ``(rows, F)`` at a time.
        drawn: Gives the row numbers of batch after batch, the same each time.
    """
    start, sums, centre = 0, np.zeros(()), np.zeros(())
    for block in blocks:
        if start == 0:
            # Sums of squares about a place near the mean lose nothing.
            centre = block.mean(0)
            first, second = np.triu_indices(len(centre))
        counts = np.stack([_counted(rows, start, len(block)) for rows in drawn()])
        for part in range(0, len(block), ROWS):
            rows = slice(part, part + ROWS)
            shifted = block[rows] - centre
            terms = np.concatenate([np.ones((len(shifted), 1)), shifted, shifted[:, first] * shifted[:, second]], 1)
            sums = sums + counts[:, rows].astype(np.float64) @ terms
        start += len(block)
    found = []
    width = len(centre)
    for row in sums:
        n, step = row[0], row[1 : width + 1] / row[0]
        covariance = np.empty((width, width))
        covariance[first, second] = covariance[second, first] = row[width + 1 :]
        found.append((centre + step, (covariance - n * np.outer(step, step)) / (n - 1)))
    return found


def _counted(rows: Index, start: int, length: int) -> NDArray[np.int32]:
    """How often each row of a block is drawn."""
    here = rows - start
    return np.bincount(here[(here >= 0) & (here < length)], minlength=length).astype(np.int32)


def _intercept(x: Array, y: Array) -> tuple[float, float]:
    """Intercept of the line through points with neither intercept nor slope below zero, and its error."""
    design = np.stack([np.ones_like(x), x], 1)
    # nnls wants columns of like size.
    scale = np.array([1.0, x.max()])
    (intercept, _), residual = nnls(design / scale, y)
    variance = residual**2 / max(len(x) - 2, 1) * np.linalg.inv(design.T @ design)[0, 0]
    return float(intercept), math.sqrt(max(variance, 0.0))
