"""Divergences between laws, in closed form."""

from __future__ import annotations

from torch import Tensor

__all__ = ["bernoulli_kl", "kl_standard_normal"]


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""``KL(N(mean, exp(log_var)) || N(0, I))`` in nats.

    .. math:: \tfrac12 \sum_j \left(\mu_j^2 + e^{s_j} - 1 - s_j\right)

    Args:
        mean: ``(B, d)``.
        log_var: ``(B, d)``.

    Returns:
        ``(B,)``.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def bernoulli_kl(wanted: float, mean: Tensor) -> Tensor:
    r"""``KL(Bernoulli(wanted) || Bernoulli(mean))`` in nats, elementwise.

    .. math:: \rho \log\frac{\rho}{\hat\rho} + (1 - \rho) \log\frac{1 - \rho}{1 - \hat\rho}

    Args:
        wanted: :math:`\rho`, between 0 and 1.
        mean: :math:`\hat\rho`, of any shape.
    """
    return wanted * (wanted / mean).log() + (1 - wanted) * ((1 - wanted) / (1 - mean)).log()
