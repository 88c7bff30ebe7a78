"""Kernel maps of every kind of convolution, found once for a set of sites and shared by all layers that see it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsegen.sparse import bitmap, search
from sparsegen.sparse.backends import selected
from sparsegen.sparse.kernel_map import KernelMap, Placement, Window
from sparsegen.sparse.tensor import Sites, check_lattice, unravel

__all__ = ["generated", "strided", "submanifold", "transposed"]


def _native(sites: Sites, shape: Sequence[int] | None = None) -> bool:
    return selected() != "torch" and bitmap.usable(sites) and (shape is None or bitmap.usable(sites, shape))


def _between(source: Sites, window: Window, coords: Tensor, shape: Sequence[int]) -> KernelMap:
    found = (bitmap if _native(source) else search).search(source, window, coords, shape)
    return _located(found, window, source.coords, coords)


def _located(found: KernelMap, window: Window, fine: Tensor, coarse: Tensor) -> KernelMap:
    found.placement = Placement(window, fine, coarse)
    return found


def submanifold(sites: Sites, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> KernelMap:
    """The map of a convolution that keeps its sites."""
    name = ("submanifold", kernel, dilation)
    if name not in sites.cache:
        padding = tuple((k // 2) * d for k, d in zip(kernel, dilation, strict=True))
        window = Window(kernel, (1,) * len(kernel), padding, dilation)
        if all(k % 2 for k in kernel):
            found = (bitmap if _native(sites) else search).mirrored(sites, window)
            sites.cache[name] = _located(found, window, sites.coords, sites.coords)
        else:
            sites.cache[name] = _between(sites, window, sites.coords, sites.spatial_shape)
    result: KernelMap = sites.cache[name]
    return result


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
        check_lattice(sites.batch_size, shape)
        stride = tuple(a * b for a, b in zip(sites.stride, window.stride, strict=True))
        if _native(sites, shape):
            # The sites that contain an input are those that see one through a window as large as the stride.
            seen = (
                window if rule == "reach" else Window(window.stride, window.stride, (0,) * sites.dim, (1,) * sites.dim)
            )
            out = bitmap.reach(sites, seen, shape, stride, down=True)
            kernel_map = bitmap.search(sites, window, out.coords, shape)
        elif rule == "reach":
            keys, kernel_map = search.reach_down(sites, window, shape)
            out = _placed(keys, sites, shape, stride)
        else:
            out = _placed(search.contained(sites, window, shape), sites, shape, stride)
            kernel_map = search.search(sites, window, out.coords, shape)
        _located(kernel_map, window, sites.coords, out.coords)
        sites.cache[name] = (out, kernel_map)
    result: tuple[Sites, KernelMap] = sites.cache[name]
    return result


def transposed(coarse: Sites, fine: Sites, window: Window) -> KernelMap:
    """The map of a transposed convolution from ``coarse`` onto the given sites ``fine``."""
    down = fine.cache.get(("strided", window, "reach"))
    if down is not None and down[0] is coarse:
        return down[1].swapped
    name = ("transposed", id(coarse), window)
    if name not in fine.cache:
        # The coarse sites are held with the map, so that their id stays their own.
        fine.cache[name] = (coarse, _between(fine, window, coarse.coords, coarse.spatial_shape).swapped)
    found: KernelMap = fine.cache[name][1]
    return found


def generated(sites: Sites, window: Window) -> tuple[Sites, KernelMap]:
    """Output sites and map of a transposed convolution that creates every site it reaches inside the lattice."""
    name = ("generated", window)
    if name not in sites.cache:
        if any(a % b for a, b in zip(sites.stride, window.stride, strict=True)):
            stride = (1,) * sites.dim
        else:
            stride = tuple(a // b for a, b in zip(sites.stride, window.stride, strict=True))
        shape = window.shape_up(sites.spatial_shape, sites.periodic)
        check_lattice(sites.batch_size, shape)
        if _native(sites, shape):
            out = bitmap.reach(sites, window, shape, stride, down=False)
            kernel_map = bitmap.search(out, window, sites.coords, sites.spatial_shape).swapped
        else:
            keys, kernel_map = search.reach_up(sites, window, shape)
            out = _placed(keys, sites, shape, stride)
        _located(kernel_map, window, out.coords, sites.coords).upward = True
        sites.cache[name] = (out, kernel_map)
    result: tuple[Sites, KernelMap] = sites.cache[name]
    return result


def _placed(keys: Tensor, sites: Sites, shape: tuple[int, ...], stride: tuple[int, ...]) -> Sites:
    out = Sites(unravel(keys, shape), shape, sites.batch_size, stride, sites.periodic)
    out.cache["keys"] = keys
    return out
