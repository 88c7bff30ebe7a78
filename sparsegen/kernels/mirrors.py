r"""Cells of points and of their mirror images: many images for the price of few points.

A law that does not change when coordinates change their sign gives, with every sample x, the samples
:math:`s \odot x` for any pattern of signs s. Coordinates are dealt into G groups with one sign each; the 2 G patterns
are the rows of a Hadamard matrix and their negatives, so that any two of them differ in half of the groups or in all.
The products of x with a target are summed group by group, once, and a fast transform turns these G sums into the
scores of all images.

References:
    A New Monte Carlo Technique: Antithetic Variates (Hammersley and Morton, 1956),
    https://doi.org/10.1017/S0305004100031455
    Orthogonal Random Features (Yu et al., 2016), https://arxiv.org/abs/1610.09072
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.kernels.native import extension, threads
from sparsegen.kernels.potential import CellSearch

__all__ = ["GROUPS", "MirrorSearch"]

GROUPS = (16, 8, 4)
"""How many groups of coordinates can have a sign of their own."""


class MirrorSearch:
    r"""Finds the cell :math:`\arg\max_j \langle s \odot x, y_j\rangle + h_j` of every mirror image of many points.

    Engines agree to rounding: a cell found by the native one is within :math:`2^{-17}` of its score of the best. No
    gradient.

    Args:
        targets: ``(n, d)`` float32 or float64; the native engine has code for float32 only, others go through
            `CellSearch` image by image.
        groups: Of coordinates that change their sign together: 16, 8 or 4, at most d; 0: a point is its only image.
        engine: See `CellSearch`.

    Raises:
        ConfigError: Another number of groups, or an unknown engine.
        DataError: Targets of another shape or type.
        BackendError: The engine cannot be used here.

    Example:
        >>> search = MirrorSearch(torch.eye(4), groups=4)
        >>> search.images
        8
        >>> search.best(torch.tensor([[0.4, 0.1, 0.2, 0.3]]), torch.zeros(4))[0]
        tensor([[0, 0, 0, 0, 1, 3, 3, 2]])
    """

    def __init__(self, targets: Tensor, groups: int, engine: str = "auto") -> None:
        if groups != 0 and (groups not in GROUPS or groups > targets.shape[-1]):
            raise ConfigError(
                f"groups={groups} for targets of shape {tuple(targets.shape)}; expected 16, 8 or 4, at most d, or 0"
            )
        self.groups = groups
        self.images = 2 * groups if groups else 1
        self._order = torch.arange(targets.shape[-1], device=targets.device)
        if groups:
            # coordinates that vary much go to different groups
            y = targets.detach()
            spread = (y - y.mean(0)).square().sum(0)
            self._order = spread.argsort(descending=True, stable=True)
        self._search = CellSearch(targets.detach()[:, self._order], engine)
        self._native = bool(groups) and self._search.engine == "native" and targets.dtype == torch.float32
        self._signs = torch.empty(self.images, targets.shape[-1], dtype=targets.dtype, device=targets.device)
        self._signs[:, self._order] = _patterns(groups, targets.shape[-1]).to(targets)

    def expand(self, x: Tensor) -> Tensor:
        """The images themselves ``(m, d) -> (m * images, d)``, those of one point side by side."""
        return (x[:, None] * self._signs).flatten(0, 1)

    def products(self, x: Tensor, direction: Tensor) -> Tensor:
        """Scalar products ``(m, images)`` of the images of points ``(m, d)`` with one vector ``(d,)``."""
        return (x * direction) @ self._signs.T.to(x)

    def best(self, x: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
        """Cells ``(m, images)`` int64 and their scores ``(m, images)``, of the images of points ``(m, d)``.

        Raises:
            DataError: Shapes that do not fit the targets.
        """
        if not self._native:
            images = self.expand(x.to(self._signs))[:, self._order] if self.groups else x
            found = self._search.best(images, heights)
            return found.cells.view(len(x), self.images), found.scores.view(len(x), self.images)
        x, heights = self._search.prepared(x.index_select(1, self._order), heights)
        cells = torch.empty(len(x), self.images, dtype=torch.int32)
        scores = x.new_empty(len(x), self.images)
        self._call("mirror_cells", x, self._search.packed, heights, len(x), *self._shape, cells, scores, threads())
        return cells.long(), scores

    def descend(
        self,
        x: Tensor,
        weights: Tensor,
        lengths: Tensor,
        rates: Tensor,
        iterate: Tensor,
        average: Tensor,
    ) -> None:
        r"""Steps of averaged gradient descent on the heights, in place.

        .. math:: h \leftarrow h - l_t (c_t / m_t - \nu), \qquad
                  \bar h \leftarrow \bar h + r_t (h - \bar h)

        with the counts :math:`c_t` of the :math:`m_t` images of a step in the cells of h.

        Args:
            x: Points ``(steps * rows, d)``, step after step.
            weights: :math:`\nu` ``(n,)``.
            lengths: l ``(steps,)``.
            rates: r ``(steps,)``.
            iterate: h ``(n,)``, contiguous and of the targets' type.
            average: :math:`\bar h` ``(n,)``, the same.

        Raises:
            DataError: Shapes that do not fit.
        """
        steps, n = len(lengths), self._shape[0]
        if steps == 0 or len(x) % steps or any(t.shape != (n,) for t in (weights, iterate, average)):
            raise DataError(f"MirrorSearch: {len(x)} points for {steps} steps and heights {tuple(iterate.shape)}")
        if not self._native:
            for block, length, rate in zip(x.chunk(steps), lengths.tolist(), rates.tolist(), strict=True):
                cells, _ = self.best(block, iterate)
                excess = torch.bincount(cells.flatten(), minlength=n).to(iterate) / cells.numel() - weights
                iterate -= length * excess
                average += (iterate - average) * rate
            return
        x, _ = self._search.prepared(x.index_select(1, self._order), iterate)
        weights, lengths, rates = (t.to(x).contiguous() for t in (weights, lengths, rates))
        self._call(
            "mirror_descend",
            *(x, self._search.packed, weights, steps, len(x) // steps, *self._shape),
            *(lengths, rates, iterate, average, threads()),
        )

    def sums(self, x: Tensor, cells: Tensor) -> Tensor:
        """Sums ``(n, d)`` of the images in each cell, of points ``(m, d)`` in the ``cells`` that `best` found."""
        total = x.new_zeros(self._shape[0], x.shape[1], dtype=self._signs.dtype)
        if not self._native:
            return total.index_add_(0, cells.flatten(), self.expand(x.to(total)))
        moved, short = x.detach().to(total).contiguous(), cells.int().contiguous()
        self._call("mirror_sums", moved, self._signs, short, len(moved), x.shape[1], self.images, total)
        return total

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Targets, dimensions, groups."""
        return self._search.size, self._signs.shape[1], self.groups

    @staticmethod
    def _call(kernel: str, *arguments: Tensor | int) -> None:
        getattr(extension(), kernel)(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


def _patterns(groups: int, dim: int) -> Tensor:
    """Signs of the coordinates in each image ``(images, dim)``."""
    if groups == 0:
        return torch.ones(1, dim)
    signs = torch.ones(1, 1)
    while len(signs) < groups:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return torch.cat([signs, -signs])[:, torch.arange(dim) % groups]
