"""What each command does: one function a command, called with its options, returns the exit code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from sparsegen import data, training
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.metrics import METRICS, check_data_set, fpnd, kept_in, load_published, published, spectra
from sparsegen.metrics.protocol import resolve
from sparsegen.models import MODELS, PRIORS
from sparsegen.nets import FAMILIES
from sparsegen.study import runs
from sparsegen.study.evaluation import evaluate_samples, in_view_of, sample_to_file
from sparsegen.study.executor import execute
from sparsegen.study.figures import overlays
from sparsegen.study.planner import read_study
from sparsegen.study.report import write_report
from sparsegen.study.tables import caveats, comparison, flat_values, published_table, results_table, sampling_lines
from sparsegen.training import RunConfig, RunFolder
from sparsegen.training.checkpoint import replace_file

__all__ = ["compare", "evaluate", "refit", "sample", "show_list", "train"]

_EVENTS = 10_000
console = Console(soft_wrap=True, markup=False, highlight=False)


def _wide(table: Table) -> None:
    """Prints a table whose numbers must not be cut: on a narrow terminal its lines wrap."""
    width = Measurement.get(console, console.options.update(width=1000), table).maximum
    Console(width=max(console.width, width), markup=False, highlight=False).print(table)


def show_list(kind: str) -> int:
    """Prints what can be named."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(kind)
    table.add_column("what it is")
    for name, text in _known(kind).items():
        table.add_row(name, text)
    console.print(table)
    return 0


def _known(kind: str) -> dict[str, str]:
    if kind == "models":
        return {name: (MODELS[name].__doc__ or "").strip().splitlines()[0] for name in MODELS}
    if kind == "priors":
        return {name: (PRIORS[name].__doc__ or "").strip().splitlines()[0] for name in PRIORS}
    if kind == "networks":
        return {name: FAMILIES[name].summary for name in FAMILIES}
    if kind == "metrics":
        return {name: METRICS[name].summary + (" (fast)" if METRICS[name].fast else "") for name in METRICS}
    sets = {}
    for name in data.EMBEDDED:
        reader = data.RaggedReader(data.EMBEDDED[name])
        splits = ", ".join(f"{name}:{split}" for split in reader.splits)
        sets[name] = f"{reader.provenance['description']} ({reader.rows:,} events; {splits})"
    files = {name: data.formats[name] for name in data.formats}
    return sets | {
        f"{name} files": " ".join((f.description, *map("*{}".format, f.suffixes))) for name, f in files.items()
    }


def train(
    config: str, output: str, model: str | None, network: str | None, seed: int | None, settings: Mapping[str, Any]
) -> int:
    """Trains a run, or goes on with it."""
    chosen = RunConfig.from_yaml(config)
    if model is not None and model != chosen.model.name:
        MODELS[model]
        # Options of the model in the file mean nothing to another one; only the width of the codes is common to all.
        latent = {"latent": chosen.model.options["latent"]} if "latent" in chosen.model.options else {}
        chosen = chosen.updated({"model": {"name": model} | (latent if MODELS[model].roles else {})})
    if not MODELS[chosen.model.name].roles:
        chosen = chosen.updated({"network": runs.NO_NETWORK, "data.view": "points"})
    elif network is not None:
        FAMILIES[network]
        kept = chosen.network
        section = {"name": network, "parameters": kept.parameters, "width": kept.width}
        chosen = chosen.updated({"network": section, "data.view": runs.default_view(network)})
    if seed is not None:
        chosen = chosen.updated({"training.seed": seed})
    chosen = chosen.updated(settings)
    result, _ = runs.train(output, chosen)
    console.print(f"{output}: {result.status} after {result.step:,} steps", result.message)
    return result.exit_code


def _trained(run: str) -> tuple[training.RunConfig, Any]:
    """Config and model of a run that has ended well."""
    model = training.load(run)
    folder = RunFolder(run)
    status = folder.read_status().get("status")
    if status == "diverged":
        raise DataError(f"{run}: the run diverged; train it again with a lower training.lr")
    return folder.config, model


def refit(run: str, output: str, settings: Mapping[str, Any]) -> int:
    """Fits the laws of a trained run again under other options, without training again."""
    config = RunFolder(run).config
    name = settings.get("model.name", config.model.name)
    if name != config.model.name:
        # Options of the last fits mean nothing to another model; those of the training are common to both.
        late = MODELS[config.model.name].late
        kept = {k: v for k, v in config.model.options.items() if k not in late}
        config = config.updated({"model": {"name": name} | kept})
    config = config.updated(settings)
    result, model = runs.train(output, config, like=run)
    console.print(f"{output}: {result.status}, fitted again on the training of {run}", result.message)
    for line in sampling_lines(model.sampling_report()):
        console.print(f"  {line}")
    return result.exit_code


def sample(
    run: str,
    events: int | None,
    output: str,
    condition: Sequence[str] | None,
    like: str | None,
    seed: int,
    overwrite: bool,
) -> int:
    """Draws events from a run into a file."""
    if events is not None and events < 1:
        raise ConfigError(f"sample: -n {events}; expected at least 1")
    config, model = _trained(run)
    n = events if events is not None or like is not None else _EVENTS
    wanted = runs.conditions_for(config.data, n, None if condition is None else _values(condition), like)
    n = n if wanted is None else len(wanted)
    assert n is not None
    report = sample_to_file(
        model, Path(output), n, config, run=str(run), seed=seed, overwrite=overwrite, condition=wanted
    )
    console.print(f"{output}: {n:,} events of {run}")
    for line in sampling_lines(report):
        console.print(f"  {line}")
    return 0


def _values(condition: Sequence[str]) -> dict[str, float]:
    """``name=value`` pairs."""
    values: dict[str, float] = {}
    for item in condition:
        name, equals, text = item.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (equals and math.isfinite(value)) or name in values:
            raise ConfigError(f"--condition {item}: expected NAME=VALUE, a number, each name once")
        values[name] = value
    return values


def evaluate(
    generated: str,
    reference: str,
    metrics: str,
    protocol: str,
    invalid: str,
    data_set: str | None,
    jetnet_stats: str | None,
    jet_type: str,
    view: str | None,
    train: str | None,
    events: int | None,
    seed: int,
    output: str | None,
    plots: str | None,
    cache: str | None,
    overwrite: bool,
) -> int:
    """Prints the metrics of a file or a run; writes JSON, plots and published rows where asked."""
    for path in (output, plots):
        if path is not None and Path(path).exists() and not overwrite:
            raise DataError(f"{path} exists; choose another name or pass --overwrite")
        if path is not None and not Path(path).parent.is_dir():
            raise DataError(f"{path}: no such folder; make it first")
    setting = replace(resolve(protocol), invalid=invalid)
    # Bad events are for the metrics to count, unless they shall stop the command.
    check: Literal["format"] | bool = "format" if invalid == "leave_out" else True
    judge = None if jetnet_stats is None else load_published(jetnet_stats, jet_type)
    drawn: Events | data.FileSource
    if Path(generated).is_dir():
        config, model = _trained(generated)
        train = train or config.data.name
        n = events or len(data.open(reference))
        source = runs.open_source(config.data) if config.data.condition else None
        drawn = Events.cat(list(runs.draw(model, n, seed=seed, source=source)))
    elif events is not None:
        raise ConfigError(f"evaluate: -n is for runs; {generated} holds as many events as it holds")
    else:
        drawn = data.open(generated, condition="all", check=check)
    probe = drawn[:1]
    shown: dict[str, Any] = {"view": view or ("image" if probe.is_cells else "points"), "check": check}
    shown["shape"] = probe.grid.shape if probe.is_cells and probe.grid is not None and view is None else None
    whole = data.open(reference, condition="all", **shown)
    if data_set is not None:
        check_data_set(whole, data_set)
    # What was asked of the generated events and is known of the real ones: a response needs the incident energy.
    shared = [name for name in whole.conditions if name in probe.conditions]
    real = data.open(reference, condition=shared, **shown | {"check": False})
    known = None if train is None else data.open(train, view=real.view.name, shape=shown["shape"])
    with kept_in(cache):
        results = evaluate_samples(
            drawn, real, metrics, train=known, protocol=setting, seed=seed, starting=_say_how_long
        )
        if judge is not None:
            net, statistics = judge
            results.append(fpnd(in_view_of(drawn, real), statistics, net, protocol=setting, seed=seed))
    _wide(results_table(results, f"{generated} against {reference} ({real.view})"))
    rows = published(results, data_set)
    if rows:
        _wide(published_table(rows, data_set or ""))
    if output is not None:
        values = {"generated": generated, "reference": reference, "view": str(real.view), "seed": seed}
        values |= {"results": [r.as_dict() for r in results], "values": flat_values(results)}
        values |= {"published": [asdict(row) for row in rows]} if rows else {}
        replace_file(Path(output), [(json.dumps(values, indent=1) + "\n").encode()])
    if plots is not None:
        figure = overlays(spectra(in_view_of(drawn, real), real))
        figure.savefig(plots, dpi=150)
        console.print(f"{plots}: generated over real, with their ratio")
    return 0


def _say_how_long(seconds: float) -> None:
    """Tells how long the metrics will take, where that is worth telling."""
    if seconds >= 5:
        told = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        console.print(f"the metrics will take about {told} on one core")


def compare(config: str, output: str, processes: int | None, threads: int, settings: Mapping[str, Any]) -> int:
    """Runs a study and writes its report."""
    study = read_study(config, settings)
    finished = execute(study, output, processes=processes or max(1, (os.cpu_count() or 1) // threads), threads=threads)
    if finished.interrupted:
        console.print(
            f"{output}: interrupted with {len(finished.outcomes)} of {len(study.runs)} runs; the same command goes on"
        )
        return 75
    page = write_report(finished)
    _wide(comparison(finished))
    for line in caveats(finished):
        console.print(f"  {line}")
    console.print(f"  report: {page}")
    return 1 if any(outcome.status == "failed" for outcome in finished.outcomes.values()) else 0
