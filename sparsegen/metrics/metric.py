"""What a metric is, and the table of those that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sparsegen.errors import DataError
from sparsegen.registry import Registry
from sparsegen.result import Result

__all__ = ["METRICS", "Metric", "SmallSampleWarning", "TooFewError", "metric"]

F = TypeVar("F", bound=Callable[..., Result])


class SmallSampleWarning(UserWarning):
    """A sample is too small for what a metric claims."""


class TooFewError(DataError):
    """A sample is too small for a metric to have a value at all."""


@dataclass(frozen=True)
class Metric:
    """A function ``(generated, reference, *, protocol=None, seed=0) -> Result`` and the facts about it.

    Args:
        name: Its name, in tables and on the command line.
        function: The function itself.
        summary: One line for lists.
        unit: Unit of its value; empty for a pure number.
        needs: What the events or the caller must bring: ``jets`` (eta, phi and a transverse momentum), ``layers``
        (cells
            with a layer axis), ``train`` (the training set). A group leaves out the metrics whose needs are not met.
        fast: Whether it belongs to the group ``fast`` (seconds for ten thousand events); all belong to ``full``.
    """

    name: str
    function: Callable[..., Result]
    summary: str
    unit: str = ""
    needs: tuple[str, ...] = ()
    fast: bool = False


METRICS = Registry[Metric]("metric")
"""Every metric by name."""


def metric(name: str, *, unit: str = "", needs: tuple[str, ...] = (), fast: bool = False) -> Callable[[F], F]:
    """Decorator that enters a function into :data:`METRICS`, its docstring's first line as the summary."""

    def enter(function: F) -> F:
        summary = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
        METRICS.register(name)(Metric(name, function, summary, unit, needs, fast))
        return function

    return enter
