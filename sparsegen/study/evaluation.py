"""Judging a run: every sample and the real events on one lattice, with what the run cost."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsegen import data, metrics
from sparsegen.data import FileSource, RaggedWriter
from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.models import IndependentHits, Model
from sparsegen.models.latent import DecodingModel
from sparsegen.nets import count_parameters
from sparsegen.result import Result
from sparsegen.study.planner import EvaluationConfig, PlannedRun
from sparsegen.study.runs import draw, open_source
from sparsegen.training import DataConfig, RunConfig, RunFolder
from sparsegen.training.checkpoint import replace_file

__all__ = [
    "COSTS",
    "Outcome",
    "Real",
    "evaluate_samples",
    "in_view_of",
    "peak_memory",
    "sample_to_file",
    "sampling_time",
    "training_time",
]

SAMPLES = "samples.h5"
OUTCOME = "evaluation.json"
COSTS = {
    "parameters": ("parameters", ""),
    "train_time": ("training time per event", "ms"),
    "sample_time": ("sampling time per event", "ms"),
    "peak_memory": ("peak memory of training", "MB"),
}
"""What a run costs: name -> (words, unit)."""

_TIMED = 500
# Everything is quoted in multiples of the floor, so that it must be known to a few per cent.
_PROTOCOL = metrics.Protocol("whole", pairs=100)


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Args:
        key: What the evaluation depended on; another key means that it must be repeated.
        status: ``done``, ``diverged`` or ``failed``.
        message: Why, where it is not done.
        results: The metrics.
        costs: See :data:`COSTS`; absent where unknown.
        events: Generated events.
        dropped: Generated hits outside the lattice, as a share of all.
        step: Steps trained.
        threads: Threads that the run computed with.
        draws_counts: Whether the number of hits of each event was drawn from the training set rather than learned.
        sampling: What the model reports on its samples.
    """

    key: str
    status: str
    message: str = ""
    results: tuple[Result, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    events: int = 0
    dropped: float = 0.0
    step: int = 0
    threads: int = 1
    draws_counts: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Into the run's folder, whole or not at all."""
        values = asdict(self) | {"results": [r.as_dict() for r in self.results], "costs": dict(self.costs)}
        replace_file(folder / OUTCOME, [(json.dumps(values, indent=1) + "\n").encode()])

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """From the run's folder; None where there is none."""
        path = folder / OUTCOME
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values | {"results": tuple(Result(**r) for r in values["results"])})
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise DataError(f"{path}: damaged ({error}); remove it and run the same command again") from None


class Real:
    """The real side of a comparison, on the evaluation's lattice.

    Args:
        evaluation: How runs are judged.
        config: The data of the runs: their training set and classes.
    """

    def __init__(self, evaluation: EvaluationConfig, config: DataConfig) -> None:
        self.evaluation = evaluation
        classes = config.classes or ()
        known = data.open(evaluation.reference, condition="all", check=False).conditions
        shown: dict[str, Any] = {"view": "image", "shape": evaluation.lattice, "classes": classes}
        shown["condition"] = [name for name in config.condition if name in known]
        self.reference = data.open(evaluation.reference, **shown)
        self.train = data.open(config.name, **shown)
        self.seen = min(config.events or len(self.train), len(self.train))
        self.points = data.open(evaluation.reference, view="points", classes=classes, check=False)

    @property
    def n(self) -> int:
        """How many events are generated."""
        return self.evaluation.events or len(self.reference)

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Identity of the files."""
        return self.reference.fingerprint, self.train.fingerprint

    def check(self) -> None:
        """Raises what would stop an evaluation, before anything is trained.

        Raises:
            ConfigError: An unknown metric.
            DataError: Too few training events to keep some apart for the floor.
        """
        metrics.applicable(self.evaluation.metrics, self.reference[:1], train=self.train)
        if len(self.train) < self.n + 2:
            raise DataError(
                f"{self.train.name}: {len(self.train)} events leave none beside the {self.n} of the floor; "
                "lower evaluation.events"
            )

    def on_lattice(self, events: Events) -> tuple[Events, float]:
        """Events as cells of the lattice, and the share of hits that fall outside it."""
        dropped = int(self.reference.view.dropped(events).sum())
        return self.reference.view(events).coalesce(), dropped / max(1, len(events.coords))

    def judge(self, events: Events, seen: int | None = None) -> tuple[list[Result], float]:
        """Metrics of generated events, and the share of their hits outside the lattice.

        Args:
            events: The generated events.
            seen: How many of the training events the generator has seen; those of the config by default.
        """
        cells, dropped = self.on_lattice(events)
        results = metrics.evaluate(
            cells,
            self.reference[:],
            self.evaluation.metrics,
            train=self.train[: self.seen if seen is None else seen],
            protocol=_PROTOCOL,
            seed=self.evaluation.seed,
        )
        return results, dropped

    def judge_itself(self) -> list[Result]:
        """The same metrics of training events that are kept apart, in the place of generated ones: the floor."""
        rest = len(self.train) - self.n
        return self.judge(self.train[rest:], min(self.seen, rest))[0]


def evaluate_samples(
    generated: FileSource | Events,
    reference: FileSource,
    names: str | Sequence[str] = "fast",
    *,
    train: FileSource | None = None,
    protocol: metrics.Protocol | str | None = None,
    seed: int = 0,
    starting: Callable[[float], None] | None = None,
) -> list[Result]:
    """Metrics of generated events, in the view of the reference.

    Args:
        generated: What to judge.
        reference: Real events; their view is the one in which both sides are compared.
        names: ``fast``, ``full`` or names of metrics.
        train: The events that the generator was trained on, in the same view.
        protocol: A :class:`~sparsegen.metrics.Protocol` or its name.
        seed: Of the metrics.
        starting: Told, before anything is measured, how many seconds that will take.
    """
    shown = in_view_of(generated, reference)
    if starting is not None:
        chosen = [m.name for m in metrics.applicable(names, reference[0:1], train=train)]
        hits = float(shown.counts.double().mean()) if len(shown) else 0.0
        seconds = metrics.expected_seconds(chosen, len(shown), len(reference), hits)
        starting(seconds * metrics.machine_factor())
    return metrics.evaluate(shown, reference, names, train=train, protocol=protocol, seed=seed)


def in_view_of(generated: FileSource | Events, reference: FileSource) -> Events:
    """Generated events as the reference is looked at; of their conditions those that it has."""
    events = generated[:]
    if events.condition is not None and events.conditions != reference.conditions:
        shared = [name for name in reference.conditions if name in events.conditions]
        chosen = [events.conditions.index(name) for name in shared]
        events = events.with_condition(events.condition[:, chosen] if shared else None, shared)
    return reference.view(events)


def sample_to_file(
    model: Model,
    path: Path,
    n: int,
    config: RunConfig,
    *,
    run: str,
    seed: int,
    overwrite: bool,
    condition: Tensor | None = None,
) -> dict[str, Any]:
    """Draws events into one of sparsegen's own files, batch by batch, with where they come from.

    Their conditions are those given ``(n, K)``, else drawn from the training events.

    Returns:
        What the model reports on the samples: for a transport map its acceptance and certificate.

    Raises:
        DataError: The file exists and ``overwrite`` is not set.
    """
    provenance = {
        "program": "sparsegen sample",
        "run": run,
        "config": config.to_dict(),
        "config_hash": config.hash,
        "seed": seed,
    }
    source = open_source(config.data) if config.data.condition and condition is None else None
    with RaggedWriter(path, overwrite=overwrite, provenance=provenance) as writer:
        for events in draw(model, n, seed=seed, source=source, condition=condition):
            writer.append(events)
        report = model.sampling_report()
        if report:
            writer.note(sampling=report)
    return report


def sampling_time(model: Model, config: RunConfig, seed: int = 0) -> float:
    """Milliseconds per generated event, the smaller of two batches after a short warm-up."""
    source = open_source(config.data) if config.data.condition else None
    times = []
    for n in (32, _TIMED, _TIMED):
        start = time.perf_counter()
        for _ in draw(model, n, batch=_TIMED, seed=seed, source=source):
            pass
        times.append(1000 * (time.perf_counter() - start) / n)
    return min(times[1:])


def training_time(folder: Path) -> float:
    """Milliseconds per training event, the median over the rows of the run's metrics; NaN without any."""
    rates = sorted(row["events_per_second"] for row in metrics_rows(folder) if row.get("events_per_second"))
    return 1000 / rates[len(rates) // 2] if rates else math.nan


def metrics_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``; a torn last line is left out."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _draws_counts(model: Model) -> bool:
    """Whether a model takes the number of hits from the law of the training set."""
    if isinstance(model, DecodingModel):
        return model.draws_counts or bool(model.decoder.needs_counts)
    return isinstance(model, IndependentHits)


def peak_memory() -> float:
    """Largest memory that this process held, in MB: of the GPU where one was used, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss is inherited from the process that started this one; the kernel's high-water mark is not.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def finish_run(
    folder: Path, run: PlannedRun, model: Model, real: Real, key: str, status: str, message: str, memory: float
) -> Outcome:
    """Samples and judges a trained run, and writes down what came out."""
    state = RunFolder(folder).read_status()
    costs = {"parameters": float(count_parameters(model)), "train_time": training_time(folder), "peak_memory": memory}
    facts: dict[str, Any] = {"step": int(state.get("step", 0)), "threads": torch.get_num_threads()}
    facts["draws_counts"] = _draws_counts(model)
    if status == "done":
        costs["sample_time"] = sampling_time(model, run.config)
        seed = 1000 + run.config.training.seed
        facts["sampling"] = sample_to_file(
            model, folder / SAMPLES, real.n, run.config, run=run.name, seed=seed, overwrite=True
        )
        generated = data.open(folder / SAMPLES, condition=real.reference.conditions, check=False)[:]
        results, dropped = real.judge(generated)
        facts |= {"results": tuple(results), "dropped": dropped, "events": len(generated)}
    outcome = Outcome(key, status, message, costs={k: v for k, v in costs.items() if not math.isnan(v)}, **facts)
    outcome.write(folder)
    return outcome
