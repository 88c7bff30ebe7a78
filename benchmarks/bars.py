"""What the convolution benchmark is to reach, and whether it did."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

# Engines of the same kind; the better of those that were measured counts.
RIVALS = ("minkowski", "spconv")
MANY = 1000


def whole_layers(results: dict[str, Any]) -> dict[str, Any]:
    """Whole layers of a thousand sites or more: each other contender in units of the first one's time."""
    found: dict[str, list[float]] = {}
    for case in results.values():
        if case["sites"] >= MANY:
            for name, values in list(case["measures"]["layer"].items())[1:]:
                found.setdefault(name, []).append(values["ratio"])
    return {
        name: {"geometric mean": statistics.geometric_mean(ratios), "least": min(ratios), "cases": len(ratios)}
        for name, ratios in found.items()
    }


def bars(results: dict[str, Any], memory: float) -> list[dict[str, Any]]:
    """Name, bar, value and whether it is met, where something was measured; ratios are others' time over ours."""
    cases = list(results.values())
    many = [c for c in cases if c["sites"] >= MANY]

    def ratios(chosen: Iterable[dict[str, Any]], measure: str, names: tuple[str, ...]) -> list[float]:
        """The fastest of some contenders in each case that has one."""
        rows = [[v["ratio"] for n, v in c["measures"][measure].items() if n in names] for c in chosen]
        return [min(row) for row in rows if row]

    def shares(dimensions: int, channels: int, measure: str) -> list[float]:
        chosen = [c for c in many if c["dimensions"] == dimensions and c["channels"] == [channels, channels]]
        return [c["GFLOP/s"][measure] / c["GFLOP/s"]["peak"] for c in chosen if c["GFLOP/s"]["peak"] is not None]

    def break_even(dimensions: int, occupancy: float) -> list[float]:
        chosen = (n for n, c in results.items() if c["dimensions"] == dimensions and c["occupancy"] > 0.95 * occupancy)
        return ratios((results[n] for n in chosen if "random" in n), "layer", ("dense", "dense channels last"))

    deep = [c for c in cases if c["dimensions"] == 3 and c["occupancy"] >= 0.045]
    few = [c for c in cases if c["sites"] < MANY]
    mean: Callable[[list[float]], float] = statistics.geometric_mean
    middle: Callable[[list[float]], float] = statistics.median
    rows: list[tuple[str, float, bool, Callable[[list[float]], float], list[float]]] = [
        ("layer against the better rival, 1000 sites or more: mean", 2.0, True, mean, ratios(many, "layer", RIVALS)),
        ("layer against the better rival, 1000 sites or more: least", 1.3, True, min, ratios(many, "layer", RIVALS)),
        ("layer against the better rival, fewer sites: least", 1.0, True, min, ratios(few, "layer", RIVALS)),
        ("map against spconv, 3-d, 5 % or more: least", 2.0, True, min, ratios(deep, "map", ("spconv",))),
        ("map against MinkowskiEngine, 3-d, 5 % or more: least", 6.0, True, min, ratios(deep, "map", ("minkowski",))),
        ("break-even with dense, 2-d, 50 % random: least", 1.0, True, min, break_even(2, 0.5)),
        ("break-even with dense, 3-d, 35 % random: least", 1.0, True, min, break_even(3, 0.35)),
        ("double backward / backward: most", 3.0, False, max, [c["double backward / backward"] for c in cases]),
        ("forward memory / needed", 1.1, False, max, [memory]),
    ]
    for dimensions, channels, bar in ((2, 64, 0.5), (3, 32, 0.35)):
        for measure in ("forward", "backward"):
            name = f"share of peak, {dimensions}-d, {channels} channels, {measure}"
            found = shares(dimensions, channels, measure)
            rows += [(f"{name}: median", bar, True, middle, found), (f"{name}: least", bar, True, min, found)]
    # Compute alone: the torch back end's time over MinkowskiEngine's.
    both = [c["measures"]["forward+backward"] for c in many]
    against = [m["torch"]["ratio"] / m["minkowski"]["ratio"] for m in both if "torch" in m and "minkowski" in m]
    rows.append(("torch back end / MinkowskiEngine, forward+backward: median", 1.15, False, middle, against))
    return [
        {
            "name": name,
            "bar": bar,
            "value": reduce(values) if values else None,
            "met": (reduce(values) >= bar if least else reduce(values) <= bar) if values else None,
            "cases": len(values),
        }
        for name, bar, least, reduce, values in rows
    ]


def printed(rows: list[dict[str, Any]]) -> str:
    """One line a bar; what nothing was measured for is not met, and not missed."""
    said = {True: "met", False: "MISSED", None: "not run"}
    return "\n".join(
        f"{said[r['met']]:8}{r['name']:64}bar {r['bar']:5.2f}  "
        + ("" if r["value"] is None else f"value {r['value']:6.2f} over {r['cases']} cases")
        for r in rows
    )
