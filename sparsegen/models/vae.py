"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sparsegen.events import Events
from sparsegen.losses import kl_standard_normal
from sparsegen.models.base import Optimizers, Role
from sparsegen.models.latent import LatentModel
from sparsegen.nets import Decoder, Encoder
from sparsegen.nets.base import noise_like

__all__ = ["VAE"]


class VAE(LatentModel):
    r"""Maximises the evidence lower bound, with the divergence weighted by ``beta``.

    .. math:: \mathcal L = -E_{q(z|x)} \log p(x|z) + \beta\, KL(q(z|x) \,\|\, N(0, I))

    The reconstruction is the decoder's own, in nats per typical hit; the divergence is divided by the same number, so
    that ``beta = 1`` is the bound itself where the reconstruction is a likelihood.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114;
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        encoder: Gives mean and log variance: codes of width ``2 latent``.
        decoder: Takes codes of width ``latent``.
        beta: Weight of the divergence.
    """

    roles: ClassVar[Mapping[str, Role]] = {"encoder": Role("encoder", 2), "decoder": Role("decoder")}

    def __init__(self, encoder: Encoder, decoder: Decoder, *, beta: float = 1.0) -> None:
        super().__init__(encoder, decoder)
        self.beta = beta

    def _law(self, events: Events) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(events).chunk(2, dim=1)
        mean = mean if mean.dtype == torch.float64 else mean.float()
        return mean, 6 * torch.tanh(log_var.to(mean.dtype) / 6)

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        """One step on the bound."""
        mean, log_var = self._law(events)
        z = mean + (0.5 * log_var).exp() * noise_like(mean, generator)
        decoded = self.decoder(z, events.condition, target=events, generator=generator)
        terms = {name: term.mean() for name, term in self.decoder.reconstruction(decoded, events).items()}
        kl = kl_standard_normal(mean, log_var).mean()
        loss = sum(terms.values(), torch.zeros((), device=z.device)) + self.beta / self.decoder.schema.hits * kl
        optimizers.minimise("model", loss)
        return {"loss": loss.detach(), "kl": kl.detach()} | {name: t.detach() for name, t in terms.items()}

    def encode(self, events: Events) -> Tensor:
        """Means of the codes ``(B, latent)``."""
        return self._law(events)[0]
