"""Trains generators on planar toys and counts modes and strays: results.csv and samples.png.

python experiments/toys.py -o experiments/results/toys [--runs FOLDER]
python experiments/toys.py --cost

A stray is a generated point further than three standard deviations from every mode of the data (from the curve of the
Swiss roll). Runs that are in the folder already are taken from there. With --cost: only the CPU time of a training step
of each generator, three times in turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from data_tools.toys import make_toy
from sparsegen.data import EventsSource
from sparsegen.events import Events
from sparsegen.metrics import mode_report
from sparsegen.metrics.memorisation import nearest_distance
from sparsegen.study.executor import first_of_trunk
from sparsegen.study.planner import PlannedRun, Study, read_study
from sparsegen.study.runs import build_model, draw
from sparsegen.study.statistics import CSV_COLUMNS
from sparsegen.training import Trainer, adopt

SIGMA = 0.02
EVENTS = 4000
DRAWN = 5000
SHOWN = 2500
SEGMENTS = 20
"""Pieces of the Swiss roll, of equal mass, that count as its modes."""

Points = NDArray[np.float64]


def toy(name: str, events: int, seed: int) -> Events:
    """Bare points: the toys' unit weights say nothing."""
    made = make_toy(name, events, seed)[0]
    return made.replace(features=made.features[:, :0], columns=())


def centres(name: str) -> Points:
    """Where the modes are; of the Swiss roll, a fine sequence of points along its curve."""
    if name == "ring":
        angle = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    if name == "grid":
        step = np.linspace(-1, 1, 5)
        return np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)
    angle = 1.5 * np.pi * (1 + 2 * np.linspace(0, 1, 200 * SEGMENTS))
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1) / (4.5 * np.pi)


def judge(name: str, points: Points, seen: Points, fresh: Points) -> dict[str, float]:
    """What :func:`spread` says, and the memorisation ratio of the points that lie on the data."""
    on_data = [x[cKDTree(centres(name)).query(x)[0] <= 3 * SIGMA] for x in (points, fresh)]
    near, base = (float(nearest_distance(x, seen).mean()) if len(x) else math.nan for x in on_data)
    return spread(name, points) | {"memorisation": near / base}


def spread(name: str, points: Points) -> dict[str, float]:
    """Share of modes hit, of points off the data, and the divergence of the modes' shares from the data's."""
    if name != "swiss-roll":
        report = mode_report(points, centres(name), SIGMA)
        return {
            "modes": report.found / report.modes,
            "off_data": 1 - report.high_quality,
            "mode_divergence": report.divergence,
        }
    distance, nearest = cKDTree(centres(name)).query(points)
    good = distance <= 3 * SIGMA
    shares = np.bincount(nearest[good] // 200, minlength=SEGMENTS) / max(1, good.sum())
    some = shares > 0
    divergence = float((shares[some] * np.log(shares[some] * SEGMENTS)).sum()) if some.any() else math.inf
    return {"modes": float(some.mean()), "off_data": float(1 - good.mean()), "mode_divergence": divergence}


def points_of(run: PlannedRun, folder: Path, like: Path | None) -> Points:
    """Generated points of a run, trained first where it is not there yet."""
    kept = folder / "points.npy"
    if not kept.exists():
        data = toy(run.config.data.name, EVENTS, 100 + run.seed)
        source = EventsSource(data, run.config.data.name)
        model = build_model(run.config, source)
        if like is not None and not (folder / "config.yaml").exists():
            adopt(folder, like, run.config)
        result = Trainer(folder, run.config).fit(model, source)
        if result.status != "done":
            raise SystemExit(f"{run.name}: {result.status}: {result.message}")
        drawn = Events.cat(list(draw(model, DRAWN, batch=DRAWN, seed=1000 + run.seed)))
        (folder / "report.json").write_text(json.dumps(model.sampling_report()))
        np.save(kept, drawn.coords.numpy())
    return np.load(kept).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("toys.yaml"))
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("-o", "--output", type=Path, help="gets results.csv and samples.png")
    wanted.add_argument("--cost", action="store_true", help="print milliseconds of CPU a training step")
    parser.add_argument("--runs", type=Path, help="folder of the runs; OUTPUT/runs by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = read_study(options.config)
    if options.cost:
        print_costs(study)
        return
    folder = options.runs or options.output / "runs"
    first = first_of_trunk(study.runs)
    rows, shown = [], {}
    for run in study.runs:
        name = run.config.data.name
        own = folder / run.folder
        like = None if first[run] == run else folder / first[run].folder
        points = points_of(run, own, like)
        fresh = toy(name, DRAWN, 200 + run.seed).coords.double().numpy()
        seen, other = (toy(name, n, s + run.seed).coords.double().numpy() for n, s in ((EVENTS, 100), (DRAWN, 300)))
        floor, judged = judge(name, other, seen, fresh), judge(name, points, seen, fresh)
        for metric, value in judged.items():
            labels = {
                "run": run.name,
                "data": name,
                "model": run.model,
                "network": run.network,
                "seed": run.seed,
            }
            numbers = {"value": value, "error": math.nan, "n": len(points), "floor": floor[metric], "status": "done"}
            rows.append(labels | {"metric": metric} | numbers)
        print(run.name, {k: round(v, 4) for k, v in judged.items()}, flush=True)
        shown.setdefault((run.config.data.name, "data"), fresh[:SHOWN])
        shown.setdefault((run.config.data.name, run.model), points[:SHOWN])
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    draw_samples(shown, options.output / "samples.png")


def print_costs(study: Study) -> None:
    """CPU milliseconds of a training step: 24 steps less 4, so that starting and the last fits cancel."""
    first = first_of_trunk(study.runs)
    chosen = [run for run in study.runs if (run.config.data.name, run.seed) == ("grid", study.seeds[0])]
    runs = list({first[run]: run for run in chosen}.values())  # the last of a trunk: the law that is fitted at once
    source = EventsSource(toy("grid", EVENTS, 100), "grid")

    def seconds(run: PlannedRun, steps: int) -> float:
        config = run.config.updated({"training.max_steps": steps})
        model = build_model(config, source)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            Trainer(Path(folder), config).fit(model, source)
            return time.process_time() - start

    for run in runs:
        seconds(run, 2)
    for _ in range(3):
        print({title(run.model): round(1000 * (seconds(run, 24) - seconds(run, 4)) / 20, 1) for run in runs})


def draw_samples(shown: dict[tuple[str, str], Points], path: Path) -> None:
    """One row a toy, one column a generator, all on one scale."""
    toys = list(dict.fromkeys(key[0] for key in shown))
    names = list(dict.fromkeys(key[1] for key in shown))
    figure = Figure(figsize=(1.7 * len(names), 1.8 * len(toys)), dpi=110, layout="constrained")
    axes = figure.subplots(len(toys), len(names), squeeze=False)
    for axis, model in zip(axes[0], names, strict=True):
        axis.set_title(title(model), fontsize=8)
    for row, name in zip(axes, toys, strict=True):
        for axis, model in zip(row, names, strict=True):
            points = shown.get((name, model), np.zeros((0, 2)))
            axis.scatter(
                *points.T, s=0.4, linewidths=0, color="black" if model == "data" else "#1f6fb4", rasterized=True
            )
            axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=[], yticks=[], aspect="equal")
        row[0].set_ylabel(name, fontsize=8)
    figure.savefig(path)


def title(model: str) -> str:
    """How the picture calls a generator."""
    if model.startswith("gan"):
        return "WGAN-GP" if "wasserstein" in model else "PacGAN" if "pack=" in model else "GAN"
    names = {"autoencoder": "AE + N(0, I)", "vae": "VAE", "aeot-theta=None": "AE-OT, test off"}
    return names.get(model, "AE-OT" if model.startswith("aeot") else model)


if __name__ == "__main__":
    main()
