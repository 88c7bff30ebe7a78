"""Sparse convolution as a function of features and weights, differentiable to any order."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from sparsegen.errors import BackendError, DataError
from sparsegen.sparse.backends import Backend, backends, choose
from sparsegen.sparse.kernel_map import KernelMap
from sparsegen.sparse.tensor import Sites, SparseTensor

__all__ = ["concat", "convolve", "prune", "union_add"]


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


class _Convolve(Function):
    """Linear in features and in weights, so its backward is made of the same two products."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap, backend: Backend
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.map, ctx.backend = kernel_map, backend
        return backend.convolve(x, weight, kernel_map, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        _check_order(ctx.backend)
        (g,) = gradients
        x, weight = ctx.saved_tensors
        gx = gw = gb = None
        if _wanted(ctx, 0):
            gx = _convolve(g, weight.transpose(1, 2), ctx.map.swapped, ctx.backend)
        if _wanted(ctx, 1):
            gw = _correlate(x, g, ctx.map, ctx.backend)
        if _wanted(ctx, 2):
            gb = g.sum(0)
        return gx, gw, gb, None, None


class _Correlate(Function):
    """The gradient of a convolution's weights; bilinear in the features of both sides."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kernel_map: KernelMap, backend: Backend) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.map, ctx.backend = kernel_map, backend
        return backend.correlate(x, y, kernel_map)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        _check_order(ctx.backend)
        (h,) = gradients
        x, y = ctx.saved_tensors
        gx = gy = None
        if _wanted(ctx, 0):
            gx = _convolve(y, h.transpose(1, 2), ctx.map.swapped, ctx.backend)
        if _wanted(ctx, 1):
            gy = _convolve(x, h, ctx.map, ctx.backend)
        return gx, gy, None, None


def _convolve(x: Tensor, weight: Tensor, kernel_map: KernelMap, backend: Backend, bias: Tensor | None = None) -> Tensor:
    # A node of the graph costs as much as a small convolution: only where a derivative may follow.
    if torch.is_grad_enabled():
        return cast(Tensor, _Convolve.apply(x, weight, bias, kernel_map, backend))
    return backend.convolve(x, weight, kernel_map, bias)


def _correlate(x: Tensor, y: Tensor, kernel_map: KernelMap, backend: Backend) -> Tensor:
    if torch.is_grad_enabled():
        return cast(Tensor, _Correlate.apply(x, y, kernel_map, backend))
    return backend.correlate(x, y, kernel_map)


def convolve(
    x: Tensor, weight: Tensor, kernel_map: KernelMap, sites: Sites, groups: int = 1, bias: Tensor | None = None
) -> Tensor:
    """Features of a sparse convolution's output ``(M, Cout)``.

    Args:
        x: ``(N, Cin)``.
        weight: ``(K, Cin / groups, Cout)``.
        kernel_map: Pairs of input and output rows at each of the K taps.
        sites: The sites of ``x``.
        groups: Channel groups that do not see each other.
        bias: ``(Cout,)``, or None.
    """
    # Half precision would accumulate over pairs; under autocast the product stays in the weights' own type.
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(weight.dtype)
        backend = choose(x, sites.dim, any(sites.periodic))
        if groups == 1:
            return _convolve(x, weight, kernel_map, backend, bias)
        parts = zip(x.chunk(groups, 1), weight.chunk(groups, 2), strict=True)
        joined = torch.cat([_convolve(a.contiguous(), b, kernel_map, backend) for a, b in parts], 1)
        return joined if bias is None else joined + bias


def prune(x: SparseTensor, keep: Tensor) -> SparseTensor:
    """Only the sites where ``keep (N,)`` is True; pruning all of them is allowed."""
    if keep.shape != (len(x),) or keep.dtype != torch.bool:
        raise DataError(
            f"prune: keep of shape {tuple(keep.shape)} and type {keep.dtype} for {len(x)} sites; expected bool"
        )
    return SparseTensor.on(x.sites.subset(keep), x.features[keep])


def union_add(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """Sum of two tensors on the union of their sites.

    Raises:
        DataError: Lattices or channels differ.
    """
    if a.sites.same(b.sites):
        return a.replace(a.features + b.features)
    if (a.spatial_shape, a.batch_size, a.periodic) != (b.spatial_shape, b.batch_size, b.periodic):
        raise DataError(f"union_add: lattices differ: {a} and {b}")
    if a.features.shape[1] != b.features.shape[1]:
        raise DataError(f"union_add: {a.features.shape[1]} channels and {b.features.shape[1]} channels")
    keys, rows = torch.cat([a.sites.keys, b.sites.keys]).unique(return_inverse=True)
    coords = a.coords.new_empty(len(keys), a.coords.shape[1]).index_copy_(0, rows, torch.cat([a.coords, b.coords]))
    features = torch.cat([a.features, b.features])
    summed = features.new_zeros(len(keys), features.shape[1]).index_add(0, rows, features)
    return SparseTensor.on(Sites(coords, a.spatial_shape, a.batch_size, a.sites.stride, a.periodic), summed)


def concat(*tensors: SparseTensor) -> SparseTensor:
    """Channels of tensors on the same sites, side by side.

    Raises:
        DataError: The sites differ.
    """
    first = tensors[0]
    for other in tensors[1:]:
        if not first.sites.same(other.sites):
            raise DataError(f"concat: the sites differ: {first} and {other}; union_add joins unequal sites")
    return first.replace(torch.cat([t.features for t in tensors], 1))
