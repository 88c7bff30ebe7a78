"""A start for many targets: transport to centres of clusters, then share each cluster's cell among its own."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.kernels import CellSearch
from sparsegen.transport.sgd import AveragedSGD, gaussian_heights, matrix_power
from sparsegen.transport.source import Source

__all__ = ["two_level_heights"]

CLUSTERS = 2000
ROUNDS = 5
SAMPLES_PER_CLUSTER = 200


def two_level_heights(targets: Tensor, weights: Tensor, source: Source, generator: torch.Generator | None) -> Tensor:
    r"""Heights from transport to cluster centres.

    Near a centre c with height H, the centre m of its source cell and a local linear map A from the source cell to the
    cluster, a target is given :math:`h_i = H - \langle m, y_i - c \rangle - \tfrac12 (y_i - c)^\top A^{-1} (y_i - c)`:
    the height that is optimal if both were Gaussian. A comes from the pooled covariances within clusters and cells.

    Args:
        targets: ``(n, d)``, of zero mean and unit scale.
        weights: ``(n,)``, sum 1.
        source: The law.
        generator: Origin of samples and first centres.

    Returns:
        ``(n,)``.
    """
    n = len(targets)
    device = torch.device("cpu") if generator is None else generator.device
    centres = targets[torch.randperm(n, generator=generator, device=device)[: min(CLUSTERS, n // 8)].to(targets.device)]
    for _ in range(ROUNDS):
        label = _nearest(targets, centres)
        centres, mass = _means(targets, weights, label, len(centres))
        centres, mass = centres[mass > 0], mass[mass > 0]
    label = _nearest(targets, centres)
    centres, mass = _means(targets, weights, label, len(centres))
    alive = mass > 0
    label = (alive.cumsum(0) - 1)[label]
    centres, mass = centres[alive], mass[alive]

    solver = AveragedSGD(centres, mass, source, gaussian_heights(centres, mass, source, generator))
    solver.advance(SAMPLES_PER_CLUSTER * len(centres), generator)
    x = source.draw(50 * len(centres), generator, targets)
    cell = CellSearch(centres).best(x, solver.heights).cells
    middle, seen = _means(x, x.new_full((len(x),), 1 / len(x)), cell, len(centres))
    middle = torch.where(seen[:, None] > 0, middle, x.mean(0))

    inside, offset = x - middle[cell], targets - centres[label]
    cell_spread = (inside.T @ inside / len(x)).double()
    cluster_spread = (offset.T @ (offset * weights[:, None])).double()
    root, back = matrix_power(cell_spread, 0.5), matrix_power(cell_spread, -0.5)
    linear = back @ matrix_power(root @ cluster_spread @ root, 0.5) @ back
    curvature = torch.linalg.pinv(linear, hermitian=True, rtol=1e-6).to(targets)
    bend = (middle[label] * offset).sum(1) + (offset @ curvature * offset).sum(1) / 2
    return solver.heights[label] - bend


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre is the cell of a Voronoi diagram: heights -|c|^2 / 2."""
    return CellSearch(centres).best(points, -centres.square().sum(1) / 2).cells


def _means(points: Tensor, weights: Tensor, label: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mass = weights.new_zeros(count).index_add(0, label, weights)
    total = points.new_zeros(count, points.shape[1]).index_add(0, label, points * weights[:, None])
    return total / torch.where(mass > 0, mass, 1.0)[:, None], mass
