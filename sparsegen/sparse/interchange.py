"""Tensors and layers from and to MinkowskiEngine, so that what was trained with one runs in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.sparse.conv import (
    GenerativeConvTranspose,
    SparseConv,
    SparseConvTranspose,
    SparsityInvariantConv,
    SubmanifoldConv,
    _Conv,
)
from sparsegen.sparse.kernel_map import Window
from sparsegen.sparse.minkowski import minkowski_engine, tap_order
from sparsegen.sparse.norm import BatchNorm
from sparsegen.sparse.tensor import SparseTensor

__all__ = ["from_minkowski", "to_minkowski"]


@overload
def to_minkowski(x: SparseTensor, manager: Any = None) -> Any: ...
@overload
def to_minkowski(x: nn.Module, manager: None = None) -> Any: ...
def to_minkowski(x: SparseTensor | nn.Module, manager: Any = None) -> Any:
    """A tensor or a layer as MinkowskiEngine has it.

    A tensor becomes a ``MinkowskiEngine.SparseTensor`` that shares its features and their gradient; its coordinates
    are those of the original lattice, ``stride`` apart. A layer becomes the one that computes the same:

    =============================  ==========================================
    :class:`SubmanifoldConv`       ``MinkowskiConvolution`` of stride 1
    :class:`SparseConv`            ``MinkowskiConvolution``
    :class:`SparseConvTranspose`   ``MinkowskiConvolutionTranspose``
    :class:`GenerativeConvTranspose`  ``MinkowskiGenerativeConvolutionTranspose``
    :class:`BatchNorm`             ``MinkowskiBatchNorm``
    =============================  ==========================================

    Its lattice has no end and its kernels are centred where their size is odd. Layers whose outputs depend on the end
    of the lattice, or whose padding is another, have no counterpart there and are refused. Of a strided convolution it
    keeps the sites ``floor(c / stride)`` that contain an input, ``support="floor"`` here; with ``support="reach"`` only
    windows that tile the lattice (kernel 2, stride 2) are the same in both. A lattice that the stride does not divide
    ends in a cell that exists there only. A tensor without sites crashes its layers: prune there with care.

    Args:
        x: A tensor, or one layer; its weights are copied.
        manager: The ``CoordinateManager`` to put a tensor into, where two are to meet in a layer.

    Raises:
        BackendError: MinkowskiEngine is not installed.
        DataError: It has no counterpart.

    Example:
        >>> y = to_minkowski(SubmanifoldConv(3, 8, 16, 3))(to_minkowski(x))  # doctest: +SKIP
    """
    if isinstance(x, SparseTensor):
        return _tensor_to(x, manager)
    minkowski = minkowski_engine()
    if isinstance(x, BatchNorm):
        made = minkowski.MinkowskiBatchNorm(x.num_features, x.eps, x.momentum, x.affine, x.track_running_stats)
        made.bn.load_state_dict(x.state_dict())
        return made.to(x.weight).train(x.training)
    if not isinstance(x, _Conv) or isinstance(x, SparsityInvariantConv):
        raise DataError(f"to_minkowski: {type(x).__name__} has no counterpart; expected a convolution or BatchNorm")
    kinds = {
        SubmanifoldConv: minkowski.MinkowskiConvolution,
        SparseConv: minkowski.MinkowskiConvolution,
        SparseConvTranspose: minkowski.MinkowskiConvolutionTranspose,
        GenerativeConvTranspose: minkowski.MinkowskiGenerativeConvolutionTranspose,
    }
    w = x.window
    window = w if not isinstance(x, SubmanifoldConv) else _centred(w.kernel, w.stride, w.dilation)
    reason = "its groups" if x.groups > 1 else _foreign(type(x), window)
    if reason is None and isinstance(x, SparseConv) and x.support == "reach" and not window.disjoint:
        reason = "the support rule 'reach' (support='floor' has one)"
    if reason is not None:
        raise DataError(f"to_minkowski: {x} has no counterpart in MinkowskiEngine: {reason}")
    made = kinds[type(x)](
        x.in_channels,
        x.out_channels,
        kernel_size=list(w.kernel),
        stride=list(w.stride),
        dilation=list(w.dilation),
        bias=x.bias is not None,
        dimension=x.dim,
    ).to(x.weight)
    with torch.no_grad():
        made.kernel.copy_(x.weight[tap_order(w.kernel)].view_as(made.kernel))
        if x.bias is not None:
            made.bias.copy_(x.bias[None])
    return made


def from_minkowski(
    y: Any, spatial_shape: Sequence[int] | None = None, batch_size: int | None = None
) -> SparseTensor | nn.Module:
    """The inverse of :func:`to_minkowski`.

    Args:
        y: A ``MinkowskiEngine.SparseTensor``, or one of the layers that :func:`to_minkowski` makes.
        spatial_shape: Sites along each axis of a tensor, at its own stride: MinkowskiEngine's lattice has no end.
        batch_size: Events of a tensor, of which the last ones may be empty.

    Raises:
        BackendError: MinkowskiEngine is not installed.
        DataError: The tensor lies outside the lattice, or the layer has no counterpart.
    """
    minkowski = minkowski_engine()
    if isinstance(y, minkowski.SparseTensor):
        return _tensor_from(y, spatial_shape, batch_size)
    if isinstance(y, minkowski.MinkowskiBatchNorm):
        norm = BatchNorm(y.bn.num_features, y.bn.eps, y.bn.momentum, y.bn.affine, y.bn.track_running_stats)
        norm.load_state_dict(y.bn.state_dict())
        return norm.to(y.bn.weight).train(y.training)
    kinds: dict[type, type[_Conv]] = {
        minkowski.MinkowskiConvolution: SparseConv,
        minkowski.MinkowskiConvolutionTranspose: SparseConvTranspose,
        minkowski.MinkowskiGenerativeConvolutionTranspose: GenerativeConvTranspose,
    }
    if type(y) not in kinds:
        raise DataError(f"from_minkowski: {type(y).__name__}; expected a SparseTensor, a convolution or a batch norm")
    g, kind = y.kernel_generator, kinds[type(y)]
    window = _centred(tuple(g.kernel_size), tuple(g.kernel_stride), tuple(g.kernel_dilation))
    reason = _foreign(kind, window)
    if g.region_type != minkowski.RegionType.HYPER_CUBE:
        reason = f"its region {g.region_type}"
    elif kind is SparseConv and g.expand_coordinates:
        reason = "expand_coordinates, on a lattice without end"
    if reason is not None:
        raise DataError(f"from_minkowski: {y} has no counterpart in sparsegen: {reason}")
    arguments: list[Any] = [y.dimension, y.in_channels, y.out_channels, window.kernel]
    if kind is SparseConv and set(window.stride) == {1}:
        kind, arguments = SubmanifoldConv, [*arguments, window.dilation]
    else:
        arguments += [window.stride, window.padding, window.dilation]
    made: _Conv = kind(*arguments, bias=y.bias is not None).to(y.kernel)  # type: ignore[misc]
    if isinstance(made, SparseConv):
        made.support = "floor"
    with torch.no_grad():
        made.weight[tap_order(window.kernel)] = y.kernel.view_as(made.weight)
        if made.bias is not None:
            made.bias.copy_(y.bias[0])
    return made


def _centred(kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Window:
    """MinkowskiEngine's window: centred on the site where the size is odd, starting there where it is even."""
    padding = tuple(k // 2 * d if k % 2 else 0 for k, d in zip(kernel, dilation, strict=True))
    return Window(kernel, stride, padding, dilation)


def _foreign(kind: type[nn.Module], window: Window) -> str | None:
    """Why a layer of this geometry computes something else in the two libraries, where it does."""
    if window != _centred(window.kernel, window.stride, window.dilation):
        return f"the padding {window.padding}"
    for k, s, d in zip(window.kernel, window.stride, window.dilation, strict=True):
        if kind is GenerativeConvTranspose:
            if k % 2 and k > 1:
                return f"the odd kernel {window.kernel} of a generative layer reaches beyond the lattice"
        elif k % 2 == 0 and d * (k - 1) + 1 > s:
            return f"the even kernel {window.kernel} reaches beyond its stride {window.stride}"
    return None


def _tensor_to(x: SparseTensor, manager: Any) -> Any:
    minkowski = minkowski_engine()
    if any(x.periodic):
        raise DataError(f"to_minkowski: MinkowskiEngine has no periodic axes; {x} wraps along {x.periodic}")
    coords = x.coords * torch.tensor([1, *x.sites.stride])
    if len(coords) and int(coords.max()) >= 2**31:
        raise DataError(f"to_minkowski: MinkowskiEngine counts cells in 32 bits; {x} has more")
    manager = manager or minkowski.CoordinateManager(
        D=x.sites.dim, num_threads=torch.get_num_threads(), coordinate_map_type=minkowski.CoordinateMapType.CPU
    )
    return minkowski.SparseTensor(
        x.features, coords.int().contiguous(), tensor_stride=list(x.sites.stride), coordinate_manager=manager
    )


def _tensor_from(y: Any, spatial_shape: Sequence[int] | None, batch_size: int | None) -> SparseTensor:
    if spatial_shape is None or batch_size is None:
        raise DataError("from_minkowski: a tensor needs spatial_shape= and batch_size=, which MinkowskiEngine lacks")
    stride = torch.tensor([1, *y.tensor_stride])
    coords: Tensor = y.C.long()
    if bool((coords % stride).any()):
        raise DataError(f"from_minkowski: coordinates are no multiples of their stride {tuple(y.tensor_stride)}")
    return SparseTensor(y.F, coords // stride, spatial_shape, batch_size, tuple(y.tensor_stride))
