"""Back ends: who multiplies, and what each of them can do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsegen.errors import BackendError, unknown_name
from sparsegen.registry import Registry
from sparsegen.sparse.kernel_map import KernelMap

__all__ = [
    "BACKENDS",
    "OPTIONAL",
    "Backend",
    "Capabilities",
    "TorchBackend",
    "backends",
    "choose",
    "result_type",
    "selected",
    "use_backend",
]


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do.

    Args:
        dimensions: Lattice dimensions.
        dtypes: Types of features.
        devices: Device types.
        double_backward: Whether gradients can be differentiated again (gradient penalties).
        deterministic: Whether results are bitwise equal from run to run, by device type.
        periodic: Whether axes may wrap.
    """

    dimensions: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    devices: tuple[str, ...]
    double_backward: bool
    deterministic: tuple[str, ...]
    periodic: bool


def result_type(x: Tensor) -> torch.dtype:
    """The type of a convolution of such features: products of bfloat16 are summed, and stay, in float32."""
    return torch.float32 if x.dtype == torch.bfloat16 else x.dtype


class Backend(Protocol):
    """The two products that every sparse convolution and all its derivatives are made of."""

    name: str
    capabilities: Capabilities

    def convolve(self, x: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
        """``out[o] = bias + sum over pairs (i, o) at tap k of x[i] @ weight[k]``.

        Args:
            x: ``(N, Cin)``.
            weight: ``(K, Cin, Cout)``.
            kernel_map: Pairs of ``N`` inputs and ``M`` outputs.
            bias: ``(Cout,)``, or None.

        Returns:
            ``(M, Cout)``.
        """
        ...

    def correlate(self, x: Tensor, y: Tensor, kernel_map: KernelMap) -> Tensor:
        """``out[k] = sum over pairs (i, o) at tap k of x[i]^T y[o]``.

        Args:
            x: ``(N, Cin)``.
            y: ``(M, Cout)``.
            kernel_map: Pairs of ``N`` inputs and ``M`` outputs.

        Returns:
            ``(K, Cin, Cout)``.
        """
        ...


class TorchBackend:
    """Gather, multiply, add, tap by tap, in blocks that stay in cache: any device, any floating type."""

    name = "torch"
    capabilities = Capabilities(
        dimensions=(1, 2, 3, 4),
        dtypes=(torch.float32, torch.float64),
        devices=("cpu", "cuda", "mps", "xpu"),
        double_backward=True,
        deterministic=("cpu",),
        periodic=True,
    )
    block = 4096

    def convolve(self, x: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
        """See :class:`Backend`."""
        if kernel_map.identity is not None:
            out = x @ weight[kernel_map.identity]
        else:
            out = x.new_zeros(kernel_map.sizes[1], weight.shape[2])
        inputs, outputs, taps = kernel_map.inputs, kernel_map.outputs, weight.unbind(0)
        for tap, rows in self._blocks(kernel_map):
            out.index_add_(0, outputs[rows], x.index_select(0, inputs[rows]) @ taps[tap])
        return out if bias is None else out.add_(bias)

    def correlate(self, x: Tensor, y: Tensor, kernel_map: KernelMap) -> Tensor:
        """See :class:`Backend`."""
        out = x.new_zeros(len(kernel_map.counts), x.shape[1], y.shape[1])
        if kernel_map.identity is not None:
            out[kernel_map.identity] = x.t() @ y
        inputs, outputs, taps = kernel_map.inputs, kernel_map.outputs, out.unbind(0)
        for tap, rows in self._blocks(kernel_map):
            taps[tap].addmm_(x.index_select(0, inputs[rows]).t(), y.index_select(0, outputs[rows]))
        return out

    def _blocks(self, kernel_map: KernelMap) -> Iterator[tuple[int, slice]]:
        start = 0
        for tap, count in enumerate(kernel_map.counts):
            if tap != kernel_map.identity:
                for first in range(start, start + count, self.block):
                    yield tap, slice(first, min(first + self.block, start + count))
            start += count


# How to come by the back ends that an installation may lack.
OPTIONAL = {
    "native": "install sparsegen where a C++ compiler is",
    "minkowski": "tools/minkowski makes an environment that has MinkowskiEngine",
}

BACKENDS: Registry[Backend] = Registry("sparse back end")
BACKENDS.register("torch")(TorchBackend())

_state = {"name": "auto"}


def selected() -> str:
    """What the user chose: ``"auto"`` or one of :func:`backends`."""
    return _state["name"]


def backends() -> dict[str, Capabilities]:
    """The installed back ends and what each can do."""
    return {name: BACKENDS[name].capabilities for name in BACKENDS}


class use_backend(AbstractContextManager[None]):
    """Chooses the back end of sparse convolutions, for good or inside a ``with`` block.

    Args:
        name: One of :func:`backends`, or ``"auto"``: the fastest that can do what is asked.

    Example:
        >>> with use_backend("torch"):
        ...     pass
    """

    def __init__(self, name: str) -> None:
        if name != "auto" and name not in BACKENDS:
            if name in OPTIONAL:
                raise BackendError(f"the {name} back end is not installed: {OPTIONAL[name]}")
            raise BackendError(unknown_name("sparse back end", name, ["auto", *BACKENDS]))
        self._before = _state["name"]
        _state["name"] = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        _state["name"] = self._before


# Fastest first.
_PREFERENCE = ("native", "torch", "minkowski")


def choose(x: Tensor, dim: int, periodic: bool) -> Backend:
    """The back end in use, checked against what the input asks of it.

    Raises:
        BackendError: It lacks the dimension, type, device or periodicity; the message names those that have it.
    """
    name = _state["name"]
    if name == "auto":
        for preferred in _PREFERENCE:
            if preferred in BACKENDS and _lacks(BACKENDS[preferred].capabilities, x, dim, periodic) is None:
                return BACKENDS[preferred]
        name = "torch"
    backend = BACKENDS[name]
    lacking = _lacks(backend.capabilities, x, dim, periodic)
    if lacking is not None:
        able = [n for n in BACKENDS if _lacks(BACKENDS[n].capabilities, x, dim, periodic) is None]
        raise BackendError(f"the {name} back end has no {lacking}; {', '.join(able) or 'none'} can")
    return backend


def _lacks(capabilities: Capabilities, x: Tensor, dim: int, periodic: bool) -> str | None:
    if dim not in capabilities.dimensions:
        return f"convolution in {dim} dimensions"
    if x.dtype not in capabilities.dtypes:
        return f"{x.dtype}"
    if x.device.type not in capabilities.devices:
        return f"device {x.device.type}"
    if periodic and not capabilities.periodic:
        return "periodic axes"
    return None
