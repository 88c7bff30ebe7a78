"""The geometry of a lattice: edges, units, periodic axes, valid cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsegen.errors import ConfigError

__all__ = ["Grid", "periodic_flags"]


def periodic_flags(periodic: Sequence[bool | int | str], names: Sequence[str], dim: int) -> tuple[bool, ...]:
    """One flag an axis from axis names, axis indices or ``dim`` booleans.

    Example:
        >>> periodic_flags(["phi"], ("eta", "phi"), 2)
        (False, True)
    """
    items = list(periodic)
    if len(items) == dim and all(isinstance(p, (bool, np.bool_)) for p in items):
        return tuple(bool(p) for p in items)
    flags = [False] * dim
    for item in items:
        if isinstance(item, str):
            if item not in names:
                raise ConfigError(f"periodic axis {item!r} is none of the axes {', '.join(names)}")
            flags[list(names).index(item)] = True
        elif isinstance(item, (bool, np.bool_)) or not -dim <= int(item) < dim:
            raise ConfigError(
                f"periodic={list(periodic)}: expected axis names, axis indices below {dim}, or {dim} booleans"
            )
        else:
            flags[int(item)] = True
    return tuple(flags)


class Grid:
    """An index lattice with edges and units: the cells that hits fall into.

    Args:
        edges: One rising 1-d array of ``n + 1`` edges an axis. An axis after the first may instead have
            ``(shape[0], n + 1)`` edges, one row a layer of the first axis, padded with NaN where a layer has fewer
            bins.
        valid: Which cells exist, a boolean array of the grid's shape; all of them by default. Cells that the NaN
            padding leaves without edges never exist.
        periodic: Axes that wrap, as names, indices or one boolean an axis. With edges a layer, each layer has all of
            the axis' bins or a single one, over the same period.
        names: Axis names; ``x0, x1, ...`` by default.
        units: Axis units; empty by default.

    Attributes:
        shape: Cells along each axis.
        dim: Number of axes D.

    Example:
        >>> grid = Grid.regular((4, 8), (-2.0, 0.0), (2.0, 6.28), ("eta", "phi"), ("", "rad"), periodic=("phi",))
        >>> grid
        Grid(eta: 4 in [-2, 2], phi: 8 in [0, 6.28] rad periodic)
        >>> cells, inside = grid.cell_of(torch.tensor([[-1.5, 6.5]]))
        >>> cells.tolist(), inside.tolist()
        ([[0, 0]], [True])
    """

    def __init__(
        self,
        edges: Sequence[Any],
        valid: Any | None = None,
        periodic: Sequence[bool | int | str] = (),
        *,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
    ) -> None:
        arrays = [torch.as_tensor(np.asarray(e, dtype=np.float64)).clone() for e in edges]
        if not arrays or arrays[0].ndim != 1:
            raise ConfigError("Grid: edges must be a list with one array an axis, the first of one dimension")
        self.dim = len(arrays)
        self.names: tuple[str, ...] = tuple(names) if names else tuple(f"x{i}" for i in range(self.dim))
        self.units: tuple[str, ...] = tuple(units) if units else ("",) * self.dim
        if len(self.names) != self.dim or len(self.units) != self.dim:
            raise ConfigError(f"Grid: {self.dim} axes but names {self.names} and units {self.units}")
        self.shape: tuple[int, ...] = tuple(int(e.shape[-1]) - 1 for e in arrays)
        self.edges: tuple[Tensor, ...] = tuple(arrays)
        self.periodic: tuple[bool, ...] = periodic_flags(periodic, self.names, self.dim)
        exists = torch.ones(self.shape, dtype=torch.bool)
        for axis, array in enumerate(arrays):
            exists &= self._check_edges(axis, array)
        if valid is not None:
            mask = torch.as_tensor(np.asarray(valid, dtype=bool))
            if tuple(mask.shape) != self.shape:
                raise ConfigError(f"Grid: valid has shape {tuple(mask.shape)}, the grid {self.shape}")
            exists &= mask
        self.valid: Tensor | None = None if bool(exists.all()) else exists

    def _check_edges(self, axis: int, array: Tensor) -> Tensor:
        """Raises on edges that do not rise; returns which cells this axis gives edges, broadcast to the shape."""
        name = self.names[axis]
        expected = (self.shape[0], self.shape[axis] + 1)
        if self.shape[axis] < 1 or array.ndim > 2 or (array.ndim == 2 and tuple(array.shape) != expected):
            raise ConfigError(
                f"Grid: axis {name} has edges of shape {tuple(array.shape)}; expected (n + 1,) or {expected}"
            )
        steps = array.diff(dim=-1)
        present = ~steps.isnan()
        if bool((steps[present] <= 0).any()) or (array.ndim == 1 and not bool(array.isfinite().all())):
            raise ConfigError(f"Grid: the edges of axis {name} must be finite and rise strictly")
        if array.ndim == 2 and self.periodic[axis]:
            self._check_circles(name, array, present.sum(1))
        shape = [1] * self.dim
        shape[axis] = self.shape[axis]
        if array.ndim == 2:
            shape[0] = self.shape[0]
        return present.reshape(shape).expand(self.shape)

    def _check_circles(self, name: str, edges: Tensor, bins: Tensor) -> None:
        """Raises unless every layer of a periodic axis closes on itself: one bin all around, or as many as the axis."""
        odd = ((bins != 1) & (bins != edges.shape[1] - 1)).nonzero()[:, 0]
        if len(odd):
            layer = int(odd[0])
            raise ConfigError(
                f"Grid: layer {layer} has {int(bins[layer])} bins in the periodic axis {name} of {edges.shape[1] - 1}; "
                "a layer wraps where it has all of them, or one"
            )
        spans = torch.stack([edges[:, 0], edges.gather(1, bins[:, None])[:, 0]], 1)
        if bool((spans != spans[0]).any()):
            raise ConfigError(
                f"Grid: the layers of the periodic axis {name} span {spans.tolist()}; expected one period"
            )

    @classmethod
    def regular(
        cls,
        shape: Sequence[int],
        low: Sequence[float],
        high: Sequence[float],
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        periodic: Sequence[bool | int | str] = (),
    ) -> Grid:
        """Equal bins between ``low`` and ``high`` along each axis.

        Raises:
            ConfigError: The lengths differ, a bin count is below one, or ``high`` is not above ``low``.
        """
        if not len(shape) == len(low) == len(high):
            raise ConfigError(
                f"Grid.regular: shape {tuple(shape)}, low {tuple(low)} and high {tuple(high)} differ in length"
            )
        for n, a, b in zip(shape, low, high, strict=True):
            if n < 1 or not (math.isfinite(a) and math.isfinite(b) and b > a):
                raise ConfigError(f"Grid.regular: {n} bins in [{a}, {b}]; expected at least one bin and high above low")
        edges = [np.linspace(a, b, n + 1) for n, a, b in zip(shape, low, high, strict=True)]
        return cls(edges, periodic=periodic, names=names, units=units)

    @property
    def low(self) -> tuple[float, ...]:
        """The lowest edge of each axis."""
        return tuple(float(e.nan_to_num(math.inf).min()) for e in self.edges)

    @property
    def high(self) -> tuple[float, ...]:
        """The highest edge of each axis."""
        return tuple(float(e.nan_to_num(-math.inf).max()) for e in self.edges)

    @property
    def cells(self) -> int:
        """How many cells the lattice spans, invalid ones included."""
        return math.prod(self.shape)

    @property
    def period(self) -> tuple[float, ...]:
        """The period of each axis in its unit; infinity where it does not wrap."""
        lengths = zip(self.low, self.high, self.periodic, strict=True)
        return tuple(high - low if wraps else math.inf for low, high, wraps in lengths)

    def cell_of(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """The cell that each position falls into.

        Bins are closed below and open above, the last one closed; positions on a periodic axis are wrapped first.

        Args:
            coords: Positions ``(N, D)``, in the grid's units.

        Returns:
            Cells ``(N, D)`` int64, clipped to the lattice, and whether each position lies inside a valid cell ``(N,)``.
        """
        x = coords.double()
        inside = torch.ones(len(x), dtype=torch.bool, device=x.device)
        cells = torch.empty(x.shape, dtype=torch.int64, device=x.device)
        for axis, edges in enumerate(self.edges):
            edges = edges.to(x.device)
            column = x[:, axis].contiguous()
            if self.periodic[axis]:
                low, high = self.low[axis], self.high[axis]
                column = low + torch.remainder(column - low, high - low)
                # A tiny negative offset wraps onto the upper edge itself, which is the lower one.
                column = torch.where(column >= high, torch.full_like(column, low), column)
            if edges.ndim == 1:
                index = torch.bucketize(column, edges, right=True) - 1
                index = torch.where(column == edges[-1], self.shape[axis] - 1, index)
            else:
                rows = edges.nan_to_num(math.inf)[cells[:, 0]]
                index = torch.searchsorted(rows, column[:, None], right=True)[:, 0] - 1
                last = edges.isfinite().sum(-1)[cells[:, 0]] - 2
                upper = rows.gather(1, (last + 1)[:, None])[:, 0]
                index = torch.where(column == upper, last, torch.where(column > upper, self.shape[axis], index))
            inside &= (index >= 0) & (index < self.shape[axis]) & ~column.isnan()
            cells[:, axis] = index.clamp(0, self.shape[axis] - 1)
        return cells, inside & self.is_valid(cells)

    def is_valid(self, cells: Tensor) -> Tensor:
        """Whether each of the cells ``(N, D)`` exists ``(N,)``; indices must lie in the lattice."""
        if self.valid is None:
            return torch.ones(len(cells), dtype=torch.bool, device=cells.device)
        return self.valid.to(cells.device)[tuple(cells.unbind(1))]

    def bounds(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper edges of cells ``(N, D)`` as float64 ``(N, D)`` each."""
        low, high = [], []
        for axis, edges in enumerate(self.edges):
            edges = edges.to(cells.device)
            index = cells[:, axis]
            row = edges if edges.ndim == 1 else edges[cells[:, 0]]
            if edges.ndim == 1:
                low.append(row[index])
                high.append(row[index + 1])
            else:
                low.append(row.gather(1, index[:, None])[:, 0])
                high.append(row.gather(1, index[:, None] + 1)[:, 0])
        return torch.stack(low, 1), torch.stack(high, 1)

    def centres(self, cells: Tensor) -> Tensor:
        """Centres of cells ``(N, D)`` int64 as float64 positions ``(N, D)``, in the grid's units."""
        low, high = self.bounds(cells)
        return (low + high) / 2

    def ravel(self, cells: Tensor) -> Tensor:
        """Row-major index of cells ``(N, D)`` as ``(N,)`` int64."""
        index = cells[:, 0]
        for axis in range(1, self.dim):
            index = index * self.shape[axis] + cells[:, axis]
        return index

    def unravel(self, index: Tensor) -> Tensor:
        """Inverse of :meth:`ravel`."""
        columns = []
        for size in reversed(self.shape):
            columns.append(index % size)
            index = torch.div(index, size, rounding_mode="floor")
        return torch.stack(columns[::-1], 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; :meth:`from_dict` is its inverse."""
        edges = [np.where(np.isnan(e.numpy()), np.array(None), e.numpy()).tolist() for e in self.edges]
        valid = None if self.valid is None else self.valid.int().tolist()
        return {
            "edges": edges,
            "valid": valid,
            "periodic": list(self.periodic),
            "names": list(self.names),
            "units": list(self.units),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Grid:
        """A grid from :meth:`to_dict`'s plain types."""
        edges = [np.array(e, dtype=np.float64) for e in data["edges"]]
        return cls(edges, data["valid"], data["periodic"], names=data["names"], units=data["units"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        if (self.shape, self.periodic, self.names, self.units) != (
            other.shape,
            other.periodic,
            other.names,
            other.units,
        ):
            return False
        same_edges = all(
            a.shape == b.shape and bool(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
            for a, b in zip(self.edges, other.edges, strict=True)
        )
        if self.valid is None or other.valid is None:
            return same_edges and self.valid is other.valid
        return same_edges and bool(torch.equal(self.valid, other.valid))

    def __hash__(self) -> int:
        return hash((self.shape, self.periodic, self.names, self.units, self.low, self.high))

    def __repr__(self) -> str:
        parts = []
        for i, name in enumerate(self.names):
            unit = f" {self.units[i]}" if self.units[i] else ""
            wraps = " periodic" if self.periodic[i] else ""
            parts.append(f"{name}: {self.shape[i]} in [{self.low[i]:g}, {self.high[i]:g}]{unit}{wraps}")
        invalid = "" if self.valid is None else f", {int((~self.valid).sum())} cells invalid"
        return f"Grid({', '.join(parts)}{invalid})"
