"""What is said of directions and distances equals slow, obvious computations, also where nothing is to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from reporting_runs import planted
from sklearn.linear_model import LogisticRegression

from concept_depth.activations import Activations
from concept_depth.probing.scores import score_layers
from concept_depth.reporting.geometry import SAMPLE, draw_sample, measure_geometry

SETTINGS = {"cv": 3, "repeats": 1, "C": 0.1, "permutations": 0}


@pytest.fixture(scope="module")
def acts():
    layers, labels, groups = planted()
    layers[0] = np.zeros_like(layers[0]) + 0.1  # nothing is read at layer 0
    return Activations.from_arrays(layers, labels, groups=groups)


@pytest.fixture(scope="module")
def scores(acts):
    return score_layers(acts, **SETTINGS)


@pytest.fixture(scope="module")
def geometry(acts, scores):
    return measure_geometry(acts, scores)


def test_cosines_equal_those_of_separate_fits(acts, geometry):
    directions = []
    for name in acts.names[1:]:
        hidden = acts[name]
        spread = hidden.std(axis=0)
        fit = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
        directions.append(fit.fit((hidden - hidden.mean(axis=0)) / spread, acts.labels).coef_[0] / spread)
    units = np.array([direction / np.linalg.norm(direction) for direction in directions])
    np.testing.assert_allclose(geometry.cosine[1:, 1:], units @ units.T, atol=2e-3)


def test_separation_and_margin_are_those_of_the_out_of_fold_scores(scores, geometry):
    for layer in range(len(scores.names)):
        decision = scores.decision[layer, 0].astype(float)
        for fold in np.unique(scores.fold[0]):
            part = scores.fold[0] == fold
            decision[part] /= decision[part].std() or 1.0
        yes, no = decision[scores.labels == 1], decision[scores.labels == 0]
        spread = np.sqrt((yes.var() + no.var()) / 2) or 1.0
        assert geometry.separation[layer] == pytest.approx((yes.mean() - no.mean()) / spread, abs=1e-9)
        signed = np.concatenate([yes, -no]) / spread
        assert geometry.margin[layer] == pytest.approx(np.percentile(signed, 5), abs=1e-9)
    assert geometry.separation[-1] > 2 > 0.5 > abs(geometry.separation[0])


def test_a_layer_that_holds_nothing_has_no_direction(geometry):
    assert np.isnan(geometry.cosine[0]).all()
    assert np.isnan(geometry.floor[0])
    assert not geometry.y[0].any()


def test_the_second_axis_is_at_right_angles_to_the_probe(acts, geometry):
    place = geometry.y[-1]
    assert place.std() == pytest.approx(1.0, abs=1e-6)
    assert abs(np.corrcoef(place, geometry.x[-1])[0, 1]) < 0.35


def test_the_points_of_neighbouring_layers_lie_on_the_same_side(geometry):
    for before, after in zip(geometry.y[1:], geometry.y[2:], strict=False):
        assert np.dot(before, after) >= 0


def test_a_sample_is_balanced_ordered_and_repeatable():
    labels = np.array([0] * 900 + [1] * 100)
    sample = draw_sample(labels, SAMPLE, 0)
    assert len(sample) == SAMPLE == len(set(sample.tolist()))
    assert (labels[sample] == 1).sum() == 100
    assert (np.diff(sample) > 0).all()
    assert (sample == draw_sample(labels, SAMPLE, 0)).all()


def test_layers_of_different_width_have_no_common_cosine():
    layers, labels, groups = planted()
    acts = Activations.from_arrays([layers[1], layers[8][:, :7]], labels, groups=groups)
    geometry = measure_geometry(acts, score_layers(acts, **SETTINGS))
    assert geometry.cosine is None
    assert geometry.y.shape == (2, 120)


def test_more_than_two_classes_are_shown_by_two_axes_of_their_scores():
    layers, labels, groups = planted(K=3)
    acts = Activations.from_arrays(layers, labels, groups=groups)
    geometry = measure_geometry(acts, score_layers(acts, **SETTINGS))
    assert geometry.separation is None
    assert geometry.x.shape == geometry.y.shape == (9, 120)
    assert np.isfinite(geometry.x).all()
