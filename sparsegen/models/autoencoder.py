"""Autoencoders whose codes get a law afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.losses import bernoulli_kl, gradient_norm
from sparsegen.models.base import FitStage, GradientStage, Optimizers, Role, Stage
from sparsegen.models.latent import LatentModel
from sparsegen.models.multiplicity import on_cpu
from sparsegen.models.priors import CodeLaw
from sparsegen.nets import Decoder, Encoder
from sparsegen.nets.base import noise_like

__all__ = ["Autoencoder"]


class Autoencoder(LatentModel):
    r"""An autoencoder, and a law of its codes fitted when it is trained.

    .. math:: \mathcal L = -\log p(x \mid z + \sigma s \epsilon)
              + \lambda \left\|\partial z / \partial x\right\|_F^2
              + \beta \sum_j KL(\rho \,\|\, \hat\rho_j), \qquad z = f(x + \sigma_x \eta)

    with :math:`\eta, \epsilon` standard normal noise, s the spread of the codes, and :math:`\hat\rho` the mean of
    ``sigmoid(z)`` over a batch. The reconstruction is the decoder's own. With all weights at zero it is the plain,
    deterministic autoencoder. Under conditions there is one law of codes for each class or bin of the condition.

    Pooling switches are no option: a decoder is given codes alone, as when it samples, and no law of codes tells where
    maxima were. Networks that only reconstruct hand them on by :class:`sparsegen.sparse.MaxPool` (``return_switches``)
    and :class:`sparsegen.sparse.Unpool`.

    References:
        Denoising: Extracting and Composing Robust Features with Denoising Autoencoders (Vincent et al., 2008),
        https://doi.org/10.1145/1390156.1390294;
        contractive: Contractive Auto-Encoders: Explicit Invariance During Feature Extraction (Rifai et al., 2011),
        https://icml.cc/2011/papers/455_icmlpaper.pdf;
        sparse: Sparse autoencoder (Ng, 2011), https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf

    Args:
        encoder: Events to codes.
        decoder: Codes to events.
        prior: One of :data:`sparsegen.models.priors.PRIORS`, or its name and options.
        bins: Most laws for a continuous condition, on bins of equal numbers of training events.
        noise: Standard deviation of normal noise on the codes in training, in units of their own spread; it makes
            neighbouring codes decode alike.
        denoise: Standard deviation of normal noise on what the encoder sees in training, features and positions in
            units of order one; what is reconstructed is the event without it.
        contraction: Weight of the squared Frobenius norm of the encoder's Jacobian in the same units, taken at the
            event's own hits and estimated without bias from one random projection of the codes.
        sparsity: Weight of the divergence of the codes' mean activations from ``activation``.
        activation: Wanted mean activation.
    """

    roles: ClassVar[Mapping[str, Role]] = {"encoder": Role("encoder"), "decoder": Role("decoder")}
    late: ClassVar[frozenset[str]] = frozenset({"prior", "bins"})

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        *,
        prior: str | Mapping[str, Any] = "normal",
        bins: int = 8,
        noise: float = 0.1,
        denoise: float = 0.0,
        contraction: float = 0.0,
        sparsity: float = 0.0,
        activation: float = 0.05,
    ) -> None:
        super().__init__(encoder, decoder)
        name = type(self).__name__
        if not 0 < activation < 1:
            raise ConfigError(f"{name}: activation={activation}; expected a number between 0 and 1")
        weights = {"noise": noise, "denoise": denoise, "contraction": contraction, "sparsity": sparsity}
        for option, value in weights.items():
            if not value >= 0:
                raise ConfigError(f"{name}: {option}={value}; expected 0 or more")
        self.noise, self.denoise, self.contraction = noise, denoise, contraction
        self.sparsity, self.activation = sparsity, activation
        self.code_law = CodeLaw(prior, bins)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            FitStage(self.multiplicity.fit, "multiplicity"),
            GradientStage(self.step, "autoencode"),
            FitStage(self.fit_prior, "prior"),
        )

    def step(self, events: Events, optimizers: Optimizers, generator: torch.Generator) -> dict[str, Tensor]:
        """One step on the reconstruction and the penalties."""
        codes = self.encoder(self._corrupted(events, generator) if self.denoise else events)
        codes = codes if codes.dtype == torch.float64 else codes.float()
        spread = codes.detach().std(0, correction=0)
        z = codes + self.noise * spread * noise_like(codes, generator) if self.noise else codes
        decoded = self.decoder(z, events.condition, target=events, generator=generator)
        terms = {name: term.mean() for name, term in self.decoder.reconstruction(decoded, events).items()}
        if self.contraction:
            terms["contraction"] = self.contraction * self.squared_jacobian(events, generator).mean()
        if self.sparsity:
            terms["sparsity"] = self.sparsity * bernoulli_kl(self.activation, codes.sigmoid().mean(0)).sum()
        loss = sum(terms.values(), torch.zeros((), device=z.device))
        optimizers.minimise("model", loss)
        return {"loss": loss.detach(), "spread": spread.mean()} | {name: t.detach() for name, t in terms.items()}

    def _corrupted(self, events: Events, generator: torch.Generator) -> Events:
        """The events with noise on their features and positions, in the encoder's units; cells stay where they are."""
        scaler = self.encoder.scaler
        u = scaler.compand(events.features)
        features = scaler.expand(u + self.denoise * noise_like(u, generator))
        if events.is_cells:
            return events.with_features(features)
        p = scaler.place(events.coords)
        return events._like(coords=scaler.displace(p + self.denoise * noise_like(p, generator)), features=features)

    def squared_jacobian(self, events: Events, generator: torch.Generator) -> Tensor:
        r"""An unbiased estimate of :math:`\|\partial z / \partial x\|_F^2` of each event ``(B,)``, differentiable.

        It is :math:`|v^\top \partial z / \partial x|^2` with random signs v (Hutchinson 1990).
        """
        seen, leaves = self.encoder.leaves(events)
        like = next(self.decoder.parameters())
        signs = 2 * noise_like(like.new_empty(len(events), self.decoder.latent), generator).gt(0) - 1
        return gradient_norm(lambda _: (self.encoder(seen) * signs).sum(1), seen, leaves)

    @torch.no_grad()
    def fit_prior(self, batches: Callable[[], Iterable[Events]], generator: torch.Generator) -> dict[str, Any]:
        """Fits the law to the codes of the training events; may be called again without training again."""
        was_training = self.training
        self.eval()
        like = next(self.encoder.parameters())
        codes, conditions = [], []
        names: tuple[str, ...] = ()
        for events in batches():
            codes.append(self.encode(events.to(like.dtype)).cpu().float())
            names = events.conditions
            if events.condition is not None:
                conditions.append(events.condition.detach().cpu())
        self.train(was_training)
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        condition = torch.cat(conditions) if conditions else None
        return self.code_law.fit(torch.cat(codes), condition, names, torch.Generator().manual_seed(seed))

    def prior(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Codes ``(n, latent)`` from the fitted law of their conditions."""
        like = next(self.decoder.parameters())
        return self.code_law.sample(n, condition, on_cpu(generator)).to(like.device, like.dtype)

    def sampling_report(self) -> dict[str, Any]:
        return self.code_law.report()

    def get_extra_state(self) -> dict[str, Any]:
        return self.code_law.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.code_law.load(state)
