"""Runs a study: what is missing, in as many processes as asked for, and nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparsegen.errors import ConfigError, DataError
from sparsegen.nets import FAMILIES
from sparsegen.study.evaluation import Outcome, Real
from sparsegen.study.planner import PlannedRun, Study, evaluation_key
from sparsegen.study.runs import NO_NETWORK, build_model, open_source
from sparsegen.study.worker import task
from sparsegen.training import RunConfig, diff, trunk
from sparsegen.training.checkpoint import replace_file
from sparsegen.training.signals import StopFlag

__all__ = ["Finished", "execute"]

RUNS = "runs"
RECORD = "study.json"
_POLL = 0.2


@dataclass
class Finished:
    """A study that has been run.

    Args:
        study: What was run.
        folder: Where.
        outcomes: What became of each run, in the study's order; absent where it was interrupted.
        real: The real side of each data set, by its label.
        floor: Real against real, by the label of the data.
        interrupted: Whether a signal ended it early.
    """

    study: Study
    folder: Path
    outcomes: dict[PlannedRun, Outcome] = field(default_factory=dict)
    real: dict[str, Real] = field(default_factory=dict)
    floor: dict[str, Outcome] = field(default_factory=dict)
    interrupted: bool = False

    def run_folder(self, run: PlannedRun) -> Path:
        """Where a run lives."""
        return self.folder / RUNS / run.folder


def execute(study: Study, folder: str | Path, *, processes: int = 1, threads: int = 1) -> Finished:
    """Runs what is missing of a study; the same call again runs nothing that is there.

    Args:
        study: What to run.
        folder: Gets ``study.json`` and ``runs/``.
        processes: Runs at the same time, each in a process of its own.
        threads: Threads of each.

    Raises:
        ConfigError: The study cannot be run as it is written, or the folder holds another study.
        DataError: A data set is missing or damaged.
    """
    if processes < 1 or threads < 1:
        raise ConfigError(f"compare: {processes} processes of {threads} threads; expected at least 1 of each")
    finished = Finished(study, Path(folder))
    _check(finished)
    _claim(finished)
    keys = {}
    for run in study.runs:
        keys[run] = evaluation_key(run, study.evaluation, finished.real[run.data].fingerprints)
        found = Outcome.read(finished.run_folder(run))
        if found is not None and found.key == keys[run] and found.status != "failed":
            finished.outcomes[run] = found
    missing = [run for run in study.runs if run not in finished.outcomes]
    if missing:
        _Pool(finished, keys, threads).work(missing, processes)
        # Runs end in any order
        finished.outcomes = {run: finished.outcomes[run] for run in study.runs if run in finished.outcomes}
    for label, real in finished.real.items():
        if not finished.interrupted:
            finished.floor[label] = _floor(finished, label, real)
    return finished


def _check(finished: Finished) -> None:
    """Opens every data set and builds every model once, so that a mistake is found before any training."""
    for run in finished.study.runs:
        if run.network != NO_NETWORK:
            FAMILIES[run.config.network.name]
    seen: set[str] = set()
    for run in finished.study.runs:
        if run.data not in finished.real:
            finished.real[run.data] = Real(finished.study.evaluation, run.config.data)
            finished.real[run.data].check()
        kind = json.dumps([run.config.to_dict()[section] for section in ("data", "model", "network")], sort_keys=True)
        if kind not in seen:
            seen.add(kind)
            build_model(run.config, open_source(run.config.data))


def _claim(finished: Finished) -> None:
    """Writes down what the folder holds, or refuses a folder that holds another study."""
    path, study = finished.folder / RECORD, finished.study
    if path.exists():
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before = {name: RunConfig.from_dict(config) for name, config in record["runs"].items()}
        except (json.JSONDecodeError, KeyError) as error:
            raise DataError(f"{path}: damaged ({error}); choose another folder") from None
        now = {run.name: run.config for run in study.runs}
        changes = [
            f"{name}: {'; '.join(diff(config, now[name], identity=True)) if name in now else 'no longer asked for'}"
            for name, config in before.items()
            if name not in now or config.hash != now[name].hash
        ]
        if record["evaluation"] != study.evaluation.to_dict():
            changes.append(f"evaluation: {record['evaluation']} -> {study.evaluation.to_dict()}")
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise ConfigError(
                f"{finished.folder} holds another study ({' | '.join(changes[:3])}{more}); choose another folder"
            )
    elif finished.folder.is_dir() and any(finished.folder.iterdir()):
        raise ConfigError(f"{finished.folder} is not empty and holds no study; choose another folder")
    try:
        (finished.folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{finished.folder}: {error.strerror or error}; choose a folder that can be written"
        ) from None
    values = {
        "study": study.source,
        "evaluation": study.evaluation.to_dict(),
        "runs": {run.name: run.config.to_dict() for run in study.runs},
    }
    replace_file(path, [(json.dumps(values, indent=1) + "\n").encode()])


def _floor(finished: Finished, label: str, real: Real) -> Outcome:
    """Real against real, kept beside the runs."""
    chosen = finished.study.evaluation
    key = json.dumps([chosen.to_dict(), list(real.fingerprints)], sort_keys=True)
    folder = finished.folder / RUNS / "-".join(part for part in ("real", label) if part)
    found = Outcome.read(folder)
    if found is None or found.key != key:
        folder.mkdir(exist_ok=True)
        found = Outcome(key, "done", results=tuple(real.judge_itself()), events=real.n)
        found.write(folder)
    return found


def first_of_trunk(runs: Sequence[PlannedRun]) -> dict[PlannedRun, PlannedRun]:
    """The first run with the same training as each, up to its last fits: it trains for all of them."""
    firsts: dict[str, PlannedRun] = {}
    return {run: firsts.setdefault(json.dumps(trunk(run.config), sort_keys=True), run) for run in runs}


class _Pool:
    """Processes at work on the runs of a study."""

    def __init__(self, finished: Finished, keys: Mapping[PlannedRun, str], threads: int) -> None:
        self.finished = finished
        self.keys = keys
        self.threads = threads
        self.running: dict[PlannedRun, subprocess.Popen[bytes]] = {}
        self.tasks: dict[PlannedRun, TaskID] = {}
        self.first = first_of_trunk(finished.study.runs)
        self.console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        # Where nobody watches, a line a run says more than a bar.
        self.progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def work(self, missing: Sequence[PlannedRun], processes: int) -> None:
        """Works through the runs that are missing."""
        waiting = list(missing)
        total = self.progress.add_task(f"{len(missing)} runs", total=len(missing))
        with StopFlag() as stop, self.progress:
            try:
                while (waiting and not stop) or self.running:
                    while not stop and len(self.running) < processes and (ready := self._ready(waiting)):
                        waiting.remove(ready)
                        self._start(ready)
                    time.sleep(_POLL)
                    if stop and stop.signal is not None:
                        self._signal(stop.signal)
                    for run, process in list(self.running.items()):
                        if process.poll() is None:
                            self._show(run)
                        else:
                            # One that was told to stop before it could listen is interrupted all the same.
                            told = getattr(process, "told", False) and process.returncode < 0
                            self._end(run, 75 if told else process.returncode)
                            self.progress.advance(total)
            finally:
                for process in self.running.values():
                    process.kill()
        self.finished.interrupted |= bool(stop)

    def _ready(self, waiting: Sequence[PlannedRun]) -> PlannedRun | None:
        """The next run that need not wait for another to train what both share."""
        busy = {*self.running, *waiting}
        return next((run for run in waiting if self.first[run] == run or self.first[run] not in busy), None)

    def _trained_like(self, run: PlannedRun) -> Path | None:
        """The folder of the run that has trained what this one shares with it."""
        first = self.first[run]
        outcome = None if first == run else self.finished.outcomes.get(first)
        return self.finished.run_folder(first) if outcome is not None and outcome.status == "done" else None

    def _start(self, run: PlannedRun) -> None:
        folder = self.finished.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        env = os.environ | {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        with open(folder / "log.txt", "ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then tells the others once.
            process = subprocess.Popen(
                [sys.executable, "-m", "sparsegen.study.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        like = self._trained_like(run)
        text = json.dumps(task(run, self.finished.study.evaluation, folder, self.keys[run], self.threads, like))
        assert process.stdin is not None
        try:
            process.stdin.write(text.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its exit code tells
        self.running[run] = process
        self.tasks[run] = self.progress.add_task(run.name, total=None)

    def _signal(self, number: int) -> None:
        for process in self.running.values():
            if process.poll() is None and not getattr(process, "told", False):
                process.send_signal(number)
                process.told = True  # type: ignore[attr-defined]

    def _show(self, run: PlannedRun) -> None:
        """Moves the run's bar to the step of its last row."""
        if self.progress.disable:
            return
        path = self.finished.run_folder(run)
        try:
            status = json.loads((path / "status.json").read_text())
            last = (path / "metrics.csv").read_text().rstrip("\n").rpartition("\n")[2].partition(",")[0]
            self.progress.update(self.tasks[run], total=status["steps"] or None, completed=int(last))
        except (OSError, ValueError, KeyError):
            pass  # not written yet, or just being written

    def _end(self, run: PlannedRun, code: int) -> None:
        del self.running[run]
        self.progress.remove_task(self.tasks.pop(run))
        folder = self.finished.run_folder(run)
        found = Outcome.read(folder)
        if code == 75:
            self.finished.interrupted = True
            self.console.print(f"{run.name}: interrupted; the same command goes on")
            return
        if code != 0 or found is None or found.key != self.keys[run]:
            lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["no message"]
            found = Outcome(self.keys[run], "failed", f"exit code {code}: {lines[-1]} (see {folder / 'log.txt'})")
            found.write(folder)
        self.finished.outcomes[run] = found
        self.console.print(f"{run.name}: {found.status}{': ' if found.message else ''}{found.message}")
