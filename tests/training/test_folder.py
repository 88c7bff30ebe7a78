"""The run folder: one process, one config, metrics cut back to the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from training_toys import make_config

from sparsegen.errors import ConfigError
from sparsegen.training.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    yield folder
    folder.release()


def test_a_second_claim_is_refused_and_names_the_holder(folder):
    folder.claim(make_config())
    with pytest.raises(ConfigError, match="is being trained by process"):
        RunFolder(folder.path).claim(make_config())
    folder.release()
    second = RunFolder(folder.path)
    second.claim(make_config())
    second.release()


def test_the_lock_of_a_killed_process_is_stale(folder):
    code = (
        "import fcntl, os, signal\n"
        f"lock = open({str(folder.path / 'lock')!r}, 'a+')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX); lock.write('process 1 on here'); lock.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder.path.mkdir()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (folder.path / "lock").read_text() == "process 1 on here"
    folder.claim(make_config())


def test_another_config_is_refused_with_the_difference(folder):
    folder.claim(make_config())
    folder.release()
    with pytest.raises(ConfigError) as raised:
        folder.claim(make_config(lr=0.5, log_every=3))
    assert "training.lr: 0.001 -> 0.5" in str(raised.value)
    assert "log_every" not in str(raised.value)
    assert folder.config == make_config()
    folder.claim(make_config(log_every=3))


def test_a_folder_with_foreign_metrics_is_left_alone(folder):
    folder.path.mkdir()
    (folder.path / "metrics.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds metrics\.jsonl but no config\.yaml"):
        folder.claim(make_config())
    assert (folder.path / "metrics.jsonl").read_text() == "mine"
    assert not (folder.path / "config.yaml").exists()


def test_a_path_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose a folder that can be written"):
        RunFolder(tmp_path / "file" / "run").claim(make_config())


def test_metrics_are_cut_back_torn_line_and_all(folder):
    folder.claim(make_config())
    folder.open_metrics(None)
    folder.log(5, 0.5, "train", {"loss": 1.0}, 0.1)
    sizes = folder.metrics_sizes()
    folder.log(10, 1.0, "train", {"loss": float("nan")}, 0.2)
    folder.release()
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "lo')
    folder.open_metrics(sizes)
    folder.log(10, 1.0, "train", {"loss": float("inf"), "other": 2.0}, 0.3)
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(5, 1.0), (10, None)]
    table = (folder.path / "metrics.csv").read_text().splitlines()
    assert table == [
        "step,epoch,stage,name,value",
        "5,0.5,train,loss,1.0",
        "10,1.0,train,loss,inf",
        "10,1.0,train,other,2.0",
    ]
