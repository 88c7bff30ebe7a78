"""Prints a study's results.csv as a Markdown table: means over seeds, standard errors, multiples of the floor.

python experiments/table.py experiments/results/sparse_vs_dense/results.csv
python experiments/table.py experiments/results/latent_priors/results.csv --against autoencoder-prior=normal

With --against a second table holds each generator against that model with the same network, seed by seed: the mean of
the differences, its 95 % interval (Student's, over seeds), and in how many seeds it is better.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from sparsegen.study.statistics import CSV_COLUMNS, summarise

QUALITY = {
    "w1_mass": "W1 jet mass",
    "w1_energy": "W1 energy",
    "w1_occupied": "W1 occupied cells",
    "frechet": "Fréchet distance",
    "modes": "share of modes hit",
    "off_data": "share off the data",
    "mode_divergence": "divergence of modes",
    "memorisation": "memorisation",
}
COSTS = {"train_time": "training, ms / event", "sample_time": "sampling, ms / event"}
NO_FLOOR = ("memorisation", "modes")
"""Metrics that are not quoted as a multiple of their floor."""

Row = dict[str, str]
Key = tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", metavar="MODEL", help="also print the differences from this model")
    options = parser.parse_args()
    groups: dict[Key, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    with options.results.open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    missing = [name for name in CSV_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        parser.error(f"{options.results} has no column {', '.join(missing)}: expected the results.csv of a study")
    many = len({row["data"] for row in rows}) > 1
    for row in rows:
        groups[row["data"] if many else "", row["model"], row["network"]][row["metric"]].append(row)
    measured = {row["metric"] for row in rows}
    if "w1_mass" in measured:
        measured.discard("frechet")  # jets are quoted by their mass
    quality_shown = {name: heading for name, heading in QUALITY.items() if name in measured}
    costs_shown = {name: heading for name, heading in COSTS.items() if name in measured}
    heads = [*(["data"] if many else []), "model", "network"]
    line([*heads, *quality_shown.values(), *costs_shown.values()])
    line(["---"] * (len(heads) + len(quality_shown) + len(costs_shown)))
    for key, metrics in groups.items():
        cells = [quality(metrics[name]) for name in quality_shown] + [cost(metrics[name]) for name in costs_shown]
        line([*key[0 if many else 1 :], *cells])
    if options.against:
        differences(groups, options.against, [name for name in quality_shown if name != "memorisation"], many)


def line(cells: Iterable[str]) -> None:
    print("| " + " | ".join(cells) + " |")


def quality(rows: list[Row]) -> str:
    if not rows:
        return ""
    diverged = sum(row["status"] != "done" for row in rows)
    good = [row for row in rows if row["status"] == "done"]
    if not good:
        return "diverged"
    summary = summarise(*(number(good, name) for name in ("value", "error", "floor")))
    shown = rows[0]["metric"] not in NO_FLOOR and math.isfinite(summary.over_floor)
    multiple = f" ({summary.over_floor:.1f}x)" if shown else ""
    lost = f", {diverged} diverged" if diverged else ""
    error = f" ± {summary.error:.1g}" if math.isfinite(summary.error) else ""
    return f"{summary.value:.3g}{error}{multiple}{lost}"


def cost(rows: list[Row]) -> str:
    values = [value for value in number(rows, "value") if math.isfinite(value)]
    return f"{sum(values) / len(values):.3g}" if values else ""


def number(rows: list[Row], name: str) -> list[float]:
    return [float(row[name]) if row[name] else math.nan for row in rows]


def differences(groups: dict[Key, dict[str, list[Row]]], against: str, names: list[str], many: bool) -> None:
    """Paired by seed: a model and the one that it is held against were given the same data order and weights."""
    print(f"\nDifference from {against}, below 0 is better: mean [95 % interval], seeds in which it is lower\n")
    line([*(["data"] if many else []), "model", "network", *(QUALITY[name] for name in names)])
    line(["---"] * (len(names) + 2 + many))
    for (data, model, network), metrics in groups.items():
        other = groups.get((data, against, network))
        if model == against or not network or other is None:
            continue
        line([*([data] if many else []), model, network, *(paired(metrics[n], other[n]) for n in names)])


def paired(rows: list[Row], others: list[Row]) -> str:
    mine, theirs = (values_by_seed(side) for side in (rows, others))
    gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if not gaps:
        return ""
    summary = summarise(gaps)
    lower = sum(gap < 0 for gap in gaps)
    return f"{summary.value:.2g} [{summary.low:.2g}, {summary.high:.2g}], {lower} of {len(gaps)}"


def values_by_seed(rows: list[Row]) -> dict[str, float]:
    return {row["seed"]: float(row["value"]) for row in rows if row["status"] == "done" and row["value"]}


if __name__ == "__main__":
    main()
