"""Jets from Pythia 8 and FastJet, one seeded chunk at a time.

References:
    A comprehensive guide to the physics and usage of PYTHIA 8.3, Bierlich et al., 2022, https://arxiv.org/abs/2203.11601
    FastJet user manual, Cacciari, Salam and Soyez, 2012, https://arxiv.org/abs/1111.6097
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import ConfigError, MissingExtraError, unknown_name

__all__ = [
    "KINDS",
    "JetSettings",
    "Yield",
    "check_settings",
    "chunk_seed",
    "load_libraries",
    "make_chunk",
    "n_subjettiness",
    "start_pythia",
    "visible_momenta",
]

_HADRONIC_W = ("24:onMode=off", "24:onIfAny=1 2 3 4 5")
_HADRONIC_Z = ("23:onMode=off", "23:onIfAny=1 2 3 4 5")

KINDS: dict[str, tuple[str, ...]] = {
    "gluon": ("HardQCD:gg2gg=on", "HardQCD:qqbar2gg=on"),
    "quark": ("HardQCD:gg2qqbar=on", "HardQCD:qq2qq=on", "HardQCD:qqbar2qqbarNew=on"),
    "top": ("Top:gg2ttbar=on", "Top:qqbar2ttbar=on", *_HADRONIC_W),
    "w": ("WeakDoubleBoson:ffbar2WW=on", *_HADRONIC_W),
    "z": ("WeakDoubleBoson:ffbar2gmZgmZ=on", "WeakZ0:gmZmode=2", *_HADRONIC_Z),
}
"""Pythia's settings by the parton that starts the jet."""

_RESONANCE = {"top": 6, "w": 24, "z": 23}
_NEUTRINOS = (12, 14, 16)
_EVENTS_A_CALL = 100
_FEWEST_EVENTS = 10
_FRUITLESS = 5000


@dataclass(frozen=True)
class JetSettings:
    """Everything that decides which jets come out, but for the seed.

    Args:
        ecm: Centre-of-mass energy of the protons [GeV].
        pt_hat: Window of the hard process' transverse momentum [GeV].
        radius: Radius of the anti-kT jets.
        jet_pt: Window of the jets' transverse momentum [GeV].
        jet_eta: Largest absolute pseudorapidity of a jet.
        particle_pt: Least transverse momentum of a constituent that is kept [GeV].
        max_constituents: How many constituents are kept, hardest first.
        extra: Further Pythia settings, ``"Key=value"``, applied last.
        subjettiness: Whether to compute N-subjettiness, of all constituents.
    """

    ecm: float = 13000.0
    pt_hat: tuple[float, float] = (990.0, 1010.0)
    radius: float = 0.8
    jet_pt: tuple[float, float] = (800.0, 1600.0)
    jet_eta: float = 2.5
    particle_pt: float = 1.0
    max_constituents: int = 100
    extra: tuple[str, ...] = field(default=())
    subjettiness: bool = False

    def pythia_lines(self, kind: str, seed: int) -> tuple[str, ...]:
        """Every line that Pythia reads for this kind of jet."""
        if kind not in KINDS:
            raise ConfigError(unknown_name("kind of jet", kind, KINDS))
        return (
            "Print:quiet=on",
            "Beams:idA=2212",
            "Beams:idB=2212",
            f"Beams:eCM={self.ecm:g}",
            f"PhaseSpace:pTHatMin={self.pt_hat[0]:g}",
            f"PhaseSpace:pTHatMax={self.pt_hat[1]:g}",
            *KINDS[kind],
            *self.extra,
            "Random:setSeed=on",
            f"Random:seed={seed}",
        )


def chunk_seed(seed: int, kind: str, chunk: int) -> int:
    """Pythia's seed for one chunk: 1 to 900,000,000, the range that Pythia takes."""
    digest = hashlib.sha256(f"{seed}/{kind}/{chunk}".encode()).digest()
    return 1 + int.from_bytes(digest[:8], "little") % 900_000_000


def load_libraries() -> tuple[Any, Any, Any]:
    """awkward, fastjet and pythia8mc.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    try:
        import awkward
        import fastjet
        import pythia8mc
        import vector
    except ImportError as error:
        raise MissingExtraError(error.name or "pythia8mc", "pythia", "making jets") from None
    vector.register_awkward()
    return awkward, fastjet, pythia8mc


def check_settings(lines: Sequence[str]) -> None:
    """Raises where Pythia would refuse one of these settings, without starting it."""
    _read_settings(load_libraries()[2].Pythia("", False), lines)


def _read_settings(pythia: Any, lines: Sequence[str]) -> None:
    for line in lines:
        if not pythia.readString(line):
            raise ConfigError(f"Pythia refuses the setting {line!r}: see its manual for names and values")


class Yield:
    """How many events a search for jets needs, and whether it finds any.

    Args:
        kind: What is looked for.
        jets: How many.
    """

    def __init__(self, kind: str, jets: int) -> None:
        self._kind = kind
        self._jets = jets
        self._events = 0
        self.made = 0

    def batch(self, most: int) -> int:
        """Events to generate next, at most ``most``; which jets are found does not depend on it."""
        rate = self.made / self._events if self._events else 1.0
        missing = (self._jets - self.made) / max(rate, 1 / most)
        return min(most, max(_FEWEST_EVENTS, math.ceil(missing)))

    def saw(self, events: int, jets: int) -> None:
        """Count events, and the jets among them.

        Raises:
            ConfigError: Many events, and no jet.
        """
        self._events += events
        self.made += jets
        if not self.made and self._events >= _FRUITLESS:
            raise ConfigError(
                f"none of {self._events:,} events gave a {self._kind} jet that passes the cuts; widen them"
            )


def start_pythia(libraries: tuple[Any, Any, Any], lines: Sequence[str]) -> Any:
    """A Pythia that has read these settings.

    Raises:
        ConfigError: It refuses one, or cannot start.
    """
    pythia = libraries[2].Pythia("", False)
    _read_settings(pythia, lines)
    if not pythia.init():
        raise ConfigError(f"Pythia cannot start with {' '.join(lines)}")
    return pythia


def visible_momenta(awkward: Any, events: Any) -> Any:
    """Momenta of the final particles of each event, neutrinos left out."""
    record = events.prt
    code = abs(record.id)
    visible = record.status > 0
    for neutrino in _NEUTRINOS:
        visible = visible & (code != neutrino)
    return _momenta(awkward, record.p[visible])


def n_subjettiness(awkward: Any, fastjet: Any, constituents: Any, radius: float) -> NDArray[np.float64]:
    """tau_1, tau_2 and tau_3 of jets ``(jets, 3)``: one pass from kT axes, normalised, beta = 1.

    Args:
        awkward: The module.
        fastjet: The module.
        constituents: Momenta, one jet an entry.
        radius: The jets' radius.

    References:
        Identifying Boosted Objects with N-subjettiness, Thaler and Van Tilburg, 2011, https://arxiv.org/abs/1011.2268
    """
    if not len(constituents):
        return np.empty((0, 3))
    definition = fastjet.JetDefinition(fastjet.kt_algorithm, radius)
    tau = fastjet.ClusterSequence(constituents, definition).njettiness(njets=[1, 2, 3], beta=1.0, R0=radius)
    return np.asarray(awkward.to_numpy(tau), dtype=np.float64)


def _momenta(awkward: Any, p: Any) -> Any:
    return awkward.zip({"px": p.px, "py": p.py, "pz": p.pz, "E": p.e}, with_name="Momentum4D")


def make_chunk(settings: JetSettings, kind: str, jets: int, seed: int) -> dict[str, NDArray[Any]]:
    """Generate ``jets`` jets of one kind with a fresh, seeded Pythia.

    Coordinates are relative to the jet: ``etarel = eta - eta_jet``, ``phirel = phi - phi_jet`` in (-pi, pi],
    ``ptrel = pt / pt_jet``. Jet features are those of the whole jet, before constituents are cut.

    Args:
        settings: The physics and the cuts.
        kind: A key of ``KINDS``; top, W and Z jets lie within the jet radius of the resonance.
        jets: How many jets to return.
        seed: Pythia's random seed, 1 to 900,000,000.

    Returns:
        ``counts (jets,)``, ``particles (N, 3)`` of etarel, phirel, ptrel, and ``jets (jets, 3)`` of pt, eta, mass,
        with N-subjettiness ``(jets, 6)``: also tau_1 to tau_3.

    Raises:
        ConfigError: A setting that Pythia refuses.
        MissingExtraError: The extra ``pythia`` is not installed.
    """
    awkward, fastjet, _ = libraries = load_libraries()
    pythia = start_pythia(libraries, settings.pythia_lines(kind, seed))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, settings.radius)
    parts: list[dict[str, NDArray[Any]]] = []
    search = Yield(kind, jets)
    while search.made < jets:
        events = pythia.nextBatch(search.batch(_EVENTS_A_CALL))
        part = _cluster(awkward, fastjet, events, definition, settings, _RESONANCE.get(kind))
        parts.append(part)
        search.saw(len(events), len(part["counts"]))

    counts = np.concatenate([part["counts"] for part in parts])[:jets]
    return {
        "counts": counts,
        "particles": np.concatenate([part["particles"] for part in parts])[: counts.sum()],
        "jets": np.concatenate([part["jets"] for part in parts])[:jets],
    }


def _cluster(
    awkward: Any, fastjet: Any, events: Any, definition: Any, settings: JetSettings, resonance: int | None
) -> dict[str, NDArray[Any]]:
    momenta = visible_momenta(awkward, events)
    sequence = fastjet.ClusterSequence(momenta, definition)
    jets = sequence.inclusive_jets(min_pt=settings.jet_pt[0])
    index = sequence.constituent_index(min_pt=settings.jet_pt[0])
    # Fields of a vector in FastJet's output are px, py, pz, E
    keep = (jets.pt < settings.jet_pt[1]) & (abs(jets.eta) < settings.jet_eta)
    if resonance is not None:
        # Status 62 marks a resonance's last copy before it decays
        last = (abs(events.prt.id) == resonance) & (abs(events.prt.status) == 62)
        parents = _momenta(awkward, events.prt.p[last])
        pairs = awkward.cartesian({"jet": jets, "parent": parents}, nested=True)
        keep = keep & awkward.any(pairs.jet.deltaR(pairs.parent) < settings.radius, axis=-1)
    jets, index = jets[keep], index[keep]

    # Flatten to numpy: one row a constituent, which knows its event's particle and its jet
    per_event = awkward.to_numpy(awkward.num(jets))
    sizes = awkward.to_numpy(awkward.flatten(awkward.num(index, axis=2)))
    first = np.concatenate([[0], np.cumsum(awkward.to_numpy(awkward.num(momenta)))])[:-1]
    particle = awkward.to_numpy(awkward.flatten(index, axis=None)) + np.repeat(np.repeat(first, per_event), sizes)
    flat = awkward.flatten(momenta)
    px, py, pz = (awkward.to_numpy(flat[name])[particle] for name in ("px", "py", "pz"))
    jets = awkward.flatten(jets)
    jet = np.stack([awkward.to_numpy(getattr(jets, name)) for name in ("pt", "eta", "mass", "phi")], axis=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)

    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / pt)
    phi = np.arctan2(py, px)
    hard = pt > settings.particle_pt
    order = np.lexsort((-pt[hard], owner[hard]))
    owner, pt, eta, phi = (column[hard][order] for column in (owner, pt, eta, phi))
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    leading = rank < settings.max_constituents
    owner, pt, eta, phi = (column[leading] for column in (owner, pt, eta, phi))

    delta = np.mod(phi - jet[owner, 3] + np.pi, 2 * np.pi) - np.pi
    features = jet[:, :3]
    if settings.subjettiness:
        constituents = awkward.unflatten(flat[particle], sizes)
        features = np.concatenate([features, n_subjettiness(awkward, fastjet, constituents, settings.radius)], axis=1)
    return {
        "counts": np.bincount(owner, minlength=len(jet)),
        "particles": np.stack([eta - jet[owner, 1], delta, pt / jet[owner, 0]], axis=1),
        "jets": features,
    }
