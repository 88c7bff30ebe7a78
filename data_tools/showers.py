r"""``showers``: electromagnetic showers of known shape, in the CaloChallenge layout and geometries.

The energy of a shower of incident energy :math:`E` is spread over depth :math:`t` (in radiation lengths) and radius as

.. math:: \frac{dE}{dt} \propto (b t)^{a - 1} e^{-b t}, \quad \frac{a - 1}{b} = \ln\frac{E}{E_c} - \frac12, \qquad
    \frac{dE}{dr} \propto p \frac{r}{R_c^2} e^{-r/R_c} + (1 - p) \frac{r}{R_t^2} e^{-r/R_t},

evenly in alpha, in spots whose energies are exponential; the sum over the voxels is :math:`E` smeared by the resolution
:math:`\sigma/E = \sqrt{s^2/(E/\mathrm{GeV}) + c^2}`.

References:
    Passage of Particles Through Matter, Particle Data Group, 2022, https://pdg.lbl.gov (longitudinal profile)
    The parameterized simulation of electromagnetic showers, Grindhammer and Peters, 1993,
    https://arxiv.org/abs/hep-ex/0001020 (core and tail)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_tools.chunks import Chunk, in_chunks
from data_tools.pieces import join_rows
from data_tools.verb import Verb, one_of, output_arguments, processes_argument
from sparsegen.data.calochallenge import CALOCHALLENGE
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.kernels import deflate_cells, sum_spots

__all__ = ["SHOWERS", "ShowerShape", "shower_cells", "shower_voxels"]

_MEV = 1000.0
_GEOMETRIES = ("2", "3")
_BLOCK = 128
_CHUNK = 16 * _BLOCK


@dataclass(frozen=True)
class ShowerShape:
    """The shape of showers.

    Args:
        critical_energy: :math:`E_c` [GeV].
        b: Fall of the longitudinal profile [1 / radiation length].
        layer_depth: Radiation lengths a layer.
        core: Share p of the core.
        core_radius: :math:`R_c` [mm].
        tail_radius: :math:`R_t` [mm].
        sampling: s, the stochastic term of the resolution at 1 GeV.
        constant: c, the constant term.
        spots: Mean number of spots at 1 GeV.
        spot_growth: Their number grows as this power of the incident energy.
    """

    critical_energy: float = 8.0e-3
    b: float = 0.5
    layer_depth: float = 0.8
    core: float = 0.8
    core_radius: float = 3.5
    tail_radius: float = 12.0
    sampling: float = 0.1
    constant: float = 0.01
    spots: float = 100.0
    spot_growth: float = 0.55

    def a(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape parameter of the longitudinal profile at incident energies [GeV]."""
        return 1 + self.b * np.maximum(np.log(energy / self.critical_energy) - 0.5, 0.1)

    def resolution(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative width of the summed energy at incident energies [GeV]."""
        return np.sqrt(self.sampling**2 / energy + self.constant**2)


def shower_voxels(
    energy: NDArray[np.float64], geometry: str, generator: np.random.Generator, shape: ShowerShape | None = None
) -> NDArray[np.float32]:
    """Voxel energies of showers.

    Args:
        energy: Incident energies ``(B,)`` [GeV].
        geometry: ``2`` or ``3``, a CaloChallenge data set.
        generator: Source of randomness.
        shape: What they look like.

    Returns:
        ``(B, V)`` [MeV], r fastest, then alpha, then the layer.

    Example:
        >>> voxels = shower_voxels(np.array([10.0, 100.0]), "2", np.random.default_rng(0))
        >>> voxels.shape, bool((voxels >= 0).all())
        ((2, 6480), True)
    """
    places, values = shower_cells(energy, geometry, generator, shape)
    dense = np.zeros((len(energy), _voxels(geometry)), dtype=np.float32)
    dense.reshape(-1)[places] = values
    return dense


def _voxels(geometry: str) -> int:
    return sum(alpha * (len(edges) - 1) for edges, alpha in CALOCHALLENGE[geometry])


def shower_cells(
    energy: NDArray[np.float64], geometry: str, generator: np.random.Generator, shape: ShowerShape | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The active voxels of showers, as :func:`shower_voxels` draws them.

    Returns:
        Places ``(N,)`` in the flat array ``(B * V,)``, rising, and the energies there ``(N,)`` [MeV].
    """
    if geometry not in _GEOMETRIES:
        raise ConfigError(unknown_name("geometry", geometry, _GEOMETRIES))
    shape = shape or ShowerShape()
    layers = CALOCHALLENGE[geometry]
    edges, alpha = layers[0]
    step, radial = edges[1] - edges[0], len(edges) - 1
    single = np.float32

    spots = 1 + generator.poisson(shape.spots * energy**shape.spot_growth)
    count = int(spots.sum())
    depth = generator.standard_gamma(np.repeat(shape.a(energy).astype(single), spots), dtype=single)
    depth *= single(1 / (shape.b * shape.layer_depth))
    layer = depth.astype(np.int32)
    # Two exponentials add up to the density r exp(-r / R) / R^2
    radius = generator.standard_exponential(count, dtype=single)
    radius += generator.standard_exponential(count, dtype=single)
    core = generator.random(count, dtype=single) < shape.core
    radius *= np.where(core, single(shape.core_radius / step), single(shape.tail_radius / step))
    ring = radius.astype(np.int32)
    sector = (generator.random(count, dtype=single) * single(alpha)).astype(np.int32)
    amount = generator.standard_exponential(count, dtype=single)

    # What leaks out is given to the rest: the response is calibrated to the incident energy
    amount[(layer >= len(layers)) | (ring >= radial)] = 0
    for index, cells in ((layer, len(layers)), (sector, alpha), (ring, radial)):
        np.minimum(index, cells - 1, out=index)
    contained = np.add.reduceat(amount, np.cumsum(spots) - spots, dtype=np.float64)
    measured = energy * np.maximum(1 + shape.resolution(energy) * generator.standard_normal(len(energy)), 0)
    scale = _MEV * np.divide(measured, contained, out=np.zeros_like(measured), where=contained > 0)
    amount *= np.repeat(scale.astype(single), spots)
    return sum_spots((layer * alpha + sector) * radial + ring, amount, spots, len(layers) * alpha * radial)


def incident_energies(low: float, high: float, events: int, seed: int) -> NDArray[np.float64]:
    """Incident energies ``(events,)`` [GeV], log-uniform between two."""
    return np.exp(np.random.default_rng([seed, 0]).uniform(np.log(low), np.log(high), events))


def _save_showers(path: Path, energy: NDArray[np.float64], geometry: str, seed: int, start: int) -> None:
    """Showers in the CaloChallenge layout, each block of them from its own seed."""
    compressed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
    voxels = _voxels(geometry)
    with h5py.File(path, "w") as file:
        incident = (_MEV * energy[:, None]).astype(np.float32)
        file.create_dataset("incident_energies", data=incident, chunks=(_BLOCK, 1), maxshape=(None, 1), **compressed)
        showers = file.create_dataset(
            "showers", (len(energy), voxels), "<f4", chunks=(_BLOCK, voxels), maxshape=(None, voxels), **compressed
        )
        for first in range(0, len(energy), _BLOCK):
            generator = np.random.default_rng([seed, 1, start + first])
            places, values = shower_cells(energy[first : first + _BLOCK], geometry, generator)
            # The chunk as gzip would store it, without the dense array: what costs time is the active voxels
            stream = deflate_cells(places, values.astype("<f4", copy=False), _BLOCK * voxels)
            showers.id.write_direct_chunk((first, 0), stream)


def _arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    processes_argument(parser)
    parser.add_argument(
        "--geometry",
        type=one_of("geometry", _GEOMETRIES),
        default="2",
        metavar="DATASET",
        help="of CaloChallenge data set 2 (the default: 45 layers x 16 x 9) or 3 (45 x 50 x 18)",
    )
    parser.add_argument("--events", type=int, default=10_000, help="how many (%(default)s)")
    parser.add_argument(
        "--energies",
        type=float,
        nargs=2,
        default=(1.0, 1000.0),
        metavar=("LOW", "HIGH"),
        help="incident energies [GeV], log-uniform between (1 1000)",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides everything random (%(default)s)")


def _run(options: argparse.Namespace) -> int:
    low, high = options.energies
    if not 0 < low <= high or options.events < 1:
        raise ConfigError(f"{options.events} showers of {low} to {high} GeV; expected at least one and 0 < low <= high")
    shape = ShowerShape()
    energy = incident_energies(low, high, options.events, options.seed)
    chunks = [
        Chunk(f"{k:06d}.h5", _save_showers, (energy[start : start + _CHUNK], options.geometry, options.seed, start))
        for k, start in enumerate(range(0, options.events, _CHUNK))
    ]
    facts = {"geometry": options.geometry, "events": options.events, "energies": [low, high], "seed": options.seed}
    made = {"program": "data_tools showers", **facts, "shape": dataclasses.asdict(shape)}
    made["description"] = "Parametrised electromagnetic showers, not simulated particle by particle"
    in_chunks(
        options.output,
        {"verb": "showers", **facts},
        chunks,
        lambda paths: join_rows(
            options.output, paths, overwrite=options.overwrite, attributes={"provenance": json.dumps(made)}
        ),
        what="chunks of showers",
        processes=options.processes,
        overwrite=options.overwrite,
    )
    layers = CALOCHALLENGE[options.geometry]
    print(f"{options.output}: {options.events:,} showers of {low:g} to {high:g} GeV in {len(layers)} layers")
    return 0


SHOWERS = Verb("parametrised calorimeter showers in the CaloChallenge layout", _arguments, _run)
