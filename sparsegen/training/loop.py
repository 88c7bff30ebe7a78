"""The loop over stages, epochs and steps."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from sparsegen.errors import DataError, DivergedError, SparsegenError
from sparsegen.events import Events
from sparsegen.models.base import FitStage, GradientStage, Model, Stage
from sparsegen.training.fabric import broadcast_module, gather, mean_over_ranks, on_rank_zero
from sparsegen.training.faults import divergence, is_out_of_memory, memory_message
from sparsegen.training.monitor import collapse
from sparsegen.training.signals import StopFlag
from sparsegen.training.state import RunState, derived_seed

__all__ = ["Loop"]

ROLLBACKS = 3
SKIPS_IN_A_ROW = 100


class Loop:
    """Takes a run from where its folder left it to its end.

    Args:
        state: The run.
        stop: Asks for a stop between whole steps.
    """

    def __init__(self, state: RunState, stop: StopFlag) -> None:
        self.state = state
        self.stop = stop
        self.training = state.training
        self.model = state.model
        self.stages = state.model.stages
        self.ends = stage_ends(self.stages, state.total)
        self._reference: Events | None = None
        self._in_a_row = 0

    def run(self) -> tuple[str, str]:
        """Status and message of the run's end."""
        state = self.state
        before = on_rank_zero(state.fabric, state.folder.read_status)
        with ExitStack() as stack:
            stack.enter_context(_determinism(self.training.deterministic))
            stack.enter_context(state.fabric.strategy.precision.tensor_init_context())
            stack.enter_context(state.set_up())
            sizes = state.restore()
            status, message = before.get("status", ""), before.get("message", "")
            if status not in ("done", "diverged"):
                stack.enter_context(state.reporter.opened(sizes))
                self.model.train()
                status, message = self._watched()
        state.finish()
        return status, message

    def _watched(self) -> tuple[str, str]:
        """The stages, with ``status.json`` telling how they go and how they ended."""
        status, message = "failed", "an error ended the run; its text is where the command was started"
        try:
            self._write_status("running")
            if self.state.saved_at is None:
                self.state.save()
            status, message = self._all_stages()
        except DivergedError as error:
            status, message = "diverged", str(error)
        except SparsegenError as error:
            message = str(error)
            raise
        finally:
            self._write_status(status, message)
        return status, message

    def _all_stages(self) -> tuple[str, str]:
        state = self.state
        while state.stage < len(self.stages):
            stage = self.stages[state.stage]
            if isinstance(stage, FitStage):
                self._fit(stage)
            else:
                try:
                    self._gradient(stage, self.ends[state.stage])
                except DivergedError as error:
                    self._roll_back(error)
                    continue
            if isinstance(stage, FitStage) or state.step == self.ends[state.stage]:
                state.stage += 1
            state.save()
            if (name := self._agreed_stop()) and state.stage < len(self.stages):
                return "interrupted", f"{name}: saved at step {state.step}; the same command goes on"
        return "done", ""

    def _write_status(self, status: str, message: str = "") -> None:
        state = self.state
        if state.rank == 0:
            state.folder.write_status(
                status,
                step=state.step,
                steps=state.total,
                stage=state.stage,
                stages=len(self.stages),
                seconds=state.seconds,
                skipped=state.skipped,
                rollbacks=state.rollbacks,
                config_hash=state.config.hash,
                message=message,
            )

    # Stages

    def _fit(self, stage: FitStage) -> None:
        state = self.state
        generator = torch.Generator(state.device).manual_seed(derived_seed(self.training.seed, "fit", state.stage))
        with state.reporter.untimed(), state.sampling_weights():
            values = stage.fit(state.batches, generator)
        with state.plain():
            broadcast_module(state.fabric, self.model)
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, (int, float, Tensor))}
        state.reporter.row(state.step, state.step / state.per_epoch, stage.name, numbers, state.seconds)

    def _gradient(self, stage: GradientStage, end: int) -> None:
        """Steps until ``end``, or until a stop is asked for."""
        state = self.state
        while state.step < end:
            epoch, start = divmod(state.step, state.per_epoch)
            expected = min(end, (epoch + 1) * state.per_epoch)
            for events in state.shard(epoch, start):
                try:
                    self._one_step(stage, events)
                    if state.step % self.training.log_every == 0 or state.step == end:
                        self._log(stage)
                except DivergedError as error:
                    self._dump(stage, events, str(error))
                    raise
                if state.step == end or self._pause():
                    return
            if state.step != expected:
                raise DataError(f"{state.source.name}: epoch {epoch} ended at step {state.step}, not {expected}")

    def _one_step(self, stage: GradientStage, events: Events) -> None:
        state = self.state
        try:
            scalars = stage.step(events, state.optimizers, state.generator)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise SparsegenError(memory_message(state.step, events)) from error
            raise
        state.step += 1
        if state.average is not None:
            state.average.update(state.step)
        self._in_a_row = self._in_a_row + 1 if state.optimizers.skipped > state.skipped else 0
        state.skipped = state.optimizers.skipped
        if self._in_a_row >= SKIPS_IN_A_ROW:
            raise DivergedError(f"{SKIPS_IN_A_ROW} steps in a row were not finite; the weights are past recovery")
        state.reporter.collect(scalars, state.optimizers.norms, len(events) * state.world, state.step)

    def _pause(self) -> bool:
        """Between two steps: saves where it is time to; whether to stop."""
        state = self.state
        steps, seconds = self.training.checkpoint_interval
        if steps is not None:
            due = state.step % steps == 0
        else:
            due = time.monotonic() - (state.saved_at or 0.0) >= (seconds or 0.0)
        if state.world > 1:
            # Ranks must agree: clocks differ, and a signal reaches them between different steps.
            flags = torch.tensor([int(due), self.stop.signal or 0], device=state.device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            due, self.stop.signal = bool(flags[0]), int(flags[1]) or None
        if self.stop:
            return True
        if due:
            state.save()
            self._write_status("running")
        return False

    def _agreed_stop(self) -> str:
        """The name of the signal that any rank received, if one did."""
        if self.state.world > 1:
            self.stop.signal = max(gather(self.state.fabric, self.stop.signal or 0)) or None
        return self.stop.name

    # Logs

    def _log(self, stage: GradientStage) -> None:
        state = self.state
        values = state.reporter.means()
        if state.world > 1:
            values = mean_over_ranks(values, state.device)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if state.rank == 0:
            with state.reporter.untimed():
                values |= {f"monitor/{name}": value for name, value in self._monitored().items()}
            if state.skipped:
                values["skipped"] = state.skipped
            state.reporter.row(state.step, state.step / state.per_epoch, stage.name, values, state.seconds)
        if bad and self.training.on_nonfinite != "skip":
            raise DivergedError(f"{bad[0]} is not finite in the steps up to {state.step}")

    def _monitored(self) -> dict[str, float]:
        """Generated against real events, once nothing that sampling may need is still to be fitted."""
        state = self.state
        n = min(self.training.monitor, len(state.source))
        fits_to_come = any(isinstance(stage, FitStage) for stage in self.stages[state.stage :])
        if n == 0 or fits_to_come or type(self.model).sample is Model.sample:
            return {}
        if self._reference is None:
            # Spread over the whole set: a file may be sorted by class.
            self._reference = state.here(state.source[torch.linspace(0, len(state.source) - 1, n).long()])
        real = self._reference
        generator = torch.Generator(state.device).manual_seed(derived_seed(self.training.seed, "monitor"))
        cuda = [state.device] if state.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad(), state.sampling_weights():
            generated = self.model.sample(n, real.condition, counts=real.counts, generator=generator)
        return collapse(generated, real)

    # Trouble

    def _dump(self, stage: GradientStage, events: Events, message: str) -> None:
        state = self.state
        values = {"step": state.step, "stage": stage.name, "rank": state.rank, "message": message}
        values |= divergence(self.model, state.optimizers, events)
        state.folder.write_dump(f"diverged-step-{state.step:09d}-rank-{state.rank}.json", values)

    def _roll_back(self, error: DivergedError) -> None:
        """Back to the last checkpoint under other noise and another order, or on with the error."""
        state = self.state
        if self.training.on_nonfinite != "rollback" or state.rollbacks >= ROLLBACKS:
            raise error
        rollbacks = state.rollbacks + 1
        sizes = state.restore()
        state.rollbacks = max(rollbacks, state.rollbacks)
        state.seed()
        if state.rank == 0:
            state.folder.open_metrics(sizes)
        state.save()


def stage_ends(stages: Sequence[Stage], total: int) -> list[int]:
    """The step at which each stage ends: gradient stages take their shares of all steps.

    Example:
        >>> play = GradientStage(lambda events, optimizers, generator: {}, share=3.0)
        >>> stage_ends([play, FitStage(lambda batches, generator: {}), GradientStage(play.step)], 8)
        [6, 6, 8]
    """
    shares = [stage.share if isinstance(stage, GradientStage) else 0.0 for stage in stages]
    whole, ends, so_far = sum(shares), [], 0.0
    for share in shares:
        so_far += share
        ends.append(round(total * so_far / whole) if whole else 0)
    return ends


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
