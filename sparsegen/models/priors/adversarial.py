"""Small adversarial games on frozen codes: the latent GAN and the latent Wasserstein GAN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import ConfigError
from sparsegen.losses import LOSSES
from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted, fresh_seed
from sparsegen.nets.base import MLP

__all__ = ["LatentGAN", "LatentWGAN"]

_DECAY = 0.99
"""Of the average of the generator's weights, which is what samples."""


@PRIORS.register("gan")
class LatentGAN(LatentPrior):
    """A generator and a critic of a few layers that play for the codes of a trained autoencoder (l-GAN).

    References:
        Learning Representations and Generative Models for 3D Point Clouds (Achlioptas et al., 2018),
        https://arxiv.org/abs/1707.02392

    Args:
        steps: Steps of the generator.
        batch: Codes a step.
        lr: Adam's learning rate.
        width: Width of the generator's hidden layer; the critic has two, of twice and four times as much.
    """

    loss = "nonsaturating"
    n_critic = 1
    penalty = 0.0

    def __init__(self, steps: int = 2000, batch: int = 128, lr: float = 5e-4, width: int = 128) -> None:
        if min(steps, batch, width) < 1 or not lr > 0:
            raise ConfigError(f"latent GAN: steps={steps}, batch={batch}, lr={lr}, width={width}; all must be positive")
        self.steps, self.batch, self.lr, self.width = steps, batch, lr, width
        self.generator: nn.Module | None = None
        self.dim = 0

    def _make(self, dim: int) -> MLP:
        return MLP((dim, self.width, dim))

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.dim = codes.shape[1]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(fresh_seed(generator))
            made, average = self._make(self.dim), self._make(self.dim).requires_grad_(False)
            critic = MLP((self.dim, 2 * self.width, 4 * self.width, 1))
        average.load_state_dict(made.state_dict())
        with torch.enable_grad():
            log = self._play(codes, made, average, critic, generator)
        self.generator = average
        return log

    def _play(
        self, codes: Tensor, made: MLP, average: MLP, critic: MLP, generator: torch.Generator
    ) -> dict[str, float]:
        game = LOSSES[self.loss]
        adams = [torch.optim.Adam(net.parameters(), lr=self.lr, betas=(0.5, 0.9)) for net in (made, critic)]
        size, losses = min(self.batch, len(codes)), torch.zeros(2)
        for step in range(self.steps):
            for _ in range(self.n_critic):
                real = codes[torch.randint(len(codes), (size,), generator=generator)]
                fake = made(torch.randn(size, self.dim, generator=generator)).detach()
                loss = game.critic(critic(real)[:, 0], critic(fake)[:, 0])
                if self.penalty:
                    loss = loss + self.penalty * _slope_penalty(critic, real, fake, generator)
                _step(adams[1], loss)
            answer = game.generator(critic(made(torch.randn(size, self.dim, generator=generator)))[:, 0])
            _step(adams[0], answer)
            with torch.no_grad():
                for slow, live in zip(average.parameters(), made.parameters(), strict=True):
                    slow.lerp_(live, max(1 - _DECAY, 1 / (step + 1)))
                losses += torch.stack([loss.detach(), answer.detach()]) / self.steps
        return {"critic": float(losses[0]), "generator": float(losses[1])}

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        made = fitted(self.generator)
        codes: Tensor = made(torch.randn(n, self.dim, generator=generator))
        return codes

    def state(self) -> dict[str, Any]:
        weights = None if self.generator is None else dict(self.generator.state_dict())
        return {"weights": weights, "dim": self.dim, "width": self.width}

    def load(self, state: dict[str, Any]) -> None:
        self.dim, self.width, self.generator = state["dim"], state["width"], None
        if state["weights"] is not None:
            with torch.random.fork_rng(devices=[]):
                self.generator = self._make(self.dim).requires_grad_(False)
            self.generator.load_state_dict(state["weights"])


@PRIORS.register("wgan")
class LatentWGAN(LatentGAN):
    """The latent GAN with Wasserstein's loss and the gradient penalty (l-WGAN).

    Arguments as for :class:`LatentGAN`.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028
    """

    loss = "wasserstein"
    n_critic = 5
    penalty = 10.0

    def __init__(self, steps: int = 500, batch: int = 128, lr: float = 5e-4, width: int = 128) -> None:
        super().__init__(steps, batch, lr, width)


def _slope_penalty(critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """``E (|grad D| - 1)^2`` on the segments between real and generated codes."""
    t = torch.rand(len(real), 1, generator=generator)
    between = torch.lerp(fake, real, t).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((slope.square().sum(1) + 1e-12).sqrt() - 1).square().mean()


def _step(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()
