"""Losses as plain functions of tensors."""

from sparsegen.losses.adversarial import LOSSES, AdversarialLoss
from sparsegen.losses.divergences import bernoulli_kl, kl_standard_normal
from sparsegen.losses.penalties import gradient_norm, interpolate

__all__ = ["LOSSES", "AdversarialLoss", "bernoulli_kl", "gradient_norm", "interpolate", "kl_standard_normal"]
