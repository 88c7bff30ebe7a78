"""What fresh source samples say about a semi-discrete map: counts, centres, dual value, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegen.kernels import MirrorSearch
from sparsegen.transport.source import Source

__all__ = ["Measured", "measure_cells"]

CHUNK = 1 << 16
KEPT = 1 << 16
"""Samples whose cells are kept one by one, for the variance of what is made of their counts."""


@dataclass(frozen=True)
class Measured:
    """Sums over samples, in the coordinates in which targets have zero mean and unit scale.

    Args:
        counts: Samples in each cell ``(n,)`` int64.
        repeats: Ordered pairs of two images of one point in each cell ``(n,)`` int64.
        blocks: Cells of the images of the first points ``(points, images)`` int64.
        barycentres: Mean of the samples in a cell ``(n, d)``; NaN in a cell without samples.
        square: Mean of |x|^2.
        potential: Mean of the Brenier potential.
        paid: Mean of |x|^2 - 2 scale potential - 2 <x, centre>: the part of the dual that varies with x.
        paid_error: Its standard error.
        centre_product: Mean of <x, centre>.
    """

    counts: Tensor
    repeats: Tensor
    blocks: Tensor
    barycentres: Tensor
    square: float
    potential: float
    paid: float
    paid_error: float
    centre_product: float


def measure_cells(
    search: MirrorSearch,
    heights: Tensor,
    source: Source,
    centre: Tensor,
    scale: float,
    samples: int,
    generator: torch.Generator | None,
) -> Measured:
    """Draws fresh points of the source and sorts their images into cells.

    Args:
        search: Over targets of zero mean and unit scale.
        heights: ``(n,)``.
        source: The law; symmetric if the search makes more than one image.
        centre: What was taken off the targets ``(d,)``.
        scale: What they were divided by.
        samples: How many at least, mirror images counted.
        generator: Their origin.
    """
    n = len(heights)
    counts = torch.zeros(n, dtype=torch.int64, device=heights.device)
    repeats = torch.zeros_like(counts)
    sums = heights.new_zeros(n, source.dim)
    totals = torch.zeros(5, dtype=torch.float64)
    blocks: list[Tensor] = []
    points = max(2, -(-samples // search.images))
    room = KEPT // search.images
    left = points
    while left > 0:
        x = source.draw(min(max(CHUNK // search.images, 1), left), generator, heights)
        left -= len(x)
        cells, potential = search.best(x, heights)
        counts += torch.bincount(cells.flatten(), minlength=n)
        repeats += _repeats(cells, n)
        sums += search.sums(x, cells)
        blocks.append(cells[:room])
        room -= len(blocks[-1])
        square, shift = x.square().sum(1), search.products(x, centre.to(x))
        paid = (square[:, None] - 2 * scale * potential - 2 * shift).double().mean(1)
        parts = square.double(), potential.double().mean(1), paid, paid.square(), shift.double().mean(1)
        totals += torch.stack([part.sum() for part in parts]).cpu()
    square_mean, potential_mean, paid_mean, paid_square, shift_mean = (totals / points).tolist()
    return Measured(
        counts=counts,
        repeats=repeats,
        blocks=torch.cat(blocks),
        barycentres=sums / torch.where(counts > 0, counts, torch.nan)[:, None],
        square=square_mean,
        potential=potential_mean,
        paid=paid_mean,
        paid_error=math.sqrt(max(paid_square - paid_mean**2, 0.0) / points),
        centre_product=shift_mean,
    )


def _repeats(cells: Tensor, n: int) -> Tensor:
    """Ordered pairs of equal entries of a row, by their value ``(n,)``."""
    found = torch.zeros(n, dtype=torch.int64, device=cells.device)
    if cells.shape[1] == 1:
        return found
    ordered = cells.sort(1).values
    for apart in range(1, cells.shape[1]):
        same = ordered[:, apart:][ordered[:, apart:] == ordered[:, :-apart]]
        if same.numel() == 0:
            break
        found += 2 * torch.bincount(same, minlength=n)
    return found
