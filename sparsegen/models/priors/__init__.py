"""Laws of latent codes, fitted after an autoencoder is trained: one file each, interchangeable.

A new law is one file that registers itself, and its import here.
"""

from sparsegen.models.priors.adversarial import LatentGAN, LatentWGAN
from sparsegen.models.priors.base import PRIORS, LatentPrior, build_prior
from sparsegen.models.priors.conditional import CodeLaw, ConditionCells
from sparsegen.models.priors.drift import Drift
from sparsegen.models.priors.flow import Flow
from sparsegen.models.priors.kde import KernelDensity
from sparsegen.models.priors.mixture import Mixture
from sparsegen.models.priors.normal import Normal
from sparsegen.models.priors.transport import Transport
from sparsegen.models.priors.whitening import Whitening

__all__ = [
    "PRIORS",
    "CodeLaw",
    "ConditionCells",
    "Drift",
    "Flow",
    "KernelDensity",
    "LatentGAN",
    "LatentPrior",
    "LatentWGAN",
    "Mixture",
    "Normal",
    "Transport",
    "Whitening",
    "build_prior",
]
