"""Autoencoders whose codes get a law afterwards: AE-OT, and the same with simpler laws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Optimizers, Role, Stage
from sparsegen.models.latent import LatentModel
from sparsegen.models.multiplicity import on_cpu
from sparsegen.models.priors import PRIORS, Whitening
from sparsegen.nets import Decoder, Encoder
from sparsegen.nets.base import noise_like

__all__ = ["AEOT", "Autoencoder"]


class Autoencoder(LatentModel):
    r"""An autoencoder, and a law of its codes fitted when it is trained.

    The reconstruction is the decoder's own. Codes are normalised to unit scale along the directions in which they vary
    before the law is fitted.

    References:
        Sparse autoencoder: Ng (2011), https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf;
        denoising autoencoder: Vincent et al. (2008), https://doi.org/10.1145/1390156.1390294

    Args:
        encoder: Events to codes.
        decoder: Codes to events.
        prior: One of :data:`sparsegen.models.priors.PRIORS`.
        noise: Standard deviation of normal noise on the codes in training, in units of their own spread; it makes
            neighbouring codes decode alike.
        sparsity: Weight of the divergence of the codes' mean activations ``sigmoid(z)`` from ``activation``.
        activation: Wanted mean activation.
    """

    roles: ClassVar[Mapping[str, Role]] = {"encoder": Role("encoder"), "decoder": Role("decoder")}

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        *,
        prior: str = "normal",
        noise: float = 0.1,
        sparsity: float = 0.0,
        activation: float = 0.05,
    ) -> None:
        super().__init__(encoder, decoder)
        if not 0 < activation < 1:
            raise ConfigError(f"{type(self).__name__}: activation={activation}; expected a number between 0 and 1")
        self.noise, self.sparsity, self.activation = noise, sparsity, activation
        self.whitening = Whitening()
        self.latent_prior = PRIORS[prior]()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            FitStage(self.multiplicity.fit, "multiplicity"),
            GradientStage(self.step, "autoencode"),
            FitStage(self.fit_prior, "prior"),
        )

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        """One step on the reconstruction."""
        codes = self.encoder(events)
        codes = codes if codes.dtype == torch.float64 else codes.float()
        spread = codes.detach().std(0, correction=0)
        z = codes + self.noise * spread * noise_like(codes, generator) if self.noise else codes
        decoded = self.decoder(z, events.condition, target=events, generator=generator)
        terms = {name: term.mean() for name, term in self.decoder.reconstruction(decoded, events).items()}
        if self.sparsity:
            terms["sparsity"] = self.sparsity * _bernoulli_kl(self.activation, codes.sigmoid().mean(0)).sum()
        loss = sum(terms.values(), torch.zeros((), device=z.device))
        optimizers.minimise("model", loss)
        return {"loss": loss.detach(), "spread": spread.mean()} | {name: t.detach() for name, t in terms.items()}

    @torch.no_grad()
    def fit_prior(self, batches: Callable[[], Iterable[Events]], generator: torch.Generator) -> dict[str, Any]:
        """Fits the law to the codes of the training events; may be called again without training again."""
        was_training = self.training
        self.eval()
        like = next(self.encoder.parameters())
        codes = torch.cat([self.encode(events.to(like.dtype)).cpu() for events in batches()]).float()
        self.train(was_training)
        coordinates = self.whitening.fit(codes)
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        fitted = self.latent_prior.fit(coordinates, torch.Generator().manual_seed(seed))
        return {"codes": len(codes), "rank": coordinates.shape[1]} | fitted

    def prior(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Codes ``(n, latent)`` from the fitted law."""
        like = next(self.decoder.parameters())
        coordinates = self.latent_prior.sample(n, on_cpu(generator))
        return self.whitening.inverse(coordinates).to(like.device, like.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        return {"whitening": self.whitening.state(), "prior": self.latent_prior.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.whitening.load(state["whitening"])
        self.latent_prior.load(state["prior"])


class AEOT(Autoencoder):
    """An autoencoder whose codes are reached from normal noise by the semi-discrete optimal transport map.

    References:
        AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport (An et al., 2020),
        https://openreview.net/forum?id=HkldyTNYwH

    Args:
        encoder: Events to codes.
        decoder: Codes to events.
        noise: As for :class:`Autoencoder`.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, *, noise: float = 0.1) -> None:
        super().__init__(encoder, decoder, prior="ot", noise=noise)


def _bernoulli_kl(wanted: float, mean: Tensor) -> Tensor:
    """``KL(Bernoulli(wanted) || Bernoulli(mean))``."""
    return wanted * (wanted / mean).log() + (1 - wanted) * ((1 - wanted) / (1 - mean)).log()
