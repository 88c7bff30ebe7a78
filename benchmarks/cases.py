"""Sets of sites that the convolution benchmark measures on: random, clustered, and of jets and showers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import sparsegen.data as data
from data_tools.showers import shower_voxels
from sparsegen.grid import Grid
from sparsegen.sparse import SparseTensor


@dataclass(frozen=True)
class Case:
    name: str
    coords: Tensor
    shape: tuple[int, ...]
    batch: int
    cin: int
    cout: int
    periodic: tuple[int, ...] = ()

    @property
    def occupancy(self) -> float:
        return len(self.coords) / self.batch / torch.Size(self.shape).numel()


def random_sites(shape: tuple[int, ...], batch: int, occupancy: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(batch, *shape, generator=generator) < occupancy).nonzero()


def tracks(shape: tuple[int, ...], batch: int, occupancy: float) -> Tensor:
    """Straight tracks through the volume, until the occupancy is reached."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(shape)
    active = torch.zeros(batch, *shape, dtype=torch.bool)
    for event in range(batch):
        while int(active[event].sum()) < occupancy * size.prod():
            start = torch.rand(len(shape), generator=generator) * size
            direction = torch.randn(len(shape), generator=generator)
            steps = torch.arange(0, 2 * max(shape), 0.5)[:, None]
            places = (start + steps * direction / direction.norm()).floor().long()
            places = places[((places >= 0) & (places < size)).all(1)]
            active[(event, *places.unbind(1))] = True
    return active.nonzero()


def jets(count: int, cells: int) -> Tensor:
    events = data.open("pythia-jets")[:count]
    low, high = (events.coords.amin(0) - 1e-3).tolist(), (events.coords.amax(0) + 1e-3).tolist()
    grid = Grid.regular((cells, cells), low, high, ("etarel", "phirel"), ("rad", "rad"))
    pixels, _ = events.voxelize(grid)
    return SparseTensor.from_events(pixels).coords


SHOWER = (45, 16, 9)


def showers(count: int) -> Tensor:
    """Showers of 1 to 1000 GeV in 45 layers of 16 sectors of 9 rings, above the readout's 15.15 keV."""
    generator = np.random.default_rng(0)
    energy = np.exp(generator.uniform(0, np.log(1000), count))
    voxels = torch.from_numpy(shower_voxels(energy, "2", generator))
    return (voxels.view(count, *SHOWER) > 0.01515).nonzero()


def cases(only: str) -> list[Case]:
    made = []
    for name, shape, batch, cin, cout, extra in (
        ("2d-64", (64, 64), 8, 64, 64, 0.5),
        ("2d-128", (128, 128), 8, 64, 64, 0.5),
        ("3d-64", (64, 64, 64), 2, 32, 32, 0.35),
        ("2d-32 small", (32, 32), 64, 8, 16, None),
    ):
        for occupancy in (0.01, 0.05, 0.2, extra):
            for kind, sites in (("random", random_sites), ("tracks", tracks)):
                if occupancy is None or (occupancy == extra and kind == "tracks"):
                    continue
                label = f"{name} {kind} {100 * occupancy:g} %"
                if only in label:
                    made.append(Case(label, sites(shape, batch, occupancy), shape, batch, cin, cout))
    if only in "jets":
        made.append(Case("jets", jets(128, 64), (64, 64), 128, 8, 16))
    for name, periodic in (("showers", ()), ("showers periodic", (1,))):
        if only in name:
            made.append(Case(name, showers(32), SHOWER, 32, 32, 32, periodic))
    return made
