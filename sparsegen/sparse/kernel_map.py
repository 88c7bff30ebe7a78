"""Windows of a kernel, and the pairs of rows that meet in them."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import ConfigError

__all__ = ["KernelMap", "Placement", "Window", "starts_of"]


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


def starts_of(counts: Tensor) -> Tensor:
    """The first pair of each tap, and one past the last, from the number of each."""
    return nn.functional.pad(counts.cumsum(0), (1, 0))


@dataclass(frozen=True)
class Placement:
    """Where a map's rows lie: what an engine needs that makes its own map.

    Args:
        window: Kernel geometry.
        fine: The sites that windows look at ``(N, 1 + D)``.
        coarse: The windows ``(M, 1 + D)``, in steps of the stride.
        cache: What back ends made of them.
    """

    window: Window
    fine: Tensor
    coarse: Tensor
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


class KernelMap:
    """Pairs of input and output rows, grouped by tap.

    Args:
        inputs: ``(P,)`` input row of each pair, tap after tap.
        outputs: ``(P,)`` output row of each pair.
        starts: The first pair of each tap, and one past the last ``(K + 1,)``.
        sizes: Number of input and of output rows.
        identity: The tap that pairs every row with itself, where there is one.
        wraps: Whether an axis is periodic, so that rows may not rise within a tap.

    Attributes:
        placement: Where the rows lie, if it was said.
        upward: Whether the inputs are the windows, as in a transposed convolution.
    """

    placement: Placement | None = None
    upward: bool = False

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        starts: Tensor,
        sizes: tuple[int, int],
        identity: int | None = None,
        wraps: bool = False,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.starts = starts
        self.sizes = sizes
        self.identity = identity
        self.wraps = wraps
        # A map holds its adjoint, which refers back weakly: a cycle would keep both until the collector comes.
        self._swapped: KernelMap | None = None
        self._origin: weakref.ref[KernelMap] | None = None
        # Once a back end has put the rows of each tap in order.
        self.ordered: KernelMap | None = None
        self._counts: list[int] | None = None

    @classmethod
    def from_table(cls, table: Tensor, rows: int, wraps: bool = False) -> KernelMap:
        """From the input row that each output meets at each tap ``(K, M)``, -1 where there is none."""
        present = table >= 0
        outputs = torch.arange(table.shape[1], device=table.device).expand_as(table).masked_select(present)
        starts = starts_of(present.sum(1))
        return cls(table.masked_select(present).long(), outputs, starts, (rows, table.shape[1]), None, wraps)

    @classmethod
    def mirrored(cls, table: Tensor, rows: int, wraps: bool = False) -> KernelMap:
        """From the first half of the taps ``(K // 2, N)`` of an odd kernel on one set of sites.

        Where ``o`` meets ``i`` at tap ``k``, ``i`` meets ``o`` at tap ``K - 1 - k``; in the middle each meets itself.
        """
        half = cls.from_table(table, rows)
        middle, counts = torch.arange(rows, device=table.device), half.starts.diff()
        inputs, outputs = half.inputs.split(half.counts), half.outputs.split(half.counts)
        return cls(
            torch.cat([half.inputs, middle, *reversed(outputs)]),
            torch.cat([half.outputs, middle, *reversed(inputs)]),
            starts_of(torch.cat([counts, counts.new_tensor([rows]), counts.flip(0)])),
            (rows, rows),
            identity=len(table),
            wraps=wraps,
        )

    @property
    def swapped(self) -> KernelMap:
        """The map of the adjoint: inputs and outputs exchanged."""
        origin = self._origin() if self._origin is not None else None
        if origin is not None:
            return origin
        if self._swapped is None:
            self._swapped = KernelMap(
                self.outputs, self.inputs, self.starts, self.sizes[::-1], self.identity, self.wraps
            )
            self._swapped._origin = weakref.ref(self)
            self._swapped.placement, self._swapped.upward = self.placement, not self.upward
        return self._swapped

    @property
    def counts(self) -> list[int]:
        """Pairs of each tap."""
        if self._counts is None:
            self._counts = self.starts.diff().tolist()
        return self._counts
