"""The order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegen.data.order import Rows, batch_bounds, runs_of, windows


def _rows_in_order(rows: Rows, block: int, window: int, **options: object) -> list[int]:
    seen: list[int] = []
    for position, part in windows(rows, block, window, **options):  # type: ignore[arg-type]
        assert position == len(seen)
        joined = np.concatenate([np.arange(start, stop) for start, stop in part.runs])
        seen += (joined if part.take is None else joined[part.take]).tolist()
    return seen


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 200),
    block=st.integers(1, 50),
    window=st.integers(1, 120),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_every_chosen_row_comes_once_an_epoch(
    total: int, block: int, window: int, seed: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.one_of(st.none(), st.lists(st.integers(0, total - 1), min_size=1, unique=True)))
    rows = Rows(total, None if chosen is None else np.array(sorted(chosen)))
    expected = list(range(total)) if chosen is None else sorted(chosen)
    shuffled = _rows_in_order(rows, block, window, shuffle=True, seed=seed, epoch=3)
    assert sorted(shuffled) == expected
    assert _rows_in_order(rows, block, window, shuffle=False, seed=seed, epoch=3) == expected
    assert shuffled == _rows_in_order(rows, block, window, shuffle=True, seed=seed, epoch=3)


def test_epochs_and_seeds_have_different_orders() -> None:
    rows = Rows(1000)
    orders = {
        tuple(_rows_in_order(rows, 16, 64, shuffle=True, seed=seed, epoch=epoch))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_window_holds_at_most_the_asked_events() -> None:
    sizes = [part.size for _, part in windows(Rows(1000), 16, 100, shuffle=True, seed=0, epoch=0)]
    assert max(sizes) <= 100
    assert sum(sizes) == 1000


def test_skipped_windows_are_left_out_and_the_rest_is_unchanged() -> None:
    whole = list(windows(Rows(1000), 16, 100, shuffle=True, seed=0, epoch=0))
    rest = list(windows(Rows(1000), 16, 100, shuffle=True, seed=0, epoch=0, skip=whole[4][0]))
    assert [at for at, _ in rest] == [at for at, _ in whole[4:]]
    assert rest[0][1].runs == whole[4][1].runs


@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=40), block=st.integers(1, 30))
def test_runs_cover_rows_in_any_order_with_repeats(rows: list[int], block: int) -> None:
    runs, take = runs_of(np.array(rows), block)
    joined = np.concatenate([np.arange(start, stop) for start, stop in runs])
    assert (joined if take is None else joined[take]).tolist() == rows
    assert all(stop - start <= block for start, stop in runs)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 24, 25])
def test_ranks_share_what_one_rank_of_the_whole_batch_sees(n: int, drop_last: bool) -> None:
    one = list(batch_bounds(n, 8, 0, 1, drop_last))
    ranks = [list(batch_bounds(n, 4, rank, 2, drop_last)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    for whole, left, right in zip(one, *ranks, strict=False):
        assert (left[0], right[1]) == whole
        assert left[1] == right[0]
    left_out = len(one) - len(ranks[0])
    assert left_out == (1 if n % 8 == 1 and not drop_last else 0)
