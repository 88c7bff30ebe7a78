"""Published numbers stand beside results of the same data and protocol, and nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsegen.metrics
from sparsegen import data, metrics
from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Column, Events
from sparsegen.metrics.leaderboard import check_data_set, data_sets, published
from sparsegen.result import Result

TABLES = json.loads((Path(sparsegen.metrics.__file__).parent / "leaderboard.json").read_text())
pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


def jetnet_like(n=400):
    """Jets with the published data's own multiplicity, momenta and width."""
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(n) < 0.02, 25, 30)
    counts[0] = 30
    total = int(counts.sum())
    pt = rng.exponential(0.0303, size=(total, 1))
    return Events(
        torch.tensor(rng.normal(0, 0.0779, size=(total, 2))),
        torch.tensor(pt),
        torch.tensor(np.concatenate([[0], np.cumsum(counts)])),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
    )


def test_every_table_is_cited_and_names_metrics_data_and_conditions():
    assert len(TABLES["tables"]) > 20
    # Numbers of networks that are not in this package are kept for the record.
    foreign = {"fpnd", "classifier_auc_cnn", "classifier_auc_voxels"}
    for table in TABLES["tables"]:
        assert table["data"] in data_sets()
        assert table["reference"]["url"].startswith("https://arxiv.org/abs/")
        assert {"title", "authors", "year"} <= set(table["reference"])
        assert set(table["columns"]) <= set(metrics.METRICS) | foreign
        assert all(condition for condition in table["columns"].values())
        for row in table["rows"]:
            assert set(row) - {"model"} <= set(table["columns"])
            assert all(len(pair) == 2 for name, pair in row.items() if name != "model")


def test_published_values_are_in_the_metrics_own_units():
    row = next(p for p in published([metrics_result("w1m", "mpgan2021")], "jetnet-30-g") if "MPGAN" in p.model)
    assert (row.value, row.error) == (0.7e-3, 0.2e-3)
    assert row.reference["url"].endswith("2106.11535")


def metrics_result(name, protocol, **more):
    held = {"name": protocol, "events": [10_000, 10_000], "batches": 5, "replacement": True}
    return Result(name, 1.0, protocol=held | more)


def test_a_matching_protocol_and_data_set_shows_the_rows_and_anything_else_none():
    jets = jetnet_like()
    check_data_set(jets, "jetnet-30-g")
    results = metrics.evaluate(jets, jets, "w1m,w1p", protocol="mpgan2021")
    rows = published(results, "jetnet-30-g")
    assert {r.metric for r in rows} == {"w1m", "w1p"}
    assert "real against real" in {r.model for r in rows}
    assert published(results, None) == []
    # Another protocol has other rows, and the same mass on whole samples none.
    larger = published(metrics.evaluate(jets, jets, "w1m"), "jetnet-30-g")
    assert {r.reference["year"] for r in larger} == {2023}
    assert published(metrics.evaluate(jets, jets, "w1_mass"), "jetnet-30-g") == []


def test_jets_of_pythia_never_stand_beside_jetnet():
    jets = data.open("pythia-jets:test")[:500]
    results = metrics.evaluate(jets, jets, "w1m", protocol="mpgan2021")
    assert published(results, None) == []
    for name in data_sets():
        with pytest.raises(DataError, match="the reference is not"):
            check_data_set(jets, name)
    # Not even cut to the hardest thirty particles.
    hardest = jets.features[:, 0].argsort(descending=True, stable=True)
    hardest = hardest[jets.batch[hardest].argsort(stable=True)]
    rank = torch.arange(len(hardest)) - jets.offsets[:-1][jets.batch]
    kept = hardest[rank < 30]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), jets.counts.clamp_max(30).cumsum(0)])
    cut = jets.replace(coords=jets.coords[kept], features=jets.features[kept], offsets=offsets)
    for name in ("jetnet-30-g", "jetnet-30-q", "jetnet-30-t"):
        with pytest.raises(DataError, match="the reference is not"):
            check_data_set(cut, name)


def test_unknown_data_sets_are_named():
    with pytest.raises(ConfigError, match="jetnet-30-g"):
        published([], "jetnet-30-gluon")


def test_an_approximate_matching_never_stands_beside_an_exact_distance():
    columns = [table["columns"]["nna_emd"] for table in TABLES["tables"] if "nna_emd" in table["columns"]]
    assert columns
    assert all("approximate" in condition["distance"] for condition in columns)
