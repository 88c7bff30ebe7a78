"""Sparse convolutions in one to four dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.sparse.functional import convolve
from sparsegen.sparse.kernel_map import KernelMap, Window
from sparsegen.sparse.maps import generated, strided, submanifold, transposed
from sparsegen.sparse.tensor import SparseTensor

__all__ = ["GenerativeConvTranspose", "SparseConv", "SparseConvTranspose", "SparsityInvariantConv", "SubmanifoldConv"]

Sizes = int | Sequence[int]


def per_axis(value: Sizes, dim: int, name: str, least: int = 1) -> tuple[int, ...]:
    """One number an axis."""
    values = (value,) * dim if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != dim or min(values) < least:
        raise ConfigError(f"{name}={value}: expected {dim} numbers of at least {least}")
    return values


class _Conv(nn.Module):
    """Weights of a sparse convolution.

    The weight is ``(K, in_channels / groups, out_channels)`` with the taps in row-major order.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= dim <= 4:
            raise ConfigError(f"{type(self).__name__}: {dim} dimensions; expected 1 to 4")
        if min(in_channels, out_channels, groups) < 1:
            counts = f"{in_channels} -> {out_channels} channels in {groups} groups"
            raise ConfigError(f"{type(self).__name__}: {counts}; expected 1 or more")
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{type(self).__name__}: {groups} groups do not divide {in_channels} -> {out_channels} channels"
            )
        self.dim, self.in_channels, self.out_channels, self.groups = dim, in_channels, out_channels, groups
        self.window = Window(
            per_axis(kernel_size, dim, "kernel_size"),
            per_axis(stride, dim, "stride"),
            per_axis(padding, dim, "padding", 0),
            per_axis(dilation, dim, "dilation"),
        )
        self.weight = nn.Parameter(torch.empty(self.window.volume, in_channels // groups, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The start of torch's convolutions: uniform in ``+-1 / sqrt(fan in)``."""
        bound = 1 / math.sqrt(self.window.volume * self.in_channels // self.groups)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _check(self, x: SparseTensor) -> None:
        if not isinstance(x, SparseTensor):
            raise DataError(f"{type(self).__name__} of a {type(x).__name__}; expected a SparseTensor")
        if x.sites.dim != self.dim:
            raise DataError(f"{type(self).__name__} of {self.dim} dimensions for {x}")
        if x.features.shape[1] != self.in_channels:
            raise DataError(f"{type(self).__name__} of {self.in_channels} input channels for {x}")

    def _convolve(self, x: SparseTensor, kernel_map: KernelMap) -> Tensor:
        return convolve(x.features, self.weight, kernel_map, x.sites, self.groups, self.bias)

    def dense_weight(self) -> Tensor:
        """The weight as ``torch.nn.functional.convNd`` takes it: ``(out, in / groups, *kernel_size)``."""
        return self.weight.permute(2, 1, 0).reshape(self.out_channels, -1, *self.window.kernel)

    def extra_repr(self) -> str:
        w = self.window
        return f"{self.dim}, {self.in_channels}, {self.out_channels}, kernel_size={w.kernel}, stride={w.stride}"


class SubmanifoldConv(_Conv):
    r"""A convolution that keeps its sites.

    .. math:: y_o = b + \sum_k W_k\, x_{o + d (k - \lfloor K / 2 \rfloor)} \quad \text{over active sites}

    References:
        3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (Graham et al., 2018),
        https://arxiv.org/abs/1711.10275

    Args:
        dim: Lattice dimensions, 1 to 4.
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Taps, one number or one an axis.
        dilation: Sites between taps.
        groups: Channel groups that do not see each other.
        bias: Whether a bias is added at active sites.

    Example:
        >>> x = SparseTensor(torch.ones(2, 3), torch.tensor([[0, 1, 1], [0, 2, 0]]), (4, 4), batch_size=1)
        >>> SubmanifoldConv(2, 3, 8, 3)(x)
        SparseTensor(2 sites, 8 channels, batch 1 of (4, 4), stride 1)
    """

    def __init__(
        self,
        dim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(dim, in_channels, out_channels, kernel_size, dilation=dilation, groups=groups, bias=bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features of ``out_channels`` channels on the same sites."""
        self._check(x)
        kernel_map = submanifold(x.sites, self.window.kernel, self.window.dilation)
        return x.replace(self._convolve(x, kernel_map))


class SparseConv(_Conv):
    """A convolution that makes its own sites.

    Args:
        dim: Lattice dimensions, 1 to 4.
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Taps.
        stride: Steps between outputs; must divide a periodic axis.
        padding: As in torch; along a periodic axis the padding wraps.
        dilation: Sites between taps.
        groups: Channel groups.
        bias: Whether a bias is added at active sites.
        support: ``"reach"``: every site that a dense convolution would make non-zero. ``"floor"``: the smaller set of
            MinkowskiEngine, the sites ``floor(c / stride)``.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        support: str = "reach",
    ) -> None:
        super().__init__(dim, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        if support not in ("reach", "floor"):
            raise ConfigError(unknown_name("support rule", support, ("reach", "floor")))
        self.support = support

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features on the output sites that the support rule makes."""
        self._check(x)
        sites, kernel_map = strided(x.sites, self.window, self.support)
        return SparseTensor.on(sites, self._convolve(x, kernel_map))


class SparsityInvariantConv(SparseConv):
    r"""A convolution divided by how many active sites each window sees.

    .. math:: y_o = b + \frac{\sum_k W_k\, x_{o + k}}{\#\{k : o + k \text{ active}\}}

    References:
        Sparsity Invariant CNNs (Uhrig et al., 2017), https://arxiv.org/abs/1708.06500

    Args are those of :class:`SparseConv`; the padding keeps the shape by default.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | None = None,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        support: str = "reach",
    ) -> None:
        if padding is None:
            kernels, spread = per_axis(kernel_size, dim, "kernel_size"), per_axis(dilation, dim, "dilation")
            padding = tuple(d * (k // 2) for k, d in zip(kernels, spread, strict=True))
        super().__init__(dim, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, support)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features on the output sites that the support rule makes."""
        self._check(x)
        sites, kernel_map = strided(x.sites, self.window, self.support)
        features = convolve(x.features, self.weight, kernel_map, x.sites, self.groups)
        # Under the floor rule a window with more stride than taps may see nothing.
        seen = torch.bincount(kernel_map.outputs, minlength=len(sites)).clamp(min=1).to(features.dtype)
        features = features / seen[:, None]
        return SparseTensor.on(sites, features if self.bias is None else features + self.bias)


class _Transpose(_Conv):
    def dense_weight(self) -> Tensor:
        """The weight as ``torch.nn.functional.conv_transposeNd`` takes it: ``(in, out / groups, *kernel_size)``."""
        cin, cout = self.in_channels // self.groups, self.out_channels // self.groups
        split = self.weight.view(self.window.volume, cin, self.groups, cout)
        return split.permute(2, 1, 3, 0).reshape(self.in_channels, cout, *self.window.kernel)


class SparseConvTranspose(_Transpose):
    """A transposed convolution onto the sites of a given tensor: the inverse of a strided convolution's sites.

    Args are those of :class:`SparseConv`, without ``support``.
    """

    def forward(self, x: SparseTensor, target: SparseTensor) -> SparseTensor:
        """Features at the sites of ``target``.

        Raises:
            DataError: ``target``'s lattice is not the one that the transposed convolution leads to.
        """
        self._check(x)
        if not isinstance(target, SparseTensor):
            raise DataError(f"SparseConvTranspose onto a {type(target).__name__}; expected a SparseTensor")
        shape = self.window.shape_up(x.spatial_shape, x.periodic)
        # A strided convolution drops what is left over at the end of an open axis: several lattices lead to one.
        fits = (target.sites.dim, target.batch_size, target.periodic) == (self.dim, x.batch_size, x.periodic) and all(
            n <= t < n + (1 if wraps else s)
            for n, t, s, wraps in zip(shape, target.spatial_shape, self.window.stride, x.periodic, strict=True)
        )
        if not fits:
            raise DataError(f"SparseConvTranspose: {x} leads to the lattice {shape}, the target is {target}")
        kernel_map = transposed(x.sites, target.sites, self.window)
        return SparseTensor.on(target.sites, self._convolve(x, kernel_map))


class GenerativeConvTranspose(_Transpose):
    """A transposed convolution that creates every site it reaches, inside the lattice.

    References:
        Generative Sparse Detection Networks for 3D Single-shot Object Detection (Gwak et al., 2020),
        https://arxiv.org/abs/2006.12356

    Args are those of :class:`SparseConv`, without ``support``.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features on every site within reach of an input."""
        self._check(x)
        sites, kernel_map = generated(x.sites, self.window)
        return SparseTensor.on(sites, self._convolve(x, kernel_map))
