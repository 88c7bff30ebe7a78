"""Interpolation between events, and the gradient of a critic there."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from sparsegen.events import Column, Events
from sparsegen.kernels import assign
from sparsegen.nets.base import Critic

__all__ = ["gradient_norm", "interpolate"]


class Scores(Protocol):
    """Anything that scores events ``(B,)``."""

    def __call__(self, events: Events) -> Tensor: ...


def gradient_norm(critic: Scores, events: Events, leaves: tuple[Tensor, ...]) -> Tensor:
    """Squared norm of the critic's gradient over the hits of each event ``(B,)``, itself differentiable.

    Args:
        critic: Called once with ``events``.
        events: Built from ``leaves``.
        leaves: Tensors with one row a hit; one that the critic does not look at has no gradient.
    """
    scores = critic(events)
    gradients = torch.autograd.grad(scores.sum(), leaves, create_graph=True, materialize_grads=True)
    return events.sum_hits(sum((g.square().sum(1) for g in gradients), torch.zeros((), device=scores.device)))


def interpolate(critic: Critic, real: Events, fake: Events, generator: torch.Generator) -> Events:
    r"""Events between real and generated ones, ``t`` of the way, with one uniform ``t`` an event.

    Cells are interpolated on the union of the two supports, where a cell that one side lacks counts as zero; a critic
    that has a gradient at empty cells too (``critic.support``) is given all of them. Points are paired by the
    assignment of least cost, the short way round a periodic axis; those left over keep their place and fade to zero.
    Where one side has cells and the other has not, both are taken as the critic sees them.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028

    Args:
        critic: Whose units and support are used.
        real: ``B`` events.
        fake: ``B`` events.
        generator: Source of ``t``.
    """
    real, fake = real.detach().counted(), fake.detach().counted()
    t = torch.rand(len(real), generator=generator, device=generator.device).to(real.device, real.features.dtype)
    if not _share_cells(real, fake):
        real, fake = critic.support(real), critic.support(fake)
    mixed = _interpolate_cells if _share_cells(real, fake) else _interpolate_points
    return critic.support(mixed(critic, real, fake, t))


def _share_cells(real: Events, fake: Events) -> bool:
    return real.is_cells and fake.is_cells and real.grid == fake.grid


def _interpolate_cells(critic: Critic, real: Events, fake: Events, t: Tensor) -> Events:
    real, fake = real.coalesce(), fake.coalesce()
    mixed = torch.cat([_fade(critic, real, t), _fade(critic, fake, 1 - t)])
    batch = torch.cat([real.batch, fake.batch])
    order = torch.argsort(batch, stable=True)
    union = real._like(
        coords=torch.cat([real.coords, fake.coords])[order],
        features=mixed[order],
        offsets=torch.nn.functional.pad((real.counts + fake.counts).cumsum(0), (1, 0)),
    )
    # Companded values add up like any additive column, so that both sides meet in their cell.
    summed = union.with_features(union.features, [Column(c.name, c.unit) for c in real.columns]).coalesce()
    return summed.with_features(critic.scaler.expand(summed.features), real.columns)


def _fade(critic: Critic, events: Events, weight: Tensor) -> Tensor:
    return critic.scaler.compand(events.features) * weight[events.batch][:, None]


def _interpolate_points(critic: Critic, real: Events, fake: Events, t: Tensor) -> Events:
    a, b = _rows(critic, real), _rows(critic, fake)
    d = len(real.axes)
    period = torch.tensor(critic.scaler.periods, device=b.device, dtype=b.dtype) / critic.scaler.spread
    wraps = [*period.tolist(), *[math.inf] * len(real.columns)]
    pair = assign(a, real.offsets, b, fake.offsets, period=wraps)
    matched = (pair >= 0).nonzero()[:, 0]
    partner = pair[matched]
    alone_a = (pair < 0).nonzero()[:, 0]
    taken = torch.zeros(len(b), dtype=torch.bool, device=b.device).index_fill(0, partner, True)
    alone_b = (~taken).nonzero()[:, 0]
    w = t[real.batch][matched][:, None]
    shift = b[partner, :d] - a[matched, :d]
    shift = torch.where(period.isfinite(), shift - period * (shift / period).round(), shift)
    between = torch.cat([a[matched, :d] + (1 - w) * shift, w * a[matched, d:] + (1 - w) * b[partner, d:]], 1)
    fade_a = torch.cat([a[alone_a, :d], t[real.batch[alone_a]][:, None] * a[alone_a, d:]], 1)
    fade_b = torch.cat([b[alone_b, :d], (1 - t)[fake.batch[alone_b]][:, None] * b[alone_b, d:]], 1)
    rows = torch.cat([between, fade_a, fade_b])
    batch = torch.cat([real.batch[matched], real.batch[alone_a], fake.batch[alone_b]])
    order = torch.argsort(batch, stable=True)
    counts = torch.zeros_like(real.counts).index_add(0, batch, torch.ones_like(batch))
    return real._like(
        coords=critic.scaler.displace(rows[order, :d]),
        features=critic.scaler.expand(rows[order, d:]),
        offsets=torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
    )


def _rows(critic: Critic, events: Events) -> Tensor:
    return torch.cat([critic.scaler.place(events.positions), critic.scaler.compand(events.features)], 1)
