r"""Semi-discrete optimal transport from a continuous law to weighted points, with a certificate of its error.

References:
    Variational Principles for Minkowski Type Problems, Discrete Optimal Transport, and Discrete Monge-Ampere Equations
    (Gu, Luo, Sun and Yau, 2016), https://arxiv.org/abs/1302.5472
    A Geometric Understanding of Deep Learning (Lei et al., 2020), https://doi.org/10.1016/j.eng.2019.09.010
    AE-OT: A New Generative Model Based on Extended Semi-discrete Optimal Transport (An et al., 2020),
    https://openreview.net/forum?id=HkldyTNYwH
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.kernels import CellSearch
from sparsegen.transport.certificate import AIM, Certificate, certify_counts, certify_measures, samples_needed
from sparsegen.transport.extended import acceptance_by_distance, acceptance_curve, extended_map, neighbour_distance
from sparsegen.transport.newton2d import NORMAL, SQUARE, newton_heights, power_cells
from sparsegen.transport.newton3d import cube_cells
from sparsegen.transport.quantile import is_exact, line_cells, line_of, quantile_heights
from sparsegen.transport.sampling import measure_cells
from sparsegen.transport.sgd import AveragedSGD, ClassicalAdam, best_search, gaussian_heights
from sparsegen.transport.source import Sampler, Source, SourceName
from sparsegen.transport.twolevel import two_level_heights
from sparsegen.transport.warm import warm_heights

__all__ = ["SemiDiscreteOT", "SolverName"]

SolverName = Literal["auto", "quantile", "newton", "sgd", "adam"]
SOLVERS = ("auto", "quantile", "newton", "sgd", "adam")
TWO_LEVEL = 20_000
"""More targets than this start from transport to cluster centres."""
CUBE_TARGETS = 10_000
"""Diagrams of the cube with more cells take longer than sampling."""
BURST = 1.0
"""Seconds between two looks at the clock, at most."""


class SemiDiscreteOT:
    r"""The optimal map of a continuous law onto weighted points, :math:`T(x) = y_i` where i has the highest plane.

    .. math:: u_h(x) = \max_i \langle x, y_i \rangle + h_i, \quad W_i(h) = \{x : i \text{ is the arg-max}\},
              \quad \mu(W_i(h)) = \nu_i

    Equal targets are merged and their weights added (``merged`` counts them); cells are numbered like ``targets``, in
    the order of first appearance.

    Args:
        targets: ``(n, d)`` finite floats; at least two of them different.
        weights: ``(n,)`` positive, sum 1; None: 1 / n.
        source: ``uniform`` on the cube [-1/2, 1/2]^d, ``normal`` N(0, I), or a sampler ``(n, generator) -> (n, d)``.

    Raises:
        DataError: Targets or weights that do not fit.
        ConfigError: An unknown source.

    Example:
        >>> transport = SemiDiscreteOT(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0.5, 0.25, 0.25]))
        >>> transport.fit().converged
        True
        >>> transport.map(torch.tensor([[-0.4], [0.1], [0.4]])).flatten()
        tensor([0., 1., 3.])
    """

    def __init__(
        self, targets: Tensor, weights: Tensor | None = None, source: SourceName | Sampler = "uniform"
    ) -> None:
        points, mass, self.merged = _merged(*_checked(targets, weights))
        self.targets = points
        self.weights = mass
        self.source = Source(source, points.shape[1])
        self._normalise()
        n = len(points)
        self._heights = points.new_zeros(n, dtype=self._unit.dtype)
        self._measures: Tensor | None = None
        self._cost: float | None = None
        self._forget_measures()
        self._solver: AveragedSGD | ClassicalAdam | None = None

    def __repr__(self) -> str:
        n, d = self.targets.shape
        return f"SemiDiscreteOT({n} targets, {d} dimensions, source={self.source.name!r})"

    def fit(
        self,
        tol: float = 0.05,
        max_seconds: float = 60.0,
        generator: torch.Generator | None = None,
        solver: SolverName = "auto",
    ) -> Certificate:
        """Moves the heights until the certificate supports the tolerance, or time is up.

        A second call goes on from where the first stopped or was interrupted, the same object's or, after
        `load_state_dict`, another's. Without convergence the certificate says so, and is that of the best map found.

        Args:
            tol: Root-mean-square relative error of the cells' masses.
            max_seconds: Wall time, certificate included.
            generator: Origin of all samples.
            solver: ``quantile`` (targets on a line), ``newton`` (plane and cube; exact), ``sgd`` (averaged stochastic
                gradient), ``adam`` (the classical solver, for reference), or ``auto``: the first that fits.

        Returns:
            What the map is worth, measured on samples that the solver has not seen.

        Raises:
            ConfigError: A solver that does not fit the problem, or settings that are not positive.
        """
        if not (tol > 0 and max_seconds > 0):
            raise ConfigError(f"tol={tol}, max_seconds={max_seconds}; both must be positive")
        begin = time.monotonic()
        name, direction = self._choose(solver), self._line
        if name == "quantile":
            assert direction is not None
            budget = 4 * samples_needed(len(self.targets), tol) + int(4 * len(self.targets) / tol**2)
            self._heights = quantile_heights(self._unit, self.weights, self.source, direction, budget, generator).to(
                self._heights
            )
            if is_exact(self.source, direction):
                masses, moments = line_cells(self._unit, self._heights, self.source, direction)
                return self._certify_exact(masses, np.outer(moments, direction.numpy()), tol, begin)
            return self._certify(samples_needed(len(self.targets), tol), generator, tol, begin)
        if name == "newton":
            weights = self.weights.double().cpu().numpy()
            law = SQUARE if self.source.name == "uniform" else NORMAL
            cube = self.source.dim == 3
            cells_of = cube_cells if cube else partial(power_cells, law=law)
            start = self._heights
            if cube and not bool(start.any()):
                start = warm_heights(self._unit, self.weights, self.source, generator, begin + max_seconds)
            y, first = self._unit.cpu().numpy(), start.cpu().numpy()
            self._forget_measures()

            def keep(heights: np.ndarray) -> None:
                self._heights = torch.from_numpy(heights).to(self._heights)

            limit = min(tol, 1e-9), begin + max_seconds
            cells = newton_heights(y, weights, *limit, first, cells_of, law.reach, keep)[1]
            return self._certify_exact(cells.masses, cells.moments, tol, begin)
        return self._descend(name, tol, begin, max_seconds, generator)

    def assign(self, x: Tensor) -> Tensor:
        """The cell of every point ``(m, d) -> (m,)`` int64, a row of ``targets``; memory does not grow with n m."""
        return self._search.best(self._source_points(x), self._heights).cells

    def map(self, x: Tensor, extended: bool = False, theta: float = 0.5, reach: float | None = None) -> Tensor:
        """Where every point is carried ``(m, d) -> (m, d)``.

        Args:
            x: Points of the source.
            extended: Interpolate between the codes of neighbouring cells of one mode (`extended_map`); False: each
                point goes to a target itself.
            theta: Largest angle between the planes of two such cells, in rad, for targets of unit scale.
            reach: Largest distance between the codes of two such cells, in medians of that distance over all cells:
                a test that no scale and no shift of the targets changes. None: no such test.
        """
        if not extended:
            return self.targets[self.assign(x)]
        return self._extended(self._source_points(x), theta, reach)[0]

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        extended: bool = True,
        theta: float = 0.5,
        rejected: Literal["own", "drop"] = "own",
        reach: float | None = None,
    ) -> tuple[Tensor, float]:
        """New points ``(n, d)``, and the share of source samples that found a partner (1 for the hard map).

        Interpolation draws every mode together a little: the variance within the modes of a mixture shrinks to 0.87,
        0.76 and 0.64 of the targets' in 8, 16 and 64 dimensions at the default angle.

        Args:
            n: How many.
            generator: Origin of the source samples.
            extended: See `map`; the hard map gives the targets back.
            theta: See `map`.
            rejected: Where a sample without a partner goes: to its ``own`` target, which keeps the masses of all
                modes; or ``drop``: another is drawn, as published, at the expense of cells without neighbours.
            reach: See `map`.

        Raises:
            ConfigError: An angle or a reach that no source sample passes; the message gives the acceptance by both.
        """
        if rejected not in ("own", "drop"):
            raise ConfigError(unknown_name("rejected", rejected, ("own", "drop")))
        if not extended:
            return self.map(self.source.draw(n, generator, self._unit)), 1.0
        kept: list[Tensor] = []
        drawn = passed = have = 0
        while have < n or drawn == 0:
            x = self.source.draw(max(n - have, min(n, 1000)), generator, self._unit)
            points, accepted = self._extended(self._source_points(x), theta, reach)
            drawn, passed = drawn + len(x), passed + int(accepted.sum())
            if n and passed == 0:
                self._explain_rejection(generator, theta, reach)
            kept.append(points[accepted] if rejected == "drop" else points)
            have += len(kept[-1])
            if n == 0:
                return points, 1.0
        return torch.cat(kept)[:n], passed / drawn

    @property
    def heights(self) -> Tensor:
        """Heights h of the planes ``(n,)`` over the targets as they were given, up to a constant."""
        return self._heights * self._scale

    @property
    def cell_measures(self) -> Tensor:
        """Mass of every cell ``(n,)``: exact from the exact solvers, else the frequencies behind the certificate."""
        if self._measures is None:
            raise ConfigError("the cells are not measured yet; call fit() first")
        return self._measures

    @property
    def transport_cost(self) -> float:
        """Mean squared distance that the map carries, E|x - T(x)|^2; from the same samples as the measures."""
        if self._cost is None:
            raise ConfigError("the cost is not measured yet; call fit() first")
        return self._cost

    def state_dict(self) -> dict[str, Tensor]:
        """Everything but a sampler's code, as tensors: the fitted map, and where its solver stands."""
        state = {
            "targets": self.targets,
            "weights": self.weights,
            "heights": self._heights,
            "barycentres": self._barycentres,
            "merged": torch.tensor(self.merged),
        }
        if self._measures is not None and self._cost is not None:
            state |= {"cell_measures": self._measures, "transport_cost": torch.tensor(self._cost, dtype=torch.float64)}
        if isinstance(self._solver, AveragedSGD):
            state |= {f"solver.{key}": value for key, value in self._solver.state_dict().items()}
        return {key: value.clone() for key, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over the map of another object with the same source, targets included."""
        if state["targets"].shape[1] != self.source.dim:
            raise DataError(f"a map of {state['targets'].shape[1]} dimensions for one of {self.source.dim}")
        device = self.targets.device
        state = {key: value.clone().to(device) for key, value in state.items()}
        self.targets, self.weights, self.merged = state["targets"], state["weights"], int(state["merged"])
        self._normalise()
        self._heights, self._barycentres = state["heights"], state["barycentres"]
        self._measures = state.get("cell_measures")
        self._cost = float(state["transport_cost"]) if "transport_cost" in state else None
        self._solver = None
        if "solver.iterate" in state:
            self._solver = self._averaged(self._heights)
            self._solver.load_state_dict({k[7:]: v for k, v in state.items() if k.startswith("solver.")})

    def _normalise(self) -> None:
        """Targets of zero mean and unit scale: heights, steps and angles then mean the same for all data."""
        self._line = line_of(self.targets)
        y, mass = self.targets.double(), self.weights.double()
        self._centre = mass @ y
        self._scale = float(((y - self._centre).square().sum(1) @ mass / y.shape[1]).sqrt())
        y = (y - self._centre) / self._scale
        self._spanning = float(torch.linalg.svdvals(y)[-1]) > 1e-6 * len(y) ** 0.5 if self.source.dim <= 3 else True
        # the exact solvers, and small cells in the plane, need more digits than single precision has
        exact = self.source.dim <= 2 or self._line is not None or self._diagrams
        self._unit = y.to(torch.float64 if exact else torch.float32)
        self._search = CellSearch(self._unit)

    def _choose(self, solver: SolverName) -> SolverName:
        if solver not in SOLVERS:
            raise ConfigError(unknown_name("solver", solver, SOLVERS))
        on_line = self._line is not None
        if solver == "auto":
            return "quantile" if on_line else "newton" if self._diagrams else "sgd"
        if solver == "quantile" and not on_line:
            raise ConfigError("solver='quantile' needs targets on one line; use 'auto'")
        if solver == "newton" and not self._diagrams:
            raise ConfigError(
                "solver='newton' needs a named source in the plane or the uniform cube with at most "
                f"{CUBE_TARGETS} targets, and targets that span it; use 'auto'"
            )
        return solver

    @property
    def _diagrams(self) -> bool:
        """Whether the cells can be computed exactly."""
        plane = self.source.name != "sampler" and self.source.dim == 2
        cube = self.source.name == "uniform" and self.source.dim == 3 and 5 <= len(self.targets) <= CUBE_TARGETS
        return (plane or cube) and self._spanning

    def _averaged(self, heights: Tensor) -> AveragedSGD:
        return AveragedSGD(self._unit, self.weights, self.source, heights)

    def _start(self, generator: torch.Generator | None) -> Tensor:
        if len(self.targets) > TWO_LEVEL:
            return two_level_heights(self._unit, self.weights.to(self._unit), self.source, generator)
        return gaussian_heights(self._unit, self.weights, self.source, generator)

    def _descend(
        self, name: str, tol: float, begin: float, max_seconds: float, generator: torch.Generator | None
    ) -> Certificate:
        """Stochastic descent with a certificate on fresh samples whenever one may be due."""
        n = len(self.targets)
        kind = AveragedSGD if name == "sgd" else ClassicalAdam
        if not isinstance(self._solver, kind):
            start = self._heights if self._measures is not None else self._start(generator)
            self._solver = (
                self._averaged(start) if name == "sgd" else ClassicalAdam(self._unit, self.weights, self.source, start)
            )
        wanted = samples_needed(n, tol)
        seen, clock = self._solver.seen, time.monotonic()
        # no solver gets below sqrt(n / samples); the averaged one is a tenth above
        check = max(1.2 * n / (AIM * tol) ** 2, 1.2 * seen)
        burst = 2 * max(512, n // 4)
        while True:
            self._forget_measures()
            try:
                self._solver.advance(burst, generator)
            finally:
                # an interrupted fit keeps what it has reached
                self._heights = self._solver.heights.clone()
            now = time.monotonic()
            speed = (self._solver.seen - seen) / max(now - clock, 1e-9)
            burst = max(1, int(speed * min(BURST, max_seconds / 20)))
            affordable = int(min(wanted, max(0.2 * max_seconds * speed, 1000)))
            late = now + affordable / speed > begin + max_seconds
            if not late and self._solver.seen < check:
                burst = min(burst, int(check - self._solver.seen) + 1)
                continue
            certificate = self._certify(affordable, generator, tol, begin)
            if certificate.converged or late:
                return certificate
            clock, seen = time.monotonic(), self._solver.seen
            check = seen * min(max((certificate.rms / (AIM * tol)) ** 2, 1.15), 4.0)

    def _forget_measures(self) -> None:
        """Heights are about to move: what was measured of them holds no longer."""
        self._measures, self._cost = None, None
        self._barycentres = torch.full_like(self._unit, torch.nan)

    def _certify(self, samples: int, generator: torch.Generator | None, tol: float, begin: float) -> Certificate:
        mirrors = best_search(self._unit, self.source, self._heights, generator)
        measured = measure_cells(mirrors, self._heights, self.source, self._centre, self._scale, samples, generator)
        samples = int(measured.counts.sum())
        weights, heights = self.weights.double(), self._heights.double()
        frequency = measured.counts.double() / samples
        squares = self.targets.double().square().sum(1)
        # E|x|^2 + sum nu |y|^2 - 2 E(h), the energy being that of the targets as they were given
        constant = float(weights @ squares) + 2 * self._scale * float(weights @ heights)
        correlation = self._scale * (measured.potential - float(frequency @ heights)) + measured.centre_product
        self._barycentres = measured.barycentres
        self._measures = frequency
        self._cost = measured.square + float(frequency @ squares) - 2 * correlation
        return certify_counts(
            measured.counts.cpu().numpy(),
            weights.cpu().numpy(),
            measured.paid + constant,
            measured.paid_error,
            tol,
            time.monotonic() - begin,
            measured.repeats.cpu().numpy(),
            measured.blocks.cpu().numpy(),
        )

    def _certify_exact(self, masses: np.ndarray, moments: np.ndarray, tol: float, begin: float) -> Certificate:
        weights, heights, y = (t.double().cpu().numpy() for t in (self.weights, self._heights, self.targets))
        square = self.source.dim / 12 if self.source.name == "uniform" else float(self.source.dim)
        unit = self._unit.double().cpu().numpy()
        energy = float((moments * unit).sum() + (masses - weights) @ heights)
        squares = (y**2).sum(1)
        with np.errstate(invalid="ignore"):
            centres = torch.from_numpy(moments / np.where(masses > 0, masses, np.nan)[:, None])
        self._barycentres = centres.to(self._unit)
        self._measures = torch.from_numpy(masses).to(self.targets.device)
        self._cost = square + float(masses @ squares) - 2 * float((moments * y).sum())
        # the sources with closed forms have mean zero: the centre taken off the targets costs nothing
        dual = square + float(weights @ squares) - 2 * self._scale * energy
        return certify_measures(masses, weights, dual, tol, time.monotonic() - begin)

    def _source_points(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.source.dim:
            raise DataError(f"points of shape {tuple(x.shape)}; the source has {self.source.dim} dimensions: (m, d)")
        if not bool(x.isfinite().all()):
            raise DataError("points to map must be finite")
        return x.detach().to(self._unit)

    def _extended(self, x: Tensor, theta: float, reach: float | None) -> tuple[Tensor, Tensor]:
        if not theta > 0:
            raise ConfigError(f"theta={theta}; expected a positive angle in rad")
        if reach is not None and not reach > 0:
            raise ConfigError(f"reach={reach}; expected a positive number of median distances, or None")
        if not bool(self._barycentres.isfinite().any()):
            raise ConfigError("the extended map needs the centres of the cells; call fit() first")
        farthest = math.inf if reach is None else reach * self._neighbour_distance()
        pair, t, accepted = extended_map(x, self._unit, self._heights, self._barycentres, theta, farthest)
        first, second = self.targets[pair[:, 0]], self.targets[pair[:, 1]]
        return first + t[:, None].to(first) * (second - first), accepted

    def _neighbour_distance(self) -> float:
        return neighbour_distance(self._unit, self._heights, self._barycentres)

    def _explain_rejection(self, generator: torch.Generator | None, theta: float, reach: float | None) -> None:
        """Raises if it is the tests that reject, and not the small number of samples."""
        x = self.source.draw(1000, generator, self._unit)
        if bool(self._extended(x, theta, reach)[1].any()):
            return
        curves = {"angle": acceptance_curve(x, self._unit, self._heights)}
        if reach is not None:
            unit = self._neighbour_distance()
            curves["reach"] = acceptance_by_distance(x, self._unit, self._heights, unit)
        told = "; ".join(f"by {k}: {', '.join(f'{a:.2g}: {s:.1%}' for a, s in v)}" for k, v in curves.items())
        tests = f"theta={theta}" + ("" if reach is None else f", reach={reach}")
        raise ConfigError(f"{tests} accepts no pair of cells; share accepted {told}")


def _checked(targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    if targets.ndim != 2 or targets.shape[1] == 0 or not targets.is_floating_point():
        raise DataError(f"targets of shape {tuple(targets.shape)} and type {targets.dtype}; expected floats (n, d)")
    if len(targets) < 2:
        raise DataError(f"{len(targets)} target; a map needs at least 2")
    if not bool(targets.isfinite().all()):
        row = int((~targets.isfinite().all(1)).nonzero()[0])
        raise DataError(f"target {row} is not finite: {targets[row].tolist()}")
    targets = targets.detach()
    if weights is None:
        return targets, torch.full((len(targets),), 1 / len(targets), dtype=torch.float64, device=targets.device)
    if tuple(weights.shape) != (len(targets),):
        raise DataError(f"weights of shape {tuple(weights.shape)} for {len(targets)} targets")
    mass = weights.detach().double().to(targets.device)
    if not bool((mass > 0).all()):
        row = int((~(mass > 0)).nonzero()[0])
        raise DataError(f"weight {float(mass[row])} of target {row}; weights must be positive, leave other targets out")
    if not abs(float(mass.sum()) - 1) < 1e-4:
        raise DataError(f"weights sum to {float(mass.sum()):.6g}; expected 1, divide them by their sum")
    # what single precision left of the sum
    return targets, mass / mass.sum()


def _merged(targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, int]:
    """Different targets in the order of first appearance, their weights, and how many were merged."""
    unique, index = torch.unique(targets, dim=0, return_inverse=True)
    n = len(targets)
    if len(unique) < 2:
        raise DataError(f"all {n} targets are the same point; a map needs at least 2 different ones")
    if len(unique) == n:
        return targets.clone(), weights, 0
    first = torch.full((len(unique),), n, device=index.device)
    first = first.scatter_reduce(0, index, torch.arange(n, device=index.device), "amin")
    order = first.argsort()
    mass = weights.new_zeros(len(unique)).index_add(0, index, weights)
    return targets[first[order]], mass[order], n - len(unique)
