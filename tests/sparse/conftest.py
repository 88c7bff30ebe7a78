"""Random sparse tensors, and every back end that is installed: of the others reports say "not run"."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from sparsegen.sparse import SparseTensor, backends, use_backend
from sparsegen.sparse.backends import BACKENDS, OPTIONAL


@pytest.fixture(params=sorted({*BACKENDS, *OPTIONAL}))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in BACKENDS:
        pytest.skip(f"not run: the {request.param} back end is not installed")
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def needs(backend: str) -> Callable[[str], None]:
    """Leaves a test that asks for what the back end declares that it lacks."""

    def check(capability: str) -> None:
        if not getattr(backends()[backend], capability):
            pytest.skip(f"not run: the {backend} back end lacks {capability}")

    return check


Cloud = Callable[..., SparseTensor]


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Cloud:
    # Tests of no back end in particular run on the one that is chosen automatically.
    needs = request.getfixturevalue("needs") if "backend" in request.fixturenames else None

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
        x = SparseTensor(features, coords, shape, batch, periodic=periodic)
        if any(x.periodic) and needs is not None:
            needs("periodic")
        return x

    return make
