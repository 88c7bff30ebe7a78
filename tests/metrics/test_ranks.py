"""Accumulators reduce over processes in float64: each rank sees its part, all end with the whole."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from rank_worker import MASS, reduce_on_rank

from sparsegen.metrics.comparison import compare_w1
from sparsegen.metrics.observations import Observations


@pytest.mark.ddp
def test_two_processes_equal_one(jets, tmp_path):
    jets = jets[:200]
    rows = np.random.default_rng(0).normal(1e6, 1.0, size=(101, 3))
    mp.spawn(reduce_on_rank, args=(2, str(tmp_path), jets, rows), nprocs=2)
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    for name in ("values", "counts", "covariance"):
        assert np.array_equal(first[name], second[name])
        assert first[name].dtype in (np.float64, np.int64)
    # The reduced accumulator is another one: a rank's own is as it was.
    assert (int(first["n"]), int(second["n"])) == (51, 50)
    assert np.allclose(first["covariance"], np.cov(rows.T), rtol=1e-9)
    order = torch.cat([torch.arange(0, 200, 2), torch.arange(1, 200, 2)])
    alone = Observations(MASS).update(jets[order])
    assert np.array_equal(first["values"], alone.values)


def test_without_processes_a_reduction_is_a_copy(jets, more_jets):
    held = Observations(MASS).update(jets)
    whole = held.reduce()
    assert whole is not held
    other = Observations(MASS).update(more_jets)
    assert compare_w1("m", other, whole) == compare_w1("m", other.reduce(), held)
