"""Kernel maps: which input site meets which output site at each offset of a kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.sparse.tensor import Sites, unravel

__all__ = ["KernelMap", "Window", "generated", "strided", "submanifold", "transposed"]

# A lookup table over the padded volume is built where it has no more cells than this; beyond, keys are searched.
LARGEST_TABLE = 2**26


@dataclass(frozen=True)
class Window:
    """The geometry of a kernel, one number an axis each.

    Args:
        kernel: Sizes.
        stride: Steps between outputs, in input sites.
        padding: Input sites before the first one that a kernel may start at.
        dilation: Input sites between neighbouring taps.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def volume(self) -> int:
        """Number of taps K."""
        return math.prod(self.kernel)

    @property
    def disjoint(self) -> bool:
        """Whether windows tile the lattice: an input meets exactly one output."""
        return self.kernel == self.stride and not any(self.padding) and set(self.dilation) == {1}

    def offsets(self, device: torch.device) -> Tensor:
        """Input minus ``stride * output``, for each tap ``(K, D)``, the last axis running fastest."""
        taps = itertools.product(*(range(n) for n in self.kernel))
        rows = [[t * d - p for t, d, p in zip(tap, self.dilation, self.padding, strict=True)] for tap in taps]
        return torch.tensor(rows, dtype=torch.int64, device=device)

    def shape_down(self, shape: Sequence[int], periodic: Sequence[bool]) -> tuple[int, ...]:
        """Shape of a convolution's output."""
        sizes = []
        for axis, (n, k, s, p, d) in enumerate(
            zip(shape, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        ):
            if periodic[axis]:
                if n % s:
                    raise ConfigError(f"stride {s} does not divide the {n} sites of periodic axis {axis}")
                sizes.append(n // s)
            else:
                sizes.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
        if min(sizes) < 1:
            raise ConfigError(f"kernel {self.kernel} does not fit into the lattice {tuple(shape)}")
        return tuple(sizes)

    def shape_up(self, shape: Sequence[int], periodic: Sequence[bool]) -> tuple[int, ...]:
        """Shape of a transposed convolution's output."""
        sizes = tuple(
            n * s if wraps else (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, k, s, p, d, wraps in zip(
                shape, self.kernel, self.stride, self.padding, self.dilation, periodic, strict=True
            )
        )
        if min(sizes) < 1:
            raise ConfigError(f"padding {self.padding} leaves no lattice above {tuple(shape)}")
        return sizes


class KernelMap:
    """Pairs of input and output rows, grouped by tap.

    Args:
        inputs: ``(P,)`` input row of each pair, tap after tap.
        outputs: ``(P,)`` output row of each pair.
        counts: Pairs of each tap.
        sizes: Number of input and of output rows.
        identity: The tap that pairs every row with itself, where there is one.
    """

    def __init__(
        self, inputs: Tensor, outputs: Tensor, counts: list[int], sizes: tuple[int, int], identity: int | None = None
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.counts = counts
        self.sizes = sizes
        self.identity = identity
        self._swapped: KernelMap | None = None

    @classmethod
    def from_table(cls, table: Tensor, rows: int, identity: int | None = None) -> KernelMap:
        """From the input row that each output meets at each tap ``(M, K)``, -1 where there is none."""
        by_tap = table.t().contiguous()
        present = by_tap >= 0
        tap, output = present.nonzero().unbind(1)
        counts = torch.bincount(tap, minlength=len(by_tap)).tolist()
        return cls(by_tap[present].long(), output, counts, (rows, len(table)), identity)

    @property
    def swapped(self) -> KernelMap:
        """The map of the adjoint: inputs and outputs exchanged."""
        if self._swapped is None:
            self._swapped = KernelMap(self.outputs, self.inputs, self.counts, self.sizes[::-1], self.identity)
            self._swapped._swapped = self
        return self._swapped


def neighbours(source: Sites, window: Window, coords: Tensor) -> Tensor:
    """The row of ``source`` at each tap of windows at ``coords (M, 1 + D)``; ``(M, K)``, -1 where no site is active.

    Sites are looked up in a table over the lattice, padded so that no tap needs a bound check; where that table would
    be too large they are found by binary search.
    """
    device, dim = coords.device, source.dim
    before, sizes = [], []
    for axis, n in enumerate(source.spatial_shape):
        if source.periodic[axis]:
            before.append(0)
            sizes.append(n)
            continue
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        outputs = int(coords[:, 1 + axis].max()) if len(coords) else 0
        low, high = -p, outputs * s - p + (k - 1) * d
        before.append(max(0, -low))
        sizes.append(before[-1] + max(n, high + 1))
    index = _Index.of(source, tuple(before), tuple(sizes))
    key = coords[:, 0].view(-1, *(1,) * dim)
    for axis in range(dim):
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        taps = torch.arange(k, device=device) * d - p
        place = coords[:, 1 + axis, None] * s + taps
        place = torch.remainder(place, source.spatial_shape[axis]) if source.periodic[axis] else place + before[axis]
        shape = [len(coords)] + [1] * dim
        shape[1 + axis] = k
        key = key * sizes[axis] + place.view(shape)
    return index.find(key.reshape(len(coords), window.volume))


class _Index:
    """Finds rows of a set of sites by key in a padded lattice."""

    def __init__(self, source: Sites, before: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        key = source.coords[:, 0]
        for axis, size in enumerate(sizes):
            key = key * size + (source.coords[:, 1 + axis] + before[axis])
        volume = source.batch_size * math.prod(sizes)
        self.keys = key
        self.table: Tensor | None = None
        if volume <= LARGEST_TABLE and len(source) < 2**31:
            rows = torch.arange(len(source), dtype=torch.int32, device=key.device)
            self.table = torch.full((volume,), -1, dtype=torch.int32, device=key.device).index_copy_(0, key, rows)

    @classmethod
    def of(cls, source: Sites, before: tuple[int, ...], sizes: tuple[int, ...]) -> _Index:
        name = ("index", before, sizes)
        if name not in source.cache:
            source.cache[name] = cls(source, before, sizes)
        index: _Index = source.cache[name]
        return index

    def find(self, key: Tensor) -> Tensor:
        if self.table is not None:
            return self.table[key]
        if len(self.keys) == 0:
            return torch.full_like(key, -1)
        slot = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[slot] == key, slot, -1)


def submanifold(sites: Sites, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> KernelMap:
    """The map of a convolution that keeps its sites."""
    name = ("submanifold", kernel, dilation)
    if name not in sites.cache:
        padding = tuple((k // 2) * d for k, d in zip(kernel, dilation, strict=True))
        window = Window(kernel, (1,) * len(kernel), padding, dilation)
        identity = math.prod(kernel) // 2 if all(k % 2 for k in kernel) else None
        wraps_onto_itself = any(
            w and d * (k - 1) >= n
            for w, d, k, n in zip(sites.periodic, dilation, kernel, sites.spatial_shape, strict=True)
        )
        table = neighbours(sites, window, sites.coords)
        sites.cache[name] = KernelMap.from_table(table, len(sites), None if wraps_onto_itself else identity)
    found: KernelMap = sites.cache[name]
    return found


def strided(sites: Sites, window: Window, rule: str) -> tuple[Sites, KernelMap]:
    """Output sites and map of a convolution that makes its own sites.

    Args:
        sites: Input sites.
        window: Kernel geometry.
        rule: ``"reach"``: every site that a dense convolution would make non-zero; ``"floor"``: MinkowskiEngine's
            smaller set, the sites that contain an input.
    """
    name = ("strided", window, rule)
    if name not in sites.cache:
        shape = window.shape_down(sites.spatial_shape, sites.periodic)
        stride = tuple(a * b for a, b in zip(sites.stride, window.stride, strict=True))
        keys = _reached(sites, window, shape, rule)
        coords = unravel(keys, shape)
        out = Sites(coords, shape, sites.batch_size, stride, sites.periodic)
        out.cache["keys"] = keys
        sites.cache[name] = (out, KernelMap.from_table(neighbours(sites, window, coords), len(sites)))
    result: tuple[Sites, KernelMap] = sites.cache[name]
    return result


def _reached(sites: Sites, window: Window, shape: tuple[int, ...], rule: str) -> Tensor:
    """Sorted keys of the output sites of a convolution."""
    spatial = sites.coords[:, 1:]
    stride = torch.tensor(window.stride, device=spatial.device)
    limit = torch.tensor(shape, device=spatial.device)
    if rule == "floor" or window.disjoint:
        place = torch.div(spatial, stride, rounding_mode="floor")[:, None]
        possible = (place < limit).all(2)
    else:
        place = spatial[:, None] - window.offsets(spatial.device)
        for axis, wraps in enumerate(sites.periodic):
            if wraps:
                place[..., axis].remainder_(sites.spatial_shape[axis])
        possible = (place % stride == 0).all(2)
        place = torch.div(place, stride, rounding_mode="floor")
        possible &= ((place >= 0) & (place < limit)).all(2)
    key = sites.coords[:, :1].expand(-1, place.shape[1])
    for axis, size in enumerate(shape):
        key = key * size + place[..., axis]
    return key[possible].unique()


def transposed(coarse: Sites, fine: Sites, window: Window) -> KernelMap:
    """The map of a transposed convolution from ``coarse`` onto the given sites ``fine``."""
    name = ("transposed", id(coarse), window)
    if name not in fine.cache:
        table = neighbours(fine, window, coarse.coords)
        # The coarse sites are held with the map, so that their id stays their own.
        fine.cache[name] = (coarse, KernelMap.from_table(table, len(fine)).swapped)
    found: KernelMap = fine.cache[name][1]
    return found


def generated(sites: Sites, window: Window) -> tuple[Sites, KernelMap]:
    """Output sites and map of a transposed convolution that creates every site it reaches inside the lattice."""
    name = ("generated", window)
    if name in sites.cache:
        cached: tuple[Sites, KernelMap] = sites.cache[name]
        return cached
    if any(a % b for a, b in zip(sites.stride, window.stride, strict=True)):
        stride = (1,) * sites.dim
    else:
        stride = tuple(a // b for a, b in zip(sites.stride, window.stride, strict=True))
    shape = window.shape_up(sites.spatial_shape, sites.periodic)
    place = sites.coords[:, None, 1:] * torch.tensor(window.stride, device=sites.coords.device)
    place = place + window.offsets(sites.coords.device)
    for axis, wraps in enumerate(sites.periodic):
        if wraps:
            place[..., axis].remainder_(shape[axis])
    key = sites.coords[:, :1].expand(-1, window.volume)
    for axis, size in enumerate(shape):
        key = key * size + place[..., axis]
    inside = torch.ones_like(key, dtype=torch.bool)
    if not window.disjoint:
        limit = torch.tensor(shape, device=key.device)
        inside = ((place >= 0) & (place < limit)).all(2)
    key = key.t()
    inside = inside.t()
    tap, row = inside.nonzero().unbind(1)
    created, output = key[inside].unique(return_inverse=True)
    out = Sites(unravel(created, shape), shape, sites.batch_size, stride, sites.periodic)
    out.cache["keys"] = created
    counts = torch.bincount(tap, minlength=window.volume).tolist()
    result = (out, KernelMap(row, output, counts, (len(sites), len(out))))
    sites.cache[name] = result
    return result
