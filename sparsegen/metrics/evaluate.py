"""Many metrics of one pair of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events
from sparsegen.metrics.calorimeter import incident_energy, layer_axis
from sparsegen.metrics.inputs import EventsLike, additive_column, jet_lattice, jet_view
from sparsegen.metrics.metric import METRICS, Metric, TooFewError
from sparsegen.metrics.protocol import Protocol
from sparsegen.result import Result

__all__ = ["GROUPS", "applicable", "evaluate"]

GROUPS = ("fast", "full")
"""Names that stand for several metrics.

``fast`` was chosen by what metrics see of jets that are distorted more and more, 500 a side
(``experiments/metric_sensitivity.yaml``). ``coverage``, ``w1_pt``, ``w1_mass`` and ``memorisation`` together see
smears, shifts, dropped modes, thinned, memorised and repeated jets at the least strength at which any metric does, in a
fraction of a second. ``frechet``, ``jsd`` and the other W1 distances cost next to nothing and say what is wrong.
``fpd`` and ``kpd``, said to be the most sensitive with 50,000 jets, saw only the strongest smears and shifts of so few,
and belong to ``full``.
"""


def _is_met(need: str, events: Events, train: EventsLike | None) -> bool:
    if need == "train":
        return train is not None
    checks: dict[str, Callable[[Events], object]] = {
        "jets": _as_jet,
        "lattice": jet_lattice,
        "energy": _has_energy,
        "layers": layer_axis,
        "incident": incident_energy,
    }
    try:
        return checks[need](events) is not None
    except DataError:
        return False


def _as_jet(events: Events) -> object | None:
    # A two-dimensional lattice with a layer axis is a calorimeter, whatever else could be read into it.
    return jet_view(events) if layer_axis(events) is None else None


def _has_energy(events: Events) -> str | None:
    name = additive_column(events, ("energy",))
    # For jets the first additive column is the transverse momentum, which has its own metric.
    return None if name in ("pt", "ptrel") else name


def applicable(names: str | Sequence[str], events: Events, *, train: EventsLike | None = None) -> list[Metric]:
    """The metrics that names stand for.

    Args:
        names: ``fast``, ``full``, a comma-separated list, or a sequence of names.
        events: Events that tell which metrics of a group make sense for the data.
        train: The training set, if there is one.

    Raises:
        ConfigError: An unknown name, or a metric asked for by name that needs a training set.
    """
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    chosen: dict[str, Metric] = {}
    for name in wanted:
        if name in GROUPS:
            members = [METRICS[n] for n in METRICS if name == "full" or METRICS[n].fast]
            chosen |= {m.name: m for m in members if all(_is_met(need, events, train) for need in m.needs)}
        elif name not in METRICS:
            raise ConfigError(unknown_name("metric", name, (*METRICS, *GROUPS)))
        elif "train" in METRICS[name].needs and train is None:
            raise ConfigError(f"metric {name!r} needs the training events; pass train= (--train)")
        else:
            chosen[name] = METRICS[name]
    return list(chosen.values())


def evaluate(
    generated: EventsLike,
    reference: EventsLike,
    names: str | Sequence[str] = "fast",
    *,
    train: EventsLike | None = None,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> list[Result]:
    """Every metric asked for, in the order asked for.

    Args:
        generated: Generated events, or an open file of them.
        reference: Real events that the generator has not seen.
        names: ``fast``, ``full``, a comma-separated list, or a sequence of names. A group leaves out what does not fit
            the data: jet observables of calorimeter showers, for one.
        train: The events that the generator was trained on; metrics that need them are left out of groups without.
        protocol: A :class:`Protocol` or its name.
        seed: Of everything random.

    Returns:
        One result a metric; a metric for which the samples are too small gives NaN and its protocol the reason.

    Raises:
        ConfigError: An unknown metric or protocol.
        DataError: An empty sample, or samples that do not compare.
    """
    if len(generated) == 0 or len(reference) == 0:
        raise DataError(
            f"evaluate: {len(generated)} generated and {len(reference)} reference events; both must be above 0"
        )
    if seed < 0:
        raise ConfigError(f"evaluate: seed {seed}: expected 0 or more")
    results = []
    for metric in applicable(names, reference[0:1], train=train):
        extra = {"train": train} if "train" in metric.needs else {}
        try:
            result = metric.function(generated, reference, protocol=protocol, seed=seed, **extra)
        except TooFewError as error:
            # One metric that wants more events must not cost the table the others.
            result = Result(metric.name, math.nan, n=len(generated), protocol={"reason": str(error)})
        results.append(result)
    return results
