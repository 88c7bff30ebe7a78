"""Long verbs killed in the middle: nothing half-made is left, and the result is that of a run nobody stopped."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from chunk_makers import die, write

import data_tools.chunks as chunks
import data_tools.jets
import data_tools.repair
import data_tools.showers
import data_tools.toys
import data_tools.transfer
from data_tools.chunks import Chunk, in_chunks
from data_tools.cli import main
from sparsegen.errors import ConfigError

_KILLED = """
import os, signal, sys
import data_tools.chunks, data_tools.jets, data_tools.repair, data_tools.showers, data_tools.toys, data_tools.transfer
import sparsegen.data.files
from data_tools.cli import main

module, size, when = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data_tools.jets._CHUNK = data_tools.showers._CHUNK = data_tools.toys._CHUNK = size
data_tools.transfer._PIECE = data_tools.repair._PIECE = size
target = getattr(data_tools, "chunks") if module == "chunk" else sparsegen.data.files
sync, calls = target.sync, []

def dying(path):
    calls.append(path)
    if len(calls) == when:
        # All bytes are written, the name is not given yet
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

target.sync = dying
sys.exit(main(sys.argv[4:]))
"""


def _run(target: str, size: int, when: int, argv: list[str]) -> int:
    command = [sys.executable, "-c", _KILLED, target, str(size), str(when), *argv]
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True).returncode


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        pytest.param(
            ["jets", "OUT", "--kinds", "quark", "--jets", "12"],
            4,
            marks=pytest.mark.skipif(not importlib.util.find_spec("pythia8mc"), reason="needs the extra pythia"),
        ),
        (["showers", "OUT", "--events", "700"], 256),
        (["toys", "bernoulli", "OUT", "--events", "700"], 256),
        (["convert", "pythia-jets:test", "OUT"], 512),
        (["repair", "IN", "OUT", "--keep-events"], 1),
    ],
    ids=["jets", "showers", "toys", "convert", "repair"],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    argv: list[str],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (data_tools.jets, data_tools.showers, data_tools.toys):
        monkeypatch.setattr(module, "_CHUNK", size)
    for module in (data_tools.transfer, data_tools.repair):
        monkeypatch.setattr(module, "_PIECE", size)
    faulty = tmp_path_factory.mktemp("faulty") / "a.h5"
    if "IN" in argv:
        assert main(["convert", "pythia-jets:test", str(faulty)]) == 0
        with h5py.File(faulty, "r+") as file:
            file["features"][70_000] = -1
    whole, killed = (tmp_path / name for name in ("whole.h5", "killed.h5"))
    words = {path: {"IN": str(faulty), "OUT": str(path)} for path in (whole, killed)}
    arguments = {path: [words[path].get(word, word) for word in argv] for path in (whole, killed)}
    assert main(arguments[whole]) == 0
    assert _run("chunk", size, 2, arguments[killed]) == -signal.SIGKILL
    assert len(list(tmp_path.glob("killed.h5.chunks/*0.*"))) == 1
    assert not killed.exists()
    # Now at the last moment: everything is written under another name
    assert _run("file", size, 1, arguments[killed]) == -signal.SIGKILL
    assert not killed.exists()
    assert main(arguments[killed]) == 0
    assert killed.read_bytes() == whole.read_bytes()
    logs = [tmp_path / f"{name}.h5.log.json" for name in ("killed", "whole")] if "IN" in argv else []
    assert sorted(tmp_path.iterdir()) == sorted([killed, whole, *logs])
    assert len({log.read_bytes() for log in logs}) <= 1


def _join(output: Path) -> object:
    return lambda paths: output.write_text("".join(path.read_text() for path in paths))


def test_what_is_made_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for processes in (1, 2):
        path = tmp_path / str(processes)
        parts = [Chunk(f"{k}.txt", write, (str(k),)) for k in range(5)]
        in_chunks(path, {}, parts, _join(path), what="parts", processes=processes)  # type: ignore[arg-type]
        assert path.read_text() == "01234"


def test_a_worker_that_is_killed_is_named_and_finished_chunks_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = Chunk("0.txt", write, ("0",))
    with pytest.raises(ConfigError, match="a process died"):
        in_chunks(path, {}, [first, *[Chunk(f"{k}.txt", die, ()) for k in (1, 2)]], len, what="parts", processes=2)
    in_chunks(path, {}, [first, Chunk("1.txt", write, ("1",))], len, what="parts", processes=2)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(task: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks, "save_chunk", interrupted)
    assert main(["showers", str(tmp_path / "a.hdf5"), "--events", "10"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_unfinished_work_of_another_call_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["showers", str(tmp_path / "a.hdf5"), "--events", "700"]
    assert _run("chunk", 256, 2, argv) == -signal.SIGKILL
    assert main([*argv, "--seed", "2"]) == 2
    assert "unfinished work of another call, with other seed; finish that, remove the folder" in capsys.readouterr().err
    assert (tmp_path / "a.hdf5.chunks" / "000000.h5").exists()
