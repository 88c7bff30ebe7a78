"""What independent source samples say about a semi-discrete map: counts, centres, dual value, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegen.kernels import CellSearch
from sparsegen.transport.source import Source

__all__ = ["Measured", "measure_cells"]

CHUNK = 1 << 16


@dataclass(frozen=True)
class Measured:
    """Sums over M samples, in the coordinates in which targets have zero mean and unit scale.

    Args:
        counts: Samples in each cell ``(n,)`` int64.
        barycentres: Their mean ``(n, d)``; NaN in a cell without samples.
        square: Mean of |x|^2.
        potential: Mean of the Brenier potential.
        paid: Mean of |x|^2 - 2 scale potential - 2 <x, centre>: the part of the dual that varies with x.
        paid_error: Its standard error.
        centre_product: Mean of <x, centre>.
    """

    counts: Tensor
    barycentres: Tensor
    square: float
    potential: float
    paid: float
    paid_error: float
    centre_product: float


def measure_cells(
    targets: Tensor,
    search: CellSearch,
    heights: Tensor,
    source: Source,
    centre: Tensor,
    scale: float,
    samples: int,
    generator: torch.Generator | None,
) -> Measured:
    """Draws fresh samples and sorts them into cells.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        search: Over these targets.
        heights: ``(n,)``.
        source: The law.
        centre: What was taken off the targets ``(d,)``.
        scale: What they were divided by.
        samples: M.
        generator: Their origin.
    """
    counts = torch.zeros(len(targets), dtype=torch.int64, device=targets.device)
    sums = torch.zeros_like(targets)
    totals = torch.zeros(5, dtype=torch.float64)
    left = samples
    while left > 0:
        x = source.draw(min(CHUNK, left), generator, targets)
        left -= len(x)
        cells, potential, _ = search.best(x, heights)
        counts += torch.bincount(cells, minlength=len(counts))
        sums.index_add_(0, cells, x)
        square, shift = x.square().sum(1), x @ centre.to(x)
        paid = (square - 2 * scale * potential - 2 * shift).double()
        totals += torch.stack(
            [square.double().sum(), potential.double().sum(), paid.sum(), paid.square().sum(), shift.double().sum()]
        ).cpu()
    square_mean, potential_mean, paid_mean, paid_square, shift_mean = (totals / samples).tolist()
    return Measured(
        counts=counts,
        barycentres=sums / torch.where(counts > 0, counts, torch.nan)[:, None],
        square=square_mean,
        potential=potential_mean,
        paid=paid_mean,
        paid_error=math.sqrt(max(paid_square - paid_mean**2, 0.0) / samples),
        centre_product=shift_mean,
    )
