"""Kernel maps found natively, from one bit a site of the batch of lattices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from sparsegen.kernels.native import extension
from sparsegen.sparse.kernel_map import KernelMap, Window
from sparsegen.sparse.tensor import Sites

__all__ = ["mirrored", "reach", "search", "usable"]

# A bitmap may have this many sites, or this many for each active one: clearing it would cost more than searching.
LARGEST_BITMAP = 2**24
SITES_PER_ROW = 2**13


class _Bitmap:
    """Which sites are active, and how many are before each word of 64."""

    def __init__(self, volume: int) -> None:
        # A window may read one word past the last.
        self.count = volume // 64 + 2
        self.words = torch.empty(self.count, dtype=torch.int64)
        self.ranks = torch.empty(self.count, dtype=torch.int32)

    @classmethod
    def of(cls, sites: Sites) -> _Bitmap:
        if "bitmap" not in sites.cache:
            bitmap = cls(sites.volume)
            keys = sites.keys.contiguous()
            _native().sites_mark(
                keys.data_ptr(), len(keys), bitmap.words.data_ptr(), bitmap.count, bitmap.ranks.data_ptr()
            )
            sites.cache["bitmap"] = bitmap
        found: _Bitmap = sites.cache["bitmap"]
        return found


def usable(sites: Sites, shape: Sequence[int] | None = None) -> bool:
    """Whether kernel maps of these sites, or of ones on a lattice of another shape, can be found natively."""
    volume = sites.batch_size * math.prod(sites.spatial_shape if shape is None else shape)
    few = volume <= max(LARGEST_BITMAP, SITES_PER_ROW * len(sites)) and len(sites) < 2**31
    return few and sites.coords.device.type == "cpu" and extension() is not None


def _native() -> ModuleType:
    native = extension()
    assert native is not None
    return native


def _geometry(window: Window, fine: Sequence[int], coarse: Sequence[int], periodic: Sequence[bool]) -> Tensor:
    columns = (window.kernel, window.stride, window.padding, window.dilation, fine, coarse, periodic)
    return torch.tensor(list(zip(*columns, strict=True)), dtype=torch.int64)


def _search(
    source: Sites, window: Window, coords: Tensor, shape: Sequence[int], taps: int
) -> tuple[Tensor, int, list[int]]:
    """Meetings of the first ``taps`` taps: ``hits``, how many, and how many of each tap."""
    bitmap, coords = _Bitmap.of(source), coords.contiguous()
    hits = torch.empty(3 * len(coords) * taps, dtype=torch.int32)
    counts = torch.empty(taps, dtype=torch.int64)
    geometry = _geometry(window, source.spatial_shape, shape, source.periodic)
    found = _native().sites_search(
        coords.data_ptr(),
        len(coords),
        source.dim,
        geometry.data_ptr(),
        bitmap.words.data_ptr(),
        bitmap.ranks.data_ptr(),
        taps,
        hits.data_ptr(),
        counts.data_ptr(),
    )
    return hits, found, counts.tolist()


def _group(
    hits: Tensor, found: int, counts: list[int], sizes: tuple[int, int], mirrors: bool, wraps: bool
) -> KernelMap:
    starts = torch.tensor([0, *itertools.accumulate(counts)])
    rows = torch.empty(2, sum(counts), dtype=torch.int64)
    _native().sites_group(
        hits.data_ptr(),
        found,
        len(counts),
        starts.data_ptr(),
        int(mirrors),
        sizes[0],
        rows[0].data_ptr(),
        rows[1].data_ptr(),
    )
    return KernelMap(rows[0], rows[1], counts, sizes, len(counts) // 2 if mirrors else None, wraps)


def search(source: Sites, window: Window, coords: Tensor, shape: Sequence[int]) -> KernelMap:
    """The map from ``source`` to windows at ``coords (M, 1 + D)``, sorted, of a lattice of this shape."""
    hits, found, counts = _search(source, window, coords, shape, window.volume)
    return _group(hits, found, counts, (len(source), len(coords)), False, any(source.periodic))


def mirrored(sites: Sites, window: Window) -> KernelMap:
    """The map of an odd kernel on one set of sites: half of the taps are searched, the others are their mirror."""
    hits, found, half = _search(sites, window, sites.coords, sites.spatial_shape, window.volume // 2)
    counts = [*half, len(sites), *reversed(half)]
    return _group(hits, found, counts, (len(sites), len(sites)), True, any(sites.periodic))


def reach(sites: Sites, window: Window, shape: tuple[int, ...], stride: tuple[int, ...], down: bool) -> Sites:
    """The sites that windows lead to: a convolution's outputs (``down``) or a transposed one's.

    Args:
        sites: Where the windows read from.
        window: Kernel geometry.
        shape: Shape of the lattice that they lead to.
        stride: Its cells per site.
        down: Whether ``shape`` is the coarse side.
    """
    fine, coarse = (sites.spatial_shape, shape) if down else (shape, sites.spatial_shape)
    bitmap = _Bitmap(sites.batch_size * math.prod(shape))
    given, geometry = sites.coords.contiguous(), _geometry(window, fine, coarse, sites.periodic)
    count = _native().sites_reach(
        given.data_ptr(),
        len(given),
        sites.dim,
        geometry.data_ptr(),
        int(down),
        bitmap.words.data_ptr(),
        bitmap.count,
        bitmap.ranks.data_ptr(),
    )
    keys = torch.empty(count, dtype=torch.int64)
    coords = torch.empty(count, 1 + sites.dim, dtype=torch.int64)
    lattice = torch.tensor(shape)
    _native().sites_list(
        bitmap.words.data_ptr(), bitmap.count, lattice.data_ptr(), sites.dim, keys.data_ptr(), coords.data_ptr()
    )
    out = Sites(coords, shape, sites.batch_size, stride, sites.periodic)
    out.cache |= {"keys": keys, "bitmap": bitmap}
    return out
