"""Published numbers, shown only beside numbers of the same data under the same protocol.

``leaderboard.json`` holds the tables with where they were published; a column of a table says which entries of a
result's protocol must be equal for the two to compare. Nothing can tell from a file alone that it is the published
data: the user says so, and what is known of that data is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.metrics.inputs import EventsLike, portions
from sparsegen.result import Result

__all__ = ["Published", "check_data_set", "data_sets", "published"]

_FILE = Path(__file__).with_name("leaderboard.json")
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Published:
    """A published number.

    Args:
        model: Which generator it belongs to.
        metric: Which metric of sparsegen measures the same.
        value: The number, in the metric's own unit.
        error: Its error where one was published, else None.
        reference: Title, authors, year and address of the publication.
    """

    model: str
    metric: str
    value: float
    error: float | None
    reference: Mapping[str, Any]


@cache
def _tables() -> Mapping[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def data_sets() -> dict[str, str]:
    """Data sets with published numbers: name -> what it is."""
    return {name: entry["title"] for name, entry in _tables()["data_sets"].items()}


def published(results: Sequence[Result], data_set: str | None) -> list[Published]:
    """Numbers that may stand beside results.

    Args:
        results: What was measured.
        data_set: Which published data the reference is; None: none, and then no number compares.

    Returns:
        The numbers whose metric was measured and whose conditions the result's protocol meets.

    Raises:
        ConfigError: An unknown data set.
    """
    if data_set is None:
        return []
    if data_set not in _tables()["data_sets"]:
        raise ConfigError(unknown_name("published data set", data_set, data_sets()))
    protocols = {result.name: result.protocol for result in results}
    found = []
    for table in _tables()["tables"]:
        if table["data"] != data_set:
            continue
        for metric, condition in table["columns"].items():
            if metric not in protocols or not _meets(protocols[metric], condition):
                continue
            for row in table["rows"]:
                if metric in row:
                    value, error = row[metric]
                    found.append(Published(row["model"], metric, value, error, table["reference"]))
    return found


def _meets(protocol: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    return all(name in protocol and protocol[name] == value for name, value in condition.items())


def check_data_set(reference: EventsLike, data_set: str) -> None:
    """Raises where a reference cannot be the published data that it is said to be.

    Args:
        reference: Real events.
        data_set: One of :func:`data_sets`.

    Raises:
        ConfigError: An unknown data set.
        DataError: Axes, columns, cells, or statistics of the hits differ from what is known of the data.
    """
    if data_set not in _tables()["data_sets"]:
        raise ConfigError(unknown_name("published data set", data_set, data_sets()))
    known = _tables()["data_sets"][data_set]["facts"]
    for name, found in _facts(reference, known).items():
        expected = known[name]
        same = abs(found - expected) <= _TOLERANCE * expected if isinstance(expected, float) else found == expected
        if not same:
            raise DataError(
                f"the reference is not {data_set}: {name.replace('_', ' ')} is {_shown(found)}, "
                f"published data have {_shown(expected)}; leave the name of the data set out"
            )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _facts(reference: EventsLike, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the reference has of the facts that are known, in their order."""
    probe = reference[0:1]
    facts: dict[str, Any] = {
        "axes": list(probe.axes),
        "columns": [column.name for column in probe.columns],
        "conditions": len(probe.conditions),
        "cells": None if probe.grid is None else probe.grid.cells,
    }
    most, hits, momentum, events = 0, 0, 0.0, 0
    place = torch.zeros(3, dtype=torch.float64)
    if "most_hits" in known and [*facts["axes"]] == known["axes"]:
        for portion in portions(reference):
            most = max(most, int(portion.counts.max()))
            hits += len(portion.features)
            events += len(portion)
            first = portion.positions[:, 0].double()
            momentum += float(portion.features[:, 0].double().sum())
            place += torch.tensor([len(first), float(first.sum()), float(first.square().sum())], dtype=torch.float64)
        mean = place[1] / place[0]
        facts["most_hits"] = most
        facts["mean_hits"] = hits / events
        facts["mean_ptrel"] = momentum / hits
        facts["std_etarel"] = float((place[2] / place[0] - mean.square()).sqrt())
    return {name: facts.get(name) for name in known}
