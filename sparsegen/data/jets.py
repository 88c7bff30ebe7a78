"""Jets from four-momenta: coordinates relative to the jet, as every jet format here names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["JET_CONDITIONS", "check_sums", "jet_events", "momenta", "padded"]

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


def momenta(events: Events, path: Path, format: str) -> tuple[NDArray[np.float64], ...]:
    """Transverse momentum [GeV], (pseudo)rapidity and azimuth of each particle ``(N,)``: the inverse of ``jet_events``.

    Args:
        events: Jets with ``ptrel`` and the conditions ``jet_pt``, ``jet_eta`` and ``jet_phi``.
        path: The file to write, for errors.
        format: What is written, for errors.

    Raises:
        DataError: A condition is missing.
    """
    missing = [name for name in JET_CONDITIONS[:3] if name not in events.conditions]
    if missing or events.condition is None:
        raise DataError(f"{path}: {format} needs the conditions {', '.join(missing)}; given {events}")
    owner = events.batch
    jet_pt, jet_eta, jet_phi = (
        events.condition[:, events.conditions.index(name)].double()[owner] for name in JET_CONDITIONS[:3]
    )
    pt = events.column("ptrel").double() * jet_pt
    coords = events.coords.double()
    return pt.numpy(), (coords[:, 0] + jet_eta).numpy(), (coords[:, 1] + jet_phi).numpy()


def check_sums(
    events: Events,
    pt: NDArray[np.float64],
    eta: NDArray[np.float64],
    phi: NDArray[np.float64],
    path: Path,
    format: str,
) -> None:
    """Raises where a jet is not the sum of its particles, which is all that some formats keep of it."""
    assert events.condition is not None
    owner, size = events.batch.numpy(), len(events)
    px, py, pz = (
        np.bincount(owner, part, minlength=size) for part in (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
    )
    stated = {name: events.condition[:, events.conditions.index(name)].double().numpy() for name in JET_CONDITIONS[:3]}
    jet_pt = np.hypot(px, py)
    jet_eta = np.arcsinh(np.divide(pz, jet_pt, out=np.zeros(size), where=jet_pt > 0))
    turned = np.mod(np.arctan2(py, px) - stated["jet_phi"] + np.pi, 2 * np.pi) - np.pi
    same = np.abs(jet_pt - stated["jet_pt"]) <= 1e-3 * stated["jet_pt"]
    same &= (np.abs(jet_eta - stated["jet_eta"]) <= 1e-3) & (np.abs(turned) <= 1e-3)
    bad = np.flatnonzero((events.counts.numpy() > 0) & ~same)
    if len(bad):
        event = int(bad[0])
        axis = [f"{values[event]:.5g}" for values in stated.values()]
        raise DataError(
            f"{path}: {format} keeps no jet but its particles; those of event {event} add up to pt {jet_pt[event]:.5g} "
            f"GeV at eta {jet_eta[event]:.5g}, its jet_pt, jet_eta, jet_phi are {', '.join(axis)}: write format ragged"
        )


def padded(particles: NDArray[Any], events: Events, length: int | None = None) -> NDArray[Any]:
    """Particles ``(N, F)`` of jets as rows ``(B, M, F)``, zero where there is none."""
    length = int(events.counts.max()) if length is None else length
    values = np.zeros((len(events), length, particles.shape[1]), particles.dtype)
    owner = events.batch.numpy()
    values[owner, np.arange(len(owner)) - events.offsets[:-1].numpy()[owner]] = particles
    return values
