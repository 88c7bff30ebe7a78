"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from sparsegen.metrics import Published, data_sets
from sparsegen.result import Result
from sparsegen.study.executor import Finished
from sparsegen.study.statistics import Group, Summary, groups

__all__ = [
    "QUALITY",
    "caveats",
    "comparison",
    "flat_values",
    "number",
    "published_table",
    "results_table",
    "sampling_lines",
    "shown_metrics",
]

QUALITY = {"w1_mass": "W1 mass", "w1_occupied": "W1 occupied"}
"""The metrics of the comparison's quality columns, and their headings."""


def number(value: float, digits: int = 3) -> str:
    """A number with some significant digits and no exponent where it can be avoided.

    Example:
        >>> number(0.0012345), number(12345.0), number(math.nan)
        ('0.00123', '12,345', '–')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if value != 0 and (abs(value) < 1e-4 or abs(value) >= 1e7):
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, places)}f}"


def with_error(value: float, error: float) -> str:
    """A value and its error, rounded to two digits of the error or four of the value, whichever is fewer.

    Example:
        >>> with_error(0.012345, 0.00067), with_error(0.0239934, 0.0000481)
        ('0.01235 ± 0.00067', '0.02399 ± 0.00005')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    places = 1 - math.floor(math.log10(error))
    if value:
        places = min(places, max(3 - math.floor(math.log10(abs(value))), -math.floor(math.log10(error))))
    places = max(0, places)
    return f"{value:,.{places}f} ± {error:,.{places}f}"


def multiple(value: float) -> str:
    """A multiple of the floor."""
    return "–" if math.isnan(value) else f"{value:.1f}×" if value < 100 else f"{value:,.0f}×"


def shown_metrics(finished: Finished) -> dict[str, str]:
    """The quality columns that were measured: name -> heading."""
    names = [r.name for outcome in finished.floor.values() for r in outcome.results]
    chosen = {name: heading for name, heading in QUALITY.items() if name in names}
    return chosen or {name: name for name in names[:2]}


def status_text(group: Group) -> str:
    """How the runs of a group ended, where not all ended well."""
    others = {status: n for status, n in group.statuses.items() if status != "done"}
    return ", ".join(
        status if n == len(group.runs) else f"{n} of {len(group.runs)} {status}" for status, n in others.items()
    )


def cost_cells(group: Group) -> list[str]:
    """Parameters, training and sampling time, peak memory."""
    parameters, train, sample, memory = (
        group.cost(n) for n in ("parameters", "train_time", "sample_time", "peak_memory")
    )
    return [
        f"{parameters.value:,.0f}" if parameters.value > 0 else "–",
        f"{number(train.value)} ms" if train.seeds else "–",
        f"{number(sample.value)} ms" if sample.seeds else "–",
        f"{memory.value:,.0f} MB" if memory.seeds else "–",
    ]


COST_HEADINGS = ("parameters", "train /event", "sample /event", "peak memory")


def comparison(finished: Finished) -> Table:
    """Real against real, the models, the baselines: quality with error and multiple of the floor, and what it costs."""
    table = Table(title=finished.study.title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("generator", no_wrap=True)
    chosen = shown_metrics(finished)
    for heading in chosen.values():
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("× floor", justify="right", no_wrap=True)
    for heading in COST_HEADINGS:
        table.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for label, outcome in finished.floor.items():
        cells = []
        results = {r.name: r for r in outcome.results}
        for name in chosen:
            cells += [with_error(results[name].value, results[name].error), multiple(results[name].over_floor)]
        table.add_row(f"{label} real against real".strip(), *cells, *[""] * len(COST_HEADINGS), style="green")
    table.add_section()
    for group in groups(finished):
        cells = []
        bad = status_text(group)
        for name in chosen:
            s = group.metric(name)
            cells += [with_error(s.value, s.error) if s.seeds else bad, multiple(s.over_floor)]
        title = f"{group.name} ({bad})" if bad and group.statuses.get("done") else group.name
        table.add_row(
            title, *cells, *cost_cells(group), style="red" if bad else "dim" if group.network == "none" else ""
        )
    return table


def caveats(finished: Finished) -> list[str]:
    """What a reader must know before quoting the table."""
    found = groups(finished)
    seeds = len(finished.study.seeds)
    n = max((outcome.events for outcome in finished.outcomes.values()), default=0)
    real = next(iter(finished.real.values()))
    lattice = " x ".join(str(size) for size in real.reference.grid.shape) if real.reference.grid else "own"
    lines = []
    if seeds == 1:
        lines.append("one seed: illustrative; ± is the error of each estimate, not the spread over trainings")
    else:
        lines.append(f"mean over {seeds} seeds ± its standard error")
    lines.append(
        f"{n:,} generated events against {len(real.reference):,} of {real.reference.name}, all on the same {lattice} "
        "cells; × floor: multiples of what real events against real ones give"
    )
    drawn = [group.name for group in found if any(outcome.draws_counts for outcome in group.outcomes)]
    if drawn:
        lines.append(f"hits per event are drawn from the training set, not learned, by {', '.join(drawn)}")
    bad = [f"{group.name} ({status_text(group)})" for group in found if status_text(group)]
    if bad:
        lines.append(f"did not end well: {', '.join(bad)}")
    return lines


def sampling_lines(report: Mapping[str, Any]) -> list[str]:
    """What a model reports on its samples, a line a law.

    Example:
        >>> sampling_lines({"prior": "ot", "acceptance": 0.9312, "certificate": {"rms": 0.08, "converged": True}})
        ['prior ot: acceptance 0.931, certificate: rms 0.0800, converged True']
    """
    if not report:
        return []
    laws: Mapping[str, Mapping[str, Any]] = report.get("laws") or {
        "": {k: v for k, v in report.items() if k != "prior"}
    }
    name = f"prior {report.get('prior', '')}".strip()
    return [
        f"{name}{f' at {where}' if where else ''}{': ' if facts else ''}{_facts(facts)}"
        for where, facts in laws.items()
    ]


def _facts(facts: Mapping[str, Any]) -> str:
    parts = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            parts.append(f"{key}: {_facts(value)}")
        elif isinstance(value, float):
            parts.append(f"{key} {number(value)}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            parts.append(f"{key} [{', '.join(number(float(v)) for v in value)}]")
        else:
            parts.append(f"{key} {value}")
    return ", ".join(parts)


def shared_protocol(results: Sequence[Result]) -> dict[str, Any]:
    """What the protocols of all results have in common."""
    first, *others = [dict(r.protocol) for r in results]
    return {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}


def results_table(results: Sequence[Result], title: str) -> Table:
    """Metrics of one sample, with error, floor and protocol; what all protocols share stands below."""
    shared = shared_protocol(results)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("metric")
    for heading in ("value", "floor", "× floor", "n", "left out"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("its protocol", style="dim", max_width=48)
    table.caption = f"protocol of all: {_listed(shared)}"
    table.caption_justify = "left"
    for r in results:
        protocol = _listed({k: v for k, v in r.protocol.items() if k not in shared})
        table.add_row(
            r.name,
            with_error(r.value, r.error),
            number(r.floor),
            multiple(r.over_floor),
            f"{r.n:,}",
            str(r.invalid),
            protocol,
        )
    return table


def flat_values(results: Sequence[Result]) -> dict[str, float | None]:
    """Every number under one flat, stable key: ``w1_mass``, ``w1_mass.error``, ``w1_hits.per_feature.etarel``.

    Numbers that are not finite are None: JSON knows no NaN.
    """
    found: dict[str, float | None] = {}
    for r in results:
        values = {"": r.value, ".error": r.error, ".floor": r.floor, ".n": r.n, ".invalid": r.invalid}
        values |= {f".per_feature.{k}": v for k, v in r.protocol.get("per_feature", {}).items()}
        found |= {f"{r.name}{key}": v if math.isfinite(v) else None for key, v in values.items()}
    return found


def published_table(rows: Sequence[Published], data_set: str) -> Table:
    """Published numbers of the same data under the same protocol, a row a generator."""
    names = list(dict.fromkeys(row.metric for row in rows))
    table = Table(title=f"published, {data_sets()[data_set]}, same protocol", box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    table.add_column("generator")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reference", style="dim")
    for model, url in dict.fromkeys((row.model, row.reference["url"]) for row in rows):
        own = {row.metric: row for row in rows if (row.model, row.reference["url"]) == (model, url)}
        cells = [with_error(own[n].value, own[n].error or math.nan) if n in own else "" for n in names]
        table.add_row(model, *cells, url)
    return table


def best_multiples(finished: Finished) -> list[tuple[str, Group, Summary]]:
    """For each quality metric the group with the least value among those with networks."""
    best = []
    for name in shown_metrics(finished):
        scored = [(group.metric(name), group) for group in groups(finished) if group.network != "none"]
        scored = [(s, g) for s, g in scored if s.seeds]
        if scored:
            s, g = min(scored, key=lambda pair: pair[0].value)
            best.append((name, g, s))
    return best


def _listed(protocol: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {plain(v)}" for k, v in value.items())
        if isinstance(value, (list, tuple)):
            return ", ".join(plain(v) for v in value) if len(value) <= 4 else f"{len(value)} in all"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{key.replace('_', ' ')}: {plain(value)}" for key, value in protocol.items())
