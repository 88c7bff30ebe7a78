import os
import re
import statistics
import subprocess
import sys

import pytest

import sparsegen


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split()


def test_import_loads_no_heavy_dependency():
    heavy = ("torch_geometric", "lightning_fabric", "h5py", "matplotlib")
    loaded = run(f"import sys, sparsegen; sparsegen.Events; print(*(set({heavy}) & set(sys.modules)))")
    assert loaded == []


def test_import_costs_little_over_torch():
    code = (
        "import time, torch; start = time.process_time(); import sparsegen; sparsegen.Events, sparsegen.Grid; "
        "print(time.process_time() - start)"
    )
    assert statistics.median(float(run(code)[0]) for _ in range(3)) <= 0.3


def test_public_names_are_there_and_listed():
    for name in ("Events", "Grid", "Column", "Result"):
        assert name in dir(sparsegen)
        assert getattr(sparsegen, name).__name__ == name
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", sparsegen.__version__)
    with pytest.raises(AttributeError, match="Evnts"):
        sparsegen.Evnts  # noqa: B018


def test_types_ship_with_the_package():
    assert os.path.exists(os.path.join(os.path.dirname(sparsegen.__file__), "py.typed"))
