r"""Kernel distances between samples: maximum mean discrepancy and energy distance.

References:
    A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html
    Wasserstein Auto-Encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558
    Energy Statistics: A Class of Statistics Based on Distances (Szekely and Rizzo, 2013),
    https://doi.org/10.1016/j.jspi.2013.03.018
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.transport.clouds import lengths_of

__all__ = ["energy_distance", "mmd"]

KernelName = Literal["imq", "rbf", "polynomial"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(
    x: Tensor,
    y: Tensor,
    kernel: KernelName = "imq",
    scale: float = 1.0,
    scales: Sequence[float] = SCALES,
    degree: int = 3,
    unbiased: bool = True,
) -> Tensor:
    r"""Squared maximum mean discrepancy, :math:`E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y)`.

    Kernels, for d dimensions, :math:`\sigma` = ``scale`` and the mean over s in ``scales``:

    - ``imq``: :math:`C / (C + \|x - y\|^2)`, :math:`C = 2 d \sigma^2 s` (heavy tails: gradients reach far points);
    - ``rbf``: :math:`\exp(-\|x - y\|^2 / C)`, the same C;
    - ``polynomial``: :math:`(x \cdot y / d + 1)^{degree}`.

    Args:
        x: ``(n, d)`` or ``(B, n, d)``.
        y: ``(m, d)`` or ``(B, m, d)``.
        kernel: Its name.
        scale: Standard deviation of the law that is compared with.
        scales: Multiples of C, averaged; unused by ``polynomial``.
        degree: Of the polynomial.
        unbiased: Leave a point's pair with itself out: the mean is zero for equal laws, single values may be
            negative. False: never negative.

    Returns:
        A scalar, or ``(B,)``.

    Example:
        >>> x = torch.zeros(3, 2)
        >>> mmd(x, x + 1, kernel="polynomial", degree=1, unbiased=False)
        tensor(1.)
    """
    if kernel not in ("imq", "rbf", "polynomial"):
        raise ConfigError(unknown_name("kernel", kernel, ("imq", "rbf", "polynomial")))
    if not scale > 0 or not scales or min(scales) <= 0 or degree < 1:
        raise ConfigError(f"scale={scale}, scales={tuple(scales)}, degree={degree}; all must be positive")
    dim = x.shape[-1]

    def gram(u: Tensor, v: Tensor) -> Tensor:
        if kernel == "polynomial":
            return (u @ v.transpose(-1, -2) / dim + 1) ** degree
        # differences, not a product: exact for close points far from the origin
        square = (u.unsqueeze(-2) - v.unsqueeze(-3)).square().sum(-1)
        total = torch.zeros_like(square)
        for s in scales:
            c = 2 * dim * scale**2 * s
            total = total + (c / (c + square) if kernel == "imq" else (-square / c).exp())
        return total / len(scales)

    return _discrepancy(x, y, gram, unbiased)


def energy_distance(x: Tensor, y: Tensor, unbiased: bool = False) -> Tensor:
    r"""Szekely's energy distance, :math:`2 E\|x - y\| - E\|x - x'\| - E\|y - y'\|` (not its root).

    In one dimension twice the Cramer distance :math:`\int (F_x - F_y)^2`.

    Args:
        x: ``(n, d)`` or ``(B, n, d)``.
        y: ``(m, d)`` or ``(B, m, d)``.
        unbiased: Leave a point's pair with itself out: zero on average for equal laws. False: never negative.

    Returns:
        A scalar, or ``(B,)``, in the unit of the coordinates.

    Example:
        >>> energy_distance(torch.zeros(4, 2), torch.tensor([[3.0, 4.0]]))
        tensor(10.)
    """
    return _discrepancy(x, y, lambda u, v: -lengths_of(u.unsqueeze(-2) - v.unsqueeze(-3)), unbiased)


def _discrepancy(x: Tensor, y: Tensor, gram: Callable[[Tensor, Tensor], Tensor], unbiased: bool) -> Tensor:
    if x.ndim not in (2, 3) or y.ndim != x.ndim or x.shape[-1] != y.shape[-1] or x.shape[:-2] != y.shape[:-2]:
        raise DataError(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}; expected (n, d), (m, d) or batches")
    fewest = 2 if unbiased else 1
    if min(x.shape[-2], y.shape[-2]) < fewest:
        raise DataError(f"samples of {x.shape[-2]} and {y.shape[-2]} points; at least {fewest} a side are needed")
    within = torch.zeros((), dtype=x.dtype, device=x.device)
    for sample in (x, y):
        n, pairs = sample.shape[-2], gram(sample, sample)
        total = pairs.sum((-1, -2))
        if unbiased:
            within = within + (total - pairs.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))
        else:
            within = within + total / n**2
    return within - 2 * gram(x, y).mean((-1, -2))
