"""The command line end to end on toys, and what it says to bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from sparsegen import data
from sparsegen.cli import COMMANDS, KINDS, main, split_settings
from sparsegen.data import RaggedWriter
from sparsegen.errors import ConfigError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives its exit code, output and errors."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A data set of toy jets with the splits train and test."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(3, 9, (120,), generator=generator)
    hits = int(counts.sum())
    events = Events(
        torch.randn(hits, 2, generator=generator).clamp(-3, 3) * 0.2,
        torch.rand(hits, 1, generator=generator) + 0.01,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
        grid=Grid.regular((8, 8), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel")),
    )
    path = tmp_path / "toy.h5"
    with RaggedWriter(path, splits=("train", "test")) as writer:
        writer.append(events, split=np.repeat([0, 1], [80, 40]))
    return path


@pytest.fixture
def config(toy: Path, tmp_path: Path) -> Path:
    values: dict[str, Any] = {
        "data": {"name": f"{toy}:train", "view": "image", "shape": [8, 8]},
        "model": {"name": "vae", "latent": 2, "beta": 0.01},
        "network": {"name": "dense", "parameters": 20000},
        "training": {"max_steps": 4, "batch": 16, "log_every": 2},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refuses(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on the output, one line on the errors, with these words in it."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err, err


# From end to end


def test_train_resume_sample_evaluate(run: Run, config: Path, toy: Path, tmp_path: Path) -> None:
    folder, samples = tmp_path / "a", tmp_path / "samples.h5"
    code, out, _ = run("train", config, "-o", folder)
    assert (code, "done after 4 steps" in out) == (0, True)
    before = (folder / "metrics.jsonl").read_bytes()
    assert run("train", config, "-o", folder)[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == before

    assert run("sample", folder, "-n", "37", "-o", samples, "--seed", "3")[0] == 0
    source = data.open(samples)
    assert len(source) == 37
    assert source[:].ids.tolist() == list(range(37))
    content = samples.read_bytes()
    refuses(run("sample", folder, "-n", "37", "-o", samples), "exists", "samples.h5")
    assert samples.read_bytes() == content
    assert run("sample", folder, "-n", "37", "-o", samples, "--seed", "3", "--overwrite")[0] == 0
    assert torch.equal(data.open(samples)[:].features, source[:].features)

    result = tmp_path / "result.json"
    code, out, _ = run(
        "evaluate", samples, "--reference", f"{toy}:test", "--metrics", "w1_mass,w1_occupied", "-o", result
    )
    assert code == 0
    for word in ("w1_mass", "w1_occupied", "floor", "protocol", "whole"):
        assert word in out
    values = json.loads(result.read_text())
    assert [r["name"] for r in values["results"]] == ["w1_mass", "w1_occupied"]
    assert all(r["n"] == 37 and r["floor"] > 0 and r["error"] > 0 for r in values["results"])
    assert values["values"]["w1_mass"] == values["results"][0]["value"]
    assert {"w1_mass.error", "w1_mass.floor", "w1_occupied.n", "w1_occupied.invalid"} <= set(values["values"])
    refuses(run("evaluate", samples, "--reference", f"{toy}:test", "-o", result), "exists")


def test_evaluate_draws_keeps_and_compares_only_what_compares(run: Run, toy: Path, tmp_path: Path) -> None:
    common = ["evaluate", f"{toy}:train", "--reference", f"{toy}:test", "--metrics", "w1m,w1_mass"]
    first = run(*common, "--plots", tmp_path / "a.png", "--cache", tmp_path / "kept", "-o", tmp_path / "a.json")
    assert first[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "kept").glob("*.npz"))
    assert "published" not in first[1]
    assert run(*common, "--cache", tmp_path / "kept", "-o", tmp_path / "b.json")[0] == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    refuses(run(*common, "--data-set", "jetnet-30-g"), "the reference is not jetnet-30-g")
    refuses(run(*common, "--data-set", "jetnet"), "jetnet-30-g")
    refuses(run(*common, "--protocol", "mpgan"), "mpgan2021")
    refuses(run(*common, "--jetnet-stats", tmp_path), "pnet_state_dict.pt")


def test_evaluate_draws_from_a_run_what_sample_writes_to_a_file(
    run: Run, config: Path, toy: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    assert run("train", config, "-o", folder)[0] == 0
    assert run("sample", folder, "-n", "40", "-o", tmp_path / "s.h5")[0] == 0
    results = []
    for generated in (folder, tmp_path / "s.h5"):
        name = tmp_path / f"{len(results)}.json"
        assert run("evaluate", generated, "--reference", f"{toy}:test", "--metrics", "w1_mass", "-o", name)[0] == 0
        results.append(json.loads(name.read_text())["results"][0]["value"])
    assert results[0] == results[1]


@pytest.mark.parametrize("network", ["points", "sparse"])
def test_another_network_and_model_come_with_their_own_view(
    run: Run, config: Path, tmp_path: Path, network: str
) -> None:
    arguments = ("--model", "gan", "--network", network, "--seed", "7", "--training.lr", "1e-4", "--max_steps", "2")
    assert run("train", config, *arguments, "-o", tmp_path / "a")[0] == 0
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved["model"] == {"name": "gan", "latent": 2}
    assert saved["network"]["name"] == network
    assert saved["network"]["parameters"] == 20000
    assert saved["data"]["view"] == ("points" if network == "points" else "image")
    assert (saved["training"]["seed"], saved["training"]["lr"], saved["training"]["max_steps"]) == (7, 1e-4, 2)


@pytest.mark.parametrize("network", ["points", "sparse"])
def test_point_sets_without_features_train_sample_and_evaluate(run: Run, tmp_path: Path, network: str) -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (100, 6, 2)).astype(np.float32)
    for name, some in {"train": points[:60], "test": points[60:]}.items():
        np.savez(tmp_path / f"{name}.npz", points=some)
    values = {
        "data": {"name": str(tmp_path / "train.npz"), "shape": [8, 8]}
        | ({"view": "image"} if network == "sparse" else {}),
        "model": {"name": "vae", "latent": 2},
        "network": {"name": network, "width": 4},
        "training": {"max_steps": 3, "batch": 16},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert run("train", tmp_path / "run.yaml", "-o", tmp_path / "a")[0] == 0
    assert run("sample", tmp_path / "a", "-n", "40", "-o", tmp_path / "made.h5")[0] == 0
    made = data.open(tmp_path / "made.h5")
    assert [c.name for c in made.columns] == ([] if network == "points" else ["count"])
    code, out, _ = run("evaluate", tmp_path / "made.h5", "--reference", tmp_path / "test.npz", "--metrics", "w1_hits")
    assert (code, "w1_hits" in out) == (0, True)


def test_the_trivial_generator_trains_and_samples_like_any_model(run: Run, config: Path, tmp_path: Path) -> None:
    assert run("train", config, "--model", "independent", "-o", tmp_path / "a")[0] == 0
    assert run("sample", tmp_path / "a", "-n", "9", "-o", tmp_path / "s.h5")[0] == 0
    assert not data.open(tmp_path / "s.h5")[:].is_cells


def test_a_diverged_run_exits_with_3_and_gives_no_samples(run: Run, config: Path, tmp_path: Path) -> None:
    code, out, _ = run("train", config, "--lr", "1e30", "-o", tmp_path / "a")
    assert (code, "diverged" in out) == (3, True)
    refuses(run("sample", tmp_path / "a", "-n", "3", "-o", tmp_path / "s.h5"), "diverged")
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_what_there_is(run: Run, kind: str) -> None:
    code, out, _ = run("list", kind)
    assert code == 0
    words = {
        "models": "vae gan independent",
        "networks": "dense sparse points",
        "priors": "ot mixture flow wgan",
        "data": "pythia-jets",
        "metrics": "w1_mass",
    }
    for word in words[kind].split():
        assert word in out


def test_help_is_quick_and_loads_neither_torch_nor_the_library() -> None:
    code = "import sys; from sparsegen.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'matplotlib', 'h5py'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in (*COMMANDS, "data", "exit codes"):
        assert word in done.stdout


def test_the_module_and_the_data_tools_answer() -> None:
    done = subprocess.run([sys.executable, "-m", "sparsegen", "data", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "jets" in done.stdout


# Bad input


def test_unknown_names_bring_the_nearest(run: Run, config: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "a")
    refuses(run("trian"), "unknown command 'trian'", "train")
    refuses(run("list", "modles"), "models")
    refuses(run("train", config, "--model", "vea", *out), "unknown model 'vea'", "did you mean vae")
    refuses(run("train", config, "--network", "spares", *out), "unknown network 'spares'", "did you mean sparse")
    refuses(run("train", config, "--training.epoch", "3", *out), "unknown key of training 'epoch'", "epochs")
    refuses(run("train", config, "--trainin.epochs", "3", *out), "unknown section of the config 'trainin'", "training")
    refuses(run("train", config, "--model.bta", "3", *out), "'bta'", "beta")
    refuses(run("train", config, "--bta", "3", *out), "--bta")
    refuses(run("train", config, "--data.name", "pythia-jet", *out), "unknown data set 'pythia-jet'", "pythia-jets")
    refuses(run("evaluate", "pythia-jets:test", "--reference", "pythia-jets:tets"), "unknown split 'tets'", "test")
    refuses(run("evaluate", "pythia-jets:test", "--reference", "pythia-jets:test", "--metrics", "w1mass"), "w1_mass")
    assert not (tmp_path / "a").exists()


def test_missing_arguments_and_values_are_named(run: Run, config: Path) -> None:
    refuses(run("train", config), "output", "sparsegen train --help")
    refuses(run("train", config, "-o", "x", "--training.lr"), "--training.lr: expected a value")
    refuses(run("train", config, "-o", "x", "--seed", "one"), "seed")
    refuses(run("sample", "x", "-o", "y", "-n", "0"), "-n 0; expected at least 1")


def test_missing_files_are_named(run: Run, config: Path, tmp_path: Path) -> None:
    refuses(run("train", tmp_path / "no.yaml", "-o", tmp_path / "a"), "no.yaml", "No such file")
    refuses(run("compare", tmp_path / "no.yaml", "-o", tmp_path / "a"), "no.yaml", "No such file")
    refuses(run("sample", tmp_path / "no", "-o", tmp_path / "s.h5"), "no", "expected the folder of a run")
    refuses(run("evaluate", tmp_path / "no.h5", "--reference", "pythia-jets:test"), "no.h5", "no such file")
    refuses(run("train", config, "--data.name", tmp_path / "no.h5", "-o", tmp_path / "a"), "no.h5", "no such file")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_truncated_wrong_and_empty_files_are_named_before_any_training(
    run: Run, config: Path, toy: Path, tmp_path: Path
) -> None:
    truncated, wrong, empty, nothing = (tmp_path / f"{name}.h5" for name in ("truncated", "wrong", "empty", "nothing"))
    truncated.write_bytes(toy.read_bytes()[:3000])
    with h5py.File(wrong, "w") as file:
        file["particles"] = np.zeros((3, 4))
    with h5py.File(empty, "w") as file:
        file["particle_features"] = np.zeros((0, 30, 4), dtype=np.float32)
        file["jet_features"] = np.zeros((0, 4), dtype=np.float32)
    nothing.write_bytes(b"")
    for path, words in (
        (truncated, ("not a readable",)),
        (wrong, ("particles",)),
        (empty, ("no events",)),
        (nothing, ("empty",)),
    ):
        refuses(run("train", config, "--data.name", path, "-o", tmp_path / "a"), path.name, *words)
        refuses(run("evaluate", path, "--reference", f"{toy}:test"), path.name)
    assert not (tmp_path / "a").exists()


def test_evaluate_counts_bad_events_of_files_or_refuses_them_as_the_user_chose(
    run: Run, toy: Path, tmp_path: Path
) -> None:
    events = data.open(f"{toy}:test")[:]
    features, coords = events.features.clone(), events.coords.clone()
    features[events.offsets[3]], features[events.offsets[5]], coords[events.offsets[7]] = math.nan, -1.0, math.inf
    data.write(events.replace(features=features, coords=coords), tmp_path / "bad.h5")
    given = ("evaluate", tmp_path / "bad.h5", "--reference", f"{toy}:train", "--metrics", "w1_mass")
    code, _, _ = run(*given, "-o", tmp_path / "found.json")
    assert code == 0
    (found,) = json.loads((tmp_path / "found.json").read_text())["results"]
    assert (found["invalid"], found["n"]) == (3, 37)
    refuses(run(*given, "--invalid", "raise"), "row 3", "nan")
    swapped = ("evaluate", f"{toy}:train", "--reference", tmp_path / "bad.h5", "--metrics", "w1_mass")
    assert run(*swapped, "-o", tmp_path / "swapped.json")[0] == 0
    (found,) = json.loads((tmp_path / "swapped.json").read_text())["results"]
    assert found["protocol"]["reference_invalid"] == 3


def test_warnings_of_commands_are_one_line_each(toy: Path) -> None:
    arguments = ["evaluate", f"{toy}:test", "--reference", f"{toy}:train", "--metrics", "frechet"]
    told = subprocess.run([sys.executable, "-m", "sparsegen", *arguments], capture_output=True, text=True, check=True)
    assert told.stderr.startswith("warning: frechet: 40 events are few")
    assert told.stderr.count("\n") == 1


def test_evaluate_refuses_what_it_could_not_finish_before_it_starts(run: Run, toy: Path, tmp_path: Path) -> None:
    given = ("evaluate", f"{toy}:test", "--reference", f"{toy}:train", "--metrics", "w1_mass")
    refuses(run(*given, "-o", tmp_path / "no" / "found.json"), "no such folder")
    refuses(run(*given, "--seed", "-1"), "seed -1")
    refuses(run(*given, "--jetnet-stats", tmp_path), "g_mu.txt")


def test_a_folder_with_another_config_is_refused_with_the_difference(run: Run, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    assert run("train", config, "-o", folder)[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    refuses(run("train", config, "--lr", "0.5", "-o", folder), "training.lr: 0.001 -> 0.5", "another folder")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"} == before


def test_a_study_with_a_mistake_makes_no_folder(run: Run, toy: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    base: dict[str, Any] = {
        "data": f"{toy}:train",
        "model": "vae",
        "network": {"name": "dense", "parameters": 20000},
        "evaluation": {"reference": f"{toy}:test"},
    }
    for changes, words in (
        ({"modle": "vae"}, ("unknown key of a study 'modle'", "model")),
        ({"network": "dnse"}, ("unknown network 'dnse'", "dense")),
        ({"data": f"{tmp_path}/no.h5"}, ("no.h5", "no such file")),
    ):
        study.write_text(yaml.safe_dump(base | changes))
        refuses(run("compare", study, "-o", tmp_path / "report"), *words)
    assert not (tmp_path / "report").exists()


def test_settings_are_read_as_yaml_and_taken_out_of_the_arguments() -> None:
    rest, settings = split_settings(
        ["a.yaml", "--model.beta=0.1", "-o", "x", "--data.classes", "[top]", "--training.clip", "null"]
    )
    assert rest == ["a.yaml", "-o", "x"]
    assert settings == {"model.beta": 0.1, "data.classes": ["top"], "training.clip": None}
    with pytest.raises(ConfigError, match="is not a value"):
        split_settings(["--model.beta", "[1"])
