"""Spectral normalisation, of the reshaped weight or of the convolution itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsegen.errors import ConfigError, unknown_name
from sparsegen.sparse.conv import _Conv, _Transpose

__all__ = ["operator_norm", "spectral_norm", "spectral_normalise"]

M = TypeVar("M", bound=nn.Module)

_DENSE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_DENSE_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = ("reshape", "operator")
# Frequencies sampled along each axis of a kernel of more than one tap.
_FREQUENCIES = 16


@dataclass(frozen=True)
class _Geometry:
    """A layer as a matrix of filters: its weight's axes, and where each tap lies.

    Args:
        axes: Permutation of the weight to ``(rows, columns, *taps)``.
        grouped: Which of the two, rows or columns, the groups' blocks stand side by side in.
        groups: Number of blocks.
        kernel, stride, dilation: One number an axis.
    """

    axes: tuple[int, ...]
    grouped: int = 0
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @classmethod
    def of(cls, layer: nn.Module) -> _Geometry:
        """Of a linear or convolution layer, dense or sparse."""
        if isinstance(layer, nn.Linear):
            return cls((0, 1))
        if isinstance(layer, _Conv):
            w, transpose = layer.window, isinstance(layer, _Transpose)
            return cls(
                (1, 2, 0) if transpose else (2, 1, 0), int(transpose), layer.groups, w.kernel, w.stride, w.dilation
            )
        if isinstance(layer, (*_DENSE, *_DENSE_TRANSPOSE)):
            if layer.padding_mode not in ("zeros", "circular"):
                raise ConfigError(
                    f"spectral_norm: padding_mode={layer.padding_mode!r} repeats inputs; use zeros or circular"
                )
            # The weight of a transposed convolution is that of the convolution it is the adjoint of.
            axes = tuple(range(layer.weight.ndim))
            return cls(axes, 0, layer.groups, tuple(layer.kernel_size), tuple(layer.stride), tuple(layer.dilation))
        raise ConfigError(f"spectral_norm: {type(layer).__name__} is not a linear or convolution layer")

    def waves(self) -> tuple[Tensor, float]:
        """The symbol's waves ``(F, K, phases)`` and the factor by which it may exceed its samples between them.

        Outputs ``stride`` apart see the inputs of each residue through their own taps (the polyphase components): the
        columns of the symbol are the residues. Windows that do not overlap have one tap a residue: one frequency.
        """
        waves, slack = torch.ones(1, 1, 1, dtype=torch.complex128), 1.0
        halved = False
        for k, stride, dilation in zip(self.kernel, self.stride, self.dilation, strict=True):
            common = math.gcd(stride, dilation)
            step, taps = stride // common, torch.arange(k) * (dilation // common)
            shift = torch.div(taps, step, rounding_mode="floor")
            # Residues apart, taps of one spacing are as good as neighbours.
            spacing = math.gcd(*shift.tolist()) or 1
            degree = int(shift.max()) // spacing
            # A long kernel's symbol has more to sample.
            frequencies = max(_FREQUENCIES, 4 * (degree + 1)) if degree else 1
            slack /= math.cos(math.pi * degree / 2 / frequencies)
            # Weights are real: opposite frequencies have conjugate symbols, so half of one axis is enough.
            sampled = frequencies // 2 + 1 if degree and not halved else frequencies
            halved = halved or degree > 0
            phase = 2 * math.pi / frequencies * torch.arange(sampled)[:, None] * (shift // spacing)
            wave = torch.polar(torch.ones_like(phase), phase).to(torch.complex128)
            wave = wave[:, :, None] * (taps[:, None] % step == torch.arange(step))
            waves = torch.einsum("fkp,glq->fgklpq", waves, wave).flatten(4).flatten(2, 3).flatten(0, 1)
        return waves, slack


class _Spectral(nn.Module):
    r"""Divides a weight by (an upper bound of) the largest singular value of its layer.

    ``reshape``: of the matrix ``(out, in * K)`` (Miyato et al. 2018). ``operator``: of the convolution on the fully
    active lattice. That convolution's symbol :math:`\hat W(f) = \sum_k W_k e^{2 \pi i f k}` is a trigonometric
    polynomial whose norm bounds the layer on every lattice and every support; it is sampled at 16 frequencies an axis
    and the sampling bound :math:`\prod_a \cos(\pi (K_a - 1) / 32)^{-1}` makes up for what lies between them.
    """

    def __init__(self, layer: nn.Module, norm: str) -> None:
        super().__init__()
        self.geometry, self.slack = _Geometry.of(layer), 1.0
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.detach()
        self.operator = norm == "operator" and len(self.geometry.kernel) > 0
        self.register_buffer("waves", None, persistent=False)
        if self.operator:
            waves, self.slack = self.geometry.waves()
            parts = torch.stack([waves.real, waves.imag]) if len(waves) > 1 else waves.real[None]
            self.register_buffer("waves", parts.to(weight.device, weight.dtype), persistent=False)
        symbol = self._symbol(weight)
        u = torch.randn(*symbol.shape[1:-1], len(symbol), dtype=weight.dtype, device=weight.device)
        self.register_buffer("u", _unit(u))
        self.register_buffer("v", torch.zeros_like(symbol[0, :, :, 0, :, None].expand(-1, -1, -1, len(symbol))))
        self.register_buffer("largest", torch.zeros((), dtype=torch.int64, device=weight.device))
        self.iterate(weight, 30)

    waves: Tensor | None
    u: Tensor
    v: Tensor
    largest: Tensor

    def _symbol(self, weight: Tensor, at: Tensor | None = None) -> Tensor:
        """Real and imaginary part of the symbol at all or some frequencies ``(2, F, groups, rows, columns)``.

        Of a matrix without frequencies there is the real part alone: ``(1, 1, 1, rows, columns)``.
        """
        g = self.geometry
        w = weight.permute(g.axes)
        if self.waves is None:
            return w.flatten(1)[None, None, None]
        waves = self.waves if at is None else self.waves[:, at]
        blocks = torch.stack(w.flatten(2).chunk(g.groups, g.grouped))
        taps = blocks.movedim(3, 0)
        product = waves.transpose(2, 3).flatten(0, 2) @ taps.flatten(1)
        product = product.view(*waves.shape[:2], waves.shape[3], *taps.shape[1:])
        # (2, F, phases, G, rows, columns): the phases of a column stand side by side.
        return product.permute(0, 1, 3, 4, 2, 5).flatten(4)

    @torch.no_grad()
    def iterate(self, weight: Tensor, steps: int) -> None:
        """Power iteration at all frequencies at once, and which of them has the largest singular value."""
        symbol = self._symbol(weight)
        u = self.u
        for _ in range(steps):
            v = _unit(_product(symbol.mT, u, -1))
            u = _product(symbol, v, 1)
            sigma = torch.linalg.vector_norm(u, dim=(-2, -1))
            u = _unit(u)
        self.u.copy_(u)
        self.v.copy_(v)
        self.largest.copy_(sigma.argmax())

    def sigma(self, weight: Tensor) -> Tensor:
        """The largest singular value as far as it is known, a function of the weight with u and v held."""
        groups = self.u.shape[1]
        at, group = self.largest // groups, self.largest % groups
        symbol = self._symbol(weight, at[None])[:, 0].index_select(1, group[None])[:, 0]
        # Copies, since the next iteration comes before this one's backward where a layer is used twice.
        u, v = self.u[at, group].clone(), self.v[at, group].clone()
        return (u * _product(symbol, v, 1)).sum() * self.slack

    def forward(self, weight: Tensor) -> Tensor:
        # Half precision would not resolve the last digits of a norm.
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self.iterate(weight.detach(), 1)
            return weight / self.sigma(weight)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=(-2, -1), keepdim=True).clamp(min=1e-12)


def _product(symbol: Tensor, vectors: Tensor, sign: int) -> Tensor:
    """``(A + sign i B) (x + i y)``, real and imaginary part side by side: complex buffers survive no ``Module.to``."""
    if len(symbol) == 1:
        return symbol[0] @ vectors
    a, b = symbol[0] @ vectors, symbol[1] @ vectors
    return torch.stack([a[..., 0] - sign * b[..., 1], a[..., 1] + sign * b[..., 0]], -1)


def spectral_norm(layer: M, norm: str = "reshape") -> M:
    """Normalises one linear or convolution layer, dense or sparse, in place.

    References:
        Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957; The Singular Values of Convolutional Layers (Sedghi, Gupta, Long, 2019),
        https://arxiv.org/abs/1805.10408; Bounding Multivariate Trigonometric Polynomials (Pfister and Bresler, 2019),
        https://arxiv.org/abs/1802.09588

    Args:
        layer: Its ``weight`` is replaced by the normalised one; power iteration advances in training mode only.
        norm: ``"reshape"``: the usual matrix, which does not bound the convolution. ``"operator"``: the convolution on
            the fully active lattice, which bounds it on every support.

    Returns:
        The same layer.
    """
    if norm not in _NORMS:
        raise ConfigError(unknown_name("spectral norm", norm, _NORMS))
    parametrize.register_parametrization(layer, "weight", _Spectral(layer, norm), unsafe=True)
    return layer


def spectral_normalise(module: M, norm: str = "reshape") -> M:
    """:func:`spectral_norm` of every linear and convolution layer inside a module."""
    for layer in list(module.modules()):
        if isinstance(layer, (nn.Linear, _Conv, *_DENSE, *_DENSE_TRANSPOSE)):
            spectral_norm(layer, norm)
    return module


@torch.no_grad()
def operator_norm(layer: Any, norm: str = "operator", steps: int = 200) -> float:
    """The largest singular value that :func:`spectral_norm` divides by, converged.

    Args:
        layer: A linear or convolution layer.
        norm: ``"reshape"`` or ``"operator"`` (an upper bound, within two per cent an axis for three taps).
        steps: Power iterations.
    """
    measured = _Spectral(layer, norm)
    measured.iterate(layer.weight, steps)
    return float(measured.sigma(layer.weight))
