"""The two products of sparse convolution as torch operators, differentiable to any order."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from sparsegen.errors import BackendError
from sparsegen.kernels.library import operator
from sparsegen.sparse.backends import BACKENDS, Backend, backends, result_type
from sparsegen.sparse.bitmap import ordered
from sparsegen.sparse.kernel_map import KernelMap

__all__ = ["convolve", "correlate"]

# Back ends that need no more of a kernel map than its pairs run as operators.
_OPERATORS = ("native", "torch")


def _check_order(backend: Backend) -> None:
    # Gradients are recorded in a backward only where they are to be differentiated again.
    if torch.is_grad_enabled() and not backend.capabilities.double_backward:
        able = [name for name, capabilities in backends().items() if capabilities.double_backward]
        raise BackendError(
            f"the {backend.name} back end has no double backward (gradient penalties, create_graph=True); "
            f"{', '.join(able)} can: use_backend({able[0]!r})"
        )


def _wanted(ctx: Any, index: int) -> bool:
    """Whether this backward needs the gradient of an input: ``autograd.grad`` may have been asked for others only."""
    if not ctx.needs_input_grad[index]:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(ctx.next_functions[index][0]))
    except RuntimeError:
        # It refuses to answer for a leaf that is asked for.
        return True


def _inner(x: Tensor) -> Tensor:
    """The same values, no leaf: the engine's refusal for a leaf costs as much as a small convolution."""
    return x.view_as(x) if x.requires_grad and x.is_leaf else x


class _Convolve(Function):
    """Linear in features and in weights, so its backward is made of the same two products."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, backend: Backend
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.map, ctx.backend = kernel_map, backend
        return _run_convolve(x, weight, bias, kernel_map, backend)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        _check_order(ctx.backend)
        (g,) = gradients
        # Derivatives of a product of bfloat16 are taken in the type of its sums.
        x, weight = (t if t.dtype == g.dtype else t.to(g.dtype) for t in ctx.saved_tensors)
        gx = gw = gb = None
        if _wanted(ctx, 0):
            gx = convolve(g, weight.transpose(1, 2), ctx.map.swapped, ctx.backend)
        if _wanted(ctx, 1):
            gw = correlate(x, g, ctx.map, ctx.backend)
        if _wanted(ctx, 2):
            gb = g.sum(0)
        return gx, gw, gb, None, None


class _Correlate(Function):
    """The gradient of a convolution's weights; bilinear in the features of both sides."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kernel_map: KernelMap, backend: Backend) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.map, ctx.backend = kernel_map, backend
        return _run_correlate(x, y, kernel_map, backend)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        _check_order(ctx.backend)
        (h,) = gradients
        x, y = ctx.saved_tensors
        gx = gy = None
        if _wanted(ctx, 0):
            gx = convolve(y, h.transpose(1, 2), ctx.map.swapped, ctx.backend)
        if _wanted(ctx, 1):
            gy = convolve(x, h, ctx.map, ctx.backend)
        return gx, gy, None, None


def _pairs(kernel_map: KernelMap) -> tuple[Tensor, Tensor, Tensor]:
    return kernel_map.inputs, kernel_map.outputs, kernel_map.starts


def _tap(identity: int | None) -> int:
    return -1 if identity is None else identity


def _run_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, backend: Backend) -> Tensor:
    if backend.name not in _OPERATORS:
        return backend.convolve(x, weight, kernel_map, bias)
    # What is put in order here is so for every later call.
    m = ordered(kernel_map) if backend.name == "native" else kernel_map
    with torch._C._AutoDispatchBelowAutograd():
        return cast(Tensor, _CONVOLVE(x, weight, bias, *_pairs(m), m.sizes[1], _tap(m.identity), m.wraps, backend.name))


def _run_correlate(x: Tensor, y: Tensor, kernel_map: KernelMap, backend: Backend) -> Tensor:
    if backend.name not in _OPERATORS:
        return backend.correlate(x, y, kernel_map)
    m = kernel_map
    with torch._C._AutoDispatchBelowAutograd():
        return cast(Tensor, _CORRELATE(x, y, *_pairs(m), _tap(m.identity), m.wraps, backend.name))


def convolve(x: Tensor, weight: Tensor, kernel_map: KernelMap, backend: Backend, bias: Tensor | None = None) -> Tensor:
    """``out[o] = bias + sum over pairs (i, o) at tap k of x[i] @ weight[k]``; see :class:`Backend`."""
    if torch.compiler.is_compiling() and backend.name in _OPERATORS:
        m = kernel_map
        found = _CONVOLVE(x, weight, bias, *_pairs(m), m.sizes[1], _tap(m.identity), m.wraps, backend.name)
        return cast(Tensor, found)
    # A node of the graph costs as much as a small convolution: only where a derivative may follow.
    if torch.is_grad_enabled():
        return cast(Tensor, _Convolve.apply(_inner(x), _inner(weight), bias, kernel_map, backend))
    return _run_convolve(x, weight, bias, kernel_map, backend)


def correlate(x: Tensor, y: Tensor, kernel_map: KernelMap, backend: Backend) -> Tensor:
    """``out[k] = sum over pairs (i, o) at tap k of x[i]^T y[o]``; see :class:`Backend`."""
    if torch.is_grad_enabled():
        return cast(Tensor, _Correlate.apply(_inner(x), _inner(y), kernel_map, backend))
    return _run_correlate(x, y, kernel_map, backend)


def _map(
    inputs: Tensor, outputs: Tensor, starts: Tensor, sizes: tuple[int, int], identity: int, wraps: bool
) -> KernelMap:
    return KernelMap(inputs, outputs, starts, sizes, None if identity < 0 else identity, wraps)


def _convolve_kernel(x, weight, bias, inputs, outputs, starts, rows, identity, wraps, backend):  # type: ignore[no-untyped-def]
    kernel_map = _map(inputs, outputs, starts, (x.shape[0], rows), identity, wraps)
    return BACKENDS[backend].convolve(x, weight, kernel_map, bias)


def _convolve_autograd(x, weight, bias, inputs, outputs, starts, rows, identity, wraps, backend):  # type: ignore[no-untyped-def]
    kernel_map = _map(inputs, outputs, starts, (x.shape[0], rows), identity, wraps)
    return _Convolve.apply(x, weight, bias, kernel_map, BACKENDS[backend])


def _correlate_kernel(x, y, inputs, outputs, starts, identity, wraps, backend):  # type: ignore[no-untyped-def]
    kernel_map = _map(inputs, outputs, starts, (x.shape[0], y.shape[0]), identity, wraps)
    return BACKENDS[backend].correlate(x, y, kernel_map)


def _correlate_autograd(x, y, inputs, outputs, starts, identity, wraps, backend):  # type: ignore[no-untyped-def]
    kernel_map = _map(inputs, outputs, starts, (x.shape[0], y.shape[0]), identity, wraps)
    return _Correlate.apply(x, y, kernel_map, BACKENDS[backend])


_MAP = "Tensor inputs, Tensor outputs, Tensor starts"
_CONVOLVE = operator(
    f"convolve(Tensor x, Tensor weight, Tensor? bias, {_MAP}, SymInt rows, int identity, bool wraps, str backend)"
    " -> Tensor",
    _convolve_kernel,
    lambda x, weight, bias, inputs, outputs, starts, rows, *_: x.new_empty(rows, weight.shape[2], dtype=result_type(x)),
    _convolve_autograd,
)
_CORRELATE = operator(
    f"correlate(Tensor x, Tensor y, {_MAP}, int identity, bool wraps, str backend) -> Tensor",
    _correlate_kernel,
    lambda x, y, inputs, outputs, starts, *_: x.new_empty(
        starts.shape[0] - 1, x.shape[1], y.shape[1], dtype=result_type(x)
    ),
    _correlate_autograd,
)
