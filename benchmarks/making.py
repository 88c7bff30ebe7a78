"""Making data against the bare generators: jets against a Pythia + FastJet loop, showers against a branching toy.

    python benchmarks/making.py [--jets 300] [--rounds 5]

Jets: the whole verb (a fresh Pythia, generation, clustering, cuts, chunks, splits, the compressed file) against a loop
that starts Pythia with the same settings and seeds and clusters the same events with FastJet, and does nothing with the
jets. Two such loops: one that hands events over in batches, as fast as the two packages can, and one that goes event by
event and particle by particle, as their tutorials do. Rates count events, on both sides.

Showers: the whole verb, file included, against a toy that goes particle by particle: each one flies on, is read out
where it crosses one of three layers, and splits in two, for eight generations (255 particles). It is written here after
its paper and timed beside ours. The 9.9 ms a shower that were measured for the published program, on another machine,
are printed as such, and are what the bar counts from. Ends with the bars and whether each is met.

References:
    SUPA: A Lightweight Diagnostic Simulator for Machine Learning in Particle Physics, Sinha et al., 2022,
    https://arxiv.org/abs/2202.05012 (the branching toy)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import Figures

from data_tools.cli import main as data_tools
from data_tools.pythia import JetSettings, chunk_seed, load_libraries, start_pythia, visible_momenta
from data_tools.showers import incident_energies, shower_cells

BAR_JETS = 0.85
BAR_SHOWERS = 50.0
QUOTED_MS = 9.9
LAYERS = (15.0, 45.0, 75.0)
GENERATIONS = 8
FIGURES = Figures()


def seconds(run: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def verb(*argv: str) -> None:
    """Run a verb of the command line, quietly."""
    with contextlib.redirect_stdout(io.StringIO()):
        if data_tools(argv) != 0:
            raise RuntimeError(f"data_tools {' '.join(argv)} failed")


class Counted:
    """A Pythia that counts the events asked of it."""

    def __init__(self, pythia: object) -> None:
        self.pythia = pythia
        self.events: list[int] = []

    def nextBatch(self, events: int) -> object:
        self.events.append(events)
        return self.pythia.nextBatch(events)  # type: ignore[attr-defined]


def batches_of(settings: JetSettings, kind: str, jets: int, seed: int) -> list[int]:
    """Sizes of the batches of events that the verb generates for these jets."""
    import data_tools.pythia as module

    counted: list[Counted] = []

    def start(*arguments: object) -> Counted:
        counted.append(Counted(start_pythia(*arguments)))  # type: ignore[arg-type]
        return counted[-1]

    module.start_pythia = start  # type: ignore[assignment]
    try:
        module.make_chunk(settings, kind, jets, chunk_seed(seed, kind, 0))
    finally:
        module.start_pythia = start_pythia
    return counted[0].events


def bare_batches(settings: JetSettings, kind: str, batches: list[int], seed: int) -> None:
    """Pythia and FastJet, batch by batch."""
    awkward, fastjet, _ = libraries = load_libraries()
    pythia = start_pythia(libraries, settings.pythia_lines(kind, chunk_seed(seed, kind, 0)))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, settings.radius)
    for size in batches:
        momenta = visible_momenta(awkward, pythia.nextBatch(size))
        sequence = fastjet.ClusterSequence(momenta, definition)
        sequence.inclusive_jets(min_pt=settings.jet_pt[0])
        sequence.constituent_index(min_pt=settings.jet_pt[0])


def bare_events(settings: JetSettings, kind: str, events: int, seed: int) -> None:
    """Pythia and FastJet, event by event and particle by particle."""
    _, fastjet, _ = libraries = load_libraries()
    pythia = start_pythia(libraries, settings.pythia_lines(kind, chunk_seed(seed, kind, 0)))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, settings.radius)
    for _ in range(events):
        pythia.next()
        particles = [
            fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e()) for p in pythia.event if p.isFinal() and p.isVisible()
        ]
        sequence = fastjet.ClusterSequence(particles, definition)
        for jet in sequence.inclusive_jets(settings.jet_pt[0]):
            [(c.px(), c.py(), c.pz(), c.e()) for c in jet.constituents()]


def jets(kind: str, count: int, rounds: int, folder: Path) -> None:
    """The verb ``jets`` against both loops."""
    settings = JetSettings()
    batches = batches_of(settings, kind, count, 1)
    by_batch, by_event = [], []
    for k in range(rounds):
        out = str(folder / f"{kind}{k}.h5")
        ours = seconds(lambda out=out: verb("jets", out, "--kinds", kind, "--jets", str(count)))  # type: ignore[misc]
        by_batch.append(seconds(lambda: bare_batches(settings, kind, batches, 1)) / ours)
        if k < 2:
            by_event.append(seconds(lambda: bare_events(settings, kind, sum(batches), 1)) / ours)
    name = f"{kind} jets, rate of the verb / bare loop in batches"
    FIGURES.bar(name, FIGURES.report(name, by_batch), least=BAR_JETS)
    FIGURES.report(f"{kind} jets, rate of the verb / bare loop by particle", by_event)


def branch(generator: np.random.Generator) -> list[tuple[float, float, float]]:
    """One shower of the branching toy: x, y and energy where particles cross the layers."""
    hits: list[tuple[float, float, float]] = []
    particles = [(10.0, np.zeros(3), np.array([0.0, 0.0, 10.0]))]
    for _ in range(GENERATIONS):
        born = []
        for mass, position, velocity in particles:
            moved = position + 2 * velocity
            for layer in LAYERS:
                if (layer - position[2]) * (layer - moved[2]) < 0:
                    x, y, _ = position + (layer - position[2]) / (moved[2] - position[2]) * (moved - position)
                    hits.append((x, y, 0.5 * mass * float(np.linalg.norm(velocity))))
            # The axis of flight, and two across it
            along = velocity / np.linalg.norm(velocity)
            across = np.array([0.0, -along[2], along[1]])
            across /= np.linalg.norm(across)
            turn = np.array([np.cross(across, along), across, along])
            speed = (turn @ velocity)[2]
            first = generator.uniform(mass / 4, 3 * mass / 4)
            second = mass - first
            kick = generator.uniform(-0.05 * speed, 0.05 * speed, 2)
            ahead = generator.uniform(0.9 * speed, 1.1 * speed)
            rest = (mass * speed - first * ahead) / second
            for part, new in (
                (first, np.array([*kick, ahead])),
                (second, np.array([*(-first / second * kick), rest])),
            ):
                born.append((part, moved, turn.T @ new))
        particles = born
    return hits


def showers(geometry: str, count: int, rounds: int, folder: Path) -> None:
    """The verb ``showers`` against the branching toy, and against the figure quoted for the published one."""
    measured, quoted, own, alone = [], [], [], []
    energy = incident_energies(1, 1000, count, 1)
    generator = np.random.default_rng(0)
    for k in range(rounds):
        out = str(folder / f"{geometry}-{k}.hdf5")
        argv = ("showers", out, "--geometry", geometry, "--events", str(count))
        ours = seconds(lambda argv=argv: verb(*argv)) / count  # type: ignore[misc]
        toy = seconds(lambda: [branch(generator) for _ in range(20)]) / 20
        measured.append(toy / ours)
        quoted.append(QUOTED_MS / 1e3 / ours)
        own.append(1e3 * ours)
        blocks = [energy[start : start + 128] for start in range(0, count, 128)]
        cells = seconds(lambda blocks=blocks: [shower_cells(b, geometry, generator) for b in blocks])  # type: ignore[misc]
        alone.append(toy / (cells / count))
    name = f"showers of data set {geometry}, rate of the verb"
    FIGURES.report(f"{name}, ms a shower", own)
    FIGURES.report(f"{name} / branching toy ({2**GENERATIONS - 1} particles) here", measured)
    FIGURES.report(f"{name}'s generator, without the file / branching toy here", alone)
    name += f" / {QUOTED_MS} ms quoted from another machine"
    FIGURES.bar(name, FIGURES.report(name, quoted), least=BAR_SHOWERS)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("all", "jets", "showers"), default="all")
    parser.add_argument("--jets", type=int, default=300)
    parser.add_argument("--showers", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (("2", options.showers), ("3", options.showers // 4)) if options.part != "jets" else ()
        for geometry, count in sizes:
            showers(geometry, count, options.rounds, Path(folder))
        for kind in ("quark", "top") if options.part != "showers" else ():
            jets(kind, options.jets, options.rounds, Path(folder))
    FIGURES.finish(options.output)


if __name__ == "__main__":
    main()
