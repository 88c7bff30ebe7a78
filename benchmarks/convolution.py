"""What a sparse convolution costs: each back end against dense torch and, where it is installed, spconv.

All contenders see the same sites, features and weights, in turn, in one process, after their outputs and gradients were
compared; times are of the processor, ratios are medians over rounds. ``python benchmarks/convolution.py`` prints the
table and writes ``benchmarks/results/convolution.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import Case, cases
from contenders import PEERS, Contender, Problem
from torch import Tensor

from sparsegen.kernels import instruction_set
from sparsegen.sparse import SparseTensor, SubmanifoldConv, backends
from sparsegen.sparse.maps import submanifold

RESULTS = Path(__file__).parent / "results" / "convolution.json"
# Pages of freed blocks go back to the system at great cost to dense convolution; the same settings for everyone.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "536870912",
}
MEASURES = ("map", "forward", "forward+backward", "double backward", "layer")


def agree(contenders: list[Contender]) -> None:
    """Outputs and gradients of all contenders, against the first."""
    expected = contenders[0].check()
    for contender in contenders[1:]:
        for part, a, b in zip(
            ("output", "input gradient", "weight gradient"), contender.check(), expected, strict=True
        ):
            error = float((a - b).detach().norm() / b.detach().norm())
            if error > 1e-5:
                sys.exit(f"{contender.name}: its {part} differs from {contenders[0].name}'s by {error:.1e}")


def timed(function: Callable[[], Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def compare(contenders: list[Contender], measure: str, rounds: int, least: float) -> dict[str, Any]:
    """Seconds of each contender and its ratio to the first, as medians over rounds in turn."""
    running = [c for c in contenders if measure in c.run]
    repeats = {}
    for c in running:
        c.run[measure]()
        repeats[c.name] = max(1, round(least / max(timed(c.run[measure], 1), 1e-6)))
    times: dict[str, list[float]] = {c.name: [] for c in running}
    for turn in range(rounds):
        for c in running[turn % len(running) :] + running[: turn % len(running)]:
            times[c.name].append(timed(c.run[measure], repeats[c.name]))
    base = times[running[0].name]
    return {
        name: {
            "ms": 1e3 * statistics.median(values),
            "ratio": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            "spread": [f(v / b for v, b in zip(values, base, strict=True)) for f in (min, max)],
        }
        for name, values in times.items()
    }


def product_rate(channels: int) -> float:
    """GFLOP/s of torch's dense product with as many channels."""
    a, b = torch.randn(2048, channels), torch.randn(channels, channels)
    return 2e-9 * 2048 * channels**2 / min(timed(lambda: a @ b, 50) for _ in range(5))


def measure_case(case: Case, rounds: int, least: float) -> dict[str, Any]:
    problem = Problem(case)
    names = [name for name in ("native", "torch") if name in backends()]
    contenders = [problem.own(name) for name in names] + [problem.dense(False), problem.dense(True)]
    contenders += [peer for make in PEERS.values() if (peer := make(problem)) is not None]
    agree(contenders)
    found = {measure: compare(contenders, measure, rounds, least) for measure in MEASURES}
    sites = SparseTensor(problem.features.detach(), case.coords, case.shape, case.batch).sites
    pairs = len(submanifold(sites, (3,) * problem.dim, (1,) * problem.dim).inputs)
    flops = 2e-9 * pairs * case.cin * case.cout
    return {
        "sites": len(case.coords),
        "occupancy": case.occupancy,
        "pairs per site": pairs / len(case.coords),
        "channels": [case.cin, case.cout],
        "GFLOP/s forward": {n: 1e3 * flops / v["ms"] for n, v in found["forward"].items() if n in names},
        "GFLOP/s torch.mm": product_rate(case.cin),
        "measures": found,
    }


def table(results: dict[str, Any]) -> str:
    others = ("torch", "dense", "dense channels last", *PEERS)
    lines = [
        f"{'case':24}{'sites':>8}{'pairs':>7}  {'measure':18}{'native ms':>10}" + "".join(f"{o:>21}" for o in others)
    ]
    for name, case in results.items():
        for measure, found in case["measures"].items():
            first = f"{name:24}{case['sites']:8}{case['pairs per site']:7.2f}" if measure == "map" else " " * 39
            base, *_ = found.values()
            ratios = [f"{found[o]['ratio']:19.2f} x" if o in found else f"{'-':>21}" for o in others]
            lines.append(f"{first}  {measure:18}{base['ms']:10.3f}" + "".join(ratios))
    return "\n".join(lines)


def machine() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Whole layers of a thousand sites or more: each other contender in units of the first one's time."""
    found: dict[str, list[float]] = {}
    for case in results.values():
        if case["sites"] >= 1000:
            for name, values in list(case["measures"]["layer"].items())[1:]:
                found.setdefault(name, []).append(values["ratio"])
    return {
        name: {"geometric mean": statistics.geometric_mean(ratios), "least": min(ratios), "cases": len(ratios)}
        for name, ratios in found.items()
    }


def memory_of_a_forward(sites: int = 800_000, channels: int = 64) -> dict[str, float]:
    """Peak of the process above its inputs in MiB, against what a forward has to hold: outputs, map and keys."""

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    def size(*tensors: Tensor) -> float:
        return sum(t.numel() * t.element_size() for t in tensors) / 2**20

    layer = SubmanifoldConv(2, channels, channels, 3)
    keys = torch.randperm(20 * sites, dtype=torch.int32)[:sites].sort().values.long()
    coords = torch.stack([torch.zeros_like(keys), keys // 1000, keys % 1000], 1)
    shape = (20 * sites // 1000, 1000)
    features = torch.randn(sites, channels)
    with torch.no_grad():
        layer(SparseTensor(torch.zeros(1, channels), coords[:1], shape, 1))
        del keys
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        x = SparseTensor(features, coords, shape, 1)
        y = layer(x)
    peak = status("VmHWM") - before
    found = submanifold(x.sites, (3, 3), (1, 1))
    needed = size(y.features, found.inputs, found.outputs, x.sites.keys)
    inputs = size(features, coords)
    return {"inputs": inputs, "outputs and map": needed, "peak": peak, "ratio": (inputs + peak) / (inputs + needed)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--least", type=float, default=0.02, help="seconds of one timing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="only the peak memory of a forward, printed as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory_of_a_forward()))
        return 0
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
    torch.set_num_threads(options.threads)
    # A process of its own, with the allocator as it is.
    usual = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    memory = subprocess.run(
        [sys.executable, __file__, "--memory"], env=usual, capture_output=True, text=True, check=True
    )
    results = {}
    for case in cases(options.only):
        results[case.name] = measure_case(case, options.rounds, options.least)
        print(table({case.name: results[case.name]}), flush=True)
    report = {
        "machine": machine(),
        "instruction set": instruction_set(),
        "torch": torch.__version__,
        "threads": options.threads,
        "peers": {
            name: "measured" if all(name in c["measures"]["layer"] for c in results.values()) else "not run"
            for name in PEERS
        },
        "times": "processor milliseconds; ratios to the first back end, medians over rounds",
        "whole layers": summary(results),
        "MiB of a forward": json.loads(memory.stdout),
        "cases": results,
    }
    for name, values in report["whole layers"].items():
        print(f"whole layers, {name}: {values['geometric mean']:.2f} x the time, at least {values['least']:.2f} x")
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
