import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sparsegen import metrics
from sparsegen.errors import DataError
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
