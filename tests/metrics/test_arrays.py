import numpy as np
import pytest
import torch

from sparsegen import metrics
from sparsegen.errors import DataError
from sparsegen.metrics.arrays import clouds_from_arrays, jets_from_arrays


@pytest.fixture
def padded(jets):
    coords, features, mask = jets.to_padded()
    return torch.cat([coords, features], 2), mask


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("form", [lambda m: m, lambda m: m.float(), lambda m: m[..., None], lambda m: m.float() - 0.5])
def test_masks_of_any_kind_give_the_same_jets(kind, form, padded, jets):
    array, mask = padded
    again = jets_from_arrays(kind(array), kind(form(mask)))
    assert torch.equal(again.coords, jets.coords)
    assert torch.equal(again.offsets, jets.offsets)
    assert metrics.w1_mass(again, jets).value == 0


def test_zero_padding_and_a_fourth_feature_are_masks_too_and_nothing_is_changed(padded, jets):
    array, mask = padded
    before = array.clone()
    assert torch.equal(jets_from_arrays(array).coords, jets.coords)
    with_mask = torch.cat([array, mask[..., None].float()], 2)
    found = jets_from_arrays(with_mask)
    assert torch.equal(found.features, jets.features)
    found.features[:] = 0
    assert torch.equal(array, before)


def test_shapes_that_do_not_fit_are_named(padded):
    array, mask = padded
    with pytest.raises(DataError, match="mask of shape"):
        jets_from_arrays(array, mask[:, :3])
    with pytest.raises(DataError, match="one of them"):
        jets_from_arrays(torch.cat([array, array[..., :1]], 2), mask)
    with pytest.raises(DataError, match=r"expected floats \(B, N, 3\)"):
        jets_from_arrays(array[0])
    with pytest.raises(DataError, match=r"expected floats \(B, N, D\)"):
        clouds_from_arrays(array[0])


def test_clouds_keep_every_point():
    x = np.random.default_rng(0).normal(size=(5, 7, 4))
    events = clouds_from_arrays(x)
    assert events.counts.tolist() == [7] * 5
    assert np.array_equal(events.coords.reshape(5, 7, 4).numpy(), x)
