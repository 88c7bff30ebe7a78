"""Pooling over active sites, with switches to undo it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.sparse.conv import Sizes, per_axis
from sparsegen.sparse.kernel_map import KernelMap, Window
from sparsegen.sparse.maps import strided
from sparsegen.sparse.tensor import Sites, SparseTensor

__all__ = ["GlobalPool", "MaxPool", "MeanPool", "SumPool", "Switches", "Unpool"]


@dataclass(frozen=True)
class Switches:
    """Where each maximum came from.

    Args:
        sites: The sites before pooling.
        rows: Their row for each pooled value ``(M, C)``.
    """

    sites: Sites
    rows: Tensor


class _Pool(nn.Module):
    """Pooling windows; padding counts as not there.

    Args:
        dim: Lattice dimensions, 1 to 4.
        kernel_size: Window, one number or one an axis.
        stride: Steps between windows; the window itself by default.
        padding: Sites before the first one that a window may start at.
    """

    def __init__(self, dim: int, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        kernel = per_axis(kernel_size, dim, "kernel_size")
        step = kernel if stride is None else per_axis(stride, dim, "stride")
        self.window = Window(kernel, step, per_axis(padding, dim, "padding", 0), (1,) * dim)

    def _map(self, x: SparseTensor) -> tuple[Sites, KernelMap]:
        if x.sites.dim != len(self.window.kernel):
            raise DataError(f"{type(self).__name__} of {len(self.window.kernel)} dimensions for {x}")
        return strided(x.sites, self.window, "reach")


class MaxPool(_Pool):
    """The largest value of the active sites in each window; arguments as for the other pools, and:

    Args:
        return_switches: Whether to return the places of the maxima too, for :class:`Unpool`.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        return_switches: bool = False,
    ) -> None:
        super().__init__(dim, kernel_size, stride, padding)
        self.return_switches = return_switches

    def forward(self, x: SparseTensor) -> SparseTensor | tuple[SparseTensor, Switches]:
        """The pooled tensor, with its switches where they were asked for."""
        sites, kernel_map = self._map(x)
        c = x.features.shape[1]
        taken = x.features[kernel_map.inputs]
        index = kernel_map.outputs[:, None].expand(-1, c)
        start = x.features.new_zeros(len(sites), c)
        # The first of equal maxima wins, so that each output has one switch and its gradient one way.
        largest = start.scatter_reduce(0, index, taken.detach(), "amax", include_self=False)
        rows = kernel_map.inputs[:, None].expand(-1, c)
        # A NaN is the largest of its window.
        winner = (taken.detach() == largest[kernel_map.outputs]) | taken.detach().isnan()
        none = index.new_full((len(sites), c), len(x))
        switch = none.scatter_reduce(0, index, torch.where(winner, rows, len(x)), "amin")
        pooled = SparseTensor.on(sites, x.features.gather(0, switch))
        return (pooled, Switches(x.sites, switch)) if self.return_switches else pooled


class SumPool(_Pool):
    """The sum of the active sites in each window."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The pooled tensor."""
        sites, kernel_map = self._map(x)
        summed = x.features.new_zeros(len(sites), x.features.shape[1])
        return SparseTensor.on(sites, summed.index_add(0, kernel_map.outputs, x.features[kernel_map.inputs]))


class MeanPool(_Pool):
    """The mean of the active sites in each window."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The pooled tensor."""
        sites, kernel_map = self._map(x)
        summed = x.features.new_zeros(len(sites), x.features.shape[1])
        summed = summed.index_add(0, kernel_map.outputs, x.features[kernel_map.inputs])
        seen = torch.bincount(kernel_map.outputs, minlength=len(sites)).to(summed.dtype)
        return SparseTensor.on(sites, summed / seen[:, None])


class Unpool(nn.Module):
    """Puts each pooled value back where its maximum was; the other sites of the original set become zero.

    References:
        Visualizing and Understanding Convolutional Networks (Zeiler and Fergus, 2014), https://arxiv.org/abs/1311.2901
    """

    def forward(self, x: SparseTensor, switches: Switches) -> SparseTensor:
        """``x`` on the sites before pooling.

        Raises:
            DataError: ``x`` is not on the pooled sites.
        """
        if x.features.shape != switches.rows.shape:
            raise DataError(f"Unpool: {x} for switches of shape {tuple(switches.rows.shape)}")
        zero = x.features.new_zeros(len(switches.sites), x.features.shape[1])
        return SparseTensor.on(switches.sites, zero.scatter_add(0, switches.rows, x.features))


class GlobalPool(nn.Module):
    """Each event's active sites to one vector ``(B, C)``; an event without sites gives zeros.

    Args:
        reduce: ``"max"``, ``"mean"`` or ``"sum"``.
    """

    def __init__(self, reduce: str = "max") -> None:
        super().__init__()
        if reduce not in ("max", "mean", "sum"):
            raise DataError(f"GlobalPool: reduce={reduce!r}; expected max, mean or sum")
        self.reduce = reduce

    def forward(self, x: SparseTensor) -> Tensor:
        """One vector an event ``(B, C)``."""
        index = x.sites.batch
        zero = x.features.new_zeros(x.batch_size, x.features.shape[1])
        if self.reduce == "max":
            return zero.scatter_reduce(0, index[:, None].expand_as(x.features), x.features, "amax", include_self=False)
        summed = zero.index_add(0, index, x.features)
        if self.reduce == "sum":
            return summed
        counts = torch.bincount(index, minlength=x.batch_size).clamp(min=1)
        return summed / counts[:, None].to(summed.dtype)
