"""``inspect``: a data set on one screen, and the pictures people look at first."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.pictures import draw
from data_tools.summary import Summary
from data_tools.verb import Verb, open_all, source_arguments
from sparsegen.data.formats import recognise
from sparsegen.errors import ConfigError

__all__ = ["INSPECT"]

_QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)


def _row(name: str, unit: str, values: NDArray[np.floating]) -> None:
    if len(values):
        numbers = [float(values.mean()), float(values.std()), *np.quantile(values, _QUANTILES).tolist()]
        print(f"{name:<22} {unit:<5}" + "".join(f"{number:>11.4g}" for number in numbers))


def _print(summary: Summary) -> None:
    source = summary.source
    path = source.reader.path
    facts = {
        "format": f"{recognise(path).description}, {path.stat().st_size / 1e6:,.1f} MB",
        "events": f"{len(source):,} of {source.reader.rows:,} rows",
        "hits": f"{int(summary.multiplicity.sum()):,} {'cells' if source.reader.is_cells else 'points'}"
        f", {int((summary.multiplicity == 0).sum()):,} events without",
        "splits": ", ".join(f"{name} {len(source.reader.split_rows(name)):,}" for name in source.reader.splits),
        "lattice": str(source.grid or ""),
    }
    if summary.labels is not None:
        counts = np.bincount(summary.labels, minlength=len(source.classes)).tolist()
        facts["classes"] = ", ".join(f"{name} {n:,}" for name, n in zip(source.classes, counts, strict=True))
    for name, text in facts.items():
        if text:
            print(f"{name:<9}{text}")
    names = ("mean", "std", "min", "1 %", "median", "99 %", "max")
    print(f"\n{'':<22} {'unit':<5}" + "".join(f"{name:>11}" for name in names))
    _row("multiplicity", "hits", summary.multiplicity)
    _row("occupancy", "", summary.occupancy)
    for name, totals in summary.totals.items():
        _row(f"{name} per event", summary.units.get(name, ""), totals)
    for name, sampled in summary.values.items():
        _row(name, summary.units.get(name, ""), sampled)
    for name, given in summary.conditions.items():
        _row(name, "", given)


def _arguments(parser: argparse.ArgumentParser) -> None:
    source_arguments(parser)
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="also write histograms, profiles, the mean image and some events there, as PNG",
    )


def _run(options: argparse.Namespace) -> int:
    if options.plots and options.plots.exists() and not options.plots.is_dir():
        raise ConfigError(f"{options.plots}: is a file; --plots needs a folder")
    summary = Summary(open_all(options.input, options.format))
    _print(summary)
    if options.plots:
        for path in draw(summary, options.plots):
            print(path)
    return 0


INSPECT = Verb("format, counts, units, ranges, occupancy and energy on one screen", _arguments, _run)
