"""The report of a study: one self-contained page, ``results.csv`` in long form, ``results.json``."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from sparsegen import __version__
from sparsegen.study import pictures, tables
from sparsegen.study.executor import Finished
from sparsegen.study.page import Section, render
from sparsegen.study.statistics import CSV_COLUMNS, Group, groups, long_form, metric_names
from sparsegen.training.checkpoint import replace_file

__all__ = ["write_report"]


_INTRODUCTION = """<p>Each generator learned from the same events, at the same budget, and is judged on the same
lattice. <b>W1</b> is the earth mover's distance between generated and real events in one number per event, the mass of
a jet or the cells it occupies: 0 is perfect, and finite samples of real events reach the <b>floor</b>.</p>"""


def write_report(finished: Finished) -> Path:
    """Writes ``index.html``, ``results.csv`` and ``results.json`` into the study's folder.

    Returns:
        The page.
    """
    rows = long_form(finished)
    page = finished.folder / "index.html"
    replace_file(finished.folder / "results.csv", [_csv(rows).encode()])
    replace_file(finished.folder / "results.json", [(json.dumps(_summary(finished), indent=1) + "\n").encode()])
    replace_file(page, [_html(finished).encode()])
    return page


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _summary(finished: Finished) -> dict[str, Any]:
    """Every group's metrics and costs over its seeds, and how each run ended, in plain types."""
    found = []
    for group in groups(finished):
        values: dict[str, Any] = {"data": group.data, "model": group.model, "network": group.network}
        values["status"] = group.statuses
        for name in metric_names(finished):
            s = group.metric(name)
            values[name] = {
                "value": s.value,
                "error": s.error,
                "interval": [s.low, s.high],
                "floor": s.floor,
                "seeds": s.seeds,
            }
        for name in ("parameters", "train_time", "sample_time", "peak_memory"):
            values[name] = group.cost(name).value
        found.append(values)
    plain = {
        "title": finished.study.title,
        "notes": tables.caveats(finished),
        "groups": found,
        "floor": {label or "real": [r.as_dict() for r in o.results] for label, o in finished.floor.items()},
        "runs": {
            run.name: {
                "folder": run.folder,
                "config_hash": run.config.hash,
                "status": o.status,
                "message": o.message,
                "dropped": o.dropped,
                "sampling": dict(o.sampling),
                "results": [r.as_dict() for r in o.results],
                "costs": dict(o.costs),
            }
            for run, o in finished.outcomes.items()
        },
        "machine": machine(),
    }
    return {k: _finite(v) for k, v in plain.items()}


def _finite(value: Any) -> Any:
    """JSON knows no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """Where it was computed: processor, cores, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "sparsegen": __version__,
        "torch": torch.__version__,
        "numpy": version("numpy"),
    }


def _html(finished: Finished) -> str:
    samples = pictures.load_samples(finished)
    lines = tables.caveats(finished)
    sections = [
        Section("Comparison", _INTRODUCTION + _headline(finished) + _table(finished), ". ".join(lines) + "."),
        *pictures.sections(finished, samples),
        Section("How it was made", _provenance(finished)),
    ]
    banner = lines[0] if len(finished.study.seeds) == 1 else ""
    return render(finished.study.title, _subtitle(finished), sections, banner)


def _subtitle(finished: Finished) -> str:
    first = finished.study.runs[0].config
    found = groups(finished)
    budget = f", {first.network.parameters:,} parameters each" if first.network.parameters else ""
    seeds = len(finished.study.seeds)
    return f"{len(found)} generators of {first.data.name}{budget}, {seeds} seed{'s' if seeds > 1 else ''}"


def _headline(finished: Finished) -> str:
    """The best of each quality metric, and the trivial generator beside it."""
    cards = []
    trivial = next((g for g in groups(finished) if g.network == "none"), None)
    for name, group, s in tables.best_multiples(finished):
        heading = tables.shown_metrics(finished)[name]
        other = f"; trivial generator {tables.multiple(trivial.metric(name).over_floor)}" if trivial else ""
        cards.append(
            f'<div class="card"><b>{tables.multiple(s.over_floor)}</b><span>{escape(heading)}: best is '
            f"{escape(group.name)}, in multiples of the floor{escape(other)}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(finished: Finished) -> str:
    chosen = tables.shown_metrics(finished)
    head = "".join(f'<th class="n">{escape(h)}</th><th class="n">× floor</th>' for h in chosen.values())
    head += "".join(f'<th class="n">{escape(h)}</th>' for h in tables.COST_HEADINGS)
    body = []
    for label, outcome in finished.floor.items():
        results = {r.name: r for r in outcome.results}
        cells = ""
        for name in chosen:
            r = results[name]
            cells += _cell(tables.with_error(r.value, r.error)) + _cell(tables.multiple(r.over_floor))
        empty = "<td></td>" * len(tables.COST_HEADINGS)
        body.append(f'<tr class="real"><th>{escape(f"{label} real against real".strip())}</th>{cells}{empty}</tr>')
    for group in groups(finished):
        body.append(_row(group, list(chosen)))
    return _scrolling(f"<tr><th>generator</th>{head}</tr>", "".join(body))


def _cell(text: str, title: str = "") -> str:
    """A cell of numbers; ``text`` is HTML."""
    hint = f' title="{escape(title)}"' if title else ""
    return f'<td class="n"{hint}>{text}</td>'


def _scrolling(head: str, body: str) -> str:
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _row(group: Group, names: list[str]) -> str:
    bad = tables.status_text(group)
    cells = ""
    for name in names:
        s = group.metric(name)
        title = f"95 % interval {tables.number(s.low)} to {tables.number(s.high)}" if s.seeds > 1 else ""
        text = tables.with_error(s.value, s.error) if s.seeds else f'<span class="bad">{escape(bad)}</span>'
        cells += _cell(text, title) + _cell(tables.multiple(s.over_floor))
    cells += "".join(_cell(escape(cell)) for cell in tables.cost_cells(group))
    mark = f' <span class="bad">{escape(bad)}</span>' if bad and "done" in group.statuses else ""
    dot = f'<i style="background:{pictures.group_colour(group)}"></i>'
    kind = "trivial" if group.network == "none" else "model"
    return f'<tr class="{kind}"><th>{dot}{escape(group.name)}{mark}</th>{cells}</tr>'


def _provenance(finished: Finished) -> str:
    real = next(iter(finished.real.values()))
    facts = {k: v for k, v in machine().items() if v is not None}
    threads = " or ".join(str(n) for n in sorted({o.threads for o in finished.outcomes.values()}))
    paragraphs = [
        f"Reference <code>{escape(real.reference.name)}</code> ({len(real.reference):,} events), training set "
        f"<code>{escape(real.train.name)}</code> ({len(real.train):,} events), both on "
        f"{escape(str(real.reference.grid))}. Generated events are put on the same cells before anything is measured; "
        "hits outside are dropped and counted below.",
        "Training time is wall time per event and pass, sampling time wall time per generated event, each on "
        f"{threads} {'thread' if threads == '1' else 'threads'} and with the study's other processes running; "
        "peak memory is that of the run's own process, Python and libraries included.",
        escape(", ".join(f"{k} {v}" for k, v in facts.items())),
    ]
    rows = "".join(
        f"<tr><td>{escape(run.name)}</td><td><code>{run.config.hash}</code></td><td>{escape(o.status)}</td>"
        f"{_cell(f'{o.step:,}')}{_cell(f'{o.events:,}')}{_cell(f'{100 * o.dropped:.2f} %')}"
        f"<td>{escape(o.message)}</td></tr>"
        for run, o in finished.outcomes.items()
    )
    headings = ("run", "config", "status", "steps", "events", "hits outside", "")
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    study = escape(yaml.safe_dump(json.loads(json.dumps(finished.study.source)), sort_keys=False))
    return (
        "".join(f"<p>{p}</p>" for p in paragraphs)
        + f"<details><summary>Runs</summary>{_scrolling(f'<tr>{head}</tr>', rows)}</details>"
        + f"<details><summary>The study</summary><pre>{study}</pre></details>"
    )
