"""What each rank does in tests of reductions: a module that spawned processes can import."""

import numpy as np
import torch.distributed as dist

from sparsegen import metrics
from sparsegen.metrics.features import Moments
from sparsegen.metrics.observations import Observable, Observations, Reading

MASS = Observable(("mass",), lambda events: Reading(metrics.jet_mass(events).numpy()[:, None]))


def reduce_on_rank(rank, world, folder, jets, rows):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    held = Observations(MASS).update(jets[rank::world]).reduce()
    moments = Moments().update(rows[rank::world]).reduce()
    own = Moments().update(rows[rank::world])
    np.savez(
        f"{folder}/{rank}.npz",
        values=held.values,
        counts=held.counts,
        covariance=moments.covariance,
        n=own.n,
    )
    dist.destroy_process_group()
