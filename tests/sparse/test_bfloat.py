"""Products of bfloat16 with sums in float32: exact but for the inputs' rounding, with all derivatives."""

import pytest
import torch

from sparsegen.errors import BackendError
from sparsegen.sparse import GenerativeConvTranspose, SparseConv, SubmanifoldConv, backends, native, use_backend
from sparsegen.sparse.backends import BACKENDS
from sparsegen.sparse.maps import submanifold

UNITS = ("plain", "AVX512-BF16", "AMX")
needs_native = pytest.mark.skipif("native" not in BACKENDS, reason="the native extension is not built")
needs_unit = pytest.mark.skipif(
    not any(torch.bfloat16 in able.dtypes for able in backends().values()),
    reason="this machine has no instructions for bfloat16",
)


@needs_native
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("unit", range(3), ids=UNITS)
def test_every_unit_sums_the_products_of_rounded_values(cloud, monkeypatch, level, unit):
    extension, before = native.extension(), native.extension().selected()
    if level not in extension.levels():
        pytest.skip(f"this machine has no {level}")
    extension.select(level)
    try:
        if unit > extension.bfloat_unit():
            pytest.skip(f"{level} multiplies bfloat16 with {UNITS[extension.bfloat_unit()]}")
        monkeypatch.setattr(native, "_BFLOAT_UNIT", unit)
        torch.manual_seed(0)
        for cin, cout in ((1, 3), (5, 8), (33, 17), (64, 64), (30, 70), (96, 40)):
            x = cloud((9, 11), cin, 3, occupancy=0.5, dtype=torch.bfloat16)
            kernel_map = submanifold(x.sites, (3, 3), (1, 1))
            weight, bias = torch.randn(9, cin, cout).bfloat16(), torch.randn(cout).bfloat16()
            y = BACKENDS["native"].convolve(x.features, weight, kernel_map, bias)
            whole = (t.double() for t in (x.features, weight))
            expected = BACKENDS["torch"].convolve(*whole, kernel_map, bias.double())
            assert y.dtype == torch.float32
            assert float((y - expected).norm()) < 1e-6 * float(expected.norm())
    finally:
        extension.select(before)


@needs_unit
@pytest.mark.parametrize("kind", [SubmanifoldConv, SparseConv, GenerativeConvTranspose])
def test_layers_and_both_derivatives_are_those_of_the_rounded_layer(cloud, kind):
    torch.manual_seed(0)
    half = kind(2, 4, 6, 3, groups=2).bfloat16()
    whole = kind(2, 4, 6, 3, groups=2)
    whole.load_state_dict(half.state_dict())
    found = []
    for layer in (half, whole):
        x = cloud((8, 8), 4, dtype=torch.bfloat16)
        features = x.features.to(layer.weight.dtype).requires_grad_()
        y = layer(x.replace(features)).features
        (slope,) = torch.autograd.grad(y.tanh().sum(), features, create_graph=True)
        found.append([y, slope, *torch.autograd.grad(slope.float().square().sum(), [features, layer.weight])])
    # The derivatives that are handed out in bfloat16 are rounded to it.
    for a, b, tolerance in zip(*found, (1e-6, 5e-3, 2e-2, 2e-2), strict=True):
        assert float((a - b).detach().norm()) < tolerance * float(b.detach().norm())


@needs_unit
def test_the_error_of_bfloat16_is_that_of_its_eight_bits(cloud):
    torch.manual_seed(0)
    layer = SubmanifoldConv(3, 32, 32, 3)
    x = cloud((8, 8, 8), 32, dtype=torch.float32)
    expected = layer(x).features
    with use_backend("native"):
        y = layer.bfloat16()(x).features
        assert torch.equal(y, layer(x).features)
    error = float((y - expected).detach().norm() / expected.detach().norm())
    assert 2**-11 < error < 2**-8


def test_a_back_end_without_bfloat16_says_who_has_it(cloud):
    layer = SubmanifoldConv(2, 2, 2, 3).bfloat16()
    with use_backend("torch"), pytest.raises(BackendError, match=r"torch back end has no torch.bfloat16; .* can"):
        layer(cloud((4, 4)))
