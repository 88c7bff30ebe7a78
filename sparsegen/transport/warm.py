r"""Where Newton's method on exact cells may start: near the optimum, with no cell empty.

Averaged descent brings most cells near their masses within few samples but leaves the small and thin ones empty, which
a Newton step cannot revive. Samples find them a place: a cell i that holds too few of the samples x is raised by the
k-th smallest of :math:`\max_j (\langle x, y_j \rangle + h_j) - \langle x, y_i \rangle - h_i`, after which it holds k.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from sparsegen.kernels import CellSearch
from sparsegen.transport.sgd import AveragedSGD, gaussian_heights
from sparsegen.transport.source import Source

__all__ = ["warm_heights"]

DESCENT = 200
"""Samples of the descent for each target."""
PLACES = 16
"""Samples for each target that cells are raised on."""
SHARE = 0.25
"""Part of its mass that a cell must hold."""
ROUNDS = 4


def warm_heights(
    targets: Tensor, weights: Tensor, source: Source, generator: torch.Generator | None, deadline: float
) -> Tensor:
    """Heights whose cells hold about their masses, and with high probability none nothing.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        weights: ``(n,)``, sum 1.
        source: The law.
        generator: Origin of all samples.
        deadline: Value of ``time.monotonic()`` at which to return what there is.

    Returns:
        ``(n,)`` float64.
    """
    y = targets.float()
    solver = AveragedSGD(y, weights, source, gaussian_heights(y, weights, source, generator))
    for _ in range(10):
        if time.monotonic() < deadline:
            solver.advance(DESCENT * len(y) // 10, generator)
    heights, search = solver.heights, CellSearch(y)
    enough = (SHARE * PLACES * len(y) * weights).long().clamp_min(1)
    for _ in range(ROUNDS):
        x = source.draw(PLACES * len(y), generator, y)
        found = search.best(x, heights)
        short = (found.cells.bincount(minlength=len(y)) < enough).nonzero().flatten().tolist()
        if not short:
            break
        for i in short:
            if time.monotonic() > deadline:
                break
            score = torch.addmv(heights[i], x, y[i])
            k = int(enough[i])
            raised = (found.scores - score).topk(k, largest=False).values[-1].clamp_min(0)
            heights[i] += raised
            torch.maximum(found.scores, score + raised, out=found.scores)
    return heights.double()
