"""From showers to samples through the command line: what is generated follows the condition that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from data_tools.cli import main as make
from data_tools.toys import make_toy
from sparsegen import data
from sparsegen.cli import main
from sparsegen.data import RaggedWriter
from sparsegen.models import PRIORS
from sparsegen.study.runs import conditions_for
from sparsegen.training import DataConfig

Refuses = Callable[..., None]
SHAPE = [9, 4, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Showers of 1 to 30 GeV, to train on and to test with."""
    folder = tmp_path_factory.mktemp("showers")
    for name, events, seed in (("train", "700", "1"), ("test", "200", "2")):
        arguments = ["showers", str(folder / f"{name}.h5"), "--events", events, "--seed", seed]
        assert make([*arguments, "--energies", "1", "30"]) == 0
    return folder


def config(folder: Path, **sections: Any) -> Path:
    values: dict[str, Any] = {
        "data": {"name": str(folder / "train.h5"), "view": "image", "shape": SHAPE, "condition": ["incident_energy"]},
        "model": {"name": "aeot", "latent": 4, "bins": 4},
        "network": {"name": "sparse", "width": 6},
        "training": {"max_steps": 100, "batch": 64, "lr": 0.01, "monitor": 0},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({name: values[name] | sections.get(name, {}) for name in values}))
    return path


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    run = folder / "run"
    assert main(["train", str(config(folder)), "-o", str(run)]) == 0
    return run


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Refuses:
    def check(words: str, *arguments: object) -> None:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1

    return check


def responses(path: Path) -> tuple[Tensor, Tensor]:
    """Incident energies of a file's showers, and deposited over incident energy."""
    events = data.open(path, condition=["incident_energy"])[:]
    assert events.condition is not None
    incident = events.condition[:, 0]
    return incident, events.total("energy") / incident


def assert_follows(path: Path, asked: Tensor, bins: int = 4) -> None:
    """The condition is the one asked for, in order, and the response is near 1 in each of its bins."""
    incident, response = responses(path)
    torch.testing.assert_close(incident, asked)
    for rows in incident.argsort().tensor_split(bins):
        assert float(response[rows].mean()) == pytest.approx(1, abs=0.15)
        assert float(response[rows].std()) < 0.3, "a bin alone spreads energies by a factor of 2.3"
    assert float(torch.corrcoef(torch.stack([incident.log(), (response * incident).log()]))[0, 1]) > 0.98


def test_energies_of_samples_follow_those_of_the_events_that_they_are_to_be_like(folder: Path, trained: Path) -> None:
    asked, _ = responses(folder / "test.h5")
    out = folder / "like.h5"
    assert main(["sample", str(trained), "--like", str(folder / "test.h5"), "-o", str(out), "--seed", "3"]) == 0
    assert_follows(out, asked)
    laws = data.open(out).reader.provenance["sampling"]["laws"]  # type: ignore[attr-defined]
    assert len(laws) == 4 and all(law["certificate"]["converged"] for law in laws.values())
    assert (
        main(["sample", str(trained), "--like", str(folder / "test.h5"), "-n", "450", "-o", str(folder / "n.h5")]) == 0
    )
    assert torch.equal(responses(folder / "n.h5")[0], asked.repeat(3)[:450])


def test_one_energy_gives_showers_of_that_energy_and_one_law_says_how_it_drew_them(folder: Path, trained: Path) -> None:
    out = folder / "one.h5"
    arguments = ["sample", str(trained), "-n", "100", "--condition", "incident_energy=15000", "-o", str(out)]
    assert main(arguments) == 0
    incident, response = responses(out)
    assert set(incident.tolist()) == {15000.0}
    assert float(response.mean()) == pytest.approx(1, abs=0.1)
    laws = data.open(out).reader.provenance["sampling"]["laws"]  # type: ignore[attr-defined]
    assert ["acceptance" in law for law in laws.values()].count(True) == 1


def test_the_response_is_evaluated_from_a_file_and_from_a_run(folder: Path, trained: Path) -> None:
    out = folder / "evaluated.h5"
    assert main(["sample", str(trained), "-n", "200", "-o", str(out)]) == 0
    found = []
    for generated in (out, trained):
        report = folder / f"evaluated-{len(found)}.json"
        names = "energy_response,energy_resolution,memorisation"
        arguments = ["--metrics", names, "--train", str(folder / "train.h5"), "-o", str(report)]
        assert main(["evaluate", str(generated), "--reference", str(folder / "test.h5"), *arguments]) == 0
        found.append(json.loads(report.read_text())["values"])
    assert found[0] == found[1]
    assert found[0]["energy_response"] < 0.1 and found[0]["memorisation"] > 0.9


def test_conditions_that_cannot_be_had_are_refused(folder: Path, trained: Path, refuses: Refuses) -> None:
    sample = ("sample", trained, "-n", "5", "-o", folder / "no.h5")
    given = (*sample, "--condition")
    refuses("incident_energy=90000 was not seen in training; seen are incident_energy from 1", *given,
            "incident_energy=90000")  # fmt: skip
    refuses("unknown condition of the run 'energy': did you mean incident_energy?", *given, "energy=3")
    refuses("--condition incident_energy: expected NAME=VALUE", *given, "incident_energy")
    refuses("--condition incident_energy=nan: expected NAME=VALUE", *given, "incident_energy=nan")
    refuses("not both", *given, "incident_energy=3000", "--like", folder / "test.h5")
    refuses("unknown condition 'incident_energy'", *sample, "--like", "pythia-jets:test")
    assert not (folder / "no.h5").exists()


def test_labelled_events_give_the_conditions_of_the_run_s_classes_and_generated_ones_all_of_theirs(
    tmp_path: Path,
) -> None:
    config = DataConfig("pythia-jets", classes=("quark", "top"), condition=("type",))
    found = conditions_for(config, None, like="pythia-jets:test")
    assert found is not None and set(found[:, 0].tolist()) == {1.0, 2.0}
    with RaggedWriter(tmp_path / "made.h5") as writer:
        writer.append(data.open("pythia-jets:test", condition=["type"])[:20])
    again = conditions_for(config, 50, like=str(tmp_path / "made.h5"))
    kept = data.open("pythia-jets:test", condition=["type"])[:20].condition
    assert again is not None and kept is not None and torch.equal(again, kept.repeat(3, 1)[:50])


def test_an_angle_that_rejects_everything_is_refused_with_what_others_accept(
    folder: Path, trained: Path, refuses: Refuses
) -> None:
    run = folder / "narrow"
    assert main(["refit", str(trained), "--model.theta", "1e-9", "-o", str(run)]) == 0
    refuses("theta=1e-09 accepts no pair of cells; share accepted by angle: 0.01:", "sample", run, "-n", 50, "-o",
            folder / "no.h5")  # fmt: skip
    assert not (folder / "no.h5").exists()


@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "ot"])
def test_every_other_law_follows_the_energy_too(prior: str, folder: Path, trained: Path) -> None:
    run, out = folder / prior, folder / f"{prior}.h5"
    steps = {"flow": 40, "gan": 50, "wgan": 10}.get(prior)
    short = [] if steps is None else ["--model.prior.steps", str(steps)]
    settings = ["--model.name", "autoencoder", "--model.prior.name", prior, *short, "--model.bins", "4"]
    assert main(["refit", str(trained), *settings, "-o", str(run)]) == 0
    assert main(["sample", str(run), "--like", str(folder / "test.h5"), "-o", str(out)]) == 0
    assert_follows(out, responses(folder / "test.h5")[0])


@pytest.mark.parametrize("network", ["dense", "points"])
def test_energies_follow_in_every_family(network: str, folder: Path, tmp_path: Path) -> None:
    if network == "points":
        # a few hits in the place of hundreds: what is tested is not the speed
        source = data.open(folder / "train.h5", view="image", shape=SHAPE, condition="all")
        with RaggedWriter(tmp_path / "train.h5") as writer:
            writer.append(source[:].devoxelize("centre"))
        sections = {"data": {"name": str(tmp_path / "train.h5"), "view": "points", "shape": None}}
    else:
        sections = {}
    path = config(folder, network={"name": network}, training={"max_steps": 80}, **sections)
    assert main(["train", str(path), "-o", str(tmp_path / "run")]) == 0
    out = tmp_path / "like.h5"
    assert main(["sample", str(tmp_path / "run"), "--like", str(folder / "test.h5"), "-o", str(out)]) == 0
    assert_follows(out, responses(folder / "test.h5")[0])


def test_a_class_gives_points_of_its_mode(tmp_path: Path, refuses: Refuses) -> None:
    """Eight Gaussians on a ring, each a class."""
    events, label = make_toy("ring", 800, 1)
    with RaggedWriter(tmp_path / "ring.h5") as writer:
        writer.append(events.replace(condition=torch.as_tensor(label)[:, None].float(), conditions=("mode",)))
    values = {
        "data": {"name": str(tmp_path / "ring.h5"), "condition": ["mode"]},
        "model": {"name": "aeot", "latent": 2},
        "network": {"name": "pointnet", "width": 16},
        "training": {"max_steps": 250, "batch": 64, "lr": 0.01, "monitor": 0},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    run, out = tmp_path / "run", tmp_path / "all.h5"
    assert main(["train", str(tmp_path / "run.yaml"), "-o", str(run)]) == 0
    assert main(["sample", str(run), "--like", str(tmp_path / "ring.h5"), "-o", str(out)]) == 0
    made = data.open(out, condition=["mode"])[:]
    assert made.condition is not None and torch.equal(made.condition[:, 0], torch.as_tensor(label).float())
    angle = torch.atan2(made.coords[:, 1], made.coords[:, 0]) - made.condition[:, 0] * torch.pi / 4
    away = (angle + torch.pi).remainder(2 * torch.pi) - torch.pi
    assert float((away.abs() < torch.pi / 8).double().mean()) > 0.85, "an eighth would be near it by chance"
    refuses("condition mode=9 was not seen in training; seen are mode 0, 1, 2, 3, 4, 5, 6, 7", "sample", run, "-n", 5,
            "--condition", "mode=9", "-o", tmp_path / "no.h5")  # fmt: skip
