"""The figures of a benchmark: ratios with their spread, held against bars, printed and written as JSON."""

from __future__ import annotations

import json
import statistics
from pathlib import Path


class Figures:
    """Collects what a benchmark measured and whether each bar is met."""

    def __init__(self) -> None:
        self.results: dict[str, object] = {}
        self.bars: list[dict[str, object]] = []

    def report(self, name: str, values: list[float]) -> float:
        """Print a quantity measured several times with its spread, and keep it; returns its median."""
        middle, low, high = statistics.median(values), min(values), max(values)
        self.results[name] = {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
        print(f"{name}: {middle:.3g} ({low:.3g} to {high:.3g})", flush=True)
        return middle

    def bar(self, name: str, value: float, least: float | None = None, most: float | None = None) -> None:
        """Hold a value against its bar."""
        met = value >= least if least is not None else most is not None and value <= most
        wanted = f">= {least:g}" if least is not None else f"<= {most:g}"
        self.bars.append({"name": name, "bar": wanted, "value": round(value, 3), "met": met})

    def finish(self, output: Path | None) -> None:
        """Print whether each bar is met, and write everything."""
        for entry in self.bars:
            print(f"{'met  ' if entry['met'] else 'SHORT'} {entry['name']}: {entry['value']:g}, bar {entry['bar']}")
        if output:
            output.write_text(json.dumps(self.results | {"bars": self.bars}, indent=1) + "\n")
