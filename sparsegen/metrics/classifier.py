"""A small classifier of event features: the two-sample test, and a feature space of its own for labelled data.

References:
    Revisiting classifier two-sample tests, Lopez-Paz, Oquab, 2017, https://arxiv.org/abs/1610.06545
    CaloChallenge 2022: a community challenge for fast calorimeter simulation, Krause et al., 2024,
    https://arxiv.org/abs/2410.21611
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from sparsegen.errors import DataError
from sparsegen.metrics.challenge import BATCH, EPOCHS, LEARNING_RATE, WIDTH, challenge_scores
from sparsegen.metrics.features import EventsOrFeatures, Features, collect_pair
from sparsegen.metrics.inputs import warn_small
from sparsegen.metrics.metric import TooFewError, metric
from sparsegen.metrics.observables import summary_features
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.result import Result

__all__ = ["Classifier", "auc", "auc_error", "classifier_auc", "inception_score"]

Array = NDArray[np.float64]


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counted half.

    Example:
        >>> auc([0.9, 0.6], [0.1, 0.6])
        0.875
    """
    p, n = (np.asarray(v, dtype=np.float64) for v in (positive, negative))
    if not len(p) or not len(n):
        raise DataError(f"auc: {len(p)} positive and {len(n)} negative scores; both must be above 0")
    ranks = rankdata(np.concatenate([p, n]))[: len(p)].sum()
    return float((ranks - len(p) * (len(p) + 1) / 2) / (len(p) * len(n)))


def auc_error(positive: ArrayLike, negative: ArrayLike) -> float:
    """Standard deviation of :func:`auc`, from the placements of either class among the other (DeLong et al., 1988)."""
    p, n = (np.asarray(v, dtype=np.float64) for v in (positive, negative))
    if min(len(p), len(n)) < 2:
        return math.nan
    both = rankdata(np.concatenate([p, n]))
    above = (both[: len(p)] - rankdata(p)) / len(n)
    below = (both[len(p) :] - rankdata(n)) / len(p)
    return float(math.sqrt(above.var(ddof=1) / len(p) + below.var(ddof=1) / len(n)))


def inception_score(probabilities: ArrayLike) -> float:
    r"""Exponential of the mutual information between event and predicted class.

    .. math:: \exp\, \mathrm{E}_x\, \mathrm{KL}\left(p(y | x) \,\|\, p(y)\right) \in [1, C]

    Args:
        probabilities: ``(n, C)``, rows that sum to one.

    References:
        Improved techniques for training GANs, Salimans et al., 2016, https://arxiv.org/abs/1606.03498

    Example:
        >>> inception_score([[1.0, 0.0], [0.0, 1.0]]), inception_score([[0.3, 0.7], [0.3, 0.7]])
        (2.0, 1.0)
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not len(p) or (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise DataError(f"inception_score: probabilities of shape {p.shape}; expected (n, C), each row summing to 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(p.mean(0))), 0.0)
    return float(np.exp(terms.sum(1).mean()))


class Classifier:
    """A two-layer perceptron on standardised features, stopped at its best validation loss.

    Args:
        width: Units of each hidden layer.
        epochs: Passes over the training part.
        batch: Events a step.
        learning_rate: Of Adam.
        seed: Of initial weights, split and order.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(400, 2))
        >>> found = Classifier(epochs=30).fit(x, x[:, 0] > 0).probabilities(x)
        >>> bool(((found[:, 1] > 0.5) == (x[:, 0] > 0)).mean() > 0.9)
        True
    """

    def __init__(
        self, width: int = 128, epochs: int = 40, batch: int = 256, learning_rate: float = 1e-3, seed: int = 0
    ) -> None:
        self.width, self.epochs, self.batch, self.learning_rate, self.seed = width, epochs, batch, learning_rate, seed
        self.net: nn.Sequential = nn.Sequential()
        self.centre = self.scale = torch.zeros(0)

    def fit(self, features: ArrayLike, labels: ArrayLike) -> Classifier:
        """Trains on four fifths and keeps the weights of the least loss on the last fifth.

        Args:
            features: ``(n, F)``.
            labels: ``(n,)`` class indices or booleans.
        """
        x = torch.as_tensor(np.asarray(features, dtype=np.float32))
        y = torch.as_tensor(np.asarray(labels)).long()
        if len(x) != len(y) or len(x) < 10:
            raise TooFewError(f"Classifier: {len(x)} events and {len(y)} labels; expected as many, and 10 or more")
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(x), generator=generator)
        valid, train = order[: len(x) // 5], order[len(x) // 5 :]
        self.centre, self.scale = x[train].mean(0), x[train].std(0).clamp_min(1e-6)
        classes = int(y.max()) + 1
        self.net = _perceptron(x.shape[1], self.width, max(classes, 2), generator)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate)
        loss = nn.CrossEntropyLoss()
        z = self._standard(x)
        best, weights = math.inf, copy.deepcopy(self.net.state_dict())
        for _ in range(self.epochs):
            shuffled = train[torch.randperm(len(train), generator=generator)]
            for rows in shuffled.split(self.batch):
                optimizer.zero_grad()
                loss(self.net(z[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                now = float(loss(self.net(z[valid]), y[valid]))
            if now < best:
                best, weights = now, copy.deepcopy(self.net.state_dict())
        self.net.load_state_dict(weights)
        return self

    def _standard(self, x: Tensor) -> Tensor:
        # Features far outside the training range would saturate the network.
        return ((x - self.centre) / self.scale).clamp(-20, 20)

    @torch.no_grad()
    def probabilities(self, features: ArrayLike) -> Array:
        """Probability of each class ``(n, C)``."""
        x = torch.as_tensor(np.asarray(features, dtype=np.float32))
        return self.net(self._standard(x)).double().softmax(1).numpy()

    @torch.no_grad()
    def activations(self, features: ArrayLike) -> Array:
        """The last hidden layer ``(n, width)``: a feature space in which the classes are apart."""
        x = torch.as_tensor(np.asarray(features, dtype=np.float32))
        return self.net[:-1](self._standard(x)).double().numpy()


def _perceptron(inputs: int, width: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Linear layers with leaky ReLU between, drawn from the generator."""
    # Layers draw weights when they are made: the caller's random state is not theirs to use.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        net = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, outputs),
        )
        for layer in net:
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    return net


def _judged(scores: tuple[Array, Array]) -> tuple[float, float, float]:
    """AUC, its error and the Jensen-Shannon divergence in bits, of probabilities for either sample."""
    entropy = -(np.log(scores[0]).mean() + np.log1p(-scores[1]).mean()) / 2
    return auc(*scores), auc_error(*scores), float(1 - entropy / math.log(2))


def _two_sample(x: Array, y: Array, epochs: int, seed: int) -> tuple[float, float, float]:
    """What :func:`_judged` says on two fifths of either sample, never trained on."""
    rng = np.random.default_rng([seed, 2])
    parts = []
    for sample in (x, y):
        order = rng.permutation(len(sample))
        cut = len(sample) * 3 // 5
        parts.append((sample[order[:cut]], sample[order[cut:]]))
    (fake, fake_test), (real, real_test) = parts
    labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    judge = Classifier(epochs=epochs, seed=seed).fit(np.concatenate([fake, real]), labels)
    return _judged((judge.probabilities(fake_test)[:, 1], judge.probabilities(real_test)[:, 1]))


@metric("classifier_auc")
def classifier_auc(
    generated: EventsOrFeatures,
    reference: EventsOrFeatures,
    *,
    features: Features = summary_features,
    epochs: int | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Area under the curve of a classifier that tells generated from real events; 0.5 if it cannot.

    Both samples are cut to one size. The floor is the same classifier between two halves of the reference: it is not
    0.5 where the reference itself is uneven or small. The protocol also holds the Jensen-Shannon divergence in bits.
    Under the protocol ``calochallenge`` the classifier, its split and its calibration are the published ones
    (:mod:`sparsegen.metrics.challenge`), both samples enter whole, and the floor is that of half their size.

    Args:
        generated: Generated events.
        reference: Real events.
        features: Events -> ``(B, F)``; the fixed description of :func:`summary_features` by default.
        epochs: Passes of the classifier's training: 40, or 50 under ``calochallenge``, whose name a result with another
            number does not bear.
        protocol: A :class:`Protocol` or its name; ``events`` caps the sample.
        seed: Of splits and training.
    """
    setting = resolve(protocol)
    pair = collect_pair(generated, reference, features, invalid=setting.invalid)
    x, y = pair[0].values, pair[1].values
    published = setting.name == "calochallenge"
    # The classifier's power grows with the sample, so that value and floor are measured at one size.
    size = min(len(x), len(y)) if published else min(len(x), len(y) // 2, setting.events or 50_000)
    if size < 20:
        raise TooFewError(f"classifier_auc: {len(x)} generated and {len(y)} reference events; use 20 and 40 or more")
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(y))
    fake, real = x[rng.permutation(len(x))[:size]], y[order[:size]]
    passes = epochs or (EPOCHS if published else 40)
    if published:
        judge = lambda a, b: _judged(challenge_scores(a, b, epochs=passes, seed=seed))
        halves = real[: size // 2], real[size // 2 : size // 2 * 2]
    else:
        judge = lambda a, b: _two_sample(a, b, passes, seed)
        halves = y[order[size : 2 * size]], real
    value, error, divergence = judge(fake, real)
    floor, floor_error, floor_divergence = judge(*halves)
    note: dict[str, Any] = {
        "name": setting.name if not published or passes == EPOCHS else f"{setting.name}, {passes} epochs",
        "events": [size, size],
        "available": [len(x), len(y)],
        "features": list(pair[0].names) or x.shape[1],
        "classifier": f"perceptron {WIDTH}-{WIDTH}-{WIDTH}, Adam {LEARNING_RATE:g}, batches of {BATCH}, "
        f"{passes} epochs, best accuracy, isotonic calibration"
        if published
        else f"perceptron 128-128, {passes} epochs, best validation loss",
        "split": "60 % train, 20 % choice of the epoch and calibration, 20 % test"
        if published
        else "48 % train, 12 % validation, 40 % test",
        "js_divergence_bits": divergence,
        "floor_error": floor_error,
        "floor_js_divergence_bits": floor_divergence,
        "reference_invalid": pair[1].invalid,
        "seed": seed,
        "error": "DeLong",
        "floor": f"one half of the reference, {len(halves[0])} events, against the other",
    }
    warn_small("classifier_auc", size, 500, note)
    return Result("classifier_auc", value, error, size, note, floor, pair[0].invalid)
