"""The classifier of the CaloChallenge, so that an AUC can stand beside the published ones.

A perceptron with layers of 2,048 units is trained on three fifths of both samples; the epoch of the best accuracy on
one fifth is kept, an isotonic regression on that fifth calibrates it, and the last fifth gives AUC and divergence.

References:
    CaloChallenge 2022: a community challenge for fast calorimeter simulation, Krause et al., 2024,
    https://arxiv.org/abs/2410.21611
    CaloFlow: fast and accurate generation of calorimeter showers with normalizing flows, Krause, Shih, 2021,
    https://arxiv.org/abs/2106.05285
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from sparsegen.errors import DataError, SparsegenError

__all__ = ["BATCH", "EPOCHS", "LEARNING_RATE", "WIDTH", "calibrated", "challenge_scores"]

Array = NDArray[np.float64]
WIDTH, BATCH, LEARNING_RATE, EPOCHS = 2048, 1000, 2e-4, 50
LEAST = 1e-6
"""Calibrated probabilities lie this far from 0 and 1, so that an entropy is finite."""


def calibrated(scores: Array, labels: Array, new: Array) -> Array:
    """Probabilities that rise with a score, fitted to labels by isotonic regression and read off for new scores.

    Between fitted scores the probability is linear, outside them constant.

    Args:
        scores: ``(n,)`` of the calibration part.
        labels: ``(n,)`` zeros and ones.
        new: ``(m,)`` scores to calibrate.

    Example:
        >>> calibrated(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.25])).tolist()
        [0.5]
    """
    if not hasattr(optimize, "isotonic_regression"):
        raise SparsegenError("the protocol 'calochallenge' of a classifier needs scipy 1.12 or newer; update scipy")
    # Equal scores are one place, with the mean label.
    places, which = np.unique(scores, return_inverse=True)
    weights = np.bincount(which).astype(np.float64)
    means = np.bincount(which, weights=labels) / weights
    fitted = optimize.isotonic_regression(means, weights=weights).x
    return np.interp(new, places, np.clip(fitted, LEAST, 1 - LEAST))


def _net(inputs: int, width: int, generator: torch.Generator) -> nn.Sequential:
    # The published code counts its two hidden layers after the one that takes the features in.
    sizes = (inputs, width, width, width)
    layers: list[nn.Module] = []
    # Layers draw weights when they are made: the caller's random state is not theirs to use.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.01)]
        net = nn.Sequential(*layers, nn.Linear(width, 1)).double()
        for parameter, fan in _fans(net):
            parameter.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=generator)
    return net


def _fans(net: nn.Sequential) -> Iterator[tuple[Tensor, int]]:
    for layer in net:
        if isinstance(layer, nn.Linear):
            yield layer.weight, layer.in_features
            yield layer.bias, layer.in_features


def challenge_scores(
    generated: Array,
    reference: Array,
    *,
    epochs: int = EPOCHS,
    width: int = WIDTH,
    batch: int = BATCH,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Calibrated probabilities of being generated, for the last fifth of the generated and of the reference events.

    Features are taken as they are, in float64, as published.

    Args:
        generated: ``(n, F)``.
        reference: ``(m, F)``.
        epochs: Passes over the training part.
        width: Units a layer.
        batch: Events a step.
        seed: Of split, initial weights and order.

    Raises:
        DataError: Fewer than five events on a side.
    """
    if min(len(generated), len(reference)) < 5:
        raise DataError(f"{len(generated)} generated and {len(reference)} reference events; expected 5 or more of each")
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[], [], []]
    for sample in (generated, reference):
        order = torch.randperm(len(sample), generator=generator)
        rows = torch.from_numpy(sample)[order]
        cuts = len(sample) * 3 // 5, len(sample) * 4 // 5
        for part, taken in zip(parts, rows.tensor_split(cuts), strict=True):
            part.append(taken)
    (x, y), (valid, truth), (test, answer) = (
        (torch.cat(part), torch.cat([torch.ones(len(part[0])), torch.zeros(len(part[1]))]).double()) for part in parts
    )
    net = _net(x.shape[1], width, generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    loss = nn.functional.binary_cross_entropy_with_logits

    @torch.no_grad()
    def logits(events: Tensor) -> Tensor:
        return torch.cat([net(some)[:, 0] for some in events.split(batch)])

    best, weights = -1.0, copy.deepcopy(net.state_dict())
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            loss(net(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
        accuracy = float(((logits(valid) > 0) == (truth > 0)).double().mean())
        if accuracy > best:
            best, weights = accuracy, copy.deepcopy(net.state_dict())
    net.load_state_dict(weights)
    scores = calibrated(logits(valid).sigmoid().numpy(), truth.numpy(), logits(test).sigmoid().numpy())
    ours = answer.numpy() > 0
    return scores[ours], scores[~ours]
