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
        error: One standard deviation of the value over samples of these sizes; NaN where it is not known. For samples
            of one law 1.96 errors hold the mean in 92 to 99 of 100 repetitions. At two to forty times the floor, with
            200 to 1,000 events of a heavy-tailed law, those of W1 do in 91 to 98, of a Fréchet distance in 85 to 95; of
            a kernel distance, whose features are divided by their largest value, in 62 to 82, and in 78 to 94 with
            that value's own scatter added (``scale_error`` of the protocol; ``benchmarks/metric_coverage.py``). The
            part that the floor has in the value is a bias, in no error.
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
