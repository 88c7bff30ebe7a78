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


def launch(run_dir, **options):
    """Fabric starts the second process itself, as it does for a user."""
    arguments = [f"{k}={v}" for k, v in options.items()]
    path = os.pathsep.join([str(TOYS.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOYS), str(run_dir), "devices=2", *arguments]
    return subprocess.run(command, env=environment, timeout=120, check=False, capture_output=True, text=True)


@pytest.mark.ddp
def test_two_ranks_of_b_equal_one_rank_of_2b(tmp_path):
    done = launch(tmp_path / "two", model="regressor", batch=8, max_steps=20, monitor=0, dump="yes")
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    model = Regressor()
    fit(tmp_path / "one", model, make_config(batch=16, max_steps=20, monitor=0))
    ranks = [torch.load(tmp_path / "two" / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in model.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert float((ranks[0][name] - value).abs().max()) < 1e-6, name
    logged = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)


@pytest.mark.ddp
def test_a_game_with_penalty_and_noise_keeps_ranks_alike_and_resumes_bitwise(tmp_path):
    """Several forward passes, a double backward, fits and random states that differ between the ranks."""
    whole = launch(tmp_path / "whole", epochs=2, batch=8, ema=0.9, dump="yes")
    assert whole.returncode == 0, whole.stderr
    stopped = launch(tmp_path / "stopped", epochs=2, batch=8, ema=0.9, dump="yes", term_at=7)
    assert stopped.returncode == 75, stopped.stderr
    assert RunFolder(tmp_path / "stopped").read_status()["status"] == "interrupted"
    resumed = launch(tmp_path / "stopped", epochs=2, batch=8, ema=0.9, dump="yes")
    assert resumed.returncode == 0, resumed.stderr
    weights = [
        torch.load(tmp_path / run / f"weights-{rank}.pt", weights_only=True)
        for run in ("whole", "stopped")
        for rank in (0, 1)
    ]
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
    state, _ = read_checkpoint(RunFolder(tmp_path / "whole").checkpoints.paths()[0])
    assert not torch.equal(state["random"][0]["generator"], state["random"][1]["generator"])


@pytest.mark.ddp
def test_errors_reach_every_rank(tmp_path):
    """A refused folder ends both processes instead of leaving one to wait."""
    fit(tmp_path / "run", Regressor(), make_config(batch=8, max_steps=2, monitor=0))
    refused = launch(tmp_path / "run", model="regressor", batch=8, max_steps=2, monitor=0)
    assert refused.returncode != 0
    assert "training.devices: 1 -> 2" in refused.stderr
