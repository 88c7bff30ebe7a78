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
        wraps: Whether an axis is periodic, so that rows may not rise within a tap.
    """

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        counts: list[int],
        sizes: tuple[int, int],
        identity: int | None = None,
        wraps: bool = False,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.counts = counts
        self.sizes = sizes
        self.identity = identity
        self.wraps = wraps
        self._swapped: KernelMap | None = None
        self._ordered: KernelMap | None = None
        self._starts: Tensor | None = None

    @classmethod
    def from_table(cls, table: Tensor, rows: int, wraps: bool = False) -> KernelMap:
        """From the input row that each output meets at each tap ``(K, M)``, -1 where there is none."""
        present = table >= 0
        counts: list[int] = present.sum(1).tolist()
        outputs = torch.arange(table.shape[1], device=table.device).expand_as(table).masked_select(present)
        return cls(table.masked_select(present).long(), outputs, counts, (rows, table.shape[1]), None, wraps)

    @classmethod
    def mirrored(cls, table: Tensor, rows: int, wraps: bool = False) -> KernelMap:
        """From the first half of the taps ``(K // 2, N)`` of an odd kernel on one set of sites.

        Where ``o`` meets ``i`` at tap ``k``, ``i`` meets ``o`` at tap ``K - 1 - k``; in the middle each meets itself.
        """
        half = cls.from_table(table, rows)
        middle = torch.arange(rows, device=table.device)
        inputs, outputs = half.inputs.split(half.counts), half.outputs.split(half.counts)
        return cls(
            torch.cat([half.inputs, middle, *reversed(outputs)]),
            torch.cat([half.outputs, middle, *reversed(inputs)]),
            [*half.counts, rows, *reversed(half.counts)],
            (rows, rows),
            identity=len(table),
            wraps=wraps,
        )

    @property
    def swapped(self) -> KernelMap:
        """The map of the adjoint: inputs and outputs exchanged."""
        if self._swapped is None:
            self._swapped = KernelMap(
                self.outputs, self.inputs, self.counts, self.sizes[::-1], self.identity, self.wraps
            )
            self._swapped._swapped = self
        return self._swapped

    @property
    def starts(self) -> Tensor:
        """The first pair of each tap, and one past the last ``(K + 1,)``."""
        if self._starts is None:
            self._starts = torch.tensor([0, *itertools.accumulate(self.counts)], device=self.inputs.device)
        return self._starts

    @property
    def ordered(self) -> KernelMap:
        """The same pairs with output rows rising within each tap, as they do unless an axis wraps."""
        if not self.wraps:
            return self
        if self._ordered is None:
            taps = torch.arange(len(self.counts), device=self.inputs.device).repeat_interleave(self.starts.diff())
            key = taps * self.sizes[1] + self.outputs
            self._ordered = self
            if bool((key.diff() <= 0).any()):
                order = key.argsort()
                self._ordered = KernelMap(
                    self.inputs[order], self.outputs[order], self.counts, self.sizes, self.identity
                )
        return self._ordered


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


def submanifold(sites: Sites, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> KernelMap:
    """The map of a convolution that keeps its sites."""
    name = ("submanifold", kernel, dilation)
    if name not in sites.cache:
        padding = tuple((k // 2) * d for k, d in zip(kernel, dilation, strict=True))
        window = Window(kernel, (1,) * len(kernel), padding, dilation)
        odd = all(k % 2 for k in kernel)
        table = neighbours(sites, window, sites.coords, sites.spatial_shape, window.volume // 2 if odd else None)
        sites.cache[name] = (KernelMap.mirrored if odd else KernelMap.from_table)(
            table, len(sites), any(sites.periodic)
        )
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
        if rule == "floor":
            keys, _ = _distinct(_containing(sites, window.stride, shape), sites.batch_size * math.prod(shape))
            out = Sites(unravel(keys, shape), shape, sites.batch_size, stride, sites.periodic)
            kernel_map = KernelMap.from_table(
                neighbours(sites, window, out.coords, shape), len(sites), any(sites.periodic)
            )
        else:
            inputs, reached, counts = _reach(sites, window, shape)
            keys, outputs = _distinct(reached, sites.batch_size * math.prod(shape))
            out = Sites(unravel(keys, shape), shape, sites.batch_size, stride, sites.periodic)
            kernel_map = KernelMap(inputs, outputs, counts, (len(sites), len(out)), None, any(sites.periodic))
        out.cache["keys"] = keys
        sites.cache[name] = (out, kernel_map)
    result: tuple[Sites, KernelMap] = sites.cache[name]
    return result


def _containing(sites: Sites, stride: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Key of the coarse site that contains each site; those beyond the coarse lattice are left out."""
    key, inside = sites.coords[:, 0], torch.ones(1, dtype=torch.bool, device=sites.coords.device)
    for axis, (step, size) in enumerate(zip(stride, shape, strict=True)):
        place = torch.div(sites.coords[:, 1 + axis], step, rounding_mode="trunc")
        key = key * size + place
        inside = inside & (place < size)
    return key.masked_select(inside)


def _reach(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, list[int]]:
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
    return rows.masked_select(meets), key.masked_select(meets), meets.sum(1).tolist()


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


def transposed(coarse: Sites, fine: Sites, window: Window) -> KernelMap:
    """The map of a transposed convolution from ``coarse`` onto the given sites ``fine``."""
    down = fine.cache.get(("strided", window, "reach"))
    if down is not None and down[0] is coarse:
        return down[1].swapped
    name = ("transposed", id(coarse), window)
    if name not in fine.cache:
        table = neighbours(fine, window, coarse.coords, coarse.spatial_shape)
        # The coarse sites are held with the map, so that their id stays their own.
        fine.cache[name] = (coarse, KernelMap.from_table(table, len(fine), any(fine.periodic)).swapped)
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
        inputs, reached, counts = _children(sites, window, shape)
        if window.disjoint:
            outputs = _order_of_children(sites, window).flatten()
            keys = torch.empty_like(reached).index_copy_(0, outputs, reached)
        else:
            keys, outputs = _distinct(reached, sites.batch_size * math.prod(shape))
        out = Sites(unravel(keys, shape), shape, sites.batch_size, stride, sites.periodic)
        out.cache["keys"] = keys
        sites.cache[name] = (out, KernelMap(inputs, outputs, counts, (len(sites), len(out)), None, any(sites.periodic)))
    result: tuple[Sites, KernelMap] = sites.cache[name]
    return result


def _children(sites: Sites, window: Window, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, list[int]]:
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
        return rows.flatten(), key.flatten(), [len(sites)] * window.volume
    return rows.masked_select(inside), key.masked_select(inside), inside.sum(1).tolist()


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
