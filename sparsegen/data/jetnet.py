"""The JetNet layout: padded jets with a mask, and the older form with three particle features and no mask.

``particle_features (N, M, 4)`` holds etarel, phirel, ptrel and mask (1 = real), M being 30 or 150; ``jet_features
(N, 4)`` holds pt, eta, mass and the number of particles. In the older form ``particle_features`` is ``(N, M, 3)`` and a
row of zeros is padding.

References:
    Particle Cloud Generation with Message Passing Generative Adversarial Networks, Kansal et al., 2021,
    https://arxiv.org/abs/2106.11535
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, padded_to_events, require, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["JetNetReader", "jet_grid", "write_jetnet"]

_AXES = ("etarel", "phirel")
_CONDITIONS = ("jet_pt", "jet_eta", "jet_mass")
_LENGTHS = (30, 150)


def jet_grid(shape: Sequence[int] = (64, 64), radius: float = 0.8) -> Grid:
    """The default lattice of a jet: square, centred on its axis."""
    return Grid.regular(shape, (-radius, -radius), (radius, radius), _AXES, ("", "rad"))


class JetNetReader(HDF5Reader):
    """Reads JetNet files of either form; jets are points, lattice and conditions as for the embedded jets."""

    axes = _AXES
    columns = (Column("ptrel"),)
    conditions = _CONDITIONS

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        particles, jets = self.dataset("particle_features"), self.dataset("jet_features")
        require(path, "particle_features", particles, (None, None, None), "f")
        require(path, "jet_features", jets, (None, None), "f")
        self.rows, self.length, width = particles.shape
        if width not in (3, 4):
            raise DataError(f"{path}: particle_features has {width} features; expected etarel, phirel, ptrel and mask")
        if len(jets) != self.rows:
            raise DataError(
                f"{path}: particle_features has {self.rows} rows and jet_features {len(jets)}; copy or make it again"
            )
        if jets.shape[1] < 3:
            raise DataError(f"{path}: jet_features has {jets.shape[1]} columns; expected pt, eta, mass and a count")
        self.masked = width == 4
        self.grid = jet_grid()
        self.event_bytes = self.length * width * 4
        rows = particles.chunks[0] if particles.chunks else 1024
        self.block = max(rows, 1024 // rows * rows)

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Jets of some rows, padding left out."""
        particles = self.joined("particle_features", runs, take)
        jets = self.joined("jet_features", runs, take)
        return padded_to_events(
            particles,
            self._mask(particles),
            slice(0, 2),
            slice(2, 3),
            axes=self.axes,
            columns=self.columns,
            condition=torch.from_numpy(np.ascontiguousarray(jets[:, :3], dtype=np.float32)),
            conditions=self.conditions,
            grid=self.grid,
            ids=rows_of(runs, take),
        )

    def _mask(self, particles: NDArray[Any]) -> NDArray[np.bool_]:
        return particles[..., 3] > 0.5 if self.masked else (particles != 0).any(-1)

    def findings(self) -> Iterator[Finding]:
        """Rows whose mask contradicts the padding, or whose count contradicts the mask."""
        for start in range(0, self.rows, self.block):
            particles = self.array("particle_features", start, start + self.block)
            jets = self.array("jet_features", start, start + self.block)
            mask = self._mask(particles)
            faults = {}
            if self.masked:
                values = particles[..., 3]
                faults["has a mask that is neither 0 nor 1"] = ((values != 0) & (values != 1)).any(1)
                hidden = ((particles[..., :3] != 0) & ~mask[..., None]).any((1, 2))
                faults["has particles that its mask calls padding"] = hidden
            if jets.shape[1] > 3:
                # The published counts are those before the hardest M were taken
                stated = np.minimum(jets[:, 3], self.length)
                faults["has another number of particles than jet_features says"] = stated != mask.sum(1)
            for message, bad in faults.items():
                for row in np.flatnonzero(bad):
                    yield Finding(str(self.path), "particle_features", start + int(row), message)


def write_jetnet(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write jets in the JetNet layout, 30 long if they fit and 150 otherwise, padded with zeros.

    Raises:
        DataError: The events are no jets, or too large.
    """
    events = source.events
    names = tuple(column.name for column in events.columns)
    missing = [name for name in _CONDITIONS if name not in events.conditions]
    if events.axes != _AXES or names != ("ptrel",) or events.is_cells or missing:
        raise DataError(
            f"{path}: JetNet holds points in etarel, phirel with ptrel and the conditions {', '.join(_CONDITIONS)}; "
            f"given {events}"
        )
    longest = int(events.counts.max())
    if longest > _LENGTHS[-1]:
        event = int(events.counts.argmax())
        raise DataError(f"{path}: event {event} has {longest} particles and JetNet holds {_LENGTHS[-1]}; cut it first")
    length = next(n for n in _LENGTHS if longest <= n)
    coords, features, mask = events.detach().to("cpu").to_padded(length)
    particles = torch.cat([coords, features, mask[..., None].to(coords.dtype)], dim=-1)
    assert events.condition is not None
    chosen = [events.conditions.index(name) for name in _CONDITIONS]
    jets = torch.cat([events.condition[:, chosen], events.counts[:, None].to(events.condition.dtype)], dim=1)
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("particle_features", data=particles.float().numpy(), **options)
        file.create_dataset("jet_features", data=jets.float().numpy(), **options)


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"particle_features", "jet_features"})


formats.register("jetnet")(
    Format("jetnet", "JetNet HDF5, 30 or 150 particles", (".hdf5",), _matches, JetNetReader, write_jetnet)
)
