"""Significance of every metric against distortions of growing strength, and the smallest set that sees all of them.

python experiments/metric_sensitivity.py experiments/metric_sensitivity.yaml

writes results.csv, summary.json and significance.png beside the committed results. The significance of a distorted
sample is the distance of its value from the mean over undistorted samples, in standard deviations of the latter.

References:
    Evaluating generative models in high energy physics, Kansal et al., 2023, https://arxiv.org/abs/2211.10295
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure

from sparsegen import data, metrics
from sparsegen.events import Events

SEEN = 5.0
"""Standard deviations from which on a distortion counts as seen."""
CHEAP = 0.6
"""Seconds of CPU time for one value up to which a metric may belong to the group ``fast``."""
# A value needs no error of its own here: the spread over undistorted samples is its error.
PROTOCOL = metrics.Protocol("whole", resamples=2, pairs=1)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def momentum_smear(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    factor = np.exp(strength * rng.normal(size=len(events.features)) - strength**2 / 2)
    return events.with_features(events.features * torch.from_numpy(factor[:, None]).float())


def angle_smear(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    noise = torch.from_numpy(rng.normal(0, strength, size=tuple(events.coords.shape))).float()
    return events.replace(coords=events.coords + noise)


def momentum_shift(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    return events.with_features(events.features * (1 + strength))


def angle_shift(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    return events.replace(coords=events.coords + torch.tensor([strength, 0.0]))


def thinned_hits(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    kept = torch.from_numpy(rng.random(len(events.features)) >= strength)
    # A jet keeps its hardest hit, so that none is empty.
    order = events.features[:, 0].argsort(descending=True, stable=True)
    order = order[events.batch[order].argsort(stable=True)]
    kept[order[events.offsets[:-1]]] = True
    counts = events.sum_hits(kept.long())
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return events.replace(coords=events.coords[kept], features=events.features[kept], offsets=offsets)


def dropped_mode(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    """Replaces a share of the last class by events of the others."""
    last = np.flatnonzero(labels == labels.max())
    others = np.flatnonzero(labels != labels.max())
    chosen = np.arange(len(events))
    lost = rng.permutation(last)[: round(strength * len(last))]
    chosen[lost] = rng.choice(others, size=len(lost))
    return events[torch.from_numpy(chosen)]


def repeated(events: Events, strength: float, rng: np.random.Generator, labels: np.ndarray) -> Events:
    """Few events, each many times."""
    distinct = max(1, round((1 - strength) * len(events)))
    return events[torch.from_numpy(rng.integers(distinct, size=len(events)))]


DISTORTIONS: dict[str, Callable[..., Events]] = {
    "momentum smear": momentum_smear,
    "angle smear": angle_smear,
    "momentum shift": momentum_shift,
    "angle shift": angle_shift,
    "dropped mode": dropped_mode,
    "thinned hits": thinned_hits,
    "repeated": repeated,
}


class Study:
    """Values of the metrics on samples of one size.

    Args:
        config: What the YAML file says.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.n = config["events"]
        self.reference = data.open(config["reference"], view="points")[: self.n]
        source = data.open(config["sample"], view="points")
        self.source = source[:]
        self.labels = source.labels.numpy()
        # Undistorted samples are held out of the training events, or memorisation would find them there.
        rng = _rng(config["seed"], 0)
        order = rng.permutation(len(self.source))
        held = config["nulls"] * self.n
        self.held, self.train = order[:held], order[held:]

    def fresh(self, i: int) -> tuple[Events, np.ndarray]:
        """The i-th undistorted sample and its classes."""
        rows = self.held[i * self.n : (i + 1) * self.n]
        return self.source[torch.from_numpy(rows)], self.labels[rows]

    def memorised(self, i: int, share: float, rng: np.random.Generator) -> Events:
        """The i-th undistorted sample with a share of its events replaced by training events."""
        rows = self.held[i * self.n : (i + 1) * self.n].copy()
        size = round(share * self.n)
        rows[:size] = rng.permutation(self.train)[:size]
        return self.source[torch.from_numpy(rows)]

    def distorted(self, kind: str, level: int, repeat: int) -> Events:
        """A sample distorted in one way."""
        strength = self.config["distortions"][kind]["strengths"][level]
        rng = _rng(self.config["seed"], 2, list(self.config["distortions"]).index(kind), level, repeat)
        if kind == "memorised":
            return self.memorised(repeat, strength, rng)
        events, labels = self.fresh(repeat)
        return DISTORTIONS[kind](events, strength, rng, labels)

    def values(self, sample: Events) -> dict[str, tuple[float, float]]:
        """Value and CPU seconds of every metric of one sample."""
        train = self.source[torch.from_numpy(np.sort(self.train))]
        found = {}
        for name in self.config["metrics"]:
            extra = {"train": train} if name == "memorisation" else {}
            begin = time.process_time()
            value = metrics.METRICS[name].function(sample, self.reference, protocol=PROTOCOL, **extra).value
            found[name] = value, time.process_time() - begin
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "metric_sensitivity")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows, seconds = run(arguments.config, arguments.processes)
    with (arguments.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    found = summary(rows, seconds)
    (arguments.output / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    picture(rows, seconds, config).savefig(arguments.output / "significance.png", dpi=110)
    print(json.dumps(found, indent=1))


@cache
def _study(path: Path) -> Study:
    """One study a process."""
    warnings.simplefilter("ignore", metrics.SmallSampleWarning)
    torch.set_num_threads(1)
    return Study(yaml.safe_load(path.read_text(encoding="utf-8")))


Task = tuple[str, int, int]


def _evaluate(path: Path, task: Task) -> dict[str, tuple[float, float]]:
    study = _study(path)
    kind, _level, repeat = task
    return study.values(study.distorted(*task) if kind else study.fresh(repeat)[0])


def run(path: Path, processes: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One row a metric, distortion and strength, and the median CPU time of each metric."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    tasks: list[Task] = [("", 0, i) for i in range(config["nulls"])]
    for kind, setting in config["distortions"].items():
        tasks += [(kind, i, k) for i in range(len(setting["strengths"])) for k in range(config["repeats"])]
    found: dict[Task, dict[str, tuple[float, float]]] = {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for task, values in zip(tasks, pool.map(partial(_evaluate, path), tasks), strict=True):
            found[task] = values
            print(f"{len(found)} of {len(tasks)}", flush=True)
    rows = []
    for name in config["metrics"]:
        null = np.array([found["", 0, i][name][0] for i in range(config["nulls"])])
        centre, spread = float(null.mean()), float(null.std(ddof=1))
        for kind, setting in config["distortions"].items():
            for level, strength in enumerate(setting["strengths"]):
                value = float(np.mean([found[kind, level, k][name][0] for k in range(config["repeats"])]))
                significance = abs(value - centre) / spread if spread > 0 else math.nan
                keys = ("distortion", "strength", "metric", "value", "null", "null_spread", "significance")
                row = (kind, strength, name, value, centre, spread, significance)
                rows.append(dict(zip(keys, row, strict=True)))
    seconds = {n: float(np.median([values[n][1] for values in found.values()])) for n in config["metrics"]}
    return rows, seconds


def summary(rows: list[dict[str, Any]], seconds: dict[str, float]) -> dict[str, Any]:
    """For each metric what it sees at the least strength, and the smallest cheap set that sees as much as all do."""
    least: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["significance"] >= SEEN:
            held = least.setdefault(row["metric"], {})
            held[row["distortion"]] = min(row["strength"], held.get(row["distortion"], math.inf))
    kinds = list(dict.fromkeys(row["distortion"] for row in rows))
    best = {kind: min((least[name].get(kind, math.inf) for name in least), default=math.inf) for kind in kinds}
    cheap = [name for name in seconds if seconds[name] <= CHEAP]
    cheapest = {
        kind: min((least.get(name, {}).get(kind, math.inf) for name in cheap), default=math.inf) for kind in kinds
    }
    open_kinds = {kind for kind in kinds if math.isfinite(cheapest[kind])}
    chosen: list[str] = []
    while open_kinds:
        gain = {n: {k for k in open_kinds if least.get(n, {}).get(k, math.inf) <= cheapest[k]} for n in cheap}
        name = max(cheap, key=lambda n: (len(gain[n]), -seconds[n]))
        chosen.append(name)
        open_kinds -= gain[name]
    finite = lambda values: {k: v for k, v in values.items() if math.isfinite(v)}
    return {
        "seen_from_sigma": SEEN,
        "least_strength_seen": {name: least.get(name, {}) for name in seconds},
        "least_strength_seen_by_any": finite(best),
        "least_strength_seen_by_a_cheap_one": finite(cheapest),
        "cpu_seconds": seconds,
        "cheap_below_seconds": CHEAP,
        "smallest_cheap_set": chosen,
    }


def picture(rows: list[dict[str, Any]], seconds: dict[str, float], config: dict[str, Any]) -> Figure:
    """Significance of every metric (rows) against every strength of every distortion (columns)."""
    kinds, names = list(config["distortions"]), config["metrics"]
    figure = Figure(figsize=(13.5, 0.3 * len(names) + 2.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    norm = matplotlib.colors.LogNorm(1, 1000, clip=True)
    drawn = None
    for axes, kind in zip(panels, kinds, strict=True):
        strengths = config["distortions"][kind]["strengths"]
        values = np.array(
            [
                [
                    next(
                        r["significance"] for r in rows if (r["metric"], r["distortion"], r["strength"]) == (n, kind, s)
                    )
                    for s in strengths
                ]
                for n in names
            ]
        )
        drawn = axes.imshow(np.nan_to_num(values, nan=0.0).clip(1e-3), norm=norm, cmap="magma_r", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            text = "–" if not math.isfinite(value) else f"{value:.0f}" if value >= 9.5 else f"{value:.1f}"
            axes.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if value > 60 else "#20252b",
                fontweight="bold" if value >= SEEN else "normal",
            )
        axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths], fontsize=7, rotation=45)
        axes.set_title(kind, fontsize=9.5)
        unit = config["distortions"][kind]["unit"]
        axes.set_xlabel(unit, fontsize=7.5)
        axes.set_yticks(range(len(names)), [f"{n} ({1000 * seconds[n]:.0f} ms)" for n in names], fontsize=8)
        axes.tick_params(length=0)
    about = f"standard deviations from undistorted jets, {config['events']} a sample; bold: {SEEN:g} or more"
    figure.suptitle(f"{config['title']}: {about}", fontsize=10.5)
    figure.colorbar(drawn, ax=list(panels), label="significance", shrink=0.6, pad=0.01)
    return figure


if __name__ == "__main__":
    main()
