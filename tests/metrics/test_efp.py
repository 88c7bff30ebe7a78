import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.metrics.efp import EFPS_D4, EFPS_N4_D4_PRIME, efps


def slow(coords, z, graph, beta=1.0):
    """The definition: a sum over all assignments of hits to vertices."""
    vertices = max((v for edge in graph for v in edge), default=0) + 1
    theta = np.linalg.norm(coords[:, None] - coords[None], axis=2) ** beta
    total = 0.0
    for hits in itertools.product(range(len(z)), repeat=vertices):
        term = np.prod(z[list(hits)])
        for a, b in graph:
            term *= theta[hits[a], hits[b]]
        total += term
    return total


def jet(hits, seed):
    rng = np.random.default_rng(seed)
    coords = torch.tensor(rng.normal(0, 0.3, size=(hits, 2)))
    pt = torch.tensor(rng.exponential(size=(hits, 1)))
    return Events(coords, pt, torch.tensor([0, hits]), axes=("eta", "phi"), columns=("pt",))


vertex_pairs = st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda e: e[0] != e[1])


@settings(deadline=None, max_examples=60)
@given(st.lists(vertex_pairs, max_size=10).map(tuple), st.integers(0, 1000))
def test_any_multigraph_equals_the_sum_over_assignments(graph, seed):
    names = {v: i for i, v in enumerate(sorted({v for e in graph for v in e}))}
    graph = tuple((names[a], names[b]) for a, b in graph)
    one = jet(3, seed)
    expected = slow(one.coords.numpy(), one.features[:, 0].numpy(), graph)
    assert float(efps(one, [graph])) == pytest.approx(expected, rel=1e-10, abs=1e-13)


def test_complete_graphs_of_four_and_five_vertices():
    one = jet(5, 3)
    for n in (4, 5):
        graph = tuple(itertools.combinations(range(n), 2))
        expected = slow(one.coords.numpy(), one.features[:, 0].numpy(), graph)
        assert float(efps(one, [graph])) == pytest.approx(expected, rel=1e-10)


def test_the_36_graphs_in_the_published_numbers():
    def connected(graph):
        reached = {0}
        for _ in graph:
            reached |= {v for edge in graph if reached & set(edge) for v in edge}
        return len(reached) == len({v for edge in graph for v in edge})

    assert len(EFPS_D4) == len(set(EFPS_D4)) == 36
    assert max(map(len, EFPS_D4)) == 4
    # Connected multigraphs without loops of 0 to 4 edges: 1, 1, 2, 5, 12.
    prime = [g for g in EFPS_D4 if not g or connected(g)]
    assert [sum(len(g) == d for g in prime) for d in range(5)] == [1, 1, 2, 5, 12]
    four = [g for g in prime if len(g) == 4 and len({v for e in g for v in e}) == 4]
    assert tuple(four) == EFPS_N4_D4_PRIME


def test_ragged_batches_equal_single_jets_and_padding_adds_nothing(jets):
    some = jets[:40]
    together = efps(some)
    alone = torch.cat([efps(some[i]) for i in range(len(some))])
    assert torch.allclose(together, alone, rtol=1e-12, atol=0)


def test_permutation_rotation_and_scale():
    one = jet(12, 1)
    value = efps(one)
    flip = torch.arange(11, -1, -1)
    assert torch.allclose(efps(one.replace(coords=one.coords[flip], features=one.features[flip])), value, rtol=1e-12)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert torch.allclose(efps(one.replace(coords=one.coords @ turn)), value, rtol=1e-12)
    doubled = efps(one.replace(coords=2 * one.coords, features=one.features))
    degrees = torch.tensor([float(len(g)) for g in EFPS_D4], dtype=torch.float64)
    assert torch.allclose(doubled, value * 2**degrees, rtol=1e-12)
    assert torch.allclose(efps(one, beta=2), efps(one.replace(coords=one.coords), beta=2.0))
    assert float(efps(one, [()], normed=True)) == pytest.approx(1.0)


def test_the_azimuth_wraps():
    coords = torch.tensor([[0.0, 3.1], [0.0, -3.1]], dtype=torch.float64)
    pair = Events(coords, torch.ones(2, 1), torch.tensor([0, 2]), axes=("eta", "phi"), columns=("pt",))
    assert float(efps(pair, [((0, 1),)])) == pytest.approx(2 * (2 * np.pi - 6.2), rel=1e-6)


def test_an_event_without_hits_has_zeros_and_a_loop_is_refused(jets):
    empty = jets[:0]
    none = Events(
        jets.coords[:0], jets.features[:0], torch.zeros(3, dtype=torch.int64), axes=jets.axes, columns=jets.columns
    )
    assert efps(empty).shape == (0, 36)
    assert torch.equal(efps(none), torch.zeros(2, 36, dtype=torch.float64))
    with pytest.raises(ConfigError, match="itself"):
        efps(jets, [((1, 1),)])
