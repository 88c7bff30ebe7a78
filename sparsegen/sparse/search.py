"""Kernel maps in plain torch, on any device: tables over the lattice, or binary search where one would be too large."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsegen.sparse.kernel_map import KernelMap, Window, starts_of
from sparsegen.sparse.tensor import Sites, check_lattice

__all__ = ["mirrored", "reach_down", "reach_up", "search"]

# A lookup table over the padded volume is built where it has no more cells than this; beyond, keys are searched.
LARGEST_TABLE = 2**26


def search(source: Sites, window: Window, coords: Tensor, shape: Sequence[int]) -> KernelMap:
    """The map from ``source`` to windows at ``coords (M, 1 + D)``, sorted, of a lattice of this shape."""
    return KernelMap.from_table(neighbours(source, window, coords, shape), len(source), any(source.periodic))


def mirrored(sites: Sites, window: Window) -> KernelMap:
    """The map of an odd kernel on one set of sites: half of the taps are searched, the others are their mirror."""
    table = neighbours(sites, window, sites.coords, sites.spatial_shape, window.volume // 2)
    return KernelMap.mirrored(table, len(sites), any(sites.periodic))


def contained(sites: Sites, window: Window, shape: tuple[int, ...]) -> Tensor:
    """Rising keys of the coarse sites that contain a site."""
    return _distinct(_containing(sites, window.stride, shape), sites.batch_size * math.prod(shape))[0]


def reach_down(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, KernelMap]:
    """Rising keys of the windows that see a site, and the map to them."""
    inputs, reached, counts = _reach(sites, window, shape)
    keys, outputs = _distinct(reached, sites.batch_size * math.prod(shape))
    return keys, KernelMap(inputs, outputs, starts_of(counts), (len(sites), len(keys)), None, any(sites.periodic))


def reach_up(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, KernelMap]:
    """Rising keys of the sites that windows at ``sites`` see, and the map to them."""
    inputs, reached, counts = _children(sites, window, shape)
    if window.disjoint:
        outputs = _order_of_children(sites, window).flatten()
        keys = torch.empty_like(reached).index_copy_(0, outputs, reached)
    else:
        keys, outputs = _distinct(reached, sites.batch_size * math.prod(shape))
    return keys, KernelMap(inputs, outputs, starts_of(counts), (len(sites), len(keys)), None, any(sites.periodic))


def neighbours(source: Sites, window: Window, coords: Tensor, shape: Sequence[int], taps: int | None = None) -> Tensor:
    """The row of ``source`` at each tap of windows at ``coords (M, 1 + D)``; ``(K, M)``, -1 where no site is active.

    Sites are looked up in a table over the lattice, padded so that no tap needs a bound check; where that table would
    be too large they are found by binary search.

    Args:
        source: Where to look.
        window: Kernel geometry.
        coords: Windows.
        shape: Shape of the windows' lattice.
        taps: How many of the K taps to look up, the first ones; all by default.
    """
    before, sizes = [], []
    for axis, (n, m) in enumerate(zip(source.spatial_shape, shape, strict=True)):
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        before.append(0 if source.periodic[axis] else p)
        sizes.append(n if source.periodic[axis] else max(p + n, (m - 1) * s + (k - 1) * d + 1))
    check_lattice(source.batch_size, tuple(sizes))
    index = _Index.of(source, tuple(before), tuple(sizes))
    base = coords[:, 0]
    spread = torch.zeros(1, 1, dtype=torch.int64, device=coords.device)
    for axis, size in enumerate(sizes):
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        base = base * size
        steps = torch.arange(k, device=coords.device)[:, None] * d
        if source.periodic[axis]:
            steps = (coords[:, 1 + axis] * s + (steps - p)).remainder_(size)
        else:
            base = base + coords[:, 1 + axis] * s
        spread = (spread[:, None] * size + steps).flatten(0, 1)
    return index.find(base + spread[:taps])


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
            return self.table.index_select(0, key.flatten()).view_as(key)
        if len(self.keys) == 0:
            return torch.full_like(key, -1)
        slot = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[slot] == key, slot, -1)


def _containing(sites: Sites, stride: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Key of the coarse site that contains each site; those beyond the coarse lattice are left out."""
    key, inside = sites.coords[:, 0], torch.ones(1, dtype=torch.bool, device=sites.coords.device)
    for axis, (step, size) in enumerate(zip(stride, shape, strict=True)):
        place = torch.div(sites.coords[:, 1 + axis], step, rounding_mode="trunc")
        key = key * size + place
        inside = inside & (place < size)
    return key.masked_select(inside)


def _reach(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Every meeting of an input with a window: input rows, keys of the windows, and meetings of each tap."""
    device = sites.coords.device
    key = sites.coords[None, :, 0]
    meets = torch.ones(1, 1, dtype=torch.bool, device=device)
    for axis, (size, wraps) in enumerate(zip(shape, sites.periodic, strict=True)):
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        # Tap t of window o lies at o * s + t * d - p.
        start = sites.coords[:, 1 + axis] + (p - torch.arange(k, device=device)[:, None] * d)
        if wraps:
            start.remainder_(sites.spatial_shape[axis])
        place = torch.div(start, s, rounding_mode="floor") if s > 1 else start
        fits = (place >= 0) & (place < size)
        if s > 1:
            fits &= place * s == start
        key = (key[:, None] * size + place).flatten(0, 1)
        meets = (meets[:, None] & fits).flatten(0, 1)
    rows = torch.arange(len(sites), device=device).expand_as(meets)
    return rows.masked_select(meets), key.masked_select(meets), meets.sum(1)


def _distinct(keys: Tensor, volume: int) -> tuple[Tensor, Tensor]:
    """The distinct keys below ``volume``, rising, and where each of ``keys`` is among them."""
    if volume > min(LARGEST_TABLE, 16 * len(keys)):
        distinct, places = keys.unique(return_inverse=True)
        return distinct, places
    marked = torch.zeros(volume, dtype=torch.bool, device=keys.device).index_fill_(0, keys, True)
    distinct = marked.nonzero()[:, 0]
    # Only marked keys are looked up: the rest of the table may hold anything.
    table = keys.new_empty(volume).index_copy_(0, distinct, torch.arange(len(distinct), device=keys.device))
    return distinct, table.index_select(0, keys)


def _children(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Every site that a transposed window reaches: input rows, keys of the sites, and meetings of each tap."""
    device = sites.coords.device
    key = sites.coords[None, :, 0]
    inside = torch.ones(1, 1, dtype=torch.bool, device=device)
    for axis, (size, wraps) in enumerate(zip(shape, sites.periodic, strict=True)):
        k, s, p, d = (v[axis] for v in (window.kernel, window.stride, window.padding, window.dilation))
        place = sites.coords[:, 1 + axis] * s + (torch.arange(k, device=device)[:, None] * d - p)
        if wraps:
            place.remainder_(size)
        key = (key[:, None] * size + place).flatten(0, 1)
        if not window.disjoint:
            inside = (inside[:, None] & (place >= 0) & (place < size)).flatten(0, 1)
    rows = torch.arange(len(sites), device=device).expand_as(key)
    if window.disjoint:
        return rows.flatten(), key.flatten(), torch.full((window.volume,), len(sites), device=device)
    return rows.masked_select(inside), key.masked_select(inside), inside.sum(1)


def _order_of_children(sites: Sites, window: Window) -> Tensor:
    r"""Row of each child ``(K, N)`` among all children of sorted sites, without sorting them.

    Let :math:`s_l` and :math:`c_l` be the first row and the number of the sites that agree with one in its event and
    first l coordinates, and :math:`P_l` the product of the kernel from axis l on. Along axis l the children of rows
    before :math:`s_l` come first, then the children :math:`\delta' < \delta` of those that agree:

    .. math:: \text{row} = P_0 s_1 + \sum_{l=1}^{D} \delta_l c_l P_l + \sum_{l=1}^{D-1} P_l (s_{l+1} - s_l)
    """
    n, device = len(sites), sites.coords.device
    row = torch.zeros(1, n, dtype=torch.int64, device=device)
    key, volume = sites.coords[:, 0], window.volume
    start = row[0]
    for axis, k in enumerate(window.kernel):
        if axis < sites.dim - 1:
            key = key * sites.spatial_shape[axis] + sites.coords[:, 1 + axis]
            _, group, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
            first = (counts.cumsum(0) - counts).index_select(0, group)
            count = counts.index_select(0, group)
        else:
            first, count = torch.arange(n, device=device), torch.ones_like(start)
        row = row + volume * (first - start)
        volume //= k
        row = (row[:, None] + torch.arange(k, device=device)[:, None] * (count * volume)).flatten(0, 1)
        start = first
    return row
