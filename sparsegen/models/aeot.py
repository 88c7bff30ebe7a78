"""AE-OT: an autoencoder, and optimal transport of noise to its codes."""

from __future__ import annotations

from typing import ClassVar

from sparsegen.models.autoencoder import Autoencoder
from sparsegen.nets import Decoder, Encoder

__all__ = ["AEOT"]


class AEOT(Autoencoder):
    """An autoencoder whose codes are reached from normal noise by the semi-discrete optimal transport map.

    The autoencoder comes first, then the map on the codes of all training events, then sampling by the extended map,
    which goes on between neighbouring codes of one mode. How good the map is, is in its certificate.

    References:
        AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport (An et al., 2020),
        https://openreview.net/forum?id=HkldyTNYwH

    Args:
        encoder: Events to codes.
        decoder: Codes to events.
        theta: See :class:`sparsegen.models.priors.Transport`; None switches this test of the singular set off.
        reach: The other test of the singular set; None, the default, switches it off.
        tol: Root-mean-square relative error of the cells' masses.
        max_seconds: Wall time of the fit of each map.
        bins: Most maps for a continuous condition; a class has its own.
        noise: This and the rest as for :class:`Autoencoder`.
        denoise: Noise on the input.
        contraction: Weight of the encoder's squared Jacobian.
        sparsity: Weight of the divergence of mean activations.
        activation: Wanted mean activation.
    """

    late: ClassVar[frozenset[str]] = frozenset({"theta", "reach", "tol", "max_seconds", "bins"})
    trained_as: ClassVar[str] = "autoencoder"

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        *,
        theta: float | None = 0.5,
        tol: float = 0.1,
        max_seconds: float = 120.0,
        bins: int = 8,
        reach: float | None = None,
        noise: float = 0.1,
        denoise: float = 0.0,
        contraction: float = 0.0,
        sparsity: float = 0.0,
        activation: float = 0.05,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            prior={"name": "ot", "theta": theta, "reach": reach, "tol": tol, "max_seconds": max_seconds},
            bins=bins,
            noise=noise,
            denoise=denoise,
            contraction=contraction,
            sparsity=sparsity,
            activation=activation,
        )
