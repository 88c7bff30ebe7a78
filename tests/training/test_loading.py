"""Real models from their run folders."""

from __future__ import annotations

import pytest
import torch
from training_toys import Game, fit, make_config, make_events

from sparsegen import models, training
from sparsegen.data import EventsSource
from sparsegen.errors import ConfigError, DataError
from sparsegen.grid import Grid
from sparsegen.nets import Schema
from sparsegen.training import RunConfig, RunFolder, Trainer
from sparsegen.training.config import section_dict

GRID = Grid.regular((8, 8), (-4, -4), (4, 4), ("x", "y"))


def config_of(model, network, **options):
    settings = {"max_steps": 3, "batch": 16, "accelerator": "cpu", "monitor": 8, "log_every": 2}
    return RunConfig.from_dict(
        {
            "data": "toy",
            "model": {"name": model, "latent": 4},
            "network": {"name": network, "width": 8},
            "training": settings | options,
        }
    )


def train(run, config):
    events = make_events().replace(grid=GRID)
    if config.network.name != "points":
        events = events.voxelize(GRID, outside="drop")[0]
    torch.manual_seed(0)
    model = models.build(section_dict(config.model), section_dict(config.network), Schema.fit(events, GRID))
    result = Trainer(run, config).fit(model, EventsSource(events, "toy"))
    assert result.status == "done", result.message
    return model


@pytest.mark.parametrize("network", ["points", "dense", "sparse"])
@pytest.mark.parametrize("model", ["vae", "gan"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_loaded_model_samples_what_the_trained_one_does(tmp_path, model, network, precision):
    config = config_of(model, network, precision=precision, ema=0.9)
    trained = train(tmp_path / "run", config)
    loaded = training.load(tmp_path / "run")
    assert not loaded.training
    dtype = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    made = [m.sample(20, generator=torch.Generator().manual_seed(3)) for m in (trained, loaded)]
    assert len(made[0]) == 20
    assert torch.equal(made[0].features, made[1].features)
    assert torch.equal(made[0].coords, made[1].coords)
    assert torch.equal(made[0].offsets, made[1].offsets)


def test_a_folder_without_run_or_checkpoint_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.yaml; expected the folder of a run"):
        training.load(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.claim(make_config())
    folder.release()
    with pytest.raises(DataError, match="no checkpoint yet; train first"):
        training.load(tmp_path / "run")


def test_networks_without_schema_cannot_be_rebuilt_and_say_so(tmp_path):
    fit(tmp_path, Game(), make_config())
    with pytest.raises(DataError, match="carry no schema"):
        training.load(tmp_path)
