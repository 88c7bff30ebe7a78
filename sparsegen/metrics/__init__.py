"""Metrics that carry their error, protocol and floor.

Each is ``metrics.NAME(generated, reference, *, protocol=None, seed=0) -> Result``; ``METRICS`` is the table of them and
:func:`evaluate` runs a group.
"""

from sparsegen.metrics.arrays import clouds_from_arrays, jets_from_arrays
from sparsegen.metrics.cache import kept_in
from sparsegen.metrics.calorimeter import (
    classifier_auc_showers,
    energy_resolution,
    energy_response,
    fpd_showers,
    histogram_separation,
    kpd_showers,
    separation_power,
    shower_features,
)
from sparsegen.metrics.classifier import Classifier, auc, classifier_auc, inception_score
from sparsegen.metrics.cost import expected_seconds, machine_factor
from sparsegen.metrics.efp import EFPS_D4, efps
from sparsegen.metrics.evaluate import GROUPS, applicable, evaluate
from sparsegen.metrics.extrapolation import frechet_infinity
from sparsegen.metrics.features import FeatureSample, Moments
from sparsegen.metrics.fpnd import ParticleNet, ReferenceStatistics, fit_reference, fpnd, load_published
from sparsegen.metrics.frechet import fpd, frechet
from sparsegen.metrics.gaussians import frechet_distance
from sparsegen.metrics.images import laplace_variance, sharpness, w1_cells
from sparsegen.metrics.jets import cov_jets, cov_mmd, energy_movers_distance, mmd_jets, w1efp, w1m, w1p
from sparsegen.metrics.kernel_mmd import kpd, polynomial_mmd
from sparsegen.metrics.leaderboard import Published, check_data_set, data_sets, published
from sparsegen.metrics.manifold import coverage, density, prdc, precision, recall
from sparsegen.metrics.marginals import w1_energy, w1_hits, w1_mass, w1_multiplicity, w1_occupied, w1_pt
from sparsegen.metrics.memorisation import memorisation
from sparsegen.metrics.metric import METRICS, Metric, SmallSampleWarning, TooFewError
from sparsegen.metrics.modes import ModeReport, mode_report
from sparsegen.metrics.observables import jet_mass, occupied_cells, summary_features
from sparsegen.metrics.occupancy import js_divergence, jsd
from sparsegen.metrics.pointsets import cov_cd, cov_emd, mmd_cd, mmd_emd, nna_cd, nna_emd
from sparsegen.metrics.protocol import PROTOCOLS, Protocol
from sparsegen.metrics.shower_classifiers import ShowerNet, classifier_auc_cnn, classifier_auc_voxels
from sparsegen.metrics.spectra import Bins, Spectrum, spectra
from sparsegen.metrics.substructure import correlation_ratios, n_subjettiness, w1_c2, w1_d2, w1_tau21, w1_tau32
from sparsegen.metrics.wasserstein import w1

__all__ = [
    "Bins",
    "Spectrum",
    "expected_seconds",
    "kept_in",
    "machine_factor",
    "spectra",
    "Classifier",
    "EFPS_D4",
    "FeatureSample",
    "GROUPS",
    "METRICS",
    "Metric",
    "ModeReport",
    "Moments",
    "PROTOCOLS",
    "ParticleNet",
    "Protocol",
    "Published",
    "ReferenceStatistics",
    "ShowerNet",
    "SmallSampleWarning",
    "TooFewError",
    "applicable",
    "auc",
    "classifier_auc",
    "check_data_set",
    "classifier_auc_cnn",
    "classifier_auc_showers",
    "classifier_auc_voxels",
    "clouds_from_arrays",
    "correlation_ratios",
    "cov_cd",
    "cov_emd",
    "cov_jets",
    "cov_mmd",
    "coverage",
    "data_sets",
    "density",
    "efps",
    "energy_movers_distance",
    "energy_resolution",
    "energy_response",
    "evaluate",
    "fit_reference",
    "fpd",
    "fpd_showers",
    "fpnd",
    "frechet",
    "frechet_distance",
    "frechet_infinity",
    "histogram_separation",
    "inception_score",
    "jet_mass",
    "jets_from_arrays",
    "js_divergence",
    "jsd",
    "kpd",
    "kpd_showers",
    "laplace_variance",
    "load_published",
    "memorisation",
    "mmd_cd",
    "mmd_emd",
    "mmd_jets",
    "mode_report",
    "n_subjettiness",
    "nna_cd",
    "nna_emd",
    "occupied_cells",
    "polynomial_mmd",
    "prdc",
    "precision",
    "published",
    "recall",
    "separation_power",
    "sharpness",
    "shower_features",
    "summary_features",
    "w1",
    "w1_c2",
    "w1_cells",
    "w1_d2",
    "w1_energy",
    "w1_hits",
    "w1_mass",
    "w1_multiplicity",
    "w1_occupied",
    "w1_pt",
    "w1_tau21",
    "w1_tau32",
    "w1efp",
    "w1m",
    "w1p",
]
