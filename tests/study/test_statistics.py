"""Means over seeds, their errors and intervals, and the long form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparsegen.study import Finished, groups, long_form, summarise
from sparsegen.study.statistics import CSV_COLUMNS
from sparsegen.study.tables import comparison, multiple, number, status_text, with_error


def test_summary_of_three_seeds_is_mean_standard_error_and_student_interval() -> None:
    s = summarise([1.0, 2.0, 6.0], [9.0, 9.0, 9.0], [0.5, 0.5, 0.5])
    assert (s.value, s.seeds, s.over_floor) == (3.0, 3, 6.0)
    assert s.error == pytest.approx(math.sqrt(7 / 3), rel=1e-12)
    assert s.high - s.value == pytest.approx(4.302652729911275 * s.error, rel=1e-9)


def test_summary_of_one_seed_has_the_error_of_its_estimate_and_no_interval() -> None:
    s = summarise([2.0], [0.25])
    assert s.error == 0.25
    assert math.isnan(s.low)
    assert math.isnan(summarise([]).value)


def test_interval_covers_the_mean_in_95_of_100_studies_of_three_seeds() -> None:
    rng = np.random.default_rng(0)
    covered = sum(s.low < 5.0 < s.high for s in (summarise(rng.normal(5, 1, 3)) for _ in range(2000)))
    # Three standard deviations of a binomial law around 1900.
    assert abs(covered - 1900) <= 30


def test_long_form_keeps_every_run_with_every_metric(finished: Finished) -> None:
    rows = long_form(finished)
    assert all(set(row) == set(CSV_COLUMNS) for row in rows)
    by_run = {name: [row for row in rows if row["run"] == name] for name in {row["run"] for row in rows}}
    assert set(by_run) == {"real", "vae-dense-s1", "gan-dense-s1", "independent-s1"}
    metrics = {"w1_mass", "w1_occupied", "memorisation"}
    for name, mine in by_run.items():
        assert metrics <= {row["metric"] for row in mine}, name
    assert {row["status"] for row in by_run["gan-dense-s1"]} == {"diverged"}
    assert all(math.isnan(row["value"]) for row in by_run["gan-dense-s1"] if row["metric"] in metrics)
    assert all(row["value"] > 0 for row in by_run["vae-dense-s1"])
    assert {row["floor"] for row in rows if row["metric"] == "w1_mass" and row["status"] == "done"} != {math.nan}


def test_a_diverged_run_stands_in_the_table(finished: Finished) -> None:
    diverged = [group for group in groups(finished) if status_text(group)]
    assert [group.name for group in diverged] == ["dense GAN"]
    table = comparison(finished)
    assert table.row_count == 4
    assert "diverged" in list(table.columns[1].cells)


def test_numbers_are_rounded_as_their_error_deserves() -> None:
    assert with_error(291.2, 26.4) == "291 ± 26"
    assert with_error(0.0, 0.1) == "0.00 ± 0.10"
    assert with_error(3.0, math.nan) == "3.00"
    assert number(math.inf) == "inf"
    assert (multiple(5.84), multiple(558.1), multiple(math.nan)) == ("5.8×", "558×", "–")


def test_csv_columns_are_the_published_ones() -> None:
    assert ",".join(CSV_COLUMNS) == "run,data,model,network,seed,metric,value,error,n,floor,status"
