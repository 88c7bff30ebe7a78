"""Jet images as LAGAN's: boosted W against QCD, one seeded chunk at a time.

Towers of 0.1 x 0.1, anti-kT jets of R = 1, trimmed (kT R = 0.3, 5 %); centred on the leading subjet, turned so that the
second one (else the first principal component) lies below, flipped so that the harder side is on the right. The towers
themselves are turned, not the image: no interpolation leaves ripples. Pixels below 1 MeV are zero.

References:
    Learning Particle Physics by Example: Location-Aware Generative Adversarial Networks for Physics Synthesis,
    de Oliveira, Paganini and Nachman, 2017, https://arxiv.org/abs/1701.05927
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.pythia import Yield, load_libraries, n_subjettiness, start_pythia, visible_momenta
from sparsegen.errors import ConfigError, unknown_name

__all__ = ["IMAGE_KINDS", "ImageSettings", "make_images"]

_COMMON = ("Print:quiet=on", "Beams:idA=2212", "Beams:idB=2212")
_SIGNAL = (
    "NewGaugeBoson:ffbar2Wprime=on",
    "Wprime:coup2WZ=1",
    "34:onMode=off",
    "34:onIfAll=24 23",
    "24:onMode=off",
    "24:onIfAny=1 2 3 4 5",
    "23:onMode=off",
    "23:onIfAny=12 14 16",
)
IMAGE_KINDS: dict[str, tuple[str, ...]] = {"qcd": ("HardQCD:all=on",), "w": _SIGNAL}
_TOWER = 0.1
_FARTHEST = 5.0
_BATCH = 200
_THRESHOLD = 1e-3


@dataclass(frozen=True)
class ImageSettings:
    """Which jets become images.

    Args:
        ecm: Centre-of-mass energy of the protons [GeV].
        pt_hat: Window of QCD's hard process [GeV].
        resonance: Mass of the W' whose W is the signal [GeV].
        radius: Radius of the anti-kT jets.
        trim: Radius and least share of transverse momentum of the subjets that are kept.
        jet_pt: Window of the trimmed jet's transverse momentum [GeV].
        jet_mass: Window of its mass [GeV].
        jet_eta: Its largest absolute pseudorapidity.
        pixels: Pixels along each side.
        half: Half side of the image.
        extra: Further Pythia settings, applied last.
    """

    ecm: float = 13000.0
    pt_hat: tuple[float, float] = (220.0, 340.0)
    resonance: float = 600.0
    radius: float = 1.0
    trim: tuple[float, float] = (0.3, 0.05)
    jet_pt: tuple[float, float] = (250.0, 300.0)
    jet_mass: tuple[float, float] = (60.0, 100.0)
    jet_eta: float = 2.0
    pixels: int = 25
    half: float = 1.25
    extra: tuple[str, ...] = ()

    def pythia_lines(self, kind: str, seed: int) -> tuple[str, ...]:
        """Every line that Pythia reads for this kind of jet."""
        if kind not in IMAGE_KINDS:
            raise ConfigError(unknown_name("kind of jet image", kind, IMAGE_KINDS))
        low, high = self.pt_hat
        window = (f"PhaseSpace:pTHatMin={low:g}", f"PhaseSpace:pTHatMax={high:g}")
        hard = window if kind == "qcd" else (f"34:m0={self.resonance:g}",)
        return (
            *_COMMON,
            f"Beams:eCM={self.ecm:g}",
            *IMAGE_KINDS[kind],
            *hard,
            *self.extra,
            "Random:setSeed=on",
            f"Random:seed={seed}",
        )


def make_images(settings: ImageSettings, kind: str, images: int, seed: int) -> dict[str, NDArray[Any]]:
    """Generate ``images`` jet images of one kind with a fresh, seeded Pythia.

    Args:
        settings: Which jets.
        kind: ``w`` or ``qcd``.
        images: How many.
        seed: Pythia's random seed.

    Returns:
        ``image (images, 25, 25)`` [GeV] and ``jet_pt``, ``jet_eta``, ``jet_phi``, ``jet_mass``, ``jet_delta_R``,
        ``tau_1``, ``tau_2``, ``tau_3``, ``tau_21``, ``tau_32`` ``(images,)``.
    """
    awkward, fastjet, _ = libraries = load_libraries()
    pythia = start_pythia(libraries, settings.pythia_lines(kind, seed))
    fat = fastjet.JetDefinition(fastjet.antikt_algorithm, settings.radius)
    thin = fastjet.JetDefinition(fastjet.kt_algorithm, settings.trim[0])
    parts: list[dict[str, NDArray[Any]]] = []
    search = Yield(kind, images)
    while search.made < images:
        events = pythia.nextBatch(search.batch(_BATCH))
        towers = _towers(awkward, visible_momenta(awkward, events))
        sequence = fastjet.ClusterSequence(towers, fat)
        least = 0.9 * settings.jet_pt[0]
        index = sequence.constituent_index(min_pt=least)
        pieces = awkward.flatten(towers[awkward.flatten(index, axis=2)], axis=1)
        sizes = awkward.flatten(awkward.num(index, axis=2))
        if not len(sizes):
            search.saw(len(events), 0)
            continue
        jets = awkward.unflatten(pieces, sizes)
        part = _trimmed(awkward, fastjet, jets, thin, settings)
        parts.append(part)
        search.saw(len(events), len(part["jet_pt"]))
    return {name: np.concatenate([part[name] for part in parts])[:images] for name in parts[0]}


def _massless(awkward: Any, pt: Any, eta: Any, phi: Any, counts: Any) -> Any:
    vectors = awkward.zip(
        {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)},
        with_name="Momentum4D",
    )
    return awkward.unflatten(vectors, counts)


def _towers(awkward: Any, momenta: Any) -> Any:
    """Particles to massless towers: their energy, at the tower's centre."""
    counts = awkward.to_numpy(awkward.num(momenta))
    flat = awkward.flatten(momenta)
    px, py, pz, energy = (awkward.to_numpy(flat[name]) for name in ("px", "py", "pz", "E"))
    eta = np.arcsinh(pz / np.maximum(np.hypot(px, py), 1e-9))
    phi = np.arctan2(py, px)
    around = round(2 * np.pi / _TOWER)
    row = np.floor((eta + _FARTHEST) / _TOWER).astype(int)
    column = np.floor((phi + np.pi) / (2 * np.pi) * around).astype(int) % around
    rows = round(2 * _FARTHEST / _TOWER)
    inside = (row >= 0) & (row < rows)
    event = np.repeat(np.arange(len(counts)), counts)
    key = ((event * rows + row) * around + column)[inside]
    filled, place = np.unique(key, return_inverse=True)
    total = np.bincount(place, energy[inside])
    tower_eta = -_FARTHEST + _TOWER * (filled // around % rows + 0.5)
    tower_phi = -np.pi + 2 * np.pi / around * (filled % around + 0.5)
    sizes = np.bincount(filled // (rows * around), minlength=len(counts))
    return _massless(awkward, total / np.cosh(tower_eta), tower_eta, tower_phi, sizes)


def _trimmed(awkward: Any, fastjet: Any, jets: Any, thin: Any, settings: ImageSettings) -> dict[str, NDArray[Any]]:
    """Trim, cut, and draw; one jet an entry of ``jets``."""
    sequence = fastjet.ClusterSequence(jets, thin)
    subjets = sequence.inclusive_jets()
    index = sequence.constituent_index()
    whole = awkward.sum(np.hypot(jets.px, jets.py), axis=1)
    kept = subjets.pt > settings.trim[1] * whole
    subjets, index = subjets[kept], index[kept]
    order = awkward.argsort(subjets.pt, axis=1, ascending=False)
    subjets = subjets[order]
    towers = jets[awkward.flatten(index, axis=2)]

    px, py, pz, energy = (awkward.to_numpy(awkward.sum(towers[name], axis=1)) for name in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-9))
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
    passes = (pt > settings.jet_pt[0]) & (pt < settings.jet_pt[1]) & (np.abs(eta) < settings.jet_eta)
    passes &= (mass > settings.jet_mass[0]) & (mass < settings.jet_mass[1])
    towers, subjets = towers[passes], subjets[passes]
    tau = n_subjettiness(awkward, fastjet, towers, settings.radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {"tau_21": tau[:, 1] / tau[:, 0], "tau_32": tau[:, 2] / tau[:, 1]}
    image, distance = _draw(awkward, towers, subjets, settings)
    return {
        "image": image,
        "jet_pt": pt[passes],
        "jet_eta": eta[passes],
        "jet_phi": np.arctan2(py, px)[passes],
        "jet_mass": mass[passes],
        "jet_delta_R": distance,
        **{f"tau_{k + 1}": tau[:, k] for k in range(3)},
        **{name: np.nan_to_num(values) for name, values in ratios.items()},
    }


def _draw(
    awkward: Any, towers: Any, subjets: Any, settings: ImageSettings
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Centre, turn, flip and pixelise; also the distance of the two leading subjets, 0 where there is one."""
    counts = awkward.to_numpy(awkward.num(towers))
    owner = np.repeat(np.arange(len(counts)), counts)
    flat = awkward.flatten(towers)
    pt, eta, phi = (awkward.to_numpy(getattr(flat, name)) for name in ("pt", "eta", "phi"))
    leading = {name: awkward.to_numpy(getattr(subjets, name)[:, 0]) for name in ("eta", "phi")}
    x = eta - leading["eta"][owner]
    y = _wrap(phi - leading["phi"][owner])

    padded = awkward.pad_none(subjets, 2, axis=1)
    second = {name: awkward.to_numpy(awkward.fill_none(getattr(padded, name)[:, 1], np.nan)) for name in ("eta", "phi")}
    sub_x, sub_y = second["eta"] - leading["eta"], _wrap(second["phi"] - leading["phi"])
    alone = np.isnan(sub_x)
    # The principal component of the transverse momentum, for jets of one subjet
    moments = [np.bincount(owner, pt * values, minlength=len(counts)) for values in (x * x, x * y, y * y)]
    principal = 0.5 * np.arctan2(2 * moments[1], moments[0] - moments[2])
    angle = np.where(alone, principal, np.arctan2(np.nan_to_num(sub_y), np.nan_to_num(sub_x)))
    turn = (-np.pi / 2 - angle)[owner]
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    pixels, half = settings.pixels, settings.half
    # The middle column belongs to neither side
    side = np.sign(x) * (np.abs(x) > half / pixels)
    right = np.bincount(owner, pt * side, minlength=len(counts)) >= 0
    x *= np.where(right, 1.0, -1.0)[owner]
    column = np.floor((x + half) / (2 * half) * pixels).astype(int)
    row = np.floor((y + half) / (2 * half) * pixels).astype(int)
    inside = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
    place = (owner * pixels + column) * pixels + row
    image = np.bincount(place[inside], pt[inside], minlength=len(counts) * pixels * pixels)
    image[image < _THRESHOLD] = 0
    distance = np.where(alone, 0.0, np.hypot(np.nan_to_num(sub_x), np.nan_to_num(sub_y)))
    return image.reshape(-1, pixels, pixels).astype(np.float32), distance


def _wrap(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi
