"""Histograms that plotting libraries take, what is kept on disk, and what is told beforehand."""

import math

import mplhep
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from uhi.typing.plottable import PlottableHistogram

from sparsegen import data, metrics
from sparsegen.metrics import cache, features
from sparsegen.metrics.cost import expected_seconds
from sparsegen.metrics.frechet import efp_features
from sparsegen.metrics.spectra import Bins, Spectrum, spectra
from sparsegen.study.figures import overlays


def test_a_spectrum_is_a_plottable_histogram_that_mplhep_draws():
    spectrum = Spectrum([0.1, 0.2, 1.5, 9.0, -1.0], Bins([0.0, 1.0, 2.0], "x"))
    assert isinstance(spectrum, PlottableHistogram)
    assert spectrum.outside == 2
    assert spectrum.values().tolist() == spectrum.variances().tolist() == [2.0, 1.0]
    drawn = mplhep.histplot(spectrum, ax=Figure().subplots())
    assert np.array_equal(drawn[0].stairs.get_data().values, [2.0, 1.0])
    density, error = spectrum.density()
    assert density.tolist() == [0.4, 0.2]
    assert error[1] == pytest.approx(0.2)


def test_both_sides_share_bins_and_every_observable_is_there(jets, more_jets):
    found = spectra(more_jets, jets)
    assert {"hits", "jet mass", "sum of ptrel", "tau21", "D2", "etarel of a hit"} <= set(found)
    for ours, real in found.values():
        assert ours.axes[0] == real.axes[0]
        assert real.outside <= 0.01 * real.total
    assert found["hits"][1].total == len(jets)
    assert found["etarel of a hit"][0].total == len(more_jets.coords)
    figure = overlays(found)
    assert len(figure.axes) == 2 * len(found)


def test_reference_features_are_kept_by_the_files_hash_and_read_back(tmp_path, monkeypatch):
    source = data.open("pythia-jets:test", view="points")
    sizes = []
    computed = features._collected
    monkeypatch.setattr(features, "_collected", lambda *a: sizes.append(len(a[0])) or computed(*a))
    read = lambda s: features.collect(s, efp_features, role="reference").values
    plain = read(source)
    with cache.kept_in(tmp_path):
        first, again = read(source), read(data.open("pythia-jets:test", view="points"))
        assert len(sizes) == 2
        assert np.array_equal(first, plain)
        assert np.array_equal(again, plain)
        # Another cut or another function is another key; events in memory and functions without a name are not kept.
        read(data.open("pythia-jets:valid", view="points"))
        features.collect(source[:50], efp_features, role="reference")
        for _ in range(2):
            features.collect(source[:50], lambda e: e.total("ptrel").numpy()[:, None], role="reference")
    assert len(sizes) == 6
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert not list(tmp_path.glob("*.part"))


def test_expected_time_knows_every_metric_grows_with_the_sample_and_counts_shared_work_once():
    for name in metrics.METRICS:
        few, many = (expected_seconds([name], n, n, 60.0) for n in (100, 5000))
        assert math.isfinite(few)
        assert 0 < few <= many
    one, both = (expected_seconds(names, 300, 300, 60.0) for names in (["cov_emd"], ["cov_emd", "mmd_emd"]))
    assert both < 1.1 * one
    assert torch.tensor(metrics.machine_factor()) > 0
