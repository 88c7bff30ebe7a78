"""Random sparse tensors, and every back end that is built."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from sparsegen.sparse import SparseTensor, use_backend
from sparsegen.sparse.backends import BACKENDS


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


Cloud = Callable[..., SparseTensor]


@pytest.fixture
def cloud() -> Cloud:
    def make(
        shape: Sequence[int],
        channels: int = 2,
        batch: int = 2,
        occupancy: float = 0.3,
        periodic: Sequence[bool | int] = (),
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> SparseTensor:
        """A random share of the sites of each event, the last event empty unless all sites are asked for."""
        generator = torch.Generator().manual_seed(seed)
        active = torch.rand(batch, *shape, generator=generator) < occupancy
        if occupancy < 1 and batch > 1:
            active[-1] = False
        coords = active.nonzero()
        coords = coords[torch.randperm(len(coords), generator=generator)]
        features = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64).to(dtype)
        return SparseTensor(features, coords, shape, batch, periodic=periodic)

    return make
