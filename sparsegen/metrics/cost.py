"""How long metrics will take, told before they start.

The constants are seconds on one core of a 2024 server; :func:`machine_factor` measures what this core makes of a known
piece of work. Expect a factor of two either way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from sparsegen.metrics.metric import METRICS

__all__ = ["expected_seconds", "machine_factor"]

# Seconds an event on either side, at 60 hits.
_EVENT = {
    "w1_tau21": 1.8e-3,
    "w1_tau32": 2.2e-3,
    "w1_c2": 1.2e-4,
    "w1_d2": 1.2e-4,
    "w1efp": 1.9e-4,
    "fpd": 3.5e-4,
    "kpd": 2.5e-4,
    "fpd_showers": 3e-4,
    "kpd_showers": 2e-4,
    "sharpness": 2e-4,
    "w1_cells": 9e-5,
    "w1_hits": 3e-4,
    "w1p": 1e-3,
    "separation_power": 2e-3,
    "classifier_auc": 2.5e-4,
    "classifier_auc_showers": 2.5e-4,
    "classifier_auc_voxels": 2e-2,
    "classifier_auc_cnn": 2e-2,
}
_OTHER = 4e-5
# Seconds a pair of sets with 60 points each, growing with the product of the points (Chamfer) or a little faster.
_CHAMFER, _TRANSPORT = 5e-7, 1.6e-4
_LARGEST = {"cd": 1000, "emd": 200}
# Subsamples of the matrices behind error and floor, for each of the sets' pairs.
_MATRIX = 1e-6
_JETS = 20 * 100 * 100
_NEIGHBOURS = 4000


def expected_seconds(names: Iterable[str], n: int, m: int, hits: float) -> float:
    """Time that metrics will take on one core, what they share counted once.

    Args:
        names: Names of metrics.
        n: Generated events.
        m: Reference events.
        hits: Mean hits an event.

    Example:
        >>> expected_seconds(["w1_mass"], 1000, 1000, 60.0) < expected_seconds(["w1_tau21"], 1000, 1000, 60.0)
        True
    """
    total, shared = 0.0, set()
    for name in names:
        end = name.rpartition("_")[2]
        if name in ("cov_jets", "mmd_jets"):
            key, seconds = "jets", _JETS * _TRANSPORT * (hits / 60) ** 2.2
        elif end in _LARGEST and name in METRICS:
            sets = min(n, m, _LARGEST[end])
            real = min(m, 2 * sets)
            pairs = sets * sets + sets * sets / 2 + real * real / 2
            each = _CHAMFER * (hits / 60) ** 2 if end == "cd" else _TRANSPORT * (hits / 60) ** 2.2
            key, seconds = end, pairs * each
            total += _MATRIX * sets * sets
        elif name in ("precision", "recall", "density", "coverage"):
            sets = min(n, m, _NEIGHBOURS)
            key, seconds = name, 3e-7 * sets * sets + _OTHER * (n + m)
        else:
            key, seconds = name, _EVENT.get(name, _OTHER) * (n + m) * max(hits, 10.0) / 60
        if key not in shared:
            shared.add(key)
            total += seconds
    return total


def machine_factor() -> float:
    """CPU time of a known piece of work over what it takes on the machine of the constants."""
    values = np.random.default_rng(0).random(200_000)
    times = []
    for _ in range(3):
        begin = time.process_time()
        np.sort(values)
        times.append(time.process_time() - begin)
    return max(0.2, min(times) / _SORT)


_SORT = 1.25e-3
