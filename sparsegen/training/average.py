"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    r"""A second set of a module's parameters that follows them slowly.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t, \quad d_t = \min(d, (1 + t) / (10 + t))

    Args:
        module: Whose parameters to average; buffers are shared.
        decay: The decay :math:`d`.

    References:
        The unusual effectiveness of averaging in GAN training (Yazici et al., 2019), https://arxiv.org/abs/1806.04498
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in module.named_parameters()]
        self._live: list[Tensor] = list(module.parameters())
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average after step ``step`` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the module's parameters and their average, in place; a second call undoes it."""
        for live, average in zip(self._live, self._average, strict=True):
            held = live.detach().clone()
            live.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self.names, self._average, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over averaged parameters."""
        for name, average in zip(self.names, self._average, strict=True):
            average.copy_(state[name])
