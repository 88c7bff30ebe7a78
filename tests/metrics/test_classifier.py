import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from sparsegen import metrics
from sparsegen.errors import DataError
from sparsegen.metrics.challenge import calibrated, challenge_scores
from sparsegen.metrics.classifier import Classifier, auc, auc_error, inception_score


def test_auc_equals_sklearn_with_ties():
    rng = np.random.default_rng(0)
    p, n = rng.integers(0, 6, 80), rng.integers(0, 5, 50)
    labels = np.r_[np.ones(80), np.zeros(50)]
    assert auc(p, n) == pytest.approx(roc_auc_score(labels, np.r_[p, n]))
    assert auc([1.0], [0.0]) == 1
    with pytest.raises(DataError):
        auc([], [1.0])


def test_auc_error_is_the_spread_over_repeated_samples():
    rng = np.random.default_rng(1)
    draws = [(rng.normal(0.5, 1, 100), rng.normal(0, 1, 150)) for _ in range(300)]
    spread = np.std([auc(*d) for d in draws])
    assert np.mean([auc_error(*d) for d in draws]) == pytest.approx(spread, rel=0.15)


def test_inception_score_lies_between_one_and_the_number_of_classes():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(4), size=100)
    assert 1 <= inception_score(p) <= 4
    assert inception_score(np.eye(4)) == pytest.approx(4)
    assert inception_score(np.eye(4)[[0, 0, 0]]) == pytest.approx(1)
    with pytest.raises(DataError, match="summing to 1"):
        inception_score(2 * p)


def test_classifier_separates_labelled_classes_and_its_activations_do_too():
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=900)
    x = rng.normal(size=(900, 2)) * 0.3 + np.array([[0, 0], [2, 0], [0, 2]])[labels]
    judge = Classifier(epochs=20).fit(x, labels)
    assert (judge.probabilities(x).argmax(1) == labels).mean() > 0.97
    assert judge.activations(x).shape == (900, 128)
    assert inception_score(judge.probabilities(x)) > 2.5


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_two_samples_of_one_law_cannot_be_told_apart_and_different_ones_can(jets, more_jets, make):
    same = metrics.classifier_auc(more_jets, jets, epochs=10)
    assert abs(same.value - 0.5) < 4 * same.error
    assert abs(same.floor - 0.5) < 4 * same.protocol["floor_error"]
    other = metrics.classifier_auc(make(600, seed=3, mean=40), jets, epochs=10)
    assert other.value > 0.95
    assert other.protocol["js_divergence_bits"] > 0.5
    assert metrics.classifier_auc(more_jets, jets, epochs=10) == same


def test_calibration_equals_scikit_learns_isotonic_regression_also_with_ties():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 40, 300) / 40
    labels = (rng.random(300) < scores).astype(float)
    new = rng.uniform(-0.1, 1.1, 100)
    theirs = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6).fit(scores, labels).predict(new)
    assert calibrated(scores, labels, new) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_the_challenges_classifier_gives_half_and_no_divergence_for_equal_laws_and_finds_others():
    rng = np.random.default_rng(5)
    real, same, other = (rng.normal(mean, 1, size=(4000, 3)) for mean in (0, 0, 1))
    few = {"epochs": 3, "width": 64, "batch": 100}
    alike = challenge_scores(same, real, **few)
    assert [len(part) for part in alike] == [800, 800]
    assert abs(auc(*alike) - 0.5) < 4 * auc_error(*alike)
    divergence = lambda p, q: 1 + (np.log2(p).mean() + np.log2(1 - q).mean()) / 2
    assert abs(divergence(*alike)) < 0.03
    apart = challenge_scores(other, real, **few)
    # The best possible judge of the two normal laws.
    best = [1 / (1 + np.exp(1.5 - sample.sum(1))) for sample in (other, real)]
    assert auc(*apart) == pytest.approx(auc(*best), abs=0.02)
    # Isotonic steps that hold one class alone are certain, and dear where they are wrong.
    assert divergence(*best) - 0.12 < divergence(*apart) < divergence(*best) + 0.02


@pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")
def test_the_challenges_protocol_is_named_only_when_it_is_followed_whole(jets, more_jets):
    result = metrics.classifier_auc(more_jets, jets, protocol="calochallenge", epochs=1)
    assert result.protocol["name"] == "calochallenge, 1 epochs"
    assert result.protocol["events"] == [600, 600]
    assert "2048-2048-2048" in result.protocol["classifier"]
    assert "60 %" in result.protocol["split"]
    assert abs(result.value - 0.5) < 4 * result.error
