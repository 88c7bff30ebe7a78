from collections.abc import Iterator

import pytest
import torch

from sparsegen.kernels.native import extension

LEVELS = [] if extension() is None else extension().levels()


@pytest.fixture(params=LEVELS or [pytest.param("none", marks=pytest.mark.skip("no native extension"))])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn."""
    native = extension()
    before = native.selected()
    native.select(request.param)
    yield request.param
    native.select(before)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)
