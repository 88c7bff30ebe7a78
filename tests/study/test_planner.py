"""The grid: what it holds, what overrides change, what it refuses."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from sparsegen.errors import ConfigError
from sparsegen.study import Study, read_study

GRID: dict[str, Any] = {
    "data": "pythia-jets",
    "model": {"name": ["vae", "gan"], "latent": 8},
    "network": {"name": ["sparse", "dense", "points"], "parameters": 50000},
    "baseline": "independent",
    "training": {"epochs": 3, "seed": [1, 2]},
}


def plan(**changes: Any) -> Study:
    return Study.from_dict(deepcopy(GRID) | changes)


def test_every_cell_of_the_grid_is_planned_once_and_a_baseline_once_a_seed() -> None:
    runs = plan().runs
    cells = [(run.model, run.network, run.seed) for run in runs]
    expected = {(m, n, s) for m in ("vae", "gan") for n in ("sparse", "dense", "points") for s in (1, 2)}
    assert set(cells) == expected | {("independent", "none", 1), ("independent", "none", 2)}
    assert len({run.folder for run in runs}) == len(cells) == 14
    assert all(run.config.training.seed == run.seed and run.config.training.epochs == 3 for run in runs)


def test_each_family_sees_the_data_in_its_own_view_unless_one_is_given() -> None:
    views = {run.network: run.config.data.view for run in plan().runs}
    assert views == {"sparse": "image", "dense": "image", "points": "points", "none": "points"}
    assert {run.config.data.view for run in plan(data={"name": "pythia-jets", "view": "image"}).runs} == {"image"}


def test_overrides_reach_only_the_runs_they_fit_and_later_ones_win() -> None:
    overrides = [
        {"where": {"model": "gan"}, "set": {"training": {"lr": 0.1}, "model": {"n_critic": 2}}},
        {"where": {"model": "gan", "network": ["points", "dense"], "seed": 2}, "set": {"training": {"lr": 0.2}}},
    ]
    for run in plan(overrides=overrides).runs:
        lr = 1e-3 if run.model != "gan" else 0.2 if run.network in ("points", "dense") and run.seed == 2 else 0.1
        assert run.config.training.lr == lr, run.name
        assert ("n_critic" in run.config.model.options) == (run.model == "gan")


def test_settings_from_the_command_line_win_over_overrides() -> None:
    grid = deepcopy(GRID) | {"overrides": [{"where": {"model": "gan"}, "set": {"training": {"lr": 0.1}}}]}
    runs = Study.from_dict(grid, {"training.lr": 0.5, "network.parameters": 1000}).runs
    assert {run.config.training.lr for run in runs} == {0.5}
    assert {run.config.network.parameters for run in runs if run.network != "none"} == {1000}


def test_models_of_one_name_are_told_apart_by_the_setting_in_which_they_differ() -> None:
    study = plan(
        model=[{"name": "vae", "beta": 0.1, "latent": 4}, {"name": "vae", "beta": 1.0, "latent": 4}], baseline=[]
    )
    assert {run.model for run in study.runs} == {"vae-beta=0.1", "vae-beta=1.0"}


def test_a_changed_setting_changes_the_folder_and_a_cosmetic_one_does_not() -> None:
    def folders(**training: Any) -> list[str]:
        return [run.folder for run in plan(training={"epochs": 3, "seed": 1} | training).runs]

    assert folders() == folders(log_every=7)
    assert not set(folders()) & set(folders(lr=0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "vae"}, "unknown key of a study 'modle': did you mean model"),
        ({"model": "vea"}, "unknown model 'vea': did you mean vae"),
        ({"network": "spares"}, "unknown network 'spares': did you mean sparse"),
        ({"model": "independent"}, "model: independent has no networks; name it under baseline"),
        ({"baseline": "vae"}, "baseline: vae needs networks; name it under model"),
        ({"model": ["vae", "vae"]}, "twice"),
        ({"model": []}, "model: names nothing"),
        ({"model": [{"latent": 3}]}, "model: expected a name"),
        ({"training": {"epoch": 3}}, "unknown key of training 'epoch': did you mean epochs"),
        ({"overrides": [{"where": {"model": "vea"}, "set": {}}]}, r"overrides\[0\].*fits no run"),
        ({"overrides": [{"where": {"modle": "vae"}, "set": {}}]}, "unknown key 'modle': did you mean model"),
        ({"overrides": [{"where": {}, "set": {"trainin": {}}}]}, "unknown section 'trainin': did you mean training"),
        ({"overrides": [{"when": {}}]}, "expected the keys where and set"),
        ({"evaluation": {"referenc": "x"}}, "unknown key of evaluation 'referenc': did you mean reference"),
        ({"evaluation": {"events": 1}}, "evaluation.events: 1; expected a whole number above 1"),
    ],
)
def test_a_mistake_names_itself_and_the_nearest_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_study(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not YAML"):
        read_study(broken)
    broken.write_text("just a word")
    with pytest.raises(ConfigError, match="a study is keys and values"):
        read_study(broken)


# The study of metrics trains no model: its script reads it.
STUDIES = [path for path in sorted(Path("experiments").glob("*.yaml")) if path.stem != "metric_sensitivity"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_committed_experiments_can_be_planned(path: Path) -> None:
    assert read_study(path).runs
