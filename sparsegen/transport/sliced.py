r"""Sliced Wasserstein distance: the mean over directions of the distance between one-dimensional shadows.

References:
    Wasserstein Barycenter and its Application to Texture Mixing (Rabin et al., 2012)
    Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015),
    https://doi.org/10.1007/s10851-014-0506-3
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.transport.clouds import Clouds, PointSets, one_empty, pair_clouds

__all__ = ["directions", "sliced"]


def sliced(
    a: PointSets,
    b: PointSets,
    projections: int | Tensor = 100,
    weights: str | tuple[Tensor | None, Tensor | None] | None = None,
    generator: torch.Generator | None = None,
    *,
    features: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
) -> Tensor:
    r"""Mean over unit directions of the 1-Wasserstein distance of the projected sets; at most the exact ``emd``.

    .. math:: \frac1P \sum_{p} \int |F_{A \cdot \theta_p}(t) - F_{B \cdot \theta_p}(t)| \, dt

    Both sides have mass 1, any number of points and any weights; all sets of a batch share the directions.

    Args:
        a: Events, a tensor ``(B, N, D)``, or ``(points (N, D), offsets (B + 1,))``.
        b: The same, with as many sets.
        projections: The number of random directions, or the directions ``(P, D)`` themselves.
        weights: A column (an energy), or one tensor of masses a side; normalised set by set.
        generator: Source of the directions, on the CPU.
        features: Columns compared next to the coordinates.
        scales: Axis or column name -> the length that counts as 1.

    Returns:
        ``(B,)`` in the unit of the coordinates; 0 where both sets are empty, ``inf`` where one is.

    Raises:
        ConfigError: An axis wraps (a circle has no projections), or directions of another dimension.

    Example:
        >>> sliced(torch.zeros(1, 3, 1), torch.tensor([[[1.0], [4.0]]]), projections=2)
        tensor([2.5000])
    """
    first, second = pair_clouds(a, b, weights=weights, features=features, scales=scales)
    if first.periodic:
        raise ConfigError(
            "sliced distances are not defined on axes that wrap; use emd, or pass cos and sin of the angle as points"
        )
    dim = first.points.shape[1]
    theta = directions(projections, dim, generator) if isinstance(projections, int) else projections
    if theta.ndim != 2 or theta.shape[1] != dim:
        raise ConfigError(
            f"directions of shape {tuple(theta.shape)} for points in {dim} dimensions; expected (P, {dim})"
        )
    theta = theta.to(first.points)
    x, mass_x = _shadows(first, theta)
    y, mass_y = _shadows(second, theta)
    # Both staircases on the merged positions; a padded point weighs nothing.
    place, order = torch.cat([x, y], dim=2).sort(dim=2)
    step = torch.cat([mass_x, -mass_y], dim=2).gather(2, order)
    area = (step.cumsum(2)[..., :-1].abs() * place.diff(dim=2)).sum(2).mean(1)
    return torch.where(one_empty(first, second), torch.inf, area)


def directions(count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """Random unit vectors ``(count, dim)``, double precision."""
    if count < 1:
        raise ConfigError(f"projections={count}; expected at least 1")
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=1)


def _shadows(clouds: Clouds, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Projections and masses ``(B, P, L)``; a short set repeats its first point with mass 0."""
    points, masses = clouds.padded()
    shadow = (points @ theta.T).transpose(1, 2)
    return shadow, masses[:, None].expand(shadow.shape)
