"""Sparse convolution as a function of features and weights, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.sparse import operators
from sparsegen.sparse.backends import choose
from sparsegen.sparse.kernel_map import KernelMap
from sparsegen.sparse.tensor import Sites, SparseTensor

__all__ = ["concat", "convolve", "prune", "union_add"]


def _check_operands(x: Tensor, weight: Tensor, kernel_map: KernelMap, groups: int, bias: Tensor | None) -> None:
    taps, cin, cout = len(kernel_map.starts) - 1, x.shape[-1], weight.shape[-1]
    if x.shape != (kernel_map.sizes[0], cin) or weight.shape != (taps, cin // groups, cout) or cout % groups:
        raise DataError(
            f"convolve: features {tuple(x.shape)} and weight {tuple(weight.shape)} in {groups} groups; "
            f"expected ({kernel_map.sizes[0]}, Cin) and ({taps}, Cin / groups, Cout)"
        )
    place = kernel_map.inputs.device
    if not x.device == weight.device == place:
        raise DataError(f"convolve: features on {x.device}, weight on {weight.device}, sites on {place}; move them")
    if bias is not None and (bias.shape, bias.dtype, bias.device) != ((cout,), weight.dtype, weight.device):
        raise DataError(
            f"convolve: bias {tuple(bias.shape)} of {bias.dtype} on {bias.device}; "
            f"expected ({cout},) of {weight.dtype} on {weight.device}, as the weight"
        )


def convolve(
    x: Tensor, weight: Tensor, kernel_map: KernelMap, sites: Sites, groups: int = 1, bias: Tensor | None = None
) -> Tensor:
    """Features of a sparse convolution's output ``(M, Cout)``.

    The weight's type decides what is multiplied. Products of bfloat16 are summed in float32, the result and its
    derivatives are float32: ``layer.bfloat16()`` asks for it, a back end whose capabilities name the type does it.

    Args:
        x: ``(N, Cin)``, of any floating type.
        weight: ``(K, Cin / groups, Cout)``.
        kernel_map: Pairs of input and output rows at each of the K taps.
        sites: The sites of ``x``.
        groups: Channel groups that do not see each other.
        bias: ``(Cout,)``, or None.

    Raises:
        DataError: Shapes, types or devices disagree: kernels trust them.
    """
    _check_operands(x, weight, kernel_map, groups, bias)
    if torch.is_autocast_enabled(x.device.type):
        # Half precision would accumulate over pairs; under autocast the product stays in the weights' own type.
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x, weight, kernel_map, sites, groups, bias)
    x = x.to(weight.dtype)
    backend = choose(x, sites.dim, any(sites.periodic))
    if groups == 1:
        return operators.convolve(x, weight, kernel_map, backend, bias)
    parts = zip(x.chunk(groups, 1), weight.chunk(groups, 2), strict=True)
    joined = torch.cat([operators.convolve(a.contiguous(), b, kernel_map, backend) for a, b in parts], 1)
    return joined if bias is None else joined + bias


def prune(x: SparseTensor, keep: Tensor) -> SparseTensor:
    """Only the sites where ``keep (N,)`` is True; pruning all of them is allowed."""
    if keep.shape != (len(x),) or keep.dtype != torch.bool or keep.device != x.coords.device:
        raise DataError(
            f"prune: keep of shape {tuple(keep.shape)} and type {keep.dtype} on {keep.device} "
            f"for {len(x)} sites on {x.coords.device}; expected bool"
        )
    rows = keep.nonzero()[:, 0]
    return SparseTensor.on(x.sites.subset(rows), x.features.index_select(0, rows))


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


def concat(first: SparseTensor, *others: SparseTensor) -> SparseTensor:
    """Channels of tensors on the same sites, side by side.

    Raises:
        DataError: The sites differ.
    """
    for other in others:
        if not first.sites.same(other.sites):
            raise DataError(f"concat: the sites differ: {first} and {other}; union_add joins unequal sites")
    return first.replace(torch.cat([t.features for t in (first, *others)], 1))
