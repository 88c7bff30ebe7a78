"""Losses of the adversarial game, as functions of the critic's scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

from sparsegen.registry import Registry

__all__ = ["LOSSES", "AdversarialLoss"]


@dataclass(frozen=True)
class AdversarialLoss:
    """One game: what the critic and what the generator minimise.

    Args:
        critic: ``(real scores, fake scores) -> scalar``.
        generator: ``fake scores -> scalar``.
        summary: Formula and source.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    summary: str


LOSSES: Registry[AdversarialLoss] = Registry("adversarial loss")


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """``-E log s(D(x)) - E log(1 - s(D(G(z))))`` with ``s`` the logistic function."""
    return softplus(-real).mean() + softplus(fake).mean()


LOSSES.register("minimax")(
    AdversarialLoss(
        _cross_entropy, lambda fake: -softplus(fake).mean(), "E log(1 - D(G(z))) as it stands (Goodfellow et al. 2014)"
    )
)
LOSSES.register("nonsaturating")(
    AdversarialLoss(_cross_entropy, lambda fake: softplus(-fake).mean(), "-E log D(G(z)) (Goodfellow et al. 2014)")
)
LOSSES.register("hinge")(
    AdversarialLoss(
        lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
        "margins at +-1 (Lim and Ye 2017, Miyato et al. 2018)",
    )
)
LOSSES.register("wasserstein")(
    AdversarialLoss(
        lambda real, fake: fake.mean() - real.mean(),
        lambda fake: -fake.mean(),
        "E D(x) - E D(G(z)) (Arjovsky et al. 2017); wants penalty=gp",
    )
)
LOSSES.register("least-squares")(
    AdversarialLoss(
        lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
        lambda fake: (fake - 1).square().mean() / 2,
        "targets 1 and 0 (Mao et al. 2017)",
    )
)
