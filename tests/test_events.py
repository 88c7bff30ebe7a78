"""Events: conversions conserve energy, round trips are exact, what is wrong is said."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

COLUMNS = (Column("energy", "GeV"), Column("time", "ns", additive=False))


def make(
    counts: list[int], seed: int = 0, low: float = -1.0, high: float = 1.0, dtype: torch.dtype = torch.float64
) -> Events:
    g = torch.Generator().manual_seed(seed)
    n = sum(counts)
    coords = low + (high - low) * torch.rand(n, 2, generator=g, dtype=dtype)
    features = torch.rand(n, 2, generator=g, dtype=dtype) + 0.01
    offsets = torch.tensor([0, *np.cumsum(counts).tolist()])
    return Events(coords, features, offsets, axes=("eta", "phi"), columns=COLUMNS)


def grid(shape: tuple[int, int] = (5, 7), periodic: tuple[str, ...] = ()) -> Grid:
    return Grid.regular(shape, (-1.0, -1.0), (1.0, 1.0), ("eta", "phi"), ("", "rad"), periodic)


counts_strategy = st.lists(st.integers(0, 12), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(counts_strategy, st.integers(0, 1000), st.sampled_from([torch.float32, torch.float64]))
def test_every_conversion_conserves_energy(counts: list[int], seed: int, dtype: torch.dtype) -> None:
    events = make(counts, seed, dtype=dtype)
    lattice = grid()
    total = events.total("energy")
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-14}
    cells, dropped = events.voxelize(lattice)
    assert int(dropped.sum()) == 0
    torch.testing.assert_close(cells.total("energy"), total, **tolerance)
    dense = cells.to_dense()
    torch.testing.assert_close(dense[:, 0].sum((1, 2)), total, **tolerance)
    again = Events.from_dense(dense, lattice, COLUMNS)
    assert torch.equal(again.coords, cells.coords) and torch.equal(again.features, cells.features)
    assert torch.equal(again.offsets, cells.offsets)
    for placement in ("centre", "uniform"):
        points = cells.devoxelize(placement, torch.Generator().manual_seed(seed))
        back, _ = points.voxelize(lattice)
        assert torch.equal(back.coords, cells.coords) and torch.equal(back.features, cells.features)
    padded = Events.from_padded(*events.to_padded(15), axes=events.axes, columns=events.columns)
    assert torch.equal(padded.coords, events.coords) and torch.equal(padded.offsets, events.offsets)


@settings(max_examples=40, deadline=None)
@given(counts_strategy, st.integers(0, 1000))
def test_selection_equals_a_loop_over_events(counts: list[int], seed: int) -> None:
    events = make(counts, seed)
    index = torch.randint(len(counts), (4,), generator=torch.Generator().manual_seed(seed))
    chosen = events[index]
    joined = Events.cat([events[int(i)] for i in index])
    for name in ("coords", "features", "offsets", "ids"):
        assert torch.equal(getattr(chosen, name), getattr(joined, name))
    assert torch.equal(events[1:].coords, events.coords[int(events.offsets[1]) :])
    assert torch.equal(events[::2].ids, events.ids[::2])


def test_voxelize_equals_histogramdd() -> None:
    events = make([200, 0, 300], seed=3)
    dense = events.voxelize(grid())[0].to_dense()
    for i in (0, 1, 2):
        rows = slice(int(events.offsets[i]), int(events.offsets[i + 1]))
        expected, _ = np.histogramdd(
            events.coords[rows].numpy(),
            bins=[e.numpy() for e in grid().edges],
            weights=events.features[rows, 0].numpy(),
        )
        np.testing.assert_allclose(dense[i, 0].numpy(), expected, rtol=1e-12)


def test_averages_of_a_column_that_is_not_additive() -> None:
    coords = torch.tensor([[0.1, 0.1], [0.11, 0.1], [-0.9, 0.9]])
    features = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 7.0]])
    events = Events(coords, features, torch.tensor([0, 3]), axes=("eta", "phi"), columns=COLUMNS)
    assert events.voxelize(grid())[0].features.tolist() == [[5.0, 7.0], [4.0, 4.0]]
    assert events.voxelize(grid(), reduce="mean")[0].features.tolist() == [[5.0, 7.0], [2.0, 4.0]]
    counted, _ = events.voxelize(grid(), reduce="count")
    assert counted.features.tolist() == [[1.0], [2.0]] and counted.columns == (Column("count"),)


def test_hits_outside_are_refused_dropped_or_clipped() -> None:
    events = make([5, 5], seed=1).replace(coords=make([5, 5], seed=1).coords * 1.7)
    inside = (events.coords.abs() <= 1).all(1)
    assert not bool(inside.all())
    with pytest.raises(
        DataError, match=r"(eta|phi)=.* of hit \d+ \(event \d\) lies outside the grid's \[-1, 1\]; pass outside="
    ):
        events.voxelize(grid())
    kept, dropped = events.voxelize(grid(), outside="drop")
    expected = torch.zeros(2, dtype=torch.int64).index_add(0, events.batch, (~inside).long())
    assert torch.equal(dropped, expected) and int(dropped.sum()) > 0
    torch.testing.assert_close(kept.features[:, 0].sum(), events.features[inside, 0].sum())
    clipped, none = events.voxelize(grid(), outside="clip")
    torch.testing.assert_close(clipped.total("energy"), events.total("energy"))
    assert int(none.sum()) == 0
    with pytest.raises(ConfigError, match="did you mean drop"):
        events.voxelize(grid(), outside="dorp")


def test_nan_positions_are_never_inside() -> None:
    events = make([3]).replace(coords=torch.full((3, 2), float("nan"), dtype=torch.float64))
    for policy in ("drop", "clip"):
        assert events.voxelize(grid(), outside=policy)[1].tolist() == [3]


@given(st.floats(-20, 20, allow_nan=False), st.integers(-3, 3))
def test_a_periodic_axis_wraps(x: float, turns: int) -> None:
    wrapped = grid(periodic=("phi",))
    base = torch.tensor([[0.0, x]], dtype=torch.float64)
    cells, inside = wrapped.cell_of(base)
    assert bool(inside.all())
    low, high = wrapped.bounds(cells)
    offset = (x - float(low[0, 1])) % 2.0
    width = float(high[0, 1] - low[0, 1])
    assert offset <= width + 1e-9 or offset >= 2.0 - 1e-9


def test_invalid_cells_never_become_sites() -> None:
    valid = np.ones((5, 7), bool)
    valid[2, 3] = False
    lattice = Grid([e.numpy() for e in grid().edges], valid=valid, names=("eta", "phi"))
    centre = lattice.centres(torch.tensor([[2, 3], [0, 0]]))
    events = Events(
        centre, torch.ones(2, 1, dtype=torch.float64), torch.tensor([0, 2]), axes=("eta", "phi"), columns=("energy",)
    )
    with pytest.raises(DataError, match="falls into no valid cell"):
        events.voxelize(lattice)
    cells, dropped = events.voxelize(lattice, outside="drop")
    assert cells.coords.tolist() == [[0, 0]] and dropped.tolist() == [1]
    with pytest.raises(DataError, match=r"event 0 is active in \(2, 3\), not a valid cell"):
        Events.from_dense(torch.ones(1, 1, 5, 7), lattice, ("energy",))
    with pytest.raises(DataError, match=r"cell \(2, 3\) of hit 0 is not a valid cell"):
        Events(
            torch.tensor([[2, 3]]),
            torch.ones(1, 1),
            torch.tensor([0, 1]),
            axes=("eta", "phi"),
            columns=("e",),
            grid=lattice,
        )


def test_layers_of_unequal_binning() -> None:
    nan = float("nan")
    layered = Grid([[0, 1, 2], [[0, 1, 2, 4], [0, 3, 5, nan]]], names=("layer", "r"))
    positions = torch.tensor(
        [[0.5, 3.0], [1.5, 3.0], [1.5, 5.0], [1.5, 5.5], [0.5, 4.0], [0.2, -1.0]], dtype=torch.float64
    )
    cells, inside = layered.cell_of(positions)
    assert cells[:5].tolist() == [[0, 2], [1, 1], [1, 1], [1, 2], [0, 2]]
    assert inside.tolist() == [True, True, True, False, True, False]
    assert layered.valid is not None and layered.valid.tolist() == [[True, True, True], [True, True, False]]
    torch.testing.assert_close(layered.centres(cells[:2]), torch.tensor([[0.5, 3.0], [1.5, 4.0]], dtype=torch.float64))
    assert Grid.from_dict(layered.to_dict()) == layered


def test_layers_of_one_bin_or_of_all_wrap_together() -> None:
    nan = math.nan
    edges = [[0, 1, 2], [[-2, 2, nan, nan, nan], [-2, -1, 0, 1, 2]]]
    grid = Grid(edges, periodic=("phi",), names=("layer", "phi"))
    assert grid.period == (math.inf, 4.0)
    positions = torch.tensor([[0.5, 1.9], [0.5, 2.1], [1.5, 1.9], [1.5, 2.1], [1.5, -2.1], [1.5, 5.9]])
    cells, inside = grid.cell_of(positions)
    assert inside.all()
    assert cells.tolist() == [[0, 0], [0, 0], [1, 3], [1, 0], [1, 3], [1, 3]]
    with pytest.raises(ConfigError, match="layer 0 has 2 bins in the periodic axis phi of 4"):
        Grid([edges[0], [[-2, 0, 2, nan, nan], edges[1][1]]], periodic=("phi",), names=("layer", "phi"))
    with pytest.raises(ConfigError, match="expected one period"):
        Grid([edges[0], [[-2, 3, nan, nan, nan], edges[1][1]]], periodic=("phi",), names=("layer", "phi"))


def test_duplicate_cells_merge_by_sum_in_order() -> None:
    cells = torch.tensor([[3, 1], [0, 2], [3, 1], [1, 1]])
    events = Events(
        cells,
        torch.tensor([[1.0], [2.0], [4.0], [8.0]]),
        torch.tensor([0, 3, 4]),
        axes=("eta", "phi"),
        columns=("energy",),
        grid=grid(),
    )
    merged = events.coalesce()
    assert merged.coords.tolist() == [[0, 2], [3, 1], [1, 1]]
    assert merged.features[:, 0].tolist() == [2.0, 5.0, 8.0] and merged.counts.tolist() == [2, 1]
    assert merged.coalesce() is merged
    torch.testing.assert_close(events.to_dense(), merged.to_dense())


def test_gradients_flow_through_every_conversion_of_features() -> None:
    events = make([6, 0, 4], seed=2)

    def energy(features: Tensor) -> Tensor:
        cells, _ = events.with_features(features).voxelize(grid())
        back = Events.from_dense(cells.to_dense(), grid(), COLUMNS)
        return back.devoxelize().to_padded()[1].square().sum()

    features = events.features.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, (features,))


def test_torch_geometric_round_trip() -> None:
    events = make([3, 0, 2]).replace(condition=torch.tensor([[1.0], [2.0], [3.0]]), conditions=("pt",))
    batch = events.to_pyg()
    assert batch.num_graphs == 3 and torch.equal(batch[2].pos, events[2].coords)
    back = Events.from_pyg(batch, axes=events.axes, columns=events.columns, conditions=("pt",))
    assert torch.equal(back.coords, events.coords) and torch.equal(back.offsets, events.offsets)
    assert back.condition is not None and events.condition is not None and torch.equal(back.condition, events.condition)


def test_events_are_immutable_and_survive_pickling() -> None:
    events = make([2, 1])
    with pytest.raises(AttributeError, match="immutable"):
        events.coords = events.coords + 1
    again = pickle.loads(pickle.dumps(events))
    assert torch.equal(again.coords, events.coords) and again.columns == events.columns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": torch.tensor([0, 2])}, "offsets must rise from 0 to the 3 hits"),
        ({"offsets": torch.tensor([0, 4, 3])}, "offsets must rise"),
        ({"features": torch.ones(2, 2)}, r"features of shape \(2, 2\) for 3 hits"),
        ({"features": torch.ones(3, 2, dtype=torch.int64)}, "expected a floating type"),
        ({"axes": ("eta",)}, "for the axes"),
        ({"condition": torch.ones(3, 1), "conditions": ("pt",)}, r"condition of shape \(3, 1\) for 2 events"),
        ({"coords": torch.zeros(3, 2, dtype=torch.int64)}, "cells need their grid"),
        ({"coords": torch.tensor([[0, 0], [9, 0], [0, 0]]), "grid": grid()}, r"cell \(9, 0\) of hit 1 lies outside"),
        ({"feature": torch.ones(3, 2)}, "did you mean features"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        make([2, 1]).replace(**change)


def test_too_many_hits_for_the_padding() -> None:
    with pytest.raises(DataError, match="event 1 has 4 hits, more than length=3"):
        make([2, 4]).to_padded(3)


def test_a_batch_without_hits_and_a_batch_without_events() -> None:
    none = make([0, 0])
    cells, dropped = none.voxelize(grid())
    assert cells.to_dense().shape == (2, 2, 5, 7) and dropped.tolist() == [0, 0]
    assert none.to_padded()[0].shape == (2, 0, 2)
    empty = none[0:0]
    assert len(empty) == 0 and empty.voxelize(grid())[0].to_dense().shape == (0, 2, 5, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Grid.regular((2,), (1.0,), (0.0,)), "high above low"),
        (lambda: Grid([[0, 1, 1]]), "rise strictly"),
        (lambda: Grid([[0, 1]], valid=[[True]]), "valid has shape"),
        (lambda: Grid([[0, 1]], periodic=("phi",)), "none of the axes"),
        (lambda: Grid([[0, 1], [0, 1]], names=("a",)), "2 axes but names"),
    ],
)
def test_grids_that_cannot_be(call: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()  # type: ignore[operator]
