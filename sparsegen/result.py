"""What a metric returns: a value that carries its error, its protocol and its floor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """One measured number and what is needed to judge it.

    Args:
        name: The metric's name.
        value: The number itself, in the metric's own unit.
        error: One standard deviation of the value over samples of these sizes; NaN where it is not known. It says nothing
            of the floor's share in the value, and is calibrated for samples of one law: intervals of 1.96 errors hold
            the mean 90 to 99 times in 100. Away from the floor those of W1 did so 80 to 94 times, of a Fréchet distance
            of heavy-tailed features 63 to 77, of a kernel distance 45 to 60 with 120 events, more with more
            (``benchmarks/metric_coverage.py``).
        n: Events that entered on the generated side.
        protocol: Sizes, batches, replacement, features, seed: two results compare only under one protocol.
        floor: The same metric, real against real at the same size; NaN where it was not measured.
        invalid: Generated events that could not be evaluated and were left out.
        higher_is_better: Which way is good.
    """

    name: str
    value: float
    error: float = math.nan
    n: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    floor: float = math.nan
    invalid: int = 0
    higher_is_better: bool = False

    @property
    def over_floor(self) -> float:
        """The value as a multiple of the floor."""
        return self.value / self.floor if self.floor > 0 else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self) | {"protocol": dict(self.protocol)}

    def __str__(self) -> str:
        error = "" if math.isnan(self.error) else f" ± {self.error:.2g}"
        floor = "" if math.isnan(self.floor) else f" (floor {self.floor:.3g})"
        return f"{self.name} = {self.value:.4g}{error}{floor}, n = {self.n}"
