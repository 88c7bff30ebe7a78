import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsegen.kernels.native import extension

ROOT = Path(__file__).parents[2]

RESULTS = """
import hashlib, torch
from sparsegen.kernels import assign, instruction_set, nearest_both
generator = torch.Generator().manual_seed(0)
a, b = (torch.randn(500, 3, generator=generator) for _ in range(2))
offsets = torch.tensor([0, 17, 17, 80, 500])
there, back = nearest_both(a, offsets, b, offsets, period=(2.0, float("inf"), float("inf")))
found = [*there, *back, assign(a, offsets, b, offsets)]
digest = hashlib.sha256(b"".join(x.numpy().tobytes() for x in found)).hexdigest()
print(instruction_set(), digest, float(torch.tensor(1e-40) * 1.0) > 0)
"""


def run(code, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SPARSEGEN_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def without_native():
    """Results of the torch and scipy engines."""
    return run(RESULTS, SPARSEGEN_NATIVE="0").stdout.split()


def test_switched_off_no_extension_is_used_and_nothing_is_said(without_native):
    assert without_native[0] == "none"


@pytest.mark.skipif(extension() is None, reason="no native extension")
@pytest.mark.parametrize("wanted", ["portable", "avx2", "avx512"])
def test_each_forced_instruction_set_gives_the_same_bits_and_keeps_denormals(wanted, without_native):
    if wanted not in extension().levels():
        pytest.skip(f"this machine has no {wanted}")
    chosen, digest, denormals = run(RESULTS, SPARSEGEN_SIMD=wanted).stdout.split()
    assert chosen == wanted
    assert digest == without_native[1]
    assert denormals == "True"


@pytest.mark.skipif(extension() is None, reason="no native extension")
def test_an_unknown_or_missing_instruction_set_is_refused_by_name():
    # One process, several tries: the cache is emptied between them.
    done = run(
        """
import os
from sparsegen.errors import BackendError, ConfigError
from sparsegen.kernels import _native, native
for variable, word in (("SPARSEGEN_SIMD", "avx51"), ("SPARSEGEN_NATIVE", "no")):
    os.environ[variable] = word
    native.extension.cache_clear()
    try:
        native.extension()
    except ConfigError as error:
        print(error)
    del os.environ[variable]
class Old:
    levels = staticmethod(lambda: ["portable"])
import sparsegen.kernels
sparsegen.kernels._native = Old
os.environ["SPARSEGEN_SIMD"] = "avx512"
native.extension.cache_clear()
try:
    native.extension()
except BackendError as error:
    print(error)
"""
    )
    unknown, switch, lacking = done.stdout.splitlines()
    assert "avx51" in unknown
    assert "did you mean" in unknown
    assert "SPARSEGEN_NATIVE=no" in switch
    assert "SPARSEGEN_SIMD=avx512" in lacking
    assert "portable" in lacking


def test_a_missing_extension_is_said_once():
    done = run(
        """
import sys, warnings
sys.modules["sparsegen.kernels._native"] = None
import torch
from sparsegen.kernels import nearest
x, offsets = torch.zeros(2, 2), torch.tensor([0, 2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    nearest(x, offsets, x, offsets)
    nearest(x, offsets, x, offsets)
print(len(caught), caught[0].message)
"""
    )
    assert done.stdout.startswith("1 sparsegen's native extension is not built"), done.stderr


@pytest.mark.skipif(extension() is None, reason="no native extension")
def test_kernels_work_in_a_forked_child():
    done = run(
        """
import os, torch
from sparsegen.kernels import nearest
torch.set_num_threads(2)
x, offsets = torch.randn(3000, 3), torch.tensor([0, 3000])
before = nearest(x, offsets, x, offsets, engine="native")
child = os.fork()
if child == 0:
    after = nearest(x, offsets, x, offsets, engine="native")
    os._exit(0 if torch.equal(before.indices, after.indices) else 1)
print(os.waitpid(child, 0)[1])
"""
    )
    assert done.stdout.strip() == "0", done.stderr


def test_no_kernel_is_built_with_fast_math():
    flags = (ROOT / "setup.py").read_text().split("COMMON = ")[1].split("class")[0]
    assert "-ffast-math" not in flags
    assert "-Ofast" not in flags
