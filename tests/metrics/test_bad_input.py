"""Bad events are an error or a counted exclusion, as the user chose, in every metric that takes jets."""

import math

import pytest
import torch

from sparsegen import metrics
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.metrics.protocol import Protocol

pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
NAMES = [
    "w1_mass",
    "w1_pt",
    "w1_hits",
    "w1_multiplicity",
    "w1_occupied",
    "w1_cells",
    "w1_tau21",
    "w1_d2",
    "w1efp",
    "frechet",
    "fpd",
    "kpd",
    "jsd",
    "precision",
    "recall",
    "density",
    "coverage",
    "classifier_auc",
    "cov_cd",
    "mmd_cd",
    "nna_cd",
    "sharpness",
]
SLOW = ("classifier_auc", "w1_tau21", "fpd")
FEW = {"resamples": 2, "pairs": 1}


def spoil(events, kind):
    """The first three events made bad in one way."""
    features, coords = events.features.clone(), events.coords.clone()
    rows = events.offsets[:3]
    if kind == "NaN":
        features[rows] = math.nan
    elif kind == "infinite":
        coords[rows] = math.inf
    elif kind == "negative pt":
        features[rows] = -1e-3
    else:
        none = torch.zeros(4, dtype=torch.int64)
        empty = Events(coords[:0], features[:0], none, axes=events.axes, columns=events.columns)
        return Events.cat([empty, events[3:]])
    return events.replace(features=features, coords=coords)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_counts_bad_events_or_raises_as_the_user_chose(name, jets, more_jets):
    function = metrics.METRICS[name].function
    options = {"protocol": Protocol(**FEW)}
    ours, real = more_jets[:80], jets[:160]
    clean = function(ours[3:], real, **options)
    for kind in ("NaN",) if name in SLOW else ("NaN", "infinite", "negative pt", "empty"):
        bad = spoil(ours, kind)
        found = function(bad, real, **options)
        assert found.invalid == 3
        assert found.value == pytest.approx(clean.value, rel=1e-12, abs=1e-12)
        with pytest.raises(DataError, match="generated event with id"):
            function(bad, real, protocol=Protocol(invalid="raise", **FEW))
        both = function(ours, spoil(real, kind), **options)
        assert both.protocol["reference_invalid"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_other_features_units_or_axes_are_refused_by_name(name, jets, more_jets):
    function = metrics.METRICS[name].function
    ours = more_jets[:40]
    with pytest.raises(DataError, match="GeV"):
        function(ours.replace(columns=(Column("ptrel", "GeV"),)), jets[:40])
    with pytest.raises(DataError, match="mass"):
        function(ours.replace(columns=(Column("mass"),)), jets[:40])
    with pytest.raises(DataError, match="eta"):
        function(ours.replace(axes=("phirel", "etarel")), jets[:40])


def test_nothing_left_to_evaluate_is_an_error_that_counts(jets):
    bad = jets[:5].with_features(jets[:5].features * math.nan)
    with pytest.raises(DataError, match="5"):
        metrics.w1_mass(bad, jets)
    with pytest.raises(DataError, match="5 of 5"):
        metrics.frechet(bad, jets)


@pytest.mark.parametrize("name", ["kpd", "fpd", "precision", "classifier_auc", "jsd", "cov_cd", "sharpness"])
def test_too_few_events_are_an_error_that_says_how_many_it_takes(name, jets):
    with pytest.raises(metrics.TooFewError, match=r"[Uu]se|needs more|few"):
        metrics.METRICS[name].function(jets[:1], jets[:1])
    (result,) = metrics.evaluate(jets[:1], jets[:1], name)
    assert math.isnan(result.value)
    assert result.protocol["reason"]


def test_mismatched_masks_are_refused(jets):
    coords, features, mask = jets.to_padded()
    padded = torch.cat([coords, features], 2)
    with pytest.raises(DataError, match="a mask of shape"):
        metrics.jets_from_arrays(padded, mask[:-1])
    with pytest.raises(DataError, match="a mask of shape"):
        metrics.jets_from_arrays(padded, mask[:, :-1])
