"""From runs to rows: means over seeds with their errors and intervals, and multiples of the floor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sparsegen.study.evaluation import COSTS, Outcome
from sparsegen.study.executor import Finished
from sparsegen.study.planner import PlannedRun

__all__ = ["CSV_COLUMNS", "Group", "Summary", "groups", "long_form", "summarise"]

CSV_COLUMNS = ("run", "data", "model", "network", "seed", "metric", "value", "error", "n", "floor", "status")
REAL = "real"


@dataclass(frozen=True)
class Summary:
    """One quantity over the seeds of a group.

    Args:
        value: The mean.
        error: One standard deviation of the mean; for one seed that of its own estimate.
        low: Lower end of the 95 % interval of the mean over seeds; NaN for one seed.
        high: Its upper end.
        seeds: How many runs entered.
        floor: Mean of the floors.
    """

    value: float
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    floor: float = math.nan

    @property
    def over_floor(self) -> float:
        """The value as a multiple of the floor."""
        return self.value / self.floor if self.floor > 0 else math.nan


def summarise(values: Sequence[float], errors: Sequence[float] = (), floors: Sequence[float] = ()) -> Summary:
    """Mean over seeds, with the standard error of the mean and Student's 95 % interval.

    Args:
        values: One a seed.
        errors: Standard deviations of the single estimates; used where there is one seed only.
        floors: The floor of each.

    Example:
        >>> summarise([1.0, 2.0, 3.0]).value
        2.0
        >>> summarise([1.0], [0.1]).error
        0.1
    """
    k = len(values)
    if k == 0:
        return Summary(math.nan)
    mean = float(np.mean(values))
    floor = float(np.mean(floors)) if len(floors) else math.nan
    if k == 1:
        return Summary(mean, float(errors[0]) if len(errors) else math.nan, seeds=1, floor=floor)
    error = float(np.std(values, ddof=1) / math.sqrt(k))
    half = float(stdtrit(k - 1, 0.975)) * error
    return Summary(mean, error, mean - half, mean + half, k, floor)


@dataclass(frozen=True)
class Group:
    """The runs of one model and network on one data set: they differ in their seed alone.

    Args:
        data: Label of the data.
        model: Label of the model.
        network: Label of the network.
        runs: The runs.
        outcomes: What became of each.
    """

    data: str
    model: str
    network: str
    runs: tuple[PlannedRun, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        """What tables and pictures call it."""
        model = self.model.upper() if self.model in ("vae", "gan") else self.model
        return " ".join(part for part in (self.data, self.network if self.network != "none" else "", model) if part)

    @property
    def statuses(self) -> dict[str, int]:
        """How many runs ended in which way."""
        counts: dict[str, int] = {}
        for outcome in self.outcomes:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        return counts

    def metric(self, name: str) -> Summary:
        """One metric over the runs that ended well."""
        found = [r for o in self.outcomes if o.status == "done" for r in o.results if r.name == name]
        return summarise([r.value for r in found], [r.error for r in found], [r.floor for r in found])

    def cost(self, name: str) -> Summary:
        """One cost over the runs that have it."""
        return summarise([o.costs[name] for o in self.outcomes if name in o.costs])


def groups(finished: Finished) -> list[Group]:
    """The study's runs, grouped by everything but the seed, in the study's order."""
    keys: dict[tuple[str, str, str], list[PlannedRun]] = {}
    for run in finished.study.runs:
        if run in finished.outcomes:
            keys.setdefault((run.data, run.model, run.network), []).append(run)
    return [Group(*key, tuple(runs), tuple(finished.outcomes[run] for run in runs)) for key, runs in keys.items()]


def metric_names(finished: Finished) -> list[str]:
    """Every metric of the study, in the order in which it was measured."""
    names: dict[str, None] = {}
    for outcome in [*finished.floor.values(), *finished.outcomes.values()]:
        names |= dict.fromkeys(result.name for result in outcome.results)
    return list(names)


def long_form(finished: Finished) -> list[dict[str, Any]]:
    """One row a run and metric, with the columns of :data:`CSV_COLUMNS`; a run without values keeps its rows."""
    names = metric_names(finished)
    rows: list[dict[str, Any]] = []
    for label, outcome in finished.floor.items():
        labels: dict[str, Any] = {"run": REAL, "data": label, "model": REAL, "network": "", "seed": ""}
        rows += [labels | row for row in _rows(outcome, names, ())]
    for run, outcome in finished.outcomes.items():
        network = "" if run.network == "none" else run.network
        labels = {"run": run.name, "data": run.data, "model": run.model, "network": network, "seed": run.seed}
        rows += [labels | row for row in _rows(outcome, names, COSTS)]
    return [row | {"data": row["data"] or _only_data(finished)} for row in rows]


def _only_data(finished: Finished) -> str:
    return finished.study.runs[0].config.data.name


def _rows(outcome: Outcome, names: Iterable[str], costs: Iterable[str]) -> list[dict[str, Any]]:
    results = {result.name: result for result in outcome.results}
    rows: list[dict[str, Any]] = []
    for name in names:
        r = results.get(name)
        numbers = (r.value, r.error, r.n, r.floor) if r else (math.nan, math.nan, 0, math.nan)
        rows.append(
            dict(zip(("value", "error", "n", "floor"), numbers, strict=True))
            | {"metric": name, "status": outcome.status}
        )
    for name in costs:
        value = outcome.costs.get(name, math.nan)
        rows.append(
            {"metric": name, "value": value, "error": math.nan, "n": 0, "floor": math.nan, "status": outcome.status}
        )
    return rows
