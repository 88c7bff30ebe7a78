"""The generative adversarial network, in its common games and with its common penalties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import Events
from sparsegen.losses import LOSSES, gradient_norm, interpolate
from sparsegen.models.base import Optimizers, Role
from sparsegen.models.latent import DecodingModel
from sparsegen.models.packing import pack, pack_schema
from sparsegen.nets import Critic, Decoder, Schema

__all__ = ["GAN"]

_PENALTIES = ("none", "gp", "r1")


class GAN(DecodingModel):
    r"""A generator and a critic that play against each other.

    The number of hits is never left to the game: it is drawn from the data (:class:`EmpiricalMultiplicity`) and given
    to the generator, whichever its family.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661;
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028;
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018),
        https://arxiv.org/abs/1801.04406;
        PacGAN: The Power of Two Samples in Generative Adversarial Networks (Lin et al., 2018),
        https://arxiv.org/abs/1712.04086

    Args:
        decoder: The generator.
        critic: The critic.
        loss: One of :data:`sparsegen.losses.LOSSES`.
        penalty: ``"none"``; ``"gp"``: ``weight * E(|grad D| - 1)^2`` between real and generated events;
            ``"r1"``: ``weight / 2 * E |grad D|^2`` on real events.
        penalty_weight: Its weight; by default 10 for ``gp`` and 1 for ``r1``.
        n_critic: Steps of the critic for one of the generator, each on a batch of its own.
        pack: Events that the critic judges together (PacGAN); 1 is the plain game. A batch gives as many whole packs
            as it holds.
    """

    roles: ClassVar[Mapping[str, Role]] = {"decoder": Role("decoder"), "critic": Role("critic")}
    betas = (0.0, 0.9)
    draws_counts = True

    def __init__(
        self,
        decoder: Decoder,
        critic: Critic,
        *,
        loss: str = "nonsaturating",
        penalty: str = "r1",
        penalty_weight: float | None = None,
        n_critic: int = 1,
        pack: int = 1,
    ) -> None:
        super().__init__(decoder)
        if penalty not in _PENALTIES:
            raise ConfigError(unknown_name("penalty", penalty, _PENALTIES))
        if n_critic < 1:
            raise ConfigError(f"GAN: n_critic={n_critic}; expected at least 1")
        if pack < 1:
            raise ConfigError(f"GAN: pack={pack}; expected at least 1")
        if len(critic.schema.columns) != pack * len(decoder.schema.counted().columns):
            raise ConfigError(f"GAN: pack={pack} needs a critic of models.packing.pack_schema(schema, {pack})")
        self.critic = critic
        self.loss = LOSSES[loss]
        self.penalty = penalty
        self.penalty_weight = penalty_weight if penalty_weight is not None else {"gp": 10.0}.get(penalty, 1.0)
        self.batches_per_step = n_critic
        self.pack = pack

    @classmethod
    def network_schema(cls, role: str, schema: Schema, options: Mapping[str, Any]) -> Schema:
        """The critic sees packs, the generator makes single events."""
        return pack_schema(schema, int(options.get("pack", 1))) if role == "critic" else schema

    @property
    def optimized(self) -> Mapping[str, tuple[str, ...]]:
        return {"generator": ("decoder",), "critic": ("critic",)}

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        """``n_critic`` steps of the critic, each on its share of the batch, then one of the generator."""
        shares = min(self.batches_per_step, len(events))
        log: dict[str, Tensor] = {}
        for share in range(shares):
            real = self._whole_packs(events[share * len(events) // shares : (share + 1) * len(events) // shares])
            log |= self._critic_step(real, optimizers, generator)
        fake = self._generate(real, generator)
        loss = self.loss.generator(self.critic(pack(fake, self.pack)))
        optimizers.minimise("generator", loss)
        return log | {"generator": loss.detach()}

    def _whole_packs(self, events: Events) -> Events:
        left = len(events) % self.pack
        if left == len(events):
            raise ConfigError(f"GAN: {len(events)} events for packs of {self.pack}; take a larger training.batch")
        return events[: len(events) - left] if left else events

    def _critic_step(self, real: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = pack(self._generate(real, generator), self.pack)
        real = pack(real, self.pack)
        log: dict[str, Tensor] = {}
        if self.penalty == "r1":
            # The scores of the real events are those that the penalty differentiates: one pass serves both.
            real, leaves = self.critic.leaves(self.critic.support(real))
        real_scores, fake_scores = self.critic(real), self.critic(fake)
        loss = self.loss.critic(real_scores, fake_scores)
        log |= {"critic": loss.detach(), "real": real_scores.detach().mean(), "fake": fake_scores.detach().mean()}
        if self.penalty == "r1":
            squared = gradient_norm(lambda _: real_scores, real, leaves)
            loss = loss + self.penalty_weight / 2 * squared.mean()
            log["penalty"] = squared.detach().mean()
        elif self.penalty == "gp":
            between, leaves = self.critic.leaves(interpolate(self.critic, real, fake, generator))
            norm = (gradient_norm(self.critic, between, leaves) + 1e-12).sqrt()
            penalty = (norm - 1).square().mean()
            loss = loss + self.penalty_weight * penalty
            log["penalty"] = penalty.detach()
        optimizers.minimise("critic", loss)
        return log

    def _generate(self, real: Events, generator: torch.Generator) -> Events:
        """As many generated events as real ones, under the same conditions and multiplicities."""
        z = self.prior(len(real), real.condition, generator)
        events: Events = self.decoder(z, real.condition, counts=real.counts, generator=generator).events
        return events
