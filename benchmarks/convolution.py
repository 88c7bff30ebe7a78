"""What a sparse convolution costs: each back end against dense torch and, where it is installed, spconv.

All contenders see the same sites, features and weights, in turn, in one process, after their outputs and gradients were
compared; times are of the processor, ratios are medians over rounds. ``python benchmarks/convolution.py`` prints the
table and the bars and writes ``benchmarks/results/convolution.json``. With two threads, which are measured beside,
times are of the clock, and least ones: other work on the machine only adds.
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
from bars import bars, printed, whole_layers
from cases import Case, cases
from contenders import PEERS, Contender, Problem
from torch import Tensor

from sparsegen.kernels import instruction_set
from sparsegen.kernels.native import extension
from sparsegen.sparse import SparseTensor, SubmanifoldConv, backends
from sparsegen.sparse.maps import submanifold

RESULTS = Path(__file__).parent / "results" / "convolution.json"
# Pages of freed blocks go back to the system at great cost to dense convolution; the same settings for everyone.
# Threads that spin while they wait take minutes for a layer where another process has a core.
SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "536870912",
}
MEASURES = ("map", "forward", "backward", "forward+backward", "double backward", "layer")


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


def timed(function: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    for _ in range(repeats):
        function()
    return (clock() - start) / repeats


def measured(
    contenders: list[Contender],
    measure: str,
    rounds: int,
    least: float,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each contender that has the measure, round by round, in turn."""
    running = [c for c in contenders if measure in c.run]
    repeats = {}
    for c in running:
        c.run[measure]()
        repeats[c.name] = max(1, round(least / max(timed(c.run[measure], 1), 1e-6)))
    times: dict[str, list[float]] = {c.name: [] for c in running}
    for turn in range(rounds):
        for c in running[turn % len(running) :] + running[: turn % len(running)]:
            times[c.name].append(timed(c.run[measure], repeats[c.name], clock))
    return times


def compare(times: dict[str, list[float]]) -> dict[str, Any]:
    """Milliseconds of each contender and its ratio to the first, as medians over rounds."""
    base, *_ = times.values()
    return {
        name: {
            "ms": 1e3 * statistics.median(values),
            "ratio": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            "spread": [f(v / b for v, b in zip(values, base, strict=True)) for f in (min, max)],
        }
        for name, values in times.items()
    }


def two_threads(contenders: list[Contender], rounds: int, least: float) -> dict[str, dict[str, float]]:
    """Least clock milliseconds of a whole layer with one thread and with two."""
    able = [c for c in contenders if c.threads]
    found = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times = measured(able, "layer", rounds, least, time.perf_counter)
        found[f"{threads} threads"] = {name: 1e3 * min(values) for name, values in times.items()}
    torch.set_num_threads(1)
    return found


def product_rate(channels: int) -> float:
    """GFLOP/s of torch's dense product with as many channels."""
    a, b = torch.randn(2048, channels), torch.randn(channels, channels)
    return 2e-9 * 2048 * channels**2 / min(timed(lambda: a @ b, 50) for _ in range(5))


def peak_rate() -> float | None:
    """GFLOP/s of independent chains of fused multiply-adds: what one core can do."""
    native, values = extension(), torch.full((1024,), 0.5)
    if native is None:
        return None
    steps = 200_000
    operations = native.multiply_adds(1, values.data_ptr())
    return (
        1e-9
        * operations
        * steps
        / min(timed(lambda: native.multiply_adds(steps, values.data_ptr()), 1) for _ in range(5))
    )


def rounded_inputs(problem: Problem, own: Contender, rounds: int, least: float) -> dict[str, float] | None:
    """Time of a float32 forward over that of bfloat16 inputs with float32 sums, and the relative error."""
    half = problem.bfloat16()
    if half is None:
        return None
    times = measured([half, own], "forward", rounds, least)
    (found,), (expected, *_) = half.check(), own.check()
    error = (found - expected).detach().norm() / expected.detach().norm()
    return {"times faster": compare(times)[own.name]["ratio"], "error": float(error)}


def measure_case(case: Case, rounds: int, least: float) -> dict[str, Any]:
    problem = Problem(case)
    names = [name for name in ("native", "torch") if name in backends()]
    contenders = [problem.own(name) for name in names] + [problem.dense(False), problem.dense(True)]
    contenders += [peer for make in PEERS.values() if (peer := make(problem)) is not None]
    agree(contenders)
    times = {measure: measured(contenders, measure, rounds, least) for measure in MEASURES}
    found = {measure: compare(values) for measure, values in times.items()}
    sites = problem.tensor().sites
    pairs = len(submanifold(sites, (3,) * problem.dim, (1,) * problem.dim).inputs)
    flops = 2e-6 * pairs * case.cin * case.cout
    dense = 2e-6 * case.batch * torch.Size(case.shape).numel() * 3**problem.dim * case.cin * case.cout
    # Rates are of the least times, as the peak is: other work on the machine only adds.
    ours = {measure: 1e3 * min(times[measure][names[0]]) for measure in MEASURES}
    return {
        "sites": len(case.coords),
        "occupancy": case.occupancy,
        "dimensions": problem.dim,
        "pairs per site": pairs / len(case.coords),
        "channels": [case.cin, case.cout],
        "GFLOP/s": {
            "forward": flops / ours["forward"],
            "backward": 2 * flops / ours["backward"],
            "peak": peak_rate(),
            "torch.mm": product_rate(case.cin),
            "oneDNN convolution": dense / min(1e3 * min(times["forward"][n]) for n in ("dense", "dense channels last")),
        },
        "double backward / backward": statistics.median(
            a / b for a, b in zip(times["double backward"][names[0]], times["backward"][names[0]], strict=True)
        ),
        "bfloat16 forward": rounded_inputs(problem, contenders[0], rounds, least),
        "measures": found,
        "clock ms of a layer": two_threads(contenders, 3, least),
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
        rates = ", ".join(f"{k} {v:.0f}" for k, v in case["GFLOP/s"].items() if v is not None)
        threads = ", ".join(
            f"{n} {one:.3f} -> {case['clock ms of a layer']['2 threads'][n]:.3f}"
            for n, one in case["clock ms of a layer"]["1 threads"].items()
        )
        if (half := case["bfloat16 forward"]) is not None:
            rates += f"; bfloat16 inputs {half['times faster']:.2f} x faster, error {half['error']:.1e}"
        lines += [f"{'':41}GFLOP/s: {rates}", f"{'':41}ms of a layer, one thread -> two: {threads}"]
    return "\n".join(lines)


def machine() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
    parser.add_argument("--memory", action="store_true", help="only the peak memory of a forward, printed as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory_of_a_forward()))
        return 0
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | SETTINGS)
    torch.set_num_threads(1)
    # A process of its own, with the allocator as it is.
    usual = {name: value for name, value in os.environ.items() if name not in SETTINGS}
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
        "peers": {
            name: "measured" if any(name in c["measures"]["layer"] for c in results.values()) else "not run"
            for name in PEERS
        },
        "times": "processor milliseconds; ratios to the first back end, medians over rounds",
        "whole layers": whole_layers(results),
        "MiB of a forward": json.loads(memory.stdout),
        "cases": results,
    }
    report["bars"] = bars(results, report["MiB of a forward"]["ratio"])
    for name, values in report["whole layers"].items():
        print(f"whole layers, {name}: {values['geometric mean']:.2f} x the time, at least {values['least']:.2f} x")
    print(printed(report["bars"]))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
