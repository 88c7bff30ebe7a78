"""Classifiers that look at a shower's cells themselves: a perceptron on all voxels, a convolution on active cells.

References:
    CaloChallenge 2022: a community challenge for fast calorimeter simulation, Krause et al., 2024,
    https://arxiv.org/abs/2410.21611
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsegen.events import Column, Events
from sparsegen.metrics.calorimeter import ENERGY_NAMES, incident_energy, on_lattice
from sparsegen.metrics.classifier import auc, auc_error, classifier_auc
from sparsegen.metrics.inputs import EventsLike, additive_column, check_comparable, valid_sample, warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.result import Result
from sparsegen.sparse import GlobalPool, SparseConv, SparseTensor, SubmanifoldConv

__all__ = ["ShowerNet", "classifier_auc_cnn", "classifier_auc_voxels", "voxel_features"]

Array = NDArray[np.float64]
LARGEST = 20_000
"""Showers a side, at most."""


def voxel_features(events: Events) -> Array:
    """All voxel energies over the incident energy, and its logarithm: the low-level input of CaloChallenge.

    Showers without an incident energy are divided by their own total, whose logarithm stands in.

    Returns:
        ``(B, cells + 1)`` float64.
    """
    cells, _, _ = on_lattice(events)
    dense = cells.to_dense()[:, cells.index_of(additive_column(cells, ENERGY_NAMES))].double().flatten(1)
    incident = incident_energy(cells)
    scale = (dense.sum(1) if incident is None else incident).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.cat([dense / scale[:, None], scale.log10()[:, None]], 1).numpy()


@metric("classifier_auc_voxels", needs=("layers",))
def classifier_auc_voxels(
    generated: EventsLike,
    reference: EventsLike,
    *,
    epochs: int | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Area under the curve of a perceptron on all voxels; 0.5 if it cannot tell generated from real showers."""
    found = classifier_auc(generated, reference, features=voxel_features, epochs=epochs, protocol=protocol, seed=seed)
    known = incident_energy(reference[0:1]) is not None
    inputs = "low level, as in CaloChallenge" if known else "voxels over their own total"
    return replace(found, name="classifier_auc_voxels", protocol={**found.protocol, "inputs": inputs})


class ShowerNet(nn.Module):
    """Two strided sparse convolutions, summed and averaged over the active cells, and a linear layer.

    Args:
        dim: Axes of the lattice.
        width: Channels.
    """

    def __init__(self, dim: int, width: int = 16) -> None:
        super().__init__()
        self.first = SubmanifoldConv(dim, 2, width, kernel_size=3)
        self.second = SparseConv(dim, width, 2 * width, kernel_size=2, stride=2)
        self.third = SubmanifoldConv(dim, 2 * width, 2 * width, kernel_size=3)
        self.pools = nn.ModuleList([GlobalPool("sum"), GlobalPool("mean")])
        self.head = nn.Sequential(nn.Linear(4 * width + 1, 64), nn.LeakyReLU(0.1), nn.Linear(64, 1))

    def forward(self, x: SparseTensor, energy: Tensor) -> Tensor:
        """Logits ``(B,)`` of active cells with features ``(N, 2)`` and a number per shower ``(B,)``."""
        for layer in (self.first, self.second, self.third):
            x = layer(x)
            x = x.replace(nn.functional.leaky_relu(x.features, 0.1))
        pooled = torch.cat([self.pools[0](x) / 10, self.pools[1](x), energy[:, None]], 1)
        return self.head(pooled)[:, 0]


def _as_input(events: Events) -> tuple[Events, Tensor]:
    """Cells with two features, the share of the energy's scale and its logarithm, and that scale per shower."""
    cells, _, _ = on_lattice(events)
    energy = cells.column(additive_column(cells, ENERGY_NAMES)).double()
    incident = incident_energy(cells)
    scale = (cells.sum_hits(energy) if incident is None else incident).clamp_min(torch.finfo(torch.float32).tiny)
    share = energy / scale[cells.batch]
    features = torch.stack([10 * share, share.clamp_min(1e-7).log10() / 3 + 1], 1).float()
    columns = (Column("share", additive=False), Column("log share", additive=False))
    return cells.replace(features=features, columns=columns), scale.log10().float()


@metric("classifier_auc_cnn", needs=("layers",))
def classifier_auc_cnn(
    generated: EventsLike,
    reference: EventsLike,
    *,
    epochs: int = 10,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Area under the curve of a small sparse convolution network; 0.5 if it cannot tell generated from real showers.

    Args:
        generated: Generated showers.
        reference: Real ones; half of them, never trained on as real, give the floor.
        epochs: Passes over the training part.
        protocol: A :class:`Protocol` or its name; ``events`` caps the sample.
        seed: Of splits, initial weights and order.
    """
    setting = resolve(protocol)
    check_comparable(generated[0:1], reference[0:1])
    (ours, invalid), (theirs, reference_invalid) = (
        valid_sample(events, role=role, invalid=setting.invalid)
        for events, role in ((generated, "generated"), (reference, "reference"))
    )
    size = min(len(ours), len(theirs) // 2, setting.events or LARGEST)
    if size < 20:
        raise TooFewError(
            f"classifier_auc_cnn: {len(ours)} generated and {len(theirs)} reference showers; use 20 and 40 or more"
        )
    rng = np.random.default_rng([seed, 0])
    order = torch.from_numpy(rng.permutation(len(theirs)))
    fake = ours[torch.from_numpy(rng.permutation(len(ours))[:size])]
    real, other = theirs[order[:size]], theirs[order[size : 2 * size]]
    value, error = _two_sample(fake, real, epochs, seed)
    floor, floor_error = _two_sample(other, real, epochs, seed)
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [size, size],
        "available": [len(ours), len(theirs)],
        "classifier": f"sparse convolutions 16-32-32, {epochs} epochs, best validation loss",
        "split": "48 % train, 12 % validation, 40 % test",
        "floor_error": floor_error,
        "reference_invalid": reference_invalid,
        "seed": seed,
        "error": "DeLong",
        "floor": f"one half of the reference, {size} showers, against the other",
    }
    warn_small("classifier_auc_cnn", size, 500, note)
    return Result("classifier_auc_cnn", value, error, size, note, floor, invalid)


def _two_sample(fake: Events, real: Events, epochs: int, seed: int) -> tuple[float, float]:
    """AUC and its error on two fifths of either sample."""
    both, scale = _as_input(Events.cat([fake, real]))
    labels = (torch.arange(len(both)) < len(fake)).float()
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[], [], []]
    for start, n in ((0, len(fake)), (len(fake), len(real))):
        order = start + torch.randperm(n, generator=generator)
        first, last = n * 12 // 25, n * 3 // 5
        for part, rows in zip(parts, (order[:first], order[first:last], order[last:]), strict=True):
            part.append(rows)
    train, valid, test = (torch.cat(part) for part in parts)
    centre, spread = scale[train].mean(), scale[train].std().clamp_min(1e-6)
    scale = (scale - centre) / spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ShowerNet(both.coords.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

    def logits(rows: Tensor) -> Tensor:
        return torch.cat([net(SparseTensor.from_events(both[some]), scale[some]) for some in rows.split(128)])

    loss = nn.functional.binary_cross_entropy_with_logits
    best, weights = math.inf, copy.deepcopy(net.state_dict())
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=generator)].split(128):
            optimizer.zero_grad()
            loss(logits(rows), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(loss(logits(valid), labels[valid]))
        if now < best:
            best, weights = now, copy.deepcopy(net.state_dict())
    net.load_state_dict(weights)
    with torch.no_grad():
        scores = logits(test).numpy()
    positive = labels[test].numpy() > 0
    return auc(scores[positive], scores[~positive]), auc_error(scores[positive], scores[~positive])
