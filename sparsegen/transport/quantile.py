r"""Semi-discrete transport on a line: the map is the quantile map, exact.

Targets in any dimension that lie on one line have it too: :math:`\langle x, y_i \rangle` depends on the projection of
x onto the line only.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from sparsegen.transport.source import Source

__all__ = ["is_exact", "line_cells", "line_of", "quantile_heights"]

Array = NDArray[np.float64]


def line_of(targets: Tensor) -> Tensor | None:
    """The unit vector ``(d,)`` of the line that all targets lie on, to rounding; None where there is no such line."""
    y = targets.double().cpu()
    y = y - y.mean(0)
    if y.shape[1] == 1:
        return torch.ones(1, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(y.T @ y)
    return vectors[:, -1] if float(values[-2]) <= 1e-13 * float(values[-1]) else None


def is_exact(source: Source, direction: Tensor) -> bool:
    """Whether the source projected on the line has a closed form: a normal law, or a cube along one of its axes."""
    return source.name == "normal" or (source.name == "uniform" and float(direction.abs().max()) > 1 - 1e-12)


def quantile_heights(
    targets: Tensor,
    weights: Tensor,
    source: Source,
    direction: Tensor,
    samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    r"""Optimal heights of targets on a line.

    Cells follow one another in the order of the targets' positions s; their walls t are quantiles of the projected
    source at the accumulated weights, and :math:`h_{k+1} = h_k - t_k (s_{k+1} - s_k)`.

    Args:
        targets: ``(n, d)``, all different.
        weights: ``(n,)``, sum 1.
        source: The law.
        direction: Unit vector of the line ``(d,)``.
        samples: How many, where the projected source has no closed form.
        generator: Their origin.

    Returns:
        ``(n,)`` float64, mean zero.
    """
    place = targets.double().cpu() @ direction
    order = place.argsort()
    level = weights.double().cpu()[order].cumsum(0)[:-1].clamp(0, 1).numpy()
    if not is_exact(source, direction):
        x = source.draw(samples, generator, torch.zeros(1, dtype=torch.float64))
        walls = np.quantile((x @ direction).numpy(), level)
    else:
        walls = ndtri(level) if source.name == "normal" else level - 0.5
    heights = torch.zeros_like(place)
    heights[order[1:]] = (-torch.from_numpy(walls) * place[order].diff()).cumsum(0)
    return heights - heights.mean()


def line_cells(targets: Tensor, heights: Tensor, source: Source, direction: Tensor) -> tuple[Array, Array]:
    """Exact masses ``(n,)`` and first moments along the line ``(n,)`` of the cells of a closed-form source."""
    place = (targets.double().cpu() @ direction).numpy()
    h = heights.double().cpu().numpy()
    order = place.argsort()
    end = np.inf if source.name == "normal" else 0.5
    walls = np.clip((h[order[:-1]] - h[order[1:]]) / np.diff(place[order]), -end, end)
    # a wall behind its predecessor leaves no cell between them
    walls = np.concatenate([[-end], np.maximum.accumulate(walls), [end]])
    masses, moments = np.empty_like(place), np.empty_like(place)
    if source.name == "normal":
        masses[order] = np.diff(ndtr(walls))
        moments[order] = -np.diff(np.exp(-(walls**2) / 2)) / np.sqrt(2 * np.pi)
    else:
        masses[order] = np.diff(walls)
        moments[order] = np.diff(walls**2) / 2
    return masses, moments
