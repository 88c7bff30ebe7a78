"""A run fitted again equals, bit for bit, the one that was trained with those options from the start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsegen import data, training
from sparsegen.cli import main
from sparsegen.data import RaggedWriter
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.models import PRIORS
from sparsegen.study.runs import build_model, open_source, train
from sparsegen.training import RunConfig, Trainer
from sparsegen.training.checkpoint import read_checkpoint
from sparsegen.training.folder import RunFolder

SHORT: dict[str, dict[str, Any]] = {"flow": {"steps": 20}, "gan": {"steps": 20}, "wgan": {"steps": 5}}


def toys(n: int, seed: int = 0) -> Events:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(2, 6, (n,), generator=generator)
    hits = int(counts.sum())
    return Events(
        torch.randn(hits, 2, generator=generator),
        torch.rand(hits, 1, generator=generator) + 0.05,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=(Column("energy", "GeV"),),
        condition=(torch.arange(n) % 2).float()[:, None],
        conditions=("class",),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toys.h5"
    with RaggedWriter(path) as writer:
        writer.append(toys(160))
    return path


def config(file: Path, prior: str = "normal", **model: Any) -> RunConfig:
    return RunConfig.from_dict(
        {
            "data": {"name": str(file)},
            "model": {"name": "autoencoder", "latent": 2, "prior": {"name": prior} | SHORT.get(prior, {})} | model,
            "network": {"name": "points", "width": 4},
            "training": {"max_steps": 6, "batch": 32, "log_every": 2, "monitor": 4},
        }
    )


@pytest.fixture(scope="module")
def trained(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert train(folder, config(file))[0].status == "done"
    return folder


def end_of(folder: Path) -> dict[str, Any]:
    state, manifest = read_checkpoint(RunFolder(folder).checkpoints.paths()[0])
    return {k: state[k] for k in ("model", "optimizers", "random")} | {"at": (manifest["step"], manifest["stage"])}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        clocks = {"seconds"}
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a if k not in clocks)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("prior", list(PRIORS))
def test_a_refitted_run_is_the_run_trained_alone(prior: str, file: Path, trained: Path, tmp_path: Path) -> None:
    alone = config(file, prior)
    whole, _ = train(tmp_path / "alone", alone)
    again, _ = train(tmp_path / "again", alone, like=trained)
    assert whole == again and whole.status == "done"
    assert equal(end_of(tmp_path / "alone"), end_of(tmp_path / "again"))
    assert RunFolder(tmp_path / "again").config.hash == alone.hash
    rows = [len((tmp_path / run / "metrics.jsonl").read_text().splitlines()) for run in ("alone", "again")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("prior", list(PRIORS))
def test_stopped_between_training_and_fit_it_goes_on_to_the_same_law(prior: str, file: Path, tmp_path: Path) -> None:
    alone = config(file, prior)
    train(tmp_path / "whole", alone)
    source = open_source(alone.data)

    def refuse(*arguments: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    model = build_model(alone, source)
    model.fit_prior = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        Trainer(tmp_path / "stopped", alone).fit(model, source)
    assert train(tmp_path / "stopped", alone)[0].status == "done"
    assert equal(end_of(tmp_path / "whole"), end_of(tmp_path / "stopped"))
    one, other = (training.load(tmp_path / run).sample(9, generator=torch.Generator().manual_seed(2)) for run in
                  ("whole", "stopped"))  # fmt: skip
    assert torch.equal(one.features, other.features) and torch.equal(one.coords, other.coords)


def test_only_options_of_the_last_fits_may_differ(file: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be fitted again with model\.noise: .* -> 0\.3: that needs training"):
        training.adopt(tmp_path / "a", trained, config(file, noise=0.3))
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="holds a run; choose another folder"):
        training.adopt(trained, trained, config(file))
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        training.adopt(tmp_path / "a", tmp_path / "nowhere", config(file))
    early = Path(shutil.copytree(trained, tmp_path / "early"))
    for path in sorted((early / "checkpoints").iterdir())[:-1]:
        path.unlink()
    with pytest.raises(DataError, match="no checkpoint from between its training and its fits"):
        training.adopt(tmp_path / "a", early, config(file))


def test_from_the_command_line(file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "ot")
    assert main(["refit", str(trained), "--model.name", "aeot", "--model.theta", "0.8", "-o", out]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "done, fitted again on the training of" in text and "certificate: rms" in text
    assert main(["sample", out, "-n", "50", "-o", str(tmp_path / "s.h5")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "prior ot: theta 0.800, acceptance" in text and "converged True" in text
    provenance = data.open(tmp_path / "s.h5").reader.provenance  # type: ignore[attr-defined]
    assert provenance["sampling"]["certificate"]["converged"] is True
    assert 0 < provenance["sampling"]["acceptance"] <= 1
    assert main(["refit", str(trained), "--model.latent", "3", "-o", str(tmp_path / "no")]) == 2
    assert "cannot be fitted again with model.latent: 2 -> 3" in capsys.readouterr().err


def test_aeot_under_a_class_from_training_to_samples(file: Path, tmp_path: Path) -> None:
    values = config(file).to_dict()
    values["model"] = {"name": "aeot", "latent": 2}
    values["data"]["condition"] = ["class"]
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(values).to_yaml())
    run, samples = str(tmp_path / "run"), tmp_path / "s.h5"
    assert main(["train", str(tmp_path / "run.yaml"), "-o", run]) == 0
    assert main(["sample", run, "-n", "40", "-o", str(samples)]) == 0
    drawn = data.open(samples, condition="all")[:]
    assert drawn.condition is not None and set(drawn.condition[:, 0].tolist()) == {0.0, 1.0}
    laws = data.open(samples).reader.provenance["sampling"]["laws"]  # type: ignore[attr-defined]
    assert set(laws) == {"class=0", "class=1"} and all(law["certificate"]["converged"] for law in laws.values())
