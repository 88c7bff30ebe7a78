"""A law of codes for each kind of condition: a class, or a bin of incident energy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.models.priors.base import LatentPrior, build_prior, fitted
from sparsegen.models.priors.drift import Drift
from sparsegen.models.priors.whitening import Whitening

__all__ = ["CodeLaw", "ConditionCells"]

_LEAST = 100
"""Training events that a quantile bin of a condition holds at least."""


class ConditionCells:
    """Conditions sorted into cells: one a value of a discrete column, quantile bins of a continuous one.

    A column of at most ``bins`` values that recur is discrete (a class label, a beam energy). The bins of each
    continuous column are taken within the cells of the columns before it, so that no cell is left empty. Beyond the
    values seen, a twentieth of what the outermost tenth of them spans belongs to them too: other events of the same law
    lie there.

    Args:
        condition: Conditions of the training events ``(n, K)``.
        bins: Most bins of a column; fewer where a bin would hold less than 100 events.

    Example:
        >>> cells = ConditionCells(torch.tensor([[0.0], [1.0]] * 10), bins=8)
        >>> cells.assign(torch.tensor([[1.0], [0.0]])).tolist()
        [1, 0]
    """

    def __init__(self, condition: Tensor, bins: int) -> None:
        known = condition.double()
        self.low, self.high = _ends(known)
        self.discrete = [len(column.unique()) <= min(bins, len(known) // 4) for column in known.unbind(1)]
        self.accepted = _accepted(known)
        rows = torch.arange(len(known))
        found = list(_split(known, rows, 0, self.discrete, bins))
        self.boxes = torch.tensor([box for box, _ in found], dtype=torch.float64).view(len(found), -1, 2)
        self.rows = [rows for _, rows in found]

    def __len__(self) -> int:
        return len(self.boxes)

    def assign(self, condition: Tensor, names: Sequence[str] = ()) -> Tensor:
        """The cell of each condition ``(m, K) -> (m,)`` int64.

        Raises:
            DataError: A condition that is unlike all training events': names it and what was seen.
        """
        x = condition.detach().cpu().double()
        inside = (x[:, None] >= self.boxes[None, :, :, 0]) & (x[:, None] < self.boxes[None, :, :, 1])
        seen = ((x >= self.accepted[0]) & (x <= self.accepted[1])).all(1)
        hits = inside.all(2)
        known = hits.any(1) & seen
        if not bool(known.all()):
            row = int((~known).nonzero()[0, 0])
            given = ", ".join(
                f"{name}={value:.6g}" for name, value in zip(_names(names, x), x[row].tolist(), strict=True)
            )
            raise DataError(f"condition {given} was not seen in training; seen are {self.describe(names)}")
        return hits.long().argmax(1)

    def describe(self, names: Sequence[str] = ()) -> str:
        """The values of each discrete column and the range of each continuous one."""
        parts = []
        for k, name in enumerate(_names(names, self.low[None])):
            if self.discrete[k]:
                values = sorted({float(v) for v in self.boxes[:, k].mean(1)})
                parts.append(f"{name} {', '.join(f'{v:.6g}' for v in values)}")
            else:
                parts.append(f"{name} from {float(self.low[k]):.6g} to {float(self.high[k]):.6g}")
        return "; ".join(parts)

    def label(self, cell: int, names: Sequence[str] = ()) -> str:
        """What a cell holds."""
        parts = []
        for k, name in enumerate(_names(names, self.low[None])):
            low, high = self.boxes[cell, k].tolist()
            if self.discrete[k]:
                parts.append(f"{name}={(low + high) / 2:.6g}")
            else:
                ends = max(low, float(self.low[k])), min(high, float(self.high[k]))
                parts.append(f"{name} in [{ends[0]:.6g}, {ends[1]:.6g}]")
        return ", ".join(parts)

    def state(self) -> dict[str, Any]:
        """Plain types and tensors, for a checkpoint."""
        names = ("low", "high", "accepted", "discrete", "boxes")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> ConditionCells:
        """From :meth:`state`."""
        cells = cls.__new__(cls)
        cells.low, cells.high, cells.accepted, cells.boxes = (
            state[name] for name in ("low", "high", "accepted", "boxes")
        )
        cells.discrete, cells.rows = list(state["discrete"]), []
        return cells


def _ends(known: Tensor) -> tuple[Tensor, Tensor]:
    return (known.amin(0), known.amax(0)) if known.shape[1] else (known.new_zeros(0), known.new_zeros(0))


def _accepted(known: Tensor) -> Tensor:
    """The smallest and the largest value of each column that is taken for one of those seen ``(2, K)``."""
    if not known.shape[1]:
        return known.new_zeros(2, 0)
    low, high = _ends(known)
    tenth, ninth = torch.quantile(known, torch.tensor([0.1, 0.9], dtype=known.dtype), dim=0)
    # single precision and a way through a file move a value by less than this
    slack = 1e-5 * (high - low).clamp(min=1e-6 * high.abs())
    return torch.stack(
        [low - torch.maximum(slack, (tenth - low) / 20), high + torch.maximum(slack, (high - ninth) / 20)]
    )


def _names(names: Sequence[str], like: Tensor) -> Sequence[str]:
    return names or [f"condition {k}" for k in range(like.shape[1])]


def _split(
    known: Tensor, rows: Tensor, column: int, discrete: Sequence[bool], bins: int
) -> Iterator[tuple[list[tuple[float, float]], Tensor]]:
    """Boxes of the columns from ``column`` on, with the training events in each."""
    if column == known.shape[1]:
        yield [], rows
        return
    values = known[rows, column]
    if discrete[column]:
        distinct = known[:, column].unique()
        near = float(distinct.diff().min()) if len(distinct) > 1 else max(1.0, float(distinct.abs().max()))
        edges = [(float(v) - 1e-3 * near, float(v) + 1e-3 * near) for v in values.unique()]
    else:
        parts = max(1, min(bins, len(rows) // _LEAST))
        inner = torch.quantile(values, torch.linspace(0, 1, parts + 1, dtype=values.dtype)[1:-1]).unique().tolist()
        ends = [-math.inf, *inner, math.inf]
        edges = list(itertools.pairwise(ends))
    for low, high in edges:
        inside = rows[(values >= low) & (values < high)]
        if len(inside):
            for box, held in _split(known, inside, column + 1, discrete, bins):
                yield [(low, high), *box], held


class CodeLaw:
    """The law of an autoencoder's codes: one of :data:`PRIORS` in each cell of the condition.

    Cell by cell, before a law is fitted, the :class:`Drift` of the codes with a continuous condition is taken off, and
    they are normalised to unit scale along the directions in which they vary.

    Args:
        prior: Name of the law, or its name and options.
        bins: Most bins of a continuous condition.
    """

    def __init__(self, prior: str | Mapping[str, Any], bins: int = 8) -> None:
        if bins < 1:
            raise ConfigError(f"bins={bins}; expected at least 1")
        self.prior, self.bins = prior, bins
        self.name = prior if isinstance(prior, str) else str(prior.get("name"))
        self.laws = [self._fresh()]
        self.cells: ConditionCells | None = None
        self.conditions: tuple[str, ...] = ()

    def _fresh(self) -> tuple[Drift, Whitening, LatentPrior]:
        return Drift(), Whitening(), build_prior(self.prior)

    def fit(
        self, codes: Tensor, condition: Tensor | None, names: Sequence[str], generator: torch.Generator
    ) -> dict[str, Any]:
        """Fits to codes ``(n, d)`` under conditions ``(n, K)``; returns scalars for the log, worst and best of many.

        Raises:
            DataError: A cell in which all codes are equal, or codes that are not finite.
        """
        self.conditions = tuple(names)
        known = codes.new_zeros(len(codes), 0) if condition is None else condition
        self.cells = ConditionCells(known, self.bins)
        self.laws, logs = [], []
        for cell, rows in enumerate(self.cells.rows):
            drift, whitening, law = self._fresh()
            try:
                coordinates = whitening.fit(drift.fit(codes[rows], known[rows]))
                log = {"codes": len(rows), "rank": coordinates.shape[1]} | law.fit(coordinates, generator)
            except DataError as error:
                where = f"{self.cells.label(cell, names)}: " if names else ""
                raise DataError(f"{where}{error}") from error
            self.laws.append((drift, whitening, law))
            logs.append(log)
        if len(logs) == 1:
            return logs[0]
        ends: dict[str, Any] = {"laws": len(logs)}
        for key in logs[0]:
            values = [float(log[key]) for log in logs if isinstance(log.get(key), int | float)]
            if values:
                ends |= {f"{key}_min": min(values), f"{key}_max": max(values)}
        return ends

    def sample(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Codes ``(n, d)``, each from the law of its condition.

        Raises:
            DataError: Not fitted, or a condition that is missing or was not seen in training.
        """
        cells = fitted(self.cells)
        if not self.conditions:
            return self._draw(0, torch.zeros(n, 0), generator)
        if condition is None or condition.shape != (n, len(self.conditions)):
            given = "none" if condition is None else tuple(condition.shape)
            raise DataError(
                f"the law of codes was fitted under {', '.join(self.conditions)}; pass condition= of shape "
                f"({n}, {len(self.conditions)}), not {given}"
            )
        condition = condition.detach().cpu()
        index = cells.assign(condition, self.conditions)
        codes = torch.zeros(n, len(self.laws[0][1].mean))
        for cell in index.unique().tolist():
            rows = (index == cell).nonzero()[:, 0]
            codes[rows] = self._draw(cell, condition[rows], generator)
        return codes

    def _draw(self, cell: int, condition: Tensor, generator: torch.Generator | None) -> Tensor:
        drift, whitening, law = self.laws[cell]
        codes = whitening.inverse(law.sample(len(condition), generator))
        return codes + drift(condition).to(codes)

    def report(self) -> dict[str, Any]:
        """What whoever uses the samples should know of each law, in plain types; see :meth:`LatentPrior.report`."""
        facts: dict[str, Any] = {"prior": self.name}
        if self.cells is None or len(self.laws) == 1:
            return facts | self.laws[0][2].report()
        reports = {self.cells.label(i, self.conditions): law.report() for i, (_, _, law) in enumerate(self.laws)}
        return facts | ({"laws": reports} if any(reports.values()) else {})

    def state(self) -> dict[str, Any]:
        """Plain types and tensors, for a checkpoint."""
        return {
            "prior": self.name,
            "conditions": list(self.conditions),
            "cells": None if self.cells is None else self.cells.state(),
            "laws": [{"drift": d.state(), "whitening": w.state(), "law": law.state()} for d, w, law in self.laws],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over a state; one from before any fit fits every law.

        Raises:
            ConfigError: It is that of a fitted law of another name.
        """
        if state["cells"] is None:
            self.laws, self.cells, self.conditions = [self._fresh()], None, ()
            return
        if state["prior"] != self.name:
            raise ConfigError(f"a fitted prior {state['prior']!r} for a model with prior {self.name!r}; fit it again")
        self.conditions = tuple(state["conditions"])
        self.cells = ConditionCells.restored(state["cells"])
        self.laws = []
        for held in state["laws"]:
            drift, whitening, law = self._fresh()
            drift.load(held["drift"])
            whitening.load(held["whitening"])
            law.load(held["law"])
            self.laws.append((drift, whitening, law))
