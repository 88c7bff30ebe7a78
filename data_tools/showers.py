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
import sys
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from data_tools.verb import Verb, output_arguments
from sparsegen.data.calochallenge import CALOCHALLENGE
from sparsegen.data.files import whole_file
from sparsegen.errors import ConfigError, unknown_name

__all__ = ["SHOWERS", "ShowerShape", "shower_voxels"]

_MEV = 1000.0
_GEOMETRIES = ("2", "3")
_CHUNK = 256


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
    if geometry not in _GEOMETRIES:
        raise ConfigError(unknown_name("geometry", geometry, _GEOMETRIES))
    shape = shape or ShowerShape()
    layers = CALOCHALLENGE[geometry]
    edges, alpha = layers[0]
    step, radial = edges[1] - edges[0], len(edges) - 1
    voxels = len(layers) * alpha * radial

    spots = 1 + generator.poisson(shape.spots * energy**shape.spot_growth)
    shower = np.repeat(np.arange(len(energy)), spots)
    count = len(shower)
    depth = generator.standard_gamma(np.repeat(shape.a(energy), spots))
    layer = (depth * (1 / (shape.b * shape.layer_depth))).astype(np.int32)
    # The sum of two exponentials has the density r exp(-r / R) / R^2
    radius = generator.standard_gamma(2.0, count)
    radius *= np.where(generator.random(count) < shape.core, shape.core_radius, shape.tail_radius)
    ring = (radius * (1 / step)).astype(np.int32)
    sector = generator.integers(alpha, size=count, dtype=np.int32)
    amount = generator.standard_exponential(count)

    # What leaks out is given to the rest: the response is calibrated to the incident energy
    amount[(layer >= len(layers)) | (ring >= radial)] = 0
    place = (np.minimum(layer, len(layers) - 1) * alpha + sector) * radial + np.minimum(ring, radial - 1)
    contained = np.bincount(shower, amount, minlength=len(energy))
    measured = energy * np.maximum(1 + shape.resolution(energy) * generator.standard_normal(len(energy)), 0)
    scale = _MEV * np.divide(measured, contained, out=np.zeros_like(measured), where=contained > 0)
    amount *= np.repeat(scale, spots)
    dense = np.zeros(len(energy) * voxels, dtype=np.float32)
    np.add.at(dense, shower * voxels + place, amount.astype(np.float32))
    return dense.reshape(len(energy), voxels)


def _arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    parser.add_argument("--geometry", choices=_GEOMETRIES, default="2", help="CaloChallenge data set (%(default)s)")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument(
        "--energies",
        type=float,
        nargs=2,
        default=(1.0, 1000.0),
        metavar=("LOW", "HIGH"),
        help="GeV, log-uniform between",
    )
    parser.add_argument("--seed", type=int, default=1)


def _run(options: argparse.Namespace) -> int:
    low, high = options.energies
    if not 0 < low <= high or options.events < 1:
        raise ConfigError(f"{options.events} showers of {low} to {high} GeV; expected at least one and 0 < low <= high")
    energy = np.exp(np.random.default_rng([options.seed, 0]).uniform(np.log(low), np.log(high), options.events))
    console = Console(file=sys.stderr)
    with whole_file(options.output, options.overwrite) as part, h5py.File(part, "w") as file:
        compressed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
        file.create_dataset("incident_energies", data=(_MEV * energy[:, None]).astype(np.float32), **compressed)
        voxels = shower_voxels(energy[:1], options.geometry, np.random.default_rng(0)).shape[1]
        chunk = (min(_CHUNK, options.events), voxels)
        showers = file.create_dataset("showers", (options.events, voxels), "f4", chunks=chunk, **compressed)
        steps = range(0, options.events, _CHUNK)
        for start in track(steps, "showers, in 256s", console=console, disable=not console.is_terminal):
            some = energy[start : start + _CHUNK]
            generator = np.random.default_rng([options.seed, 1, start])
            showers[start : start + len(some)] = shower_voxels(some, options.geometry, generator)
        file.attrs["provenance"] = f"data_tools showers, geometry {options.geometry}, seed {options.seed}; parametrised"
    print(f"{options.output}: {options.events:,} showers of {low:g} to {high:g} GeV, {voxels:,} voxels")
    return 0


SHOWERS = Verb("parametrised calorimeter showers in the CaloChallenge layout", _arguments, _run)
