"""The native back end: right on every instruction set, the same for any number of threads, and not needed."""

import os
import subprocess
import sys

import pytest
import torch

from sparsegen.kernels.native import extension
from sparsegen.sparse import GenerativeConvTranspose, SparseConv, SparseTensor, SubmanifoldConv, bitmap, use_backend
from sparsegen.sparse.backends import BACKENDS, choose
from sparsegen.sparse.maps import submanifold

needs_native = pytest.mark.skipif("native" not in BACKENDS, reason="the native extension is not built")

WITHOUT = """
import torch
from sparsegen.sparse import SparseTensor, SubmanifoldConv, backends
x = SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (4,), 1)
print(",".join(backends()), len(SubmanifoldConv(1, 1, 1, 3)(x)))
"""


@needs_native
@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_every_instruction_set_agrees_with_torch(level):
    native = extension()
    if level not in native.levels():
        pytest.skip(f"this machine has no {level}")
    before = native.selected()
    native.select(level)
    torch.manual_seed(0)
    coords = (torch.rand(3, 7, 9) < 0.4).nonzero()
    try:
        for cin, cout in ((1, 3), (5, 8), (17, 33), (16, 64), (30, 70), (33, 1), (64, 8)):
            for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
                features = torch.randn(len(coords), cin, dtype=dtype, requires_grad=True)
                for kind in (SubmanifoldConv, SparseConv, GenerativeConvTranspose):
                    layer = kind(2, cin, cout, 3).to(dtype)
                    found = []
                    for name in ("torch", "native"):
                        with use_backend(name):
                            y = layer(SparseTensor(features, coords, (7, 9), 3)).features
                            found.append([y, *torch.autograd.grad(y.square().sum(), [features, layer.weight])])
                    for a, b in zip(*found, strict=True):
                        assert float((a - b).detach().norm()) < tolerance * float(a.detach().norm())
    finally:
        native.select(before)


def test_without_the_extension_torch_serves():
    environment = os.environ | {"SPARSEGEN_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["torch", "2"], done.stderr


@needs_native
def test_automatic_choice_is_native():
    assert choose(torch.zeros(1, 1), 2, True).name == "native"
    assert choose(torch.zeros(1, 1, dtype=torch.float64), 4, False).name == "native"


@needs_native
def test_results_do_not_depend_on_the_number_of_threads(cloud):
    x = cloud((80, 80), 32, batch=3, occupancy=0.6, dtype=torch.float32)
    layer = SubmanifoldConv(2, 32, 48, 3)
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        features = x.features.clone().requires_grad_()
        with use_backend("native"):
            y = layer(x.replace(features)).features
            found.append([y, *torch.autograd.grad(y.square().sum(), [features, layer.weight])])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_native
@pytest.mark.parametrize("periodic", [(), (0, 1)], ids=["open", "periodic"])
def test_maps_hold_the_same_pairs_in_the_same_order_as_torchs(cloud, periodic):
    x = cloud((12, 10), periodic=periodic)
    found = []
    for name in ("torch", "native"):
        with use_backend(name):
            fresh = SparseTensor(x.features, x.coords, (12, 10), 2, periodic=periodic)
            found.append(bitmap.ordered(submanifold(fresh.sites, (3, 5), (1, 2))))
    assert found[0].counts == found[1].counts
    assert torch.equal(found[0].outputs, found[1].outputs)
    assert torch.equal(found[0].inputs, found[1].inputs)


@needs_native
def test_long_rows_cross_words_of_the_bitmap(backend):
    torch.manual_seed(0)
    coords = (torch.rand(2, 3, 200) < 0.5).nonzero()
    x = SparseTensor(torch.randn(len(coords), 2).double(), coords, (3, 200), 2)
    for kernel, dilation in ((63, 1), (64, 1), (65, 1), (9, 7)):
        layer = SubmanifoldConv(2, 2, 2, (1, kernel), dilation).double()
        padding = (0, kernel // 2 * dilation)
        expected = torch.nn.functional.conv2d(
            x.to_dense(), layer.dense_weight(), layer.bias, padding=padding, dilation=dilation
        )
        y = layer(x)
        assert torch.allclose(y.features, expected.movedim(1, -1)[tuple(y.coords.unbind(1))], atol=1e-10)


def test_tensors_without_sites_or_channels_of_any_number(backend):
    for layer in (SubmanifoldConv(1, 1, 1, 3), SparseConv(1, 1, 1, 2, 2), GenerativeConvTranspose(1, 1, 1, 2, 2)):
        for n in (0, 1):
            x = SparseTensor(torch.ones(n, 1), torch.zeros(n, 2, dtype=torch.int64), (4,), 1)
            assert bool(layer(x).features.isfinite().all())
