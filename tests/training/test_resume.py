"""A run that is stopped in any way and resumed equals, bit for bit, the one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_toys import Game, fit, make_config

from sparsegen.errors import SparsegenError
from sparsegen.training.checkpoint import read_checkpoint
from sparsegen.training.folder import RunFolder

TOYS = Path(__file__).with_name("training_toys.py")
CLOCKS = ("seconds", "events_per_second")


class Killed(BaseException):
    """Stands for the end of the process."""


def game() -> Game:
    torch.manual_seed(0)
    return Game()


def final(run_dir):
    """Everything that a run leaves behind, but for clocks."""
    folder = RunFolder(run_dir)
    assert folder.read_status()["status"] == "done"
    state, manifest = read_checkpoint(folder.checkpoints.paths()[0])
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in lines]
    table = [line for line in (folder.path / "metrics.csv").read_text().splitlines() if "events_per_second" not in line]
    return {k: state[k] for k in ("model", "optimizers", "average", "random", "skipped")}, manifest["step"], rows, table


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def start(folder, run, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOYS.parents[2]), os.environ.get("PYTHONPATH", "")])}
    scenarios = json.dumps([{"run": run, **options}])
    return subprocess.Popen([sys.executable, str(TOYS), str(folder), scenarios], env=environment)


def wait_until_running(run_dir, process):
    status = Path(run_dir) / "status.json"
    for _ in range(12000):
        if status.exists() and json.loads(status.read_text())["pid"] == process.pid:
            return
        assert process.poll() is None
        time.sleep(0.01)
    raise AssertionError("the run did not start within two minutes")


def test_killed_at_three_random_moments_equals_the_run_that_was_not(tmp_path):
    options = {"epochs": 8, "ema": 0.9}
    fit(tmp_path / "whole", game(), make_config(**options))
    moments = random.Random(17)
    for _ in range(3):
        process = start(tmp_path, "killed", pause=0.06, **options)
        wait_until_running(tmp_path / "killed", process)
        time.sleep(moments.uniform(0.02, 0.35))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert RunFolder(tmp_path / "killed").read_status()["status"] == "running"
    assert start(tmp_path, "killed", **options).wait() == 0
    assert equal(final(tmp_path / "whole"), final(tmp_path / "killed"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_exits_between_whole_steps(tmp_path, number):
    """Raised inside the critic's or the generator's part of a step, or inside a fit."""
    fit(tmp_path / "whole", game(), make_config(monitor=4))

    class Interrupted(Game):
        def make(self, counts, generator):
            self.made = getattr(self, "made", 0) + 1
            if self.made in (5, 12):
                signal.raise_signal(number)
            return super().make(counts, generator)

        def measure(self, batches, generator):
            signal.raise_signal(number)
            return super().measure(batches, generator)

    steps = []
    for _ in range(9):
        torch.manual_seed(0)
        model = Interrupted() if len(steps) < 3 else Game()
        result = fit(tmp_path / "stopped", model, make_config(monitor=4))
        steps.append(result.step)
        if result.status == "done":
            break
        assert result.status == "interrupted"
        assert result.exit_code == 75
        assert signal.Signals(number).name in result.message
        assert RunFolder(tmp_path / "stopped").read_status()["status"] == "interrupted"
    assert len(steps) == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert equal(final(tmp_path / "whole"), final(tmp_path / "stopped"))


def test_a_second_ctrl_c_quits_at_once(tmp_path):
    class Stuck(Game):
        def step(self, events, optimizers, generator):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on after the second Ctrl-C")

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", Stuck(), make_config())
    fit(tmp_path / "run", game(), make_config())
    fit(tmp_path / "whole", game(), make_config())
    assert equal(final(tmp_path / "whole"), final(tmp_path / "run"))


class Mortal:
    """A system call before or after whose ``n``-th use the process ends."""

    def __init__(self, call, n, after):
        self.call, self.n, self.after, self.calls = call, n, after, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls < self.n:
            return self.call(*arguments)
        if self.calls == self.n and self.after:
            self.call(*arguments)
        raise Killed


@pytest.mark.parametrize(("name", "after"), [("replace", False), ("replace", True), ("fsync", False)])
def test_death_around_any_write_leaves_a_run_that_goes_on(tmp_path, monkeypatch, name, after):
    """The process ends before or after each fsync or rename in turn: config, status, checkpoints, metrics."""
    fit(tmp_path / "whole", game(), make_config(epochs=1))
    expected = final(tmp_path / "whole")
    real = getattr(os, name)
    for n in range(1, 200):
        run = tmp_path / f"run-{n}"
        mortal = Mortal(real, n, after)
        monkeypatch.setattr(os, name, mortal)
        with contextlib.suppress(Killed):
            fit(run, game(), make_config(epochs=1))
        monkeypatch.setattr(os, name, real)
        if mortal.calls < n:
            break
        fit(run, game(), make_config(epochs=1))
        assert equal(final(run), expected), n
    assert n > 8


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(tmp_path, monkeypatch):
    fit(tmp_path / "whole", game(), make_config())
    real = os.fsync
    calls = 0

    def filling(handle):
        nonlocal calls
        calls += 1
        if calls > 30:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(SparsegenError, match="No space left on device; what was there before is intact"):
        fit(tmp_path / "full", game(), make_config())
    monkeypatch.setattr(os, "fsync", real)
    assert not list((tmp_path / "full").rglob("*.part"))
    fit(tmp_path / "full", game(), make_config())
    assert equal(final(tmp_path / "whole"), final(tmp_path / "full"))
