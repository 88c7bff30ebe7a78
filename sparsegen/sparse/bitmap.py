"""Kernel maps found natively, from one bit a site of the batch of lattices."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsegen.kernels.library import operator
from sparsegen.kernels.native import extension
from sparsegen.sparse.kernel_map import KernelMap, Window
from sparsegen.sparse.tensor import Sites

__all__ = ["mirrored", "ordered", "reach", "search", "usable"]

# A bitmap may have this many sites, or this many for each active one: clearing it would cost more than searching.
LARGEST_BITMAP = 2**24
SITES_PER_ROW = 2**13


_native: Any = extension()


def usable(sites: Sites, shape: Sequence[int] | None = None) -> bool:
    """Whether kernel maps of these sites, or of ones on a lattice of another shape, can be found natively."""
    if _native is None or sites.coords.device.type != "cpu":
        return False
    volume = sites.batch_size * math.prod(sites.spatial_shape if shape is None else shape)
    return volume <= LARGEST_BITMAP or (volume <= SITES_PER_ROW * len(sites) and len(sites) < 2**31)


def _words(volume: int) -> int:
    # A window may read one word past the last.
    return volume // 64 + 2


def _mark_kernel(keys: Tensor, volume: int) -> tuple[Tensor, Tensor]:
    """Which sites are active, one bit each, and how many are before each word of 64."""
    count = _words(volume)
    words, ranks = torch.empty(count, dtype=torch.int64), torch.empty(count, dtype=torch.int32)
    _native.sites_mark(keys.data_ptr(), len(keys), words.data_ptr(), count, ranks.data_ptr())
    return words, ranks


def _search_kernel(
    coords: Tensor, words: Tensor, ranks: Tensor, geometry: list[int], mirrored: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Site row, window row of each meeting, tap after tap, and where each tap starts."""
    taps, dim, rows = math.prod(geometry[::7]), len(geometry) // 7, len(coords)
    hits = torch.empty(3 * rows * (taps // 2 if mirrored else taps), dtype=torch.int32)
    starts, axes = torch.empty(taps + 1, dtype=torch.int64), array("q", geometry)
    found = _native.sites_search(
        coords.data_ptr(),
        rows,
        dim,
        axes.buffer_info()[0],
        words.data_ptr(),
        ranks.data_ptr(),
        taps,
        int(mirrored),
        hits.data_ptr(),
        starts.data_ptr(),
    )
    pairs = 2 * found + rows if mirrored else found
    inputs, outputs = torch.empty(pairs, dtype=torch.int64), torch.empty(pairs, dtype=torch.int64)
    _native.sites_group(
        hits.data_ptr(),
        found,
        taps,
        starts.data_ptr(),
        int(mirrored),
        rows,
        inputs.data_ptr(),
        outputs.data_ptr(),
    )
    return inputs, outputs, starts


def _reach_kernel(
    coords: Tensor, geometry: list[int], down: bool, batch_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, coordinates and bitmap of the sites that windows lead to."""
    dim, shape = len(geometry) // 7, geometry[5::7] if down else geometry[4::7]
    size = _words(batch_size * math.prod(shape))
    words, ranks = torch.empty(size, dtype=torch.int64), torch.empty(size, dtype=torch.int32)
    axes, lattice = array("q", geometry), array("q", shape)
    count = _native.sites_reach(
        coords.data_ptr(),
        len(coords),
        dim,
        axes.buffer_info()[0],
        int(down),
        words.data_ptr(),
        size,
        ranks.data_ptr(),
    )
    keys, reached = torch.empty(count, dtype=torch.int64), torch.empty(count, 1 + dim, dtype=torch.int64)
    _native.sites_list(words.data_ptr(), size, lattice.buffer_info()[0], dim, keys.data_ptr(), reached.data_ptr())
    return keys, reached, words, ranks


def _order_kernel(inputs: Tensor, outputs: Tensor, starts: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The same pairs with output rows rising within each tap."""
    ordered = torch.empty_like(inputs), torch.empty_like(outputs)
    pointers = (t.data_ptr() for t in (inputs, outputs, starts))
    _native.sites_order(*pointers, len(starts) - 1, rows, *(t.data_ptr() for t in ordered))
    return ordered


def _bitmap_fake(like: Tensor, volume: int) -> tuple[Tensor, Tensor]:
    size = _words(volume)
    return like.new_empty(size), like.new_empty(size, dtype=torch.int32)


def _search_fake(coords: Tensor, words: Tensor, ranks: Tensor, geometry: list[int], mirrored: bool) -> Any:
    pairs = torch.library.get_ctx().new_dynamic_size()
    inputs, outputs = coords.new_empty(pairs), coords.new_empty(pairs)
    return inputs, outputs, coords.new_empty(math.prod(geometry[::7]) + 1)


def _reach_fake(coords: Tensor, geometry: list[int], down: bool, batch_size: int) -> Any:
    count = torch.library.get_ctx().new_dynamic_size()
    shape = geometry[5::7] if down else geometry[4::7]
    bitmap = _bitmap_fake(coords, batch_size * math.prod(shape))
    return coords.new_empty(count), coords.new_empty(count, coords.shape[1]), *bitmap


_MARK = operator("mark_sites(Tensor keys, SymInt volume) -> (Tensor, Tensor)", _mark_kernel, _bitmap_fake)
_SEARCH = operator(
    "search_sites(Tensor coords, Tensor words, Tensor ranks, SymInt[] geometry, bool mirrored)"
    " -> (Tensor, Tensor, Tensor)",
    _search_kernel,
    _search_fake,
)
_REACH = operator(
    "reach_sites(Tensor coords, SymInt[] geometry, bool down, SymInt batch_size) -> (Tensor, Tensor, Tensor, Tensor)",
    _reach_kernel,
    _reach_fake,
)

_ORDER = operator(
    "order_pairs(Tensor inputs, Tensor outputs, Tensor starts, SymInt rows) -> (Tensor, Tensor)",
    _order_kernel,
    lambda inputs, outputs, *_: (torch.empty_like(inputs), torch.empty_like(outputs)),
)


def ordered(kernel_map: KernelMap) -> KernelMap:
    """The same pairs with output rows rising within each tap, as they do unless an axis wraps."""
    if not kernel_map.wraps:
        return kernel_map
    if kernel_map.ordered is None:
        m = kernel_map
        inputs, outputs = _ORDER(m.inputs, m.outputs, m.starts, m.sizes[1])
        kernel_map.ordered = KernelMap(inputs, outputs, m.starts, m.sizes, m.identity)
    return kernel_map.ordered


def _bitmap(sites: Sites) -> tuple[Tensor, Tensor]:
    if "bitmap" not in sites.cache:
        sites.cache["bitmap"] = _MARK(sites.keys.contiguous(), sites.volume)
    found: tuple[Tensor, Tensor] = sites.cache["bitmap"]
    return found


def _geometry(window: Window, fine: Sequence[int], coarse: Sequence[int], periodic: Sequence[bool]) -> list[int]:
    columns = (window.kernel, window.stride, window.padding, window.dilation, fine, coarse, periodic)
    return [int(value) for axis in zip(*columns, strict=True) for value in axis]


def search(source: Sites, window: Window, coords: Tensor, shape: Sequence[int]) -> KernelMap:
    """The map from ``source`` to windows at ``coords (M, 1 + D)``, sorted, of a lattice of this shape."""
    geometry = _geometry(window, source.spatial_shape, shape, source.periodic)
    inputs, outputs, starts = _SEARCH(coords.contiguous(), *_bitmap(source), geometry, False)
    return KernelMap(inputs, outputs, starts, (len(source), len(coords)), None, any(source.periodic))


def mirrored(sites: Sites, window: Window) -> KernelMap:
    """The map of an odd kernel on one set of sites: half of the taps are searched, the others are their mirror."""
    geometry = _geometry(window, sites.spatial_shape, sites.spatial_shape, sites.periodic)
    inputs, outputs, starts = _SEARCH(sites.coords.contiguous(), *_bitmap(sites), geometry, True)
    return KernelMap(inputs, outputs, starts, (len(sites), len(sites)), window.volume // 2, any(sites.periodic))


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
    geometry = _geometry(window, fine, coarse, sites.periodic)
    keys, coords, *bitmap = _REACH(sites.coords.contiguous(), geometry, down, sites.batch_size)
    out = Sites(coords, shape, sites.batch_size, stride, sites.periodic)
    out.cache |= {"keys": keys, "bitmap": tuple(bitmap)}
    return out
