"""Sparse tensors: features on a set of active sites of a batch of lattices."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.grid import periodic_flags
from sparsegen.kernels.native import extension

__all__ = ["Sites", "SparseTensor"]


class Sites:
    """An ordered set of active sites, with whatever was derived from it: tensors of one lineage share one instance.

    Args:
        coords: ``(N, 1 + D)`` int64, batch first, sorted row by row and unique.
        spatial_shape: Sites along each of the D axes.
        batch_size: Number of events.
        stride: Cells of the original lattice per site, one an axis.
        periodic: Which axes wrap.
    """

    def __init__(
        self,
        coords: Tensor,
        spatial_shape: tuple[int, ...],
        batch_size: int,
        stride: tuple[int, ...],
        periodic: tuple[bool, ...],
    ) -> None:
        self.coords = coords
        self.spatial_shape = spatial_shape
        self.batch_size = batch_size
        self.stride = stride
        self.periodic = periodic
        self.cache: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def dim(self) -> int:
        """Lattice dimensions D."""
        return len(self.spatial_shape)

    @property
    def batch(self) -> Tensor:
        """The event of each site ``(N,)``."""
        return self.coords[:, 0]

    @property
    def volume(self) -> int:
        """Sites of all lattices of the batch, active or not."""
        return self.batch_size * math.prod(self.spatial_shape)

    @property
    def keys(self) -> Tensor:
        """Row-major index of each site in the batch of lattices ``(N,)``, rising."""
        if "keys" not in self.cache:
            self.cache["keys"] = ravel(self.coords, self.spatial_shape)
        keys: Tensor = self.cache["keys"]
        return keys

    def same(self, other: Sites) -> bool:
        """Whether two sets hold the same sites."""
        if self is other:
            return True
        return (
            (self.spatial_shape, self.batch_size) == (other.spatial_shape, other.batch_size)
            and len(self) == len(other)
            and bool(torch.equal(self.coords, other.coords))
        )

    def subset(self, rows: Tensor) -> Sites:
        """The sites of some rows, rising ``(M,)``."""
        coords = self.coords.index_select(0, rows)
        out = Sites(coords, self.spatial_shape, self.batch_size, self.stride, self.periodic)
        out.cache["keys"] = self.keys.index_select(0, rows)
        return out


def check_lattice(batch_size: int, shape: tuple[int, ...]) -> None:
    """That a batch of lattices can be numbered.

    Raises:
        DataError: It has no axis, an axis without sites, or more sites than an index holds.
    """
    if batch_size < 0 or not shape or any(n < 1 for n in shape):
        raise DataError(f"SparseTensor: a batch of {batch_size} lattices {shape}; expected axes of at least one site")
    if batch_size * math.prod(shape) >= 2**62:
        raise DataError(f"SparseTensor: a batch of {batch_size} lattices {shape} has more sites than 62 bits count")


def ravel(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Row-major index of ``(N, 1 + D)`` batch-first coordinates."""
    key = coords[:, 0]
    for axis, size in enumerate(shape):
        key = key * size + coords[:, 1 + axis]
    return key


def unravel(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`ravel`."""
    columns = []
    for size in reversed(shape):
        rest = torch.div(key, size, rounding_mode="floor")
        columns.append(key - rest * size)
        key = rest
    return torch.stack([key, *columns[::-1]], 1)


def _checked_keys(coords: Tensor, limits: tuple[int, ...]) -> tuple[Tensor, bool]:
    """Row-major index of each site, and whether they rise.

    Raises:
        DataError: A site lies outside the limits.
    """
    native = extension() if coords.device.type == "cpu" else None
    if native is not None:
        key, limit = coords.new_empty(len(coords)), array("q", limits)
        place = limit.buffer_info()[0]
        row = native.sites_keys(coords.data_ptr(), len(coords), len(limits) - 1, place, key.data_ptr())
        rises = row == -1
    else:
        outside = ((coords < 0) | (coords >= coords.new_tensor(limits))).any(1)
        row = int(outside.nonzero()[0, 0]) if bool(outside.any()) else -1
        key = ravel(coords, limits[1:])
        rises = not bool((key.diff() <= 0).any())
    if row >= 0:
        site = tuple(coords[row].tolist())
        raise DataError(f"SparseTensor: site {site} in row {row} lies outside {limits}")
    return key, rises


class SparseTensor:
    r"""Features on the active sites of a batch of D-dimensional lattices.

    Rows are kept sorted by event and row-major site. Sites that are not stored are zero wherever a dense tensor is
    meant. Kernel maps are built once for a set of sites and shared by every tensor that has it.

    Args:
        features: ``(N, C)``.
        coords: ``(N, 1 + D)`` int64, batch first; any order, no duplicates.
        spatial_shape: Sites along each axis.
        batch_size: Number of events B.
        stride: Cells of the original lattice per site: one number, or one an axis.
        periodic: Axes that wrap, as indices or one boolean an axis.

    Raises:
        DataError: Shapes, types or devices disagree, or a site is duplicated or outside the lattice.

    Example:
        >>> x = SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1, 1], [0, 2, 0]]), (4, 4), batch_size=1)
        >>> x.to_dense().shape
        torch.Size([1, 3, 4, 4])
    """

    features: Tensor
    sites: Sites

    def __init__(
        self,
        features: Tensor,
        coords: Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        stride: int | Sequence[int] = 1,
        periodic: Sequence[bool | int] = (),
    ) -> None:
        shape = tuple(int(n) for n in spatial_shape)
        dim = len(shape)
        strides = (stride,) * dim if isinstance(stride, int) else tuple(int(s) for s in stride)
        flags = periodic_flags(periodic, tuple(f"x{i}" for i in range(dim)), dim)
        if len(strides) != dim or any(s < 1 for s in strides):
            raise DataError(f"SparseTensor: stride {stride}; expected {dim} numbers of at least 1")
        if coords.ndim != 2 or coords.shape[1] != 1 + dim or coords.dtype != torch.int64:
            raise DataError(
                f"SparseTensor: coords of shape {tuple(coords.shape)} and type {coords.dtype}; "
                f"expected (N, {1 + dim}) int64, batch first, for the shape {shape}"
            )
        if features.ndim != 2 or len(features) != len(coords) or not features.is_floating_point():
            raise DataError(
                f"SparseTensor: features of shape {tuple(features.shape)} and type {features.dtype} "
                f"for {len(coords)} sites; expected (N, C) of a floating type"
            )
        if features.device != coords.device:
            raise DataError(f"SparseTensor: features on {features.device}, coords on {coords.device}; move one of them")
        check_lattice(batch_size, shape)
        coords = coords.contiguous()
        key, rises = _checked_keys(coords, (batch_size, *shape))
        if not rises:
            key, order = key.sort()
            repeated = (key.diff() == 0).nonzero()
            if len(repeated):
                site = tuple(coords[order[int(repeated[0, 0])]].tolist())
                raise DataError(f"SparseTensor: site {site} appears twice; merge duplicates first (Events.coalesce)")
            coords, features = coords[order], features[order]
        self.features = features
        self.sites = Sites(coords, shape, batch_size, strides, flags)
        self.sites.cache["keys"] = key

    @classmethod
    def on(cls, sites: Sites, features: Tensor) -> SparseTensor:
        """Features ``(N, C)`` on sites that are known to fit."""
        x = object.__new__(cls)
        x.features = features
        x.sites = sites
        return x

    @classmethod
    def from_events(cls, events: Events, spatial_shape: Sequence[int] | None = None) -> SparseTensor:
        """The cells of events; duplicates are merged.

        Args:
            events: Cells of a grid.
            spatial_shape: A larger lattice to put them on; the grid's shape by default.
        """
        if events.grid is None or not events.is_cells:
            raise DataError("SparseTensor.from_events: positions have no sites; voxelize the events first")
        events = events.coalesce()
        assert events.grid is not None
        shape = tuple(spatial_shape) if spatial_shape is not None else events.grid.shape
        if len(shape) != len(events.grid.shape) or any(n < m for n, m in zip(shape, events.grid.shape, strict=True)):
            raise DataError(f"SparseTensor.from_events: the lattice {shape} does not hold the grid {events.grid.shape}")
        if any(w and n != m for n, m, w in zip(shape, events.grid.shape, events.grid.periodic, strict=True)):
            raise DataError(
                f"SparseTensor.from_events: {shape} changes a periodic axis of the grid {events.grid.shape}"
            )
        coords = torch.cat([events.batch[:, None], events.coords], 1)
        sites = Sites(coords, shape, len(events), (1,) * len(shape), events.grid.periodic)
        return cls.on(sites, events.features)

    def replace(self, features: Tensor) -> SparseTensor:
        """Other features ``(N, C')`` on the same sites."""
        if features.ndim != 2 or len(features) != len(self.sites) or not features.is_floating_point():
            raise DataError(
                f"SparseTensor.replace: features of shape {tuple(features.shape)} and type {features.dtype} "
                f"for {len(self.sites)} sites; expected (N, C) of a floating type"
            )
        if features.device != self.coords.device:
            raise DataError(f"SparseTensor.replace: features on {features.device}, sites on {self.coords.device}")
        return SparseTensor.on(self.sites, features)

    def to_dense(self) -> Tensor:
        """``(B, C, *spatial_shape)``, zero where no site is active."""
        c = self.features.shape[1]
        flat = self.features.new_zeros(self.sites.volume, c).index_copy_(0, self.sites.keys, self.features)
        return flat.view(self.batch_size, *self.spatial_shape, c).movedim(-1, 1)

    @property
    def coords(self) -> Tensor:
        """Sites ``(N, 1 + D)``, batch first."""
        return self.sites.coords

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Sites along each axis."""
        return self.sites.spatial_shape

    @property
    def batch_size(self) -> int:
        """Number of events B."""
        return self.sites.batch_size

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes wrap."""
        return self.sites.periodic

    @property
    def stride(self) -> int | tuple[int, ...]:
        """Cells of the original lattice per site: one number where all axes agree."""
        strides = self.sites.stride
        return strides[0] if len(set(strides)) == 1 else strides

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        return (
            f"SparseTensor({len(self)} sites, {self.features.shape[1]} channels, "
            f"batch {self.batch_size} of {self.spatial_shape}, stride {self.stride})"
        )
