"""Two processes with gloo: the same as one with twice the batch, and the same on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_toys import Regressor, fit, make_config

from sparsegen.training.checkpoint import read_checkpoint
from sparsegen.training.folder import RunFolder

TOYS = Path(__file__).with_name("training_toys.py")

PAIR = {"devices": 2, "batch": 8, "monitor": 4}
SCENARIOS = [
    {"run": "two", "model": "regressor", "max_steps": 20, **PAIR},
    {"run": "whole", "ema": 0.9, **PAIR},
    {"run": "stopped", "ema": 0.9, "term_at": 7, **PAIR},
    {"run": "stopped", "ema": 0.9, **PAIR},
    {"run": "nan", "model": "regressor", "nan_event": 40, **PAIR},
    {"run": "two", "model": "regressor", "max_steps": 21, **PAIR},
]

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The scenarios, one after the other in one pair of processes; Fabric starts the second itself, as for a user."""
    folder = tmp_path_factory.mktemp("ddp")
    path = os.pathsep.join([str(TOYS.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOYS), str(folder), json.dumps(SCENARIOS)]
    done = subprocess.run(command, env=environment, timeout=150, check=False, capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcomes(folder, run):
    return [lines(folder / f"{run}-{rank}.json") for rank in (0, 1)]


def weights(folder, run):
    return [torch.load(folder / f"{run}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_ranks_of_b_equal_one_rank_of_2b(folder, tmp_path):
    torch.manual_seed(0)
    model = Regressor()
    fit(tmp_path / "one", model, make_config(batch=16, max_steps=20))
    state, _ = read_checkpoint(RunFolder(folder / "two").checkpoints.paths()[0])
    for name, value in model.state_dict().items():
        assert float((state["model"][name] - value).abs().max()) < 1e-6, name
    logged = [[row["loss"] for row in lines(run / "metrics.jsonl")] for run in (tmp_path / "one", folder / "two")]
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)


def test_ranks_hold_the_same_weights_and_different_noise(folder):
    """In a game of several forward passes, a double backward and fits."""
    assert outcomes(folder, "whole") == [[0], [0]]
    assert same(*weights(folder, "whole"))
    state, _ = read_checkpoint(RunFolder(folder / "whole").checkpoints.paths()[0])
    assert not torch.equal(state["random"][0]["generator"], state["random"][1]["generator"])


def test_a_signal_to_one_rank_stops_both_and_the_run_resumes_bitwise(folder):
    assert outcomes(folder, "stopped") == [[75, 0], [75, 0]]
    assert same(weights(folder, "whole")[0], weights(folder, "stopped")[0])
    assert same(weights(folder, "whole")[0], weights(folder, "stopped")[1])


def test_a_nan_on_one_rank_stops_both_at_the_same_step(folder):
    assert outcomes(folder, "nan") == [[3], [3]]
    dumps = [json.loads(path.read_text()) for path in sorted((folder / "nan").glob("diverged-*.json"))]
    assert [dump["rank"] for dump in dumps] == [0, 1]
    assert {dump["step"] for dump in dumps} == {RunFolder(folder / "nan").read_status()["step"]}
    assert sorted(dump["events_not_finite"] for dump in dumps) == [[], [40]]


def test_a_refused_folder_is_an_error_on_every_rank(folder):
    for first, second in outcomes(folder, "two"):
        assert first == 0
        assert "training.max_steps: 20 -> 21" in second
