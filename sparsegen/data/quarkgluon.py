"""Quark and gluon jets, a NumPy archive.

``X (N, M, 4)`` holds pt [GeV], rapidity, azimuth and particle code, zero where there is none; ``y (N,)`` is 1 for
quarks, 0 for gluons.

References:
    Energy Flow Networks: Deep Sets for Particle Jets, Komiske, Metodiev and Thaler, 2019,
    https://arxiv.org/abs/1810.05165
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.arrays import ArrayReader, archive_keys, write_archive
from sparsegen.data.formats import Format, formats
from sparsegen.data.jets import JET_CONDITIONS, check_sums, jet_events, momenta, padded
from sparsegen.data.labels import labels_in
from sparsegen.data.reader import Finding, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["QuarkGluonReader", "write_quark_gluon"]

QUARK_GLUON = ("gluon", "quark")


class QuarkGluonReader(ArrayReader):
    """Reads quark-gluon jets; classes are ``gluon`` and ``quark``."""

    axes = ("yrel", "phirel")
    columns = (Column("ptrel"), Column("pdgid", additive=False))
    conditions = JET_CONDITIONS

    def __init__(self, path: Path) -> None:
        super().__init__(path, "X")
        stored = self._array.values
        if stored.ndim != 3 or stored.shape[2] != 4 or stored.dtype.kind != "f":
            raise DataError(
                f"{path}: key 'X' has shape {stored.shape} and type {stored.dtype}; expected floats (N, M, 4)"
            )
        self.classes = QUARK_GLUON
        self.grid = Grid.regular((64, 64), (-0.4, -0.4), (0.4, 0.4), self.axes, ("", "rad"))
        self.event_bytes = 32 * stored.shape[1]

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Jets of some rows, padding left out; particles count as massless."""
        particles = self.joined(runs, take)
        mask = (particles != 0).any(-1)
        pt, rapidity, phi, code = particles[mask].T
        assert self.grid is not None
        return jet_events(
            pt,
            rapidity,
            phi,
            pt * np.cosh(rapidity),
            mask.sum(1),
            {self.columns[1]: code},
            axes=self.axes,
            grid=self.grid,
            ids=rows_of(runs, take),
        )

    def findings(self) -> Iterator[Finding]:
        """Labels that are neither 0 nor 1, and damage."""
        yield from self.damage()
        labels = self._labels
        if labels is None:
            yield Finding(str(self.path), "y", -1, "is missing", "copy or make the file again")
            return
        for row in np.flatnonzero((labels != 0) & (labels != 1)):
            yield Finding(str(self.path), "y", int(row), f"is {labels[row]}, expected 0 or 1")


def write_quark_gluon(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write jets in the layout of the quark-gluon sets, as long as the largest of them.

    Raises:
        DataError: They are not points in yrel, phirel with ptrel and pdgid, labelled, each the sum of its particles.
    """
    events = source.events.detach().to("cpu")
    if events.is_cells or events.axes != QuarkGluonReader.axes or events.columns != QuarkGluonReader.columns:
        raise DataError(f"{path}: quark-gluon files hold points in yrel, phirel with ptrel and pdgid; given {events}")
    labels = labels_in(source, QUARK_GLUON, path, "a quark-gluon file")
    pt, rapidity, phi = momenta(events, path, "a quark-gluon file")
    check_sums(events, pt, rapidity, phi, path, "a quark-gluon file")
    particles = np.stack([pt, rapidity, np.mod(phi, 2 * np.pi), events.column("pdgid").double().numpy()], axis=1)
    values = padded(particles, events)
    write_archive(path, "X", values.shape, [values], {"y": labels.astype(np.float64)}, overwrite, "<f8")


def _is_quark_gluon(path: Path) -> bool:
    return "X" in archive_keys(path)


formats.register("quarkgluon")(
    Format(
        "quarkgluon",
        "quark-gluon jets, NumPy archive",
        (".npz",),
        _is_quark_gluon,
        QuarkGluonReader,
        write_quark_gluon,
        labels=True,
    )
)
