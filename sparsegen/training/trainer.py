"""The trainer: one model, one data set, one folder; the same call again goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsegen.models.base import Model
from sparsegen.training.config import RunConfig
from sparsegen.training.fabric import make_fabric, on_rank_zero
from sparsegen.training.folder import RunFolder
from sparsegen.training.loop import Loop
from sparsegen.training.signals import StopFlag
from sparsegen.training.state import RunState

if TYPE_CHECKING:
    from sparsegen.data import EventSource

__all__ = ["RunResult", "Trainer"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Args:
        status: ``done``, ``interrupted`` (saved; the same command goes on) or ``diverged``.
        step: Steps taken.
        skipped: Steps left out because of a non-finite loss or gradient.
        rollbacks: Returns to a checkpoint for the same reason.
        message: Why it ended, where it was not simply done.
    """

    status: str
    step: int
    skipped: int = 0
    rollbacks: int = 0
    message: str = ""

    @property
    def exit_code(self) -> int:
        """For the command line: 0 done, 3 diverged, 75 interrupted (EX_TEMPFAIL: run the same command again)."""
        return {"done": 0, "diverged": 3, "interrupted": 75}[self.status]


class Trainer:
    """Trains one model into one folder; the same call again resumes.

    A resumed run equals the one that was not stopped, bit for bit: on the CPU always, on CUDA with
    ``deterministic: true``; with the same number of processes.

    Args:
        run_dir: Gets ``config.yaml``, ``status.json``, ``metrics.jsonl``, ``metrics.csv`` and ``checkpoints/``.
        config: The run.
    """

    def __init__(self, run_dir: str | Path, config: RunConfig) -> None:
        self.folder = RunFolder(run_dir, config.training.keep)
        self.config = config

    def fit(self, model: Model, source: EventSource) -> RunResult:
        """Trains until the stages are through, a signal comes, or the loss is no longer finite.

        SIGTERM, SIGUSR1 and Ctrl-C save between whole steps and return; a second Ctrl-C quits at once.

        Args:
            model: Left on the run's device with the weights that sampling uses, in evaluation mode.
            source: The training events.

        Raises:
            ConfigError: The folder holds another config or data set, or another process trains there.
            DataError: The data set is too small, or every checkpoint is damaged.
            SparsegenError: Out of memory: names the batch, its largest event and what to change.
        """
        fabric = make_fabric(self.config.training)
        on_rank_zero(fabric, lambda: self.folder.claim(self.config))
        try:
            state = RunState(fabric, self.folder, self.config, model, source)
            with StopFlag() as stop:
                status, message = Loop(state, stop).run()
        finally:
            self.folder.release()
        return RunResult(status, state.step, state.skipped, state.rollbacks, message)
