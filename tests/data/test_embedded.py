"""The embedded jets: what the package promises of them."""

from __future__ import annotations

import itertools

import torch

import sparsegen.data as data


def test_splits_are_disjoint_stratified_and_complete() -> None:
    splits = {name: data.open(f"pythia-jets:{name}") for name in ("train", "valid", "test")}
    assert {name: len(source) for name, source in splits.items()} == {"train": 8400, "valid": 1800, "test": 1800}
    ids = torch.cat([source[:].ids for source in splits.values()])
    assert len(ids.unique()) == 12_000
    for source in splits.values():
        assert source.labels is not None
        assert len(source.labels.bincount().unique()) == 1
    assert len(data.open("pythia-jets")) == 8400


def test_no_jet_appears_in_two_splits() -> None:
    seen: set[bytes] = set()
    total = 0
    for name in ("train", "valid", "test"):
        source = data.open(f"pythia-jets:{name}")[:]
        offsets = source.offsets.tolist()
        for a, b in itertools.pairwise(offsets):
            seen.add(source.features[a:b].numpy().tobytes())
            total += 1
    assert len(seen) == total


def test_multiplicity_and_mass_are_those_of_the_partons() -> None:
    expected = {"gluon": (66, 150), "quark": (41, 100), "top": (63, 185)}
    for kind, (multiplicity, mass) in expected.items():
        jets = data.open("pythia-jets", classes=[kind], condition=["jet_mass", "type", "jet_pt"])[:]
        assert abs(float(jets.counts.double().mean()) - multiplicity) < 2
        assert jets.condition is not None
        assert abs(float(jets.condition[:, 0].median()) - mass) < 5
        assert jets.condition[:, 1].unique().tolist() == [("gluon", "quark", "top").index(kind)]
        assert float(jets.condition[:, 2].min()) > 800
        assert float(jets.condition[:, 2].max()) < 1600


def test_constituents_fall_in_pt_and_obey_the_cuts() -> None:
    jets = data.open("pythia-jets", condition=["jet_pt"])[:]
    assert int(jets.counts.max()) == 100
    assert int(jets.counts.min()) > 1
    ptrel = jets.column("ptrel")
    inside = jets.batch[1:] == jets.batch[:-1]
    assert bool((ptrel[1:] <= ptrel[:-1])[inside].all())
    assert jets.condition is not None
    assert float((ptrel * jets.condition[jets.batch, 0]).min()) > 0.999
    # What is lost to neutrinos, soft particles and the hundred hardest is little
    assert float(jets.total("ptrel").mean()) > 0.99


def test_massless_constituents_carry_the_mass_of_the_jet_but_for_what_was_cut() -> None:
    jets = data.open("pythia-jets", condition=["jet_mass", "jet_pt", "jet_eta"])[:]
    assert jets.condition is not None
    mass, pt, eta = jets.condition.double().unbind(1)
    p = jets.column("ptrel").double() * pt[jets.batch]
    e = jets.coords[:, 0].double() + eta[jets.batch]
    phi = jets.coords[:, 1].double()
    vectors = torch.stack([p * e.cosh(), p * phi.cos(), p * phi.sin(), p * e.sinh()], 1)
    energy, px, py, pz = jets.sum_hits(vectors).unbind(1)
    computed = (energy**2 - px**2 - py**2 - pz**2).clamp(min=0).sqrt()
    assert bool((computed < 1.001 * mass).all())
    assert 0.85 < float((computed / mass).median()) < 1
    assert float(torch.corrcoef(torch.stack([computed, mass]))[0, 1]) > 0.95


def test_provenance_says_how_to_make_them_again() -> None:
    provenance = data.RaggedReader(data.EMBEDDED["pythia-jets"]).provenance
    assert provenance["seed"] == 1
    assert "HardQCD:gg2gg=on" in provenance["pythia"]["gluon"]["settings"]
    assert "not JetNet" in provenance["description"]
    assert data.EMBEDDED["pythia-jets"].stat().st_size < 9e6
