import pytest
import torch

from sparsegen import metrics
from sparsegen.errors import DataError


def test_copies_give_zero_and_fresh_events_give_one(jets, more_jets, make):
    train, fresh = make(2000, seed=8), more_jets
    copied = metrics.memorisation(train[:300], jets, train=train)
    assert copied.value == 0
    assert copied.protocol["copies"] == 1
    honest = metrics.memorisation(fresh, jets, train=train)
    assert abs(honest.value - 1) < 4 * honest.error
    assert abs(honest.floor - 1) < 0.1


def test_copies_with_shuffled_hits_are_still_copies(jets, make):
    train = make(500, seed=8)
    order = torch.randperm(len(train.coords), generator=torch.Generator().manual_seed(0))
    order = order[train.batch[order].argsort(stable=True)]
    shuffled = train.replace(coords=train.coords[order], features=train.features[order])
    assert metrics.memorisation(shuffled, jets, train=train).value < 1e-4


def test_jittered_copies_lie_between(jets, make):
    train = make(2000, seed=8)
    noise = torch.randn(train.coords.shape, generator=torch.Generator().manual_seed(0))
    values = [
        metrics.memorisation(train.replace(coords=train.coords + s * noise), jets, train=train).value
        for s in (0.002, 0.02)
    ]
    assert 0 < values[0] < values[1] < 0.9


def test_reference_inside_the_training_set_is_refused(jets, more_jets):
    with pytest.raises(DataError, match="held-out"):
        metrics.memorisation(more_jets, jets[:100], train=jets)
