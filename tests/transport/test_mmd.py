import pytest
import torch

from sparsegen.errors import ConfigError, DataError
from sparsegen.transport import energy_distance, mmd


def normal(seed, *shape, shift=0.0):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("kernel", ["imq", "rbf", "polynomial"])
def test_the_biased_form_is_zero_for_one_sample_and_positive_for_two(kernel):
    x, y = normal(0, 40, 3), normal(1, 30, 3, shift=0.5)
    assert mmd(x, x, kernel, unbiased=False).abs() < 1e-12
    assert mmd(x, y, kernel, unbiased=False) > 0.01


def test_the_unbiased_form_vanishes_on_average_for_equal_laws():
    x, y = normal(0, 400, 50, 8), normal(1, 400, 50, 8)
    for value in (mmd(x, y), energy_distance(x, y, unbiased=True)):
        assert value.mean().abs() < 4 * value.std() / 20
    # where the biased form does not
    biased = mmd(x, y, unbiased=False)
    assert biased.mean() > 4 * biased.std() / 20


def test_a_polynomial_of_degree_one_compares_means_only():
    x, y = normal(0, 50, 4), normal(1, 60, 4, shift=1.0)
    expected = (x.mean(0) - y.mean(0)).square().sum() / 4
    torch.testing.assert_close(mmd(x, y, "polynomial", degree=1, unbiased=False), expected)


def test_the_energy_distance_in_one_dimension_is_twice_cramers():
    x, y = normal(0, 30, 1), normal(1, 20, 1, shift=0.3)
    place = torch.cat([x, y]).flatten().sort()[0]
    gap = (x.T <= place[:, None]).double().mean(1) - (y.T <= place[:, None]).double().mean(1)
    torch.testing.assert_close(energy_distance(x, y), 2 * (gap[:-1].square() * place.diff()).sum())


@pytest.mark.parametrize("distance", [mmd, energy_distance])
def test_a_batch_is_its_members_and_far_origins_do_not_matter(distance):
    x, y = normal(0, 3, 10, 2), normal(1, 3, 8, 2)
    torch.testing.assert_close(distance(x, y)[1], distance(x[1], y[1]))
    torch.testing.assert_close(distance(x + 1e6, y + 1e6), distance(x, y), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("distance", [mmd, lambda x, y: mmd(x, y, "rbf"), energy_distance])
def test_gradients(distance):
    assert torch.autograd.gradcheck(distance, (normal(0, 5, 2).requires_grad_(), normal(1, 4, 2).requires_grad_()))


def test_bad_input_names_its_fault():
    x = normal(0, 5, 2)
    with pytest.raises(DataError, match="at least 2"):
        mmd(x, x[:1])
    with pytest.raises(DataError, match="shapes"):
        energy_distance(x, x[:, :1])
    with pytest.raises(ConfigError, match="did you mean rbf"):
        mmd(x, x, "rbff")


def test_the_statistic_between_samples_of_equal_and_of_other_laws():
    x, y = normal(0, 200, 100, 8), normal(1, 200, 100, 8)
    # values of the sum over the scales, for samples of 100 in 8 dimensions
    null, narrow, moved = (7 * mmd(x, z) for z in (y, 0.5 * y, y + 0.5))
    assert null.mean().abs() < 4 * null.std() / 200**0.5
    assert null.std() < 0.02
    assert narrow.mean() == pytest.approx(0.42, abs=0.03)
    assert moved.mean() == pytest.approx(0.27, abs=0.05)
