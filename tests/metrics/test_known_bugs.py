"""Mistakes known from published metric and data code, one test each: none of them is made here."""

from __future__ import annotations

import socket
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from sparsegen import data, metrics
from sparsegen.metrics.fpnd import ParticleNet, fit_reference
from sparsegen.result import Result

pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


def test_1_normalisation_is_derived_from_the_data_and_not_left_at_its_defaults(jets, make):
    """A scaler that never derives its statistics leaves a mean of 5 at 5: here the reference sets scale and shift."""
    moved = lambda events, by: events.replace(coords=events.coords + by)
    fresh = make(600, seed=3)
    near = metrics.frechet(fresh, jets)
    far = metrics.frechet(moved(fresh, 5.0), moved(jets, 5.0))
    assert near.protocol["scaling"] == "standard deviation over the reference"
    assert far.value == pytest.approx(near.value, rel=0.05)
    # The same laws in other units have the same distance.
    scaled = lambda events: events.replace(coords=events.coords * 10)
    assert metrics.precision(scaled(fresh), scaled(jets)).value == pytest.approx(metrics.precision(fresh, jets).value)


def test_2_a_distance_is_one_result_and_never_a_tuple(jets, more_jets):
    for name in ("w1m", "w1p", "w1efp"):
        found = metrics.METRICS[name].function(more_jets, jets, protocol="mpgan2021")
        assert isinstance(found, Result)
        assert isinstance(found.value, float)
        with pytest.raises(FrozenInstanceError):
            found.value = 0.0


@pytest.mark.parametrize("name", ["w1m", "w1p", "w1efp"])
def test_3_draws_are_seeded_so_that_repeated_calls_agree(name, jets, more_jets):
    function = metrics.METRICS[name].function
    first = function(more_jets, jets, protocol="mpgan2021", seed=4)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    torch.manual_seed(1)
    assert function(more_jets, jets, protocol="mpgan2021", seed=4) == first
    assert function(more_jets, jets, protocol="mpgan2021", seed=5).value != first.value


def test_3_coverage_and_matching_distance_are_seeded_too(jets, more_jets, monkeypatch):
    module = sys.modules["sparsegen.metrics.jets"]
    monkeypatch.setattr(module, "JETS", 20)
    monkeypatch.setattr(module, "BATCHES", 3)
    some, other = more_jets[:60], jets[:60]
    found = []
    for seed in (2, 2, 3):
        module._recent._kept.clear()
        found.append(metrics.cov_mmd(some, other, seed=seed)[1])
    assert found[0] == found[1]
    assert found[0].value != found[2].value


def test_4_masks_may_be_tensors_or_arrays(jets):
    coords, features, mask = jets.to_padded()
    padded = torch.cat([coords, features], 2)
    both = [metrics.jets_from_arrays(padded, m) for m in (mask, mask.numpy(), mask.float(), mask.float().numpy())]
    values = [metrics.w1p(events, jets, protocol="whole").value for events in both]
    assert values == [0.0] * 4


def test_5_data_that_are_on_disk_are_opened_without_a_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert len(data.open("pythia-jets:test")[:5]) == 5


def test_6_no_file_is_read_twice_and_no_event_is_in_two_splits(tmp_path):
    """A file list with one name twice put 100,000 jets into several splits."""
    rng = np.random.default_rng(0)
    for i in range(3):
        x = np.zeros((20, 4, 4))
        x[:, :, 0] = rng.uniform(500, 550, (20, 4))
        np.savez(tmp_path / f"QG_jets_{i}.npz", X=x, y=np.zeros(20))
    held = torch.cat([data.open(f)[:].features[::4, 0] for f in sorted(tmp_path.glob("*.npz"))])
    assert len(held) == len(held.unique()) == 60
    parts = [data.open(f"pythia-jets:{split}").rows for split in ("train", "valid", "test")]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)


def test_7_images_and_metrics_leave_the_callers_arrays_alone(jets, more_jets):
    coords, features, mask = jets.to_padded()
    padded = torch.cat([coords, features], 2)
    before = padded.clone(), mask.clone()
    events = metrics.jets_from_arrays(padded, mask)
    held = events.coords.clone(), events.features.clone()
    for name in ("w1m", "w1p", "w1_occupied", "w1_cells", "sharpness", "jsd", "fpd", "kpd", "precision"):
        metrics.METRICS[name].function(events, more_jets)
    assert torch.equal(padded, before[0])
    assert torch.equal(mask, before[1])
    assert torch.equal(events.coords, held[0])
    assert torch.equal(events.features, held[1])


def test_8_equal_small_samples_are_at_zero_unless_a_bootstrap_is_asked_for_by_name(jets):
    few = jets[:40]
    assert metrics.w1_mass(few, few).value == 0
    assert metrics.w1m(few, few, protocol="whole").value == 0
    named = metrics.w1m(few, few)
    assert named.value > 0
    assert named.protocol["replacement"]
    assert named.protocol["available"] == [40, 40]


def test_9_statistics_for_any_other_data_can_be_made(jets):
    torch.manual_seed(0)
    found = fit_reference(jets[:50], ParticleNet())
    assert found.mean.shape == (256,)
    assert found.n == 50


def test_10_a_file_is_read_in_portions(monkeypatch):
    """Jets are streamed: no more than a portion is asked of an open file at once."""
    asked = []

    class Counted:
        def __init__(self, events):
            self.events = events

        def __len__(self):
            return len(self.events)

        def __getitem__(self, index):
            asked.append(len(range(*index.indices(len(self.events)))))
            return self.events[index]

    from sparsegen.metrics import inputs

    monkeypatch.setattr(inputs.portions, "__defaults__", (64,))
    events = data.open("pythia-jets:test")[:300]
    metrics.frechet(Counted(events), Counted(events), protocol=metrics.Protocol(resamples=2, pairs=1))
    assert max(asked) == 64
