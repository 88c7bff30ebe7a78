"""Configs: round trips, identity, and errors that name the key."""

from __future__ import annotations

import pytest

from sparsegen.errors import ConfigError
from sparsegen.training import RunConfig, diff

BASE = {"data": "pythia-jets", "model": {"name": "vae", "latent": 16}, "network": "points"}


def test_yaml_round_trip_keeps_every_value(tmp_path):
    values = {
        "data": {"name": "jets.h5", "view": "cells", "shape": [25, 25], "classes": ["gluon"], "condition": ["jet_pt"]},
        "model": {"name": "gan", "loss": "hinge", "n_critic": 5},
        "network": {"name": "sparse", "parameters": 200000, "depth": 3},
        "training": {"epochs": 3, "lr": 3e-4, "clip": 1.0, "ema": 0.999, "checkpoint_every": 100},
    }
    config = RunConfig.from_dict(values)
    config.to_yaml(tmp_path / "config.yaml")
    again = RunConfig.from_yaml(tmp_path / "config.yaml")
    assert again == config
    assert again.hash == config.hash
    assert again.data.shape == (25, 25)
    assert again.model.options == {"loss": "hinge", "n_critic": 5}


def test_hash_sees_what_decides_the_result_and_nothing_else():
    config = RunConfig.from_dict(BASE)
    written_out = RunConfig.from_dict(BASE | {"training": {"lr": 1e-3, "batch": 128}})
    assert config.hash == written_out.hash
    for key, value in {"log_every": 7, "keep": 5, "checkpoint_every": 3, "accelerator": "cpu", "monitor": 0}.items():
        changed = config.updated({f"training.{key}": value})
        assert changed.hash == config.hash, key
        assert diff(config, changed, identity=True) == []
        assert len(diff(config, changed)) == 1
    for key in ("training.seed", "training.lr", "model.latent", "network.parameters", "data.events"):
        assert config.updated({key: 2}).hash != config.hash, key


def test_numbers_that_yaml_reads_as_words_are_numbers():
    config = RunConfig.from_dict(BASE | {"training": {"lr": "1e-3", "epochs": "4", "batch": 64.0}})
    assert (config.training.lr, config.training.epochs, config.training.batch) == (1e-3, 4, 64)
    assert isinstance(config.training.batch, int)
    options = {"name": "aeot", "theta": "1e-9", "prior": {"name": "flow", "lr": "5e-4"}, "label": "e5"}
    config = RunConfig.from_dict({"data": "a", "network": "points", "model": options})
    assert config.model.options == {"theta": 1e-9, "prior": {"name": "flow", "lr": 5e-4}, "label": "e5"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainning": {}}, "unknown key of the config 'trainning': did you mean training"),
        ({"training": {"bach": 3}}, "unknown key of training 'bach': did you mean batch"),
        ({"training": {"batch": "many"}}, "training.batch: expected int, got 'many'"),
        ({"training": {"batch": 2.5}}, "training.batch: expected int, got 2.5"),
        ({"training": {"batch": True}}, "training.batch: expected int, got True"),
        ({"training": {"batch": 0}}, "training.batch: 0; expected at least 1"),
        ({"training": {"keep": 1}}, "training.keep: 1; expected at least 2"),
        ({"training": {"lr": -1}}, "training.lr: -1.0; expected a positive number"),
        ({"training": {"lr": float("nan")}}, "training.lr: nan"),
        ({"training": {"ema": 1.0}}, "training.ema: 1.0"),
        ({"training": {"precision": "bf16"}}, "did you mean bf16-mixed"),
        ({"training": {"checkpoint_every": "5m"}}, "training.checkpoint_every: '5m'"),
        ({"data": {"name": "jets", "view": "cell"}}, "did you mean cells"),
        ({"data": {"view": "cells"}}, "data.name is missing"),
        ({"model": 3}, "model: expected keys and values, got 3"),
    ],
)
def test_a_bad_value_is_named(change, message):
    with pytest.raises(ConfigError) as raised:
        RunConfig.from_dict(BASE | change)
    assert message in str(raised.value)


def test_a_missing_section_and_an_empty_or_broken_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match="network is missing"):
        RunConfig.from_dict({"data": "jets", "model": "vae"})
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match=r"c\.yaml: No such file"):
        RunConfig.from_yaml(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"c\.yaml: config: expected keys and values, got None"):
        RunConfig.from_yaml(path)
    path.write_text("data: {name: [")
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML"):
        RunConfig.from_yaml(path)


def test_update_names_an_unknown_section():
    with pytest.raises(ConfigError, match="did you mean training"):
        RunConfig.from_dict(BASE).updated({"trainin.lr": 1})
