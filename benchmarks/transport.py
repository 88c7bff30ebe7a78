"""Semi-discrete solvers against the classical one, set distances against torch.cdist: ratios of process CPU time.

Every case runs both sides in one process, on one thread, on the same problem and the same native cell search; what the
plain product and maximum of published code would take instead is measured, too. Times are of the solver's steps alone.
Errors are debiased and from samples that no solver saw. The classical solver has the best of three learning rates.
``python benchmarks/transport.py [CASE ...]`` prints and writes benchmarks/results/transport.json; cases: solve8 solve16
solve64 solve10k plane emd chamfer honesty.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sparsegen.kernels import CellSearch, MirrorSearch, instruction_set
from sparsegen.transport import SemiDiscreteOT, chamfer, emd
from sparsegen.transport.certificate import certify_counts
from sparsegen.transport.sampling import measure_cells
from sparsegen.transport.sgd import AveragedSGD, ClassicalAdam, gaussian_heights
from sparsegen.transport.source import Source

RESULTS = Path(__file__).parent / "results" / "transport.json"
LEVELS = (0.3, 0.2, 0.1, 0.05, 0.02)
GIVE_UP = 100.0


def mixture(n: int, d: int, seed: int = 0, components: int = 10) -> Tensor:
    """An anisotropic Gaussian mixture of zero mean and unit scale."""
    generator = torch.Generator().manual_seed(seed)
    centre = 2 * torch.randn(components, d, generator=generator)
    shape = 0.7 * torch.randn(components, d, d, generator=generator) / math.sqrt(d)
    label = torch.randint(components, (n,), generator=generator)
    y = centre[label] + torch.einsum("nij,nj->ni", shape[label], torch.randn(n, d, generator=generator))
    y = y - y.mean(0)
    return y / y.std()


def error_of(search: MirrorSearch, heights: Tensor, source: Source, samples: int) -> float:
    """The error on independent points, without their images."""
    zero = torch.zeros(source.dim)
    measured = measure_cells(search, heights, source, zero, 1.0, samples, torch.Generator().manual_seed(99))
    n = len(heights)
    weights = torch.full((n,), 1 / n, dtype=torch.float64).numpy()
    return certify_counts(measured.counts.numpy(), weights, 0.0, 0.0, 0.05, 0.0).rms


def seconds_to(solver: AveragedSGD | ClassicalAdam, levels: tuple[float, ...], give_up: float) -> dict[float, float]:
    """CPU seconds at which each error is first reached, looked for at times that grow by an eighth."""
    search, generator = MirrorSearch(solver.targets, 0), torch.Generator().manual_seed(1)
    n = len(solver.targets)
    spent = 0.0
    reached: dict[float, float] = {}
    while spent < give_up and len(reached) < len(levels):
        begin = time.process_time()
        solver.advance(max(solver.seen // 8, 5 * 512), generator)
        spent += time.process_time() - begin
        # a tenth of the square of the next error to reach
        samples = int(10 * math.sqrt(2 * n) / max(level for level in levels if level not in reached) ** 2)
        rms = error_of(search, solver.heights, solver.source, samples)
        reached |= {level: spent for level in levels if rms <= level and level not in reached}
    return reached


def solve(n: int, d: int, ours: tuple[float, ...], theirs: tuple[float, ...], give_up: float = GIVE_UP) -> dict:
    y, source = mixture(n, d), Source("uniform", d)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    begin = time.process_time()
    start = gaussian_heights(y, weights, source, None)
    setup = time.process_time() - begin
    fast = {k: v + setup for k, v in seconds_to(AveragedSGD(y, weights, source, start), ours, give_up).items()}
    slow: dict[float, float] = {}
    for rate in (0.05, 0.2, 0.0125):
        # a rate that is slower than the best so far need not finish
        cap = min(give_up, slow.get(theirs[-1], math.inf))
        times = seconds_to(ClassicalAdam(y, weights, source, torch.zeros(n), rate), theirs, cap)
        slow = {k: min(slow.get(k, math.inf), times.get(k, math.inf)) for k in theirs}
    ratio = {
        f"{k:g}": round((slow[k] if math.isfinite(slow[k]) else give_up) / fast[k], 1) for k in theirs if k in fast
    }
    plain = plain_product(y, source)
    return {
        "sgd_seconds": {f"{k:g}": round(v, 4) for k, v in fast.items()},
        "classical_seconds": {f"{k:g}": round(v, 3) if math.isfinite(v) else f"> {give_up:g}" for k, v in slow.items()},
        "ratio_at_least": ratio,
        "plain_product": round(plain, 2),
        "ratio_with_plain_product": {k: round(v * plain, 1) for k, v in ratio.items()},
    }


def plain_product(targets: Tensor, source: Source) -> float:
    """How much longer a step of the classical solver takes as it is published: torch's product, then its maximum."""
    ratios = []
    for _ in range(5):
        seconds = []
        for engine in ("auto", "torch"):
            weights = torch.full((len(targets),), 1 / len(targets), dtype=torch.float64)
            solver = ClassicalAdam(targets, weights, source, torch.zeros(len(targets)))
            solver._search = CellSearch(targets, engine)
            begin = time.process_time()
            solver.advance(20_000, None)
            seconds.append(time.process_time() - begin)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


def plane() -> dict:
    result = {}
    for n in (1000, 10_000):
        y = mixture(n, 2)
        transport = SemiDiscreteOT(y)
        begin = time.process_time()
        certificate = transport.fit(tol=1e-6, max_seconds=300)
        spent = time.process_time() - begin
        weights, source = torch.full((n,), 1 / n, dtype=torch.float64), Source("uniform", 2)
        times = seconds_to(ClassicalAdam(y, weights, source, torch.zeros(n)), (0.2,), GIVE_UP)
        slow = times.get(0.2, GIVE_UP)
        result[f"n={n}"] = {
            "newton_seconds": round(spent, 3),
            "newton_rms": certificate.rms,
            "empty": certificate.empty_bound,
            "classical_seconds_to_0.2": round(slow, 2) if 0.2 in times else f"> {GIVE_UP:g}",
            "ratio_at_least": round(slow / spent, 1),
        }
    return result


def timed(f: Callable[[], object], repeats: int) -> list[float]:
    f()
    out = []
    for _ in range(repeats):
        begin = time.process_time()
        f()
        out.append(time.process_time() - begin)
    return out


def small_emd() -> dict:
    a, b = (torch.rand(32, 30, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    times = timed(lambda: emd(a, b), 200)
    return {"milliseconds_for_32_pairs_of_30": round(1e3 * statistics.median(times), 3)}


def large_chamfer() -> dict:
    a, b = (torch.rand(32, 2048, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    a.requires_grad_()

    def ours() -> None:
        chamfer(a, b).mean().backward()

    def obvious() -> None:
        d = torch.cdist(a, b).square()
        (d.amin(2).mean(1) + d.amin(1).mean(1)).mean().backward()

    ratios, fast, slow = [], [], []
    for _ in range(3):
        fast.append(statistics.median(timed(ours, 5)))
        slow.append(timed(obvious, 1)[0])
        ratios.append(slow[-1] / fast[-1])
    return {
        "chamfer_milliseconds": round(1e3 * statistics.median(fast), 2),
        "cdist_milliseconds": round(1e3 * statistics.median(slow), 1),
        "ratio": round(statistics.median(ratios), 1),
        "ratio_spread": [round(min(ratios), 1), round(max(ratios), 1)],
    }


def honesty() -> dict:
    """How often the certificate's interval holds the error measured on 100 times more samples."""
    held = claimed = true = 0
    for seed in range(100):
        n, d = 100 + 2 * seed, 4 + seed % 8
        transport = SemiDiscreteOT(mixture(n, d, seed))
        certificate = transport.fit(tol=0.2, max_seconds=20, generator=torch.Generator().manual_seed(seed))
        samples = 100 * certificate.samples
        rms = error_of(MirrorSearch(transport._unit, 0), transport._heights, transport.source, samples)
        held += certificate.rms_ci[0] <= rms <= certificate.rms_ci[1]
        claimed += certificate.converged
        true += certificate.converged and rms <= 0.2
    return {"problems": 100, "interval_holds": held, "claimed": claimed, "claimed_and_true": true}


CASES: dict[str, Callable[[], dict]] = {
    "solve8": lambda: solve(1000, 8, (0.2, 0.1, 0.05, 0.02), (0.2, 0.1, 0.05)),
    "solve16": lambda: solve(1000, 16, (0.2, 0.1, 0.05, 0.02), (0.2, 0.1, 0.05)),
    "solve64": lambda: solve(1000, 64, (0.2, 0.1, 0.05), (0.2, 0.1, 0.05)),
    "solve10k": lambda: solve(10_000, 16, (0.2, 0.1, 0.05, 0.02), (0.3, 0.2), 300.0),
    "plane": plane,
    "emd": small_emd,
    "chamfer": large_chamfer,
    "honesty": honesty,
}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(CASES)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = {"instruction_set": instruction_set(), "torch": torch.__version__, "threads": 1}
    for name in names:
        results[name] = CASES[name]()
        print(name, json.dumps(results[name], indent=2), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
