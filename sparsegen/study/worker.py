"""One run of a study in a process of its own: ``python -m sparsegen.study.worker``, its task as JSON on the input.

Its own process means that its peak memory is its own, and that a crash takes nothing else with it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sparsegen.errors import SparsegenError
from sparsegen.study.evaluation import Real, finish_run, peak_memory
from sparsegen.study.planner import EvaluationConfig, PlannedRun
from sparsegen.study.runs import train
from sparsegen.training import RunConfig
from sparsegen.training.checkpoint import replace_file

__all__ = ["main", "task"]


def task(
    run: PlannedRun, evaluation: EvaluationConfig, folder: Path, key: str, threads: int, like: Path | None = None
) -> dict[str, Any]:
    """What the process is told, in plain types; ``like`` is the folder of a run whose training is this run's too."""
    labels = {"data": run.data, "model": run.model, "network": run.network, "seed": run.seed}
    return {
        "labels": labels,
        "config": run.config.to_dict(),
        "evaluation": evaluation.to_dict(),
        "folder": str(folder),
        "key": key,
        "threads": threads,
        "like": None if like is None else str(like),
    }


def _work(task: dict[str, Any]) -> int:
    torch.set_num_threads(task["threads"])
    folder = Path(task["folder"])
    run = PlannedRun(**task["labels"], config=RunConfig.from_dict(task["config"]))
    started = time.time()
    result, model = train(folder, run.config, task["like"])
    if result.status == "interrupted":
        return result.exit_code
    memory = _remember_memory(folder, started)
    real = Real(EvaluationConfig.from_dict(task["evaluation"]), run.config.data)
    finish_run(folder, run, model, real, task["key"], result.status, result.message, memory)
    return 0


def _remember_memory(folder: Path, started: float) -> float:
    """Peak memory of training in MB, the largest over the processes that trained, kept beside the run."""
    path = folder / "memory.json"
    held = json.loads(path.read_text())["peak_memory"] if path.exists() else 0.0
    trained = json.loads((folder / "status.json").read_text())["updated"] >= started
    if trained or not held:
        held = max(held, peak_memory())
        replace_file(path, [json.dumps({"peak_memory": held}).encode()])
    return float(held)


def main() -> int:
    """Does one task; 0 where the run ended, well or not, 2 on bad input, 75 where it was interrupted."""
    try:
        return _work(json.load(sys.stdin))
    except SparsegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
