"""Jets from four-momenta: coordinates relative to the jet, as every jet format here names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["JET_CONDITIONS", "jet_events"]

JET_CONDITIONS = ("jet_pt", "jet_eta", "jet_phi", "jet_mass")


def jet_events(
    pt: NDArray[Any],
    eta: NDArray[Any],
    phi: NDArray[Any],
    energy: NDArray[Any],
    counts: NDArray[np.int64],
    extra: Mapping[Column, NDArray[Any]],
    *,
    axes: tuple[str, str],
    grid: Grid,
    ids: torch.Tensor,
) -> Events:
    """Events of jets, the jet being the sum of its particles.

    Args:
        pt: Transverse momenta ``(N,)`` [GeV].
        eta: Pseudorapidities, or rapidities of massless particles ``(N,)``.
        phi: Azimuths ``(N,)``.
        energy: Energies ``(N,)`` [GeV].
        counts: Particles of each jet ``(B,)``.
        extra: Further columns ``(N,)``.
        axes: Names of the two coordinates.
        grid: The default lattice.
        ids: Rows of the jets ``(B,)``.

    Returns:
        Points with ``ptrel`` and the further columns, and the conditions ``JET_CONDITIONS``.
    """
    pt, eta, phi, energy = (np.asarray(values, dtype=np.float64) for values in (pt, eta, phi, energy))
    owner = np.repeat(np.arange(len(counts)), counts)
    # Values that are not finite pass through, for the check to name their row
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        momenta = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy])
        px, py, pz, e = (np.bincount(owner, component, minlength=len(counts)) for component in momenta)
        jet_pt = np.hypot(px, py)
        jet_eta = np.where(jet_pt == 0, 0.0, np.arcsinh(pz / jet_pt))
        ptrel = pt / jet_pt[owner]
        etarel = eta - jet_eta[owner]
        jet_phi = np.arctan2(py, px)
        mass = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0))
        phirel = np.mod(phi - jet_phi[owner] + np.pi, 2 * np.pi) - np.pi
    offsets = np.concatenate([[0], np.cumsum(counts)])
    features = [ptrel, *(np.asarray(values, dtype=np.float64) for values in extra.values())]
    return Events(
        torch.from_numpy(np.stack([etarel, phirel], 1).astype(np.float32)),
        torch.from_numpy(np.stack(features, 1).astype(np.float32)),
        torch.from_numpy(offsets.astype(np.int64)),
        axes=axes,
        columns=(Column("ptrel"), *extra),
        condition=torch.from_numpy(np.stack([jet_pt, jet_eta, jet_phi, mass], 1).astype(np.float32)),
        conditions=JET_CONDITIONS,
        grid=grid,
        ids=ids,
    )
