"""Spectral normalisation, of the reshaped weight or of the convolution itself."""

from __future__ import annotations

import math
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


class _Spectral(nn.Module):
    r"""Divides a weight by (an upper bound of) the largest singular value of its layer.

    ``reshape``: of the matrix ``(out, in * K)`` (Miyato et al. 2018). ``operator``: of the convolution on the fully
    active lattice. That convolution's symbol :math:`\hat W(f) = \sum_k W_k e^{2 \pi i f k}` is a trigonometric
    polynomial whose norm bounds the layer on every lattice and every support; it is sampled at 16 frequencies an axis
    and the sampling bound :math:`\prod_a \cos(\pi (K_a - 1) / 32)^{-1}` makes up for what lies between them.
    """

    def __init__(self, layer: nn.Module, norm: str) -> None:
        super().__init__()
        self.axes, self.kernel, disjoint = _layout(layer)
        matrix = self._matrix(layer.weight.detach())  # type: ignore[operator]
        self.fourier = norm == "operator" and not disjoint and math.prod(self.kernel) > 1
        if self.fourier:
            if getattr(layer, "groups", 1) != 1:
                raise ConfigError(
                    "spectral_norm: the operator norm of a grouped convolution is not implemented; use reshape"
                )
            self.slack = 1.0
            waves = torch.ones(1, 1, dtype=torch.complex64)
            for k in self.kernel:
                # A long kernel's symbol has more to sample.
                frequencies = max(_FREQUENCIES, 4 * k) if k > 1 else 1
                self.slack /= math.cos(math.pi * (k - 1) / 2 / frequencies)
                phase = torch.arange(frequencies)[:, None] * torch.arange(k)
                wave = torch.polar(torch.ones(phase.shape), 2 * math.pi / frequencies * phase)
                waves = torch.einsum("fk,gl->fgkl", waves, wave).flatten(2).flatten(0, 1)
            self.register_buffer("real", waves.real.contiguous(), persistent=False)
            self.register_buffer("imaginary", waves.imag.contiguous(), persistent=False)
            matrix = self._symbol(layer.weight.detach())  # type: ignore[operator]
        u = torch.randn(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device)
        self.register_buffer("u", u / u.norm(dim=-1, keepdim=True))
        self.register_buffer("v", torch.zeros((*matrix.shape[:-2], matrix.shape[-1]), dtype=matrix.dtype))
        self._iterate(matrix, 30)

    real: Tensor
    imaginary: Tensor
    u: Tensor
    v: Tensor

    def _matrix(self, weight: Tensor) -> Tensor:
        """The reshaped weight ``(rows, columns)``."""
        return weight.permute(self.axes).flatten(1)

    def _symbol(self, weight: Tensor) -> Tensor:
        """The symbol at each frequency as a real matrix of twice the size ``(F, 2 rows, 2 columns)``."""
        w = weight.permute(self.axes)
        w = w.reshape(*w.shape[:2], -1)
        real = torch.einsum("oik,fk->foi", w, self.real.to(w.dtype))
        imaginary = torch.einsum("oik,fk->foi", w, self.imaginary.to(w.dtype))
        return torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, steps: int) -> None:
        u = self.u
        for _ in range(steps):
            v = torch.einsum("...oi,...o->...i", matrix, u)
            v = v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            u = torch.einsum("...oi,...i->...o", matrix, v)
            u = u / u.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        self.u.copy_(u)
        self.v.copy_(v)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self._symbol(weight) if self.fourier else self._matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), 1)
        # Power iteration is not part of the function that is differentiated: u and v are constants.
        u, v = self.u.clone(), self.v.clone()
        sigma = torch.einsum("...o,...oi,...i->...", u, matrix, v)
        if self.fourier:
            sigma = sigma.max() * self.slack
        return weight / sigma


def _layout(layer: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """How to permute a layer's weight to ``(rows, columns, *taps)``, its kernel, and whether windows are disjoint."""
    if isinstance(layer, nn.Linear):
        return (0, 1), (), True
    if isinstance(layer, _Transpose):
        return (1, 2, 0), layer.window.kernel, _apart(layer.window.kernel, layer.window.stride)
    if isinstance(layer, _Conv):
        return (2, 1, 0), layer.window.kernel, _apart(layer.window.kernel, layer.window.stride)
    if isinstance(layer, (*_DENSE, *_DENSE_TRANSPOSE)):
        kernel = tuple(layer.kernel_size)
        return tuple(range(2 + len(kernel))), kernel, _apart(kernel, tuple(layer.stride))
    raise ConfigError(f"spectral_norm: {type(layer).__name__} is not a linear or convolution layer")


def _apart(kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    # Windows that do not overlap act on separate inputs: the matrix is the operator.
    return all(k <= s for k, s in zip(kernel, stride, strict=True))


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
    matrix = measured._symbol(layer.weight) if measured.fourier else measured._matrix(layer.weight)
    measured._iterate(matrix, steps)
    sigma = torch.einsum("...o,...oi,...i->...", measured.u, matrix, measured.v)
    return float(sigma.max()) * (measured.slack if measured.fourier else 1.0)
