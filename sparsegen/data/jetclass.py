"""JetClass ROOT files (extra ``root``): jagged ``part_*`` branches of a tree.

Positions are ``part_deta`` and ``part_dphi``, as the files have them: deta is counted positive away from the detector's
centre. Momenta are relative to ``jet_pt``; the ten ``label_*`` flags name the classes.

References:
    Particle Transformer for Jet Tagging, Qu, Li and Qian, 2022, https://arxiv.org/abs/2202.03772
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.jetnet import jet_grid
from sparsegen.data.reader import Reader, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError, MissingExtraError
from sparsegen.events import Column, Events

__all__ = ["JetClassReader", "write_jetclass"]

_NEEDED = ("part_px", "part_py", "part_deta", "part_dphi", "jet_pt")
_TAGS = ("isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon")
_EXTRA = (
    ("part_energy", Column("energy", "GeV")),
    ("part_charge", Column("charge", additive=False)),
    *((f"part_{name}", Column(name, "mm", additive=False)) for name in ("d0val", "d0err", "dzval", "dzerr")),
    *((f"part_{name}", Column(name, additive=False)) for name in _TAGS),
)
_MAGIC = b"root"


class JetClassReader(Reader):
    """Reads JetClass files, in runs of baskets."""

    axes = ("etarel", "phirel")
    event_bytes = 2500
    block = 1000

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree: Any = None
        self._process = 0
        keys = set(self.tree.keys())
        missing = [name for name in _NEEDED if name not in keys]
        if missing:
            raise DataError(
                f"{path}: branches {', '.join(missing)} are missing; it has {', '.join(sorted(keys)[:8])} ..."
            )
        self.rows = int(self.tree.num_entries)
        self._extra = [(branch, column) for branch, column in _EXTRA if branch in keys]
        self.columns = (Column("ptrel"), *(column for _, column in self._extra))
        self.conditions = tuple(sorted(name for name in keys if name.startswith("jet_")))
        self._flags = sorted(name for name in keys if name.startswith("label_"))
        self.classes = tuple(name.removeprefix("label_") for name in self._flags)
        self.grid = jet_grid()

    @property
    def tree(self) -> Any:
        """The open tree of this process."""
        if self._tree is None or self._process != os.getpid():
            try:
                import uproot
            except ImportError:
                raise MissingExtraError("uproot", "root", f"reading {self.path}") from None
            try:
                file = uproot.open(self.path)
                trees = file.keys(filter_classname="TTree", cycle=False)
                if len(trees) != 1:
                    raise DataError(f"{self.path}: has the trees {', '.join(trees) or 'none'}; expected one")
                self._tree = file[trees[0]]
            except (OSError, ValueError, uproot.DeserializationError) as error:
                if isinstance(error, DataError):
                    raise
                reason = " ".join(str(error).split())
                raise DataError(f"{self.path}: not a readable ROOT file ({reason}); copy it again") from None
            self._process = os.getpid()
        return self._tree

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tree": None, "_process": 0}

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Jets of some rows."""
        parts = [self._run(start, stop) for start, stop in runs]
        events = parts[0] if len(parts) == 1 else Events.cat(parts)
        return events if take is None else events[torch.from_numpy(take)]

    def _run(self, start: int, stop: int) -> Events:
        import awkward

        names = [*_NEEDED, *(branch for branch, _ in self._extra), *self.conditions]
        arrays = self.tree.arrays(sorted(set(names)), entry_start=start, entry_stop=stop)
        counts = awkward.to_numpy(awkward.num(arrays["part_px"])).astype(np.int64)
        flat = {
            name: awkward.to_numpy(awkward.flatten(arrays[name])).astype(np.float64)
            for name in names
            if name.startswith("part_")
        }
        jet_pt = awkward.to_numpy(arrays["jet_pt"]).astype(np.float64)
        ptrel = np.hypot(flat["part_px"], flat["part_py"]) / np.repeat(jet_pt, counts)
        features = np.stack([ptrel, *(flat[branch] for branch, _ in self._extra)], axis=1)
        condition = np.stack([awkward.to_numpy(arrays[name]).astype(np.float32) for name in self.conditions], axis=1)
        return Events(
            torch.from_numpy(np.stack([flat["part_deta"], flat["part_dphi"]], axis=1).astype(np.float32)),
            torch.from_numpy(features.astype(np.float32)),
            torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])),
            axes=self.axes,
            columns=self.columns,
            condition=torch.from_numpy(condition),
            conditions=self.conditions,
            grid=self.grid,
            ids=rows_of([(start, stop)], None),
        )

    def labels(self) -> NDArray[np.int64] | None:
        """The one class of each jet."""
        if not self._flags:
            return None
        arrays = self.tree.arrays(self._flags, library="np")
        flags = np.stack([arrays[name].astype(np.int64) for name in self._flags], axis=1)
        odd = np.flatnonzero(flags.sum(1) != 1)
        if len(odd):
            raise DataError(f"{self.path}: label of row {odd[0]} names {flags[odd[0]].sum()} classes; expected one")
        return flags.argmax(1)


def write_jetclass(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write jets in the JetClass layout: the conditions ``jet_*`` as branches, a ``label_*`` flag for each class.

    Raises:
        DataError: They are not points in etarel, phirel with ptrel, further columns of the layout, and the conditions
            jet_pt, jet_eta and jet_phi.
        MissingExtraError: uproot or awkward is not installed.
    """
    events = source.events.detach().to("cpu")
    branches = {column: branch for branch, column in _EXTRA}
    needed = ("jet_pt", "jet_eta", "jet_phi")
    fits = not events.is_cells and events.axes == JetClassReader.axes and events.columns[:1] == (Column("ptrel"),)
    if not fits or set(events.columns[1:]) - set(branches) or set(needed) - set(events.conditions):
        raise DataError(
            f"{path}: JetClass holds points in etarel, phirel with ptrel (and {', '.join(c.name for c in branches)}) "
            f"and the conditions {', '.join(needed)}; given {events}"
        )
    try:
        import awkward
        import uproot
    except ImportError:
        raise MissingExtraError("uproot", "root", f"writing {path}") from None
    assert events.condition is not None
    jets = {
        name: values.float().numpy()
        for name, values in zip(events.conditions, events.condition.T, strict=True)
        if name.startswith("jet_")
    }
    owner = events.batch
    jet_pt, jet_eta, jet_phi = (torch.from_numpy(jets[name]).double()[owner] for name in needed)
    coords = events.coords.double()
    pt = events.column("ptrel").double() * jet_pt
    # Deta is counted away from the centre
    eta = jet_eta + torch.where(jet_eta < 0, -coords[:, 0], coords[:, 0])
    phi = jet_phi + coords[:, 1]
    hits = {
        "px": pt * phi.cos(),
        "py": pt * phi.sin(),
        "pz": pt * eta.sinh(),
        "deta": coords[:, 0],
        "dphi": coords[:, 1],
    }
    for column in events.columns[1:]:
        hits[branches[column].removeprefix("part_")] = events.column(column.name)
    flags = {}
    if source.labels is not None:
        flags = {f"label_{name}": (source.labels == k).numpy() for k, name in enumerate(source.classes)}
    rows = 10_000
    kinds = {"part": f"var * {{{', '.join(f'{name}: float32' for name in hits)}}}"}
    kinds |= dict.fromkeys(jets, "float32") | dict.fromkeys(flags, "bool")
    with whole_file(path, overwrite) as part, uproot.recreate(part) as file:
        file.mktree("tree", kinds)
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            inside = slice(int(events.offsets[start]), int(events.offsets[start]) + len(some.coords))
            counts = some.counts.numpy()
            particles = {name: awkward.unflatten(hits[name][inside].float().numpy(), counts) for name in hits}
            per_jet = {name: values[start : start + rows] for name, values in (jets | flags).items()}
            file["tree"].extend({"part": awkward.zip(particles), **per_jet})


def _matches(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


formats.register("jetclass")(
    Format(
        "jetclass",
        "JetClass ROOT (extra root)",
        (".root",),
        _matches,
        JetClassReader,
        write_jetclass,
        labels=True,
    )
)
