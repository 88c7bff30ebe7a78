"""Prints a study's results.csv as a Markdown table: means over seeds, standard errors, multiples of the floor.

python experiments/table.py experiments/results/sparse_vs_dense/results.csv
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

from sparsegen.study.statistics import summarise

QUALITY = {"w1_mass": "W1 jet mass", "w1_occupied": "W1 occupied cells", "memorisation": "memorisation"}
COSTS = {"train_time": "training, ms / event", "sample_time": "sampling, ms / event"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    path = parser.parse_args().results
    groups: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups[row["model"], row["network"]][row["metric"]].append(row)
    print("| model | network | " + " | ".join([*QUALITY.values(), *COSTS.values()]) + " |")
    print("| --- " * (2 + len(QUALITY) + len(COSTS)) + "|")
    for (model, network), metrics in groups.items():
        cells = [quality(metrics[name]) for name in QUALITY]
        cells += [cost(metrics[name]) for name in COSTS]
        print(f"| {model} | {network} | " + " | ".join(cells) + " |")


def quality(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    diverged = sum(row["status"] != "done" for row in rows)
    good = [row for row in rows if row["status"] == "done"]
    if not good:
        return "diverged"
    summary = summarise(*(number(good, name) for name in ("value", "error", "floor")))
    multiple = f" ({summary.over_floor:.1f}x)" if rows[0]["metric"].startswith("w1") else ""
    lost = f", {diverged} diverged" if diverged else ""
    return f"{summary.value:.3g} ± {summary.error:.1g}{multiple}{lost}"


def cost(rows: list[dict[str, str]]) -> str:
    values = [value for value in number(rows, "value") if math.isfinite(value)]
    return f"{sum(values) / len(values):.3g}" if values else ""


def number(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) if row[name] else math.nan for row in rows]


if __name__ == "__main__":
    main()
