"""Metrics of all pairs, energy-flow polynomials, the Fréchet physics distance: ratios to what is in use elsewhere.

Every case runs both sides in one process on one thread and compares CPU time; the slow side is timed on a random part
of its pairs or jets. Cases whose peer is not installed (energyflow, jetnet) report ours alone.
``python benchmarks/metrics.py [CASE ...]`` prints and writes benchmarks/results/metrics.json; cases: chamfer assignment
weighted efps fpd memory. Results of all pairs are kept by instruction set: run again with ``SPARSEGEN_SIMD=avx2``, and
chamfer with ``SPARSEGEN_NATIVE=0`` for the fallbacks, whose own side is timed on a tenth of the pairs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sparsegen import metrics
from sparsegen.events import Column, Events
from sparsegen.kernels import instruction_set, pairwise_emd
from sparsegen.metrics.pointsets import pairwise_distances

RESULTS = Path(__file__).parent / "results" / "metrics.json"
SETS = 400


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    answer = work()
    return time.process_time() - begin, answer


def clouds(n: int, points: int, seed: int) -> Events:
    """Surfaces of ellipsoids, far from the origin."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, points, 3))
    x = x / np.linalg.norm(x, axis=2, keepdims=True) * rng.uniform(0.2, 0.5, size=(n, 1, 3)) + 10.0
    flat = torch.tensor(x.reshape(-1, 3), dtype=torch.float32)
    offsets = torch.arange(n + 1) * points
    return Events(flat, torch.ones(len(flat), 1), offsets, axes=("x", "y", "z"), columns=(Column("w"),))


def jets(n: int, particles: int, seed: int, fixed: bool = True) -> Events:
    rng = np.random.default_rng(seed)
    counts = np.full(n, particles) if fixed else rng.integers(2 * particles // 3, particles + 1, size=n)
    total = int(counts.sum())
    pt = rng.exponential(size=(total, 1)) ** 2 / (2 * particles)
    return Events(
        torch.tensor(rng.normal(0, 0.15, size=(total, 2))),
        torch.tensor(pt),
        torch.tensor(np.concatenate([[0], np.cumsum(counts)])),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
    )


def bmm_chamfer(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The batched product of the point-cloud literature: |x|^2 + |y|^2 - 2 x y."""
    xx, yy, zz = torch.bmm(x, x.transpose(2, 1)), torch.bmm(y, y.transpose(2, 1)), torch.bmm(x, y.transpose(2, 1))
    rx = xx.diagonal(dim1=1, dim2=2)[:, None].expand_as(zz.transpose(1, 2))
    ry = yy.diagonal(dim1=1, dim2=2)[:, None].expand_as(zz)
    p = rx.transpose(2, 1) + ry - 2 * zz
    return p.min(1)[0].mean(1) + p.min(2)[0].mean(1)


def chamfer() -> dict[str, Any]:
    a, b = clouds(SETS, 2048, 0), clouds(SETS, 2048, 1)
    # The fallback takes minutes: its first tenth of the rows stands for all.
    rows = SETS // 10 if instruction_set() == "none" else SETS
    ours, matrix = seconds(lambda: pairwise_distances(a[:rows], b, "cd"))
    ours *= SETS / rows
    rng = np.random.default_rng(2)
    part = SETS * SETS // 100
    pairs = np.stack([rng.integers(rows, size=part), rng.integers(SETS, size=part)], 1)
    x, y = (e.coords.view(SETS, 2048, 3) for e in (a, b))
    # Batches of 32 pairs, as the published evaluation does.
    blocks = [
        seconds(lambda some=some: bmm_chamfer(x[some[:, 0]], y[some[:, 1]]))[0] / len(some)
        for some in torch.from_numpy(pairs).split(32)
    ]
    exact = []
    for i, j in pairs[:10]:
        d = cdist(x[i].double(), y[j].double(), "sqeuclidean")
        exact.append(d.min(0).mean() + d.min(1).mean())
    error = np.abs(matrix[tuple(pairs[:10].T)] / np.array(exact) - 1).max()
    ratios = np.array(blocks) * SETS * SETS / ours
    return {
        "seconds": ours,
        "pairs_of_ours": rows * SETS,
        "pairs_of_the_loop": part,
        "ratio": float(ratios.mean()),
        "ratio_spread": float(ratios.std(ddof=1)),
        "relative_error_far_from_origin": error,
    }


def assignment() -> dict[str, Any]:
    a, b = jets(SETS, 30, 0), jets(SETS, 30, 1)
    ours, matrix = seconds(lambda: pairwise_distances(a, b, "emd"))
    x, y = (e.coords.view(SETS, 30, 2).numpy() for e in (a, b))
    pairs = np.random.default_rng(2).integers(SETS, size=(4000, 2))

    def loop() -> list[float]:
        found = []
        for i, j in pairs:
            d = cdist(x[i], y[j])
            found.append(d[linear_sum_assignment(d)].mean())
        return found

    theirs, values = seconds(loop)
    error = np.abs(matrix[tuple(pairs.T)] / np.array(values) - 1).max()
    return {"seconds": ours, "ratio": theirs * SETS * SETS / len(pairs) / ours, "relative_error": error}


def weighted() -> dict[str, Any]:
    import ot

    a, b = jets(SETS, 30, 0, fixed=False), jets(SETS, 30, 1, fixed=False)
    masses = {"a_masses": a.features[:, 0], "b_masses": b.features[:, 0]}
    ours, matrix = seconds(lambda: pairwise_emd(a.coords, a.offsets, b.coords, b.offsets, **masses))
    pairs = np.random.default_rng(2).integers(SETS, size=(2000, 2))
    one, two = ([e[int(k)] for k in range(SETS)] for e in (a, b))
    parts = [[(e.coords.numpy(), (e.features[:, 0] / e.features.sum()).numpy()) for e in side] for side in (one, two)]

    def loop() -> list[float]:
        return [ot.emd2(parts[0][i][1], parts[1][j][1], cdist(parts[0][i][0], parts[1][j][0])) for i, j in pairs]

    theirs, values = seconds(loop)
    error = np.abs(matrix.numpy()[tuple(pairs.T)] / np.array(values) - 1).max()
    return {"seconds": ours, "ratio": theirs * SETS * SETS / len(pairs) / ours, "relative_error": error}


def efps() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for particles, n in ((30, 4000), (150, 400)):
        some = jets(n, particles, 0)
        metrics.efps(some[:10])
        ours, values = seconds(lambda some=some: metrics.efps(some))
        row: dict[str, Any] = {"milliseconds_a_jet": 1e3 * ours / n}
        if importlib.util.find_spec("energyflow") is not None:
            import energyflow

            reference = energyflow.EFPSet(("d<=", 4), measure="hadr", beta=1, normed=False, coords="ptyphim")
            arrays = [
                np.hstack([e.features.numpy(), e.coords.numpy(), np.zeros((particles, 1))])
                for e in (some[i] for i in range(50))
            ]
            theirs, expected = seconds(lambda s=reference, a=arrays: np.array([s.compute(x) for x in a]))
            row["ratio"] = theirs / 50 / (ours / n)
            row["relative_error"] = np.abs(values[:50].numpy() / expected - 1).max()
        out[str(particles)] = row
    return out


def fpd() -> dict[str, Any]:
    n = 50_000
    a, b = jets(n, 30, 0, fixed=False), jets(n, 30, 1, fixed=False)
    ours, result = seconds(lambda: metrics.fpd(a, b, protocol="jetnet0.2"))
    row: dict[str, Any] = {"seconds": ours, "value": result.value}
    if importlib.util.find_spec("jetnet") is not None:
        from jetnet.evaluation import fpd as their_fpd
        from jetnet.evaluation import get_fpd_kpd_jet_features

        padded = []
        for events in (b, a):
            coords, features, _ = events.to_padded()
            padded.append(torch.cat([coords, features], 2).numpy())
        part = 2000
        slow, _ = seconds(lambda: [get_fpd_kpd_jet_features(x[:part], efp_jobs=1) for x in padded])
        known = [metrics.efps(events).numpy() for events in (b, a)]
        rest, value = seconds(lambda: their_fpd(*known))
        row |= {"ratio": (slow * n / part + rest) / ours, "their_value": float(value[0])}
    return row


MEASURE = """
import ctypes, sys, warnings
import torch
sys.path.insert(0, sys.argv[1])
from metrics import jets
from sparsegen import metrics
warnings.simplefilter("ignore")
torch.set_num_threads(1)
a, b = (jets(int(sys.argv[2]), 30, seed, fixed=False) for seed in (0, 1))
metrics.fpd(a[:1000], b[:1000])
held = lambda name: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
# The high-water mark from here on, of what is in use: making the jets took more.
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = held("VmRSS")
metrics.fpd(a, b, protocol="jetnet0.2")
print(before, held("VmHWM"))
"""


def memory() -> dict[str, Any]:
    """Peak resident megabytes that fpd adds to the jets themselves, each size in a process of its own."""
    out: dict[str, Any] = {}
    for n in (20_000, 50_000, 200_000):
        command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent), str(n)]
        before, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        out[str(n)] = {"megabytes_before": before, "megabytes_added": peak - before}
    sizes = [int(n) for n in out]
    added = [out[str(n)]["megabytes_added"] for n in sizes]
    out["bytes_a_jet"] = (added[-1] - added[0]) * 2**20 / (2 * (sizes[-1] - sizes[0]))
    return out


CASES = {
    "chamfer": chamfer,
    "assignment": assignment,
    "weighted": weighted,
    "efps": efps,
    "fpd": fpd,
    "memory": memory,
}
BY_INSTRUCTIONS = ("chamfer", "assignment", "weighted")


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was promised, what was measured, and whether it is met; None where it was not run or has no peer here."""
    rows = []
    for level, least in (("avx512", 300.0), ("avx2", 180.0), ("none", 40.0)):
        name = f"all-pairs Chamfer, {'no native extension' if level == 'none' else level}"
        rows += [
            (f"{name}, over the batched product", ">=", least, ("chamfer", level, "ratio")),
            (f"{name}, error far from the origin", "<=", 1e-5, ("chamfer", level, "relative_error_far_from_origin")),
        ]
    for level in ("avx512", "avx2"):
        rows += [
            (f"assignments of 30 points over scipy in a loop, {level}", ">=", 1.7, ("assignment", level, "ratio")),
            (f"weighted earth mover's distances over POT in a loop, {level}", ">=", 5.0, ("weighted", level, "ratio")),
            (f"weighted distances, relative error, {level}", "<=", 1e-6, ("weighted", level, "relative_error")),
        ]
    rows += [
        ("36 polynomials of 30 particles over energyflow", ">=", 5.0, ("efps", "30", "ratio")),
        ("36 polynomials of 30 particles, relative error", "<=", 1e-6, ("efps", "30", "relative_error")),
        ("36 polynomials of 150 particles over energyflow", ">=", 5.0, ("efps", "150", "ratio")),
        ("36 polynomials of 150 particles, relative error", "<=", 1e-6, ("efps", "150", "relative_error")),
        ("fpd of 50,000 jets with features over jetnet", ">=", 8.0, ("fpd", "ratio")),
        # An eighth of its 36 features in double precision
        ("fpd, bytes that a jet adds to the peak", "<=", 36.0, ("memory", "bytes_a_jet")),
    ]
    out = []
    for name, sense, bar, path in rows:
        value: Any = found
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        met = None if value is None else bool(value >= bar if sense == ">=" else value <= bar)
        out.append({"name": name, "bar": f"{sense} {bar:g}", "value": value, "met": met})
    return out


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        value = "not run" if row["value"] is None else f"{row['value']:.4g}"
        met = {True: "met", False: "MISSED", None: "not run"}[row["met"]]
        print(f"{row['name']:<70} {row['bar']:>10} {value:>12}  {met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all of them by default")
    names = parser.parse_args().cases or list(CASES)
    if unknown := set(names) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; expected {', '.join(CASES)}")
    torch.set_num_threads(1)
    level = instruction_set()
    for name in names:
        measured = CASES[name]()
        print(name, level, json.dumps(measured), flush=True)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        found["machine"] = {"torch": torch.__version__, "threads": 1}
        if name in BY_INSTRUCTIONS:
            found[name] = {
                key: found.get(name, {})[key] for key in ("avx512", "avx2", "none") if key in found.get(name, {})
            }
            found[name][level] = measured
        else:
            found[name] = measured
        found["bars"] = bars(found)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    show(found["bars"])


if __name__ == "__main__":
    main()
