"""What models with an encoder, a decoder and a normal prior share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Model, Stage
from sparsegen.models.multiplicity import EmpiricalMultiplicity
from sparsegen.nets import Decoder, Encoder

__all__ = ["DecodingModel", "LatentModel"]


class DecodingModel(Model):
    """A model that samples by decoding codes.

    Args:
        decoder: Codes to events.

    Attributes:
        draws_counts: Whether every decoder is told how many hits to make, also one that could decide for itself.
    """

    draws_counts = False

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.multiplicity = EmpiricalMultiplicity()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (FitStage(self.multiplicity.fit, "multiplicity"), GradientStage(self.step))

    def prior(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Codes ``(n, latent)`` from the prior, standard normal unless a model says otherwise."""
        like = next(self.decoder.parameters())
        device = generator.device if generator is not None else like.device
        return torch.randn(n, self.decoder.latent, generator=generator, device=device, dtype=like.dtype).to(like.device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        """Draws ``n`` events; see :meth:`sparsegen.models.base.Model.sample`."""
        z = self.prior(n, condition, generator)
        return self.decode(z, condition, counts=counts, generator=generator)

    def decode(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Events:
        """Events of codes ``(B, latent)``; multiplicities are drawn where the decoder needs them and none are given."""
        if counts is None and (self.draws_counts or self.decoder.needs_counts):
            counts = self.multiplicity.sample(len(z), condition, generator).to(z.device)
        decoded = self.decoder(z, condition, counts=counts, generator=generator)
        events: Events = decoded.events
        return events

    @torch.no_grad()
    def interpolate(
        self,
        a: Tensor,
        b: Tensor,
        steps: int,
        *,
        condition: Tensor | None = None,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Events]:
        """Events along the straight line between two batches of codes, both ends included.

        All steps share their noise, so that what changes along the line is the code.

        Args:
            a: Codes ``(B, latent)``.
            b: The other end.
            steps: How many events along each line, 2 or more.
            condition: ``(B, K)`` or None.
            counts: Hits per event ``(B,)``; drawn once for all steps where the decoder needs them.
            generator: Source of randomness.
        """
        if generator is None:
            seed = int(torch.randint(2**62, (1,)))
        else:
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        return [
            self.decode(
                torch.lerp(a, b, float(t)),
                condition,
                counts=counts,
                generator=torch.Generator().manual_seed(seed),
            )
            for t in torch.linspace(0, 1, steps)
        ]


class LatentModel(DecodingModel):
    """A model that also encodes.

    Args:
        encoder: Events to codes.
        decoder: Codes to events.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.encoder = encoder

    @property
    def optimized(self) -> Mapping[str, tuple[str, ...]]:
        return {"model": ("encoder", "decoder")}

    def encode(self, events: Events) -> Tensor:
        """Codes ``(B, latent)``."""
        codes: Tensor = self.encoder(events)
        return codes

    @torch.no_grad()
    def interpolate(
        self,
        a: Tensor | Events,
        b: Tensor | Events,
        steps: int,
        *,
        condition: Tensor | None = None,
        counts: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Events]:
        """As :meth:`DecodingModel.interpolate`; events are encoded first, and the condition is then that of ``a``."""
        if condition is None and isinstance(a, Events):
            condition = a.condition
        a, b = (self.encode(x) if isinstance(x, Events) else x for x in (a, b))
        return super().interpolate(a, b, steps, condition=condition, counts=counts, generator=generator)

    @torch.no_grad()
    def reconstruct(self, events: Events, *, generator: torch.Generator | None = None) -> Events:
        """Encodes and decodes, with the multiplicity of the original where the decoder needs one."""
        counts = events.counts if self.decoder.needs_counts else None
        return self.decode(self.encode(events), events.condition, counts=counts, generator=generator)
