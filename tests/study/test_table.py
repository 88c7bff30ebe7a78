import runpy
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def table(monkeypatch, results):
    monkeypatch.setattr(sys, "argv", ["table.py", str(results)])
    runpy.run_path(str(EXPERIMENTS / "table.py"), run_name="__main__")


def test_results_of_a_study_are_a_table_and_others_are_refused_in_one_line(monkeypatch, capsys):
    table(monkeypatch, EXPERIMENTS / "results" / "sparse_vs_dense" / "results.csv")
    lines = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    with pytest.raises(SystemExit):
        table(monkeypatch, EXPERIMENTS / "results" / "metric_sensitivity" / "results.csv")
    assert "has no column run, data" in capsys.readouterr().err
