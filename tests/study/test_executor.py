"""Running a study: nothing twice, nothing dropped, nothing foreign overwritten."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparsegen import data
from sparsegen.errors import ConfigError, DataError
from sparsegen.study import Finished, Study, execute, executor
from sparsegen.study.evaluation import Outcome, peak_memory


def test_every_run_ends_with_an_outcome_and_its_costs(finished: Finished) -> None:
    status = {run.name: outcome.status for run, outcome in finished.outcomes.items()}
    assert status == {"vae-dense-s1": "done", "gan-dense-s1": "diverged", "independent-s1": "done"}
    costs = {run.model: outcome.costs for run, outcome in finished.outcomes.items()}
    assert set(costs["vae"]) == {"parameters", "train_time", "sample_time", "peak_memory"}
    assert abs(costs["vae"]["parameters"] - 3000) <= 0.05 * 3000
    assert costs["independent"]["parameters"] == 0
    assert 50 < costs["vae"]["peak_memory"] < 20_000


def test_samples_carry_where_they_come_from(finished: Finished) -> None:
    run = finished.study.runs[0]
    source = data.open(finished.run_folder(run) / "samples.h5")
    assert len(source) == 50
    provenance = source.reader.provenance  # type: ignore[attr-defined]
    assert provenance["config_hash"] == run.config.hash
    assert provenance["config"] == run.config.to_dict()


def test_the_same_study_again_runs_nothing(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.is_file()}
    again = execute(finished.study, finished.folder)
    assert again.outcomes == finished.outcomes
    after = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {finished.folder / "study.json"}


def test_a_missing_evaluation_is_made_again_without_training_again(finished: Finished, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    run = finished.study.runs[0]
    (folder / "runs" / run.folder / "evaluation.json").unlink()
    (folder / "runs" / run.folder / "samples.h5").unlink()
    again = execute(finished.study, folder)
    old, new = finished.outcomes[run], again.outcomes[run]
    # One seed, one thread, one machine: the same numbers.
    assert (new.results, new.step) == (old.results, old.step)
    assert new.costs["peak_memory"] == old.costs["peak_memory"]
    names = ("metrics.jsonl", "status.json")
    for a, b in ((finished.run_folder(run) / name, again.run_folder(run) / name) for name in names):
        assert a.read_bytes() == b.read_bytes()


def test_a_grown_study_runs_only_what_is_new(
    finished: Finished, toy_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    asked: list[str] = []
    monkeypatch.setattr(
        executor._Pool, "work", lambda self, missing, processes: asked.extend(run.name for run in missing)
    )
    grown = deepcopy(toy_study)
    grown["training"]["seed"] = [1, 2]
    execute(Study.from_dict(grown), folder)
    assert asked == ["vae-dense-s2", "gan-dense-s2", "independent-s2"]


def test_a_folder_with_another_study_is_refused_with_the_difference(
    finished: Finished, toy_study: dict[str, Any]
) -> None:
    other = deepcopy(toy_study)
    other["training"]["max_steps"] = 7
    with pytest.raises(ConfigError, match=r"holds another study .*training\.max_steps: 6 -> 7"):
        execute(Study.from_dict(other), finished.folder)
    fewer = deepcopy(toy_study) | {"baseline": []}
    with pytest.raises(ConfigError, match="independent-s1: no longer asked for"):
        execute(Study.from_dict(fewer), finished.folder)
    judged = deepcopy(toy_study)
    judged["evaluation"]["events"] = 40
    with pytest.raises(ConfigError, match="evaluation: "):
        execute(Study.from_dict(judged), finished.folder)


def test_a_foreign_folder_is_refused_and_left_alone(toy_study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no study"):
        execute(Study.from_dict(toy_study), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_mistakes_are_found_before_any_training(toy_study: dict[str, Any], tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str, type[Exception]]] = [
        ({"data": {"name": "pythia-jet", "shape": [8, 8]}}, "pythia-jets", DataError),
        ({"model": {"name": "vae", "bta": 1.0}}, "beta", ConfigError),
        ({"network": {"name": "dense", "parametrs": 3000}}, "parameters", ConfigError),
        ({"evaluation": toy_study["evaluation"] | {"metrics": "w1mass"}}, "w1_mass", ConfigError),
    ]
    for changes, message, kind in cases:
        with pytest.raises(kind, match=message):
            execute(Study.from_dict(deepcopy(toy_study) | {"overrides": []} | changes), tmp_path / "report")
        assert not (tmp_path / "report").exists()
    with pytest.raises(ConfigError, match="0 processes of 1 threads"):
        execute(Study.from_dict(toy_study), tmp_path / "report", processes=0)


def test_a_run_that_breaks_is_reported_as_failed_and_tried_again(
    toy_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = deepcopy(toy_study) | {"model": [toy_study["model"][0]], "overrides": [], "baseline": []}
    study = Study.from_dict(small)
    folder = tmp_path / "report"
    with monkeypatch.context() as patch:
        patch.setitem(os.environ, "PYTHONPATH", str(tmp_path / "broken"))
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "sitecustomize.py").write_text("raise SystemExit('out of coffee')")
        failed = execute(study, folder)
    (outcome,) = failed.outcomes.values()
    assert outcome.status == "failed"
    assert "out of coffee" in outcome.message
    (again,) = execute(study, folder).outcomes.values()
    assert again.status == "done"


@pytest.mark.slow
def test_a_signal_stops_the_study_saved_and_the_same_command_goes_on(toy_study: dict[str, Any], tmp_path: Path) -> None:
    endless = deepcopy(toy_study) | {"model": [toy_study["model"][0]], "overrides": [], "baseline": []}
    endless["training"]["max_steps"] = 10**7
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(endless))
    folder = tmp_path / "report"
    command = [sys.executable, "-m", "sparsegen", "compare", str(tmp_path / "study.yaml"), "-o", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "the same command goes on" in out
    (status,) = [json.loads(path.read_text()) for path in folder.glob("runs/*/status.json")]
    assert status["status"] == "interrupted"
    assert list(folder.glob("runs/*/checkpoints/*.ckpt"))
    assert not (folder / "index.html").exists()


def test_a_damaged_outcome_names_its_file(finished: Finished, tmp_path: Path) -> None:
    outcome = next(iter(finished.outcomes.values()))
    outcome.write(tmp_path)
    assert Outcome.read(tmp_path) == outcome
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json: damaged"):
        Outcome.read(tmp_path)
    assert Outcome.read(tmp_path / "nowhere") is None


def test_peak_memory_is_at_least_what_the_process_holds_now() -> None:
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert resident <= peak_memory() < math.inf


def test_status_files_are_json_without_surprises(finished: Finished) -> None:
    for run in finished.study.runs:
        assert json.loads((finished.run_folder(run) / "status.json").read_text())["config_hash"] == run.config.hash


def test_runs_that_differ_in_their_last_fits_alone_share_one_training(
    toy_study: dict[str, Any], tmp_path: Path
) -> None:
    laws = [{"name": "autoencoder", "latent": 2, "prior": prior} for prior in ("normal", "kde")]
    small = deepcopy(toy_study) | {"model": [*laws, {"name": "aeot", "latent": 2}], "overrides": [], "baseline": []}
    done = execute(Study.from_dict(small), tmp_path / "report", processes=3)
    assert [outcome.status for outcome in done.outcomes.values()] == ["done"] * 3
    first, *others = (done.run_folder(run) for run in done.study.runs)
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (first, *others)]
    steps = [[row for row in one if row["stage"] == "autoencode"] for one in rows]
    # One and the same training, clocks included; what follows is each run's own.
    assert steps[0] and steps[1] == steps[0] and steps[2] == steps[0]
    assert all(row[-1]["stage"] == "prior" for row in rows)
    times = {outcome.costs["train_time"] for outcome in done.outcomes.values()}
    assert len(times) == 1
    reports = [outcome.sampling for outcome in done.outcomes.values()]
    assert [report["prior"] for report in reports] == ["normal", "kde", "ot"]
    assert 0 < reports[2]["acceptance"] <= 1
    summary = json.loads((tmp_path / "report" / "study.json").read_text())
    assert list(summary["runs"]) == [
        "autoencoder-prior=normal-dense-s1",
        "autoencoder-prior=kde-dense-s1",
        "aeot-dense-s1",
    ]
