"""The estimators: scikit-learn's contract, its own solutions, files, honesty about convergence."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from concept_depth.errors import InputError
from concept_depth.probing.probe import LogisticProbe, MassMeanProbe


@parametrize_with_checks([LogisticProbe(), MassMeanProbe()])
def test_the_contract_of_scikit_learn_holds(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks fit nonsense on purpose
        check(estimator)


def blobs(n, d, classes=2, seed=0):
    """Overlapping clouds with features of very different size."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = rng.normal(size=(n, d)) + 0.8 * rng.normal(size=(classes, d))[y]
    return X * np.geomspace(1e-3, 1e3, d) + rng.normal(size=d) * 100, y


@pytest.mark.parametrize("classes", [2, 4])
def test_coefficients_equal_scikit_learns_pipeline_with_the_scaler_folded_in(classes):
    X, y = blobs(200, 6, classes)
    scaler = StandardScaler().fit(X)
    expected = LogisticRegression(C=0.7, tol=1e-10, max_iter=10_000).fit(scaler.transform(X), y)
    found = LogisticProbe(C=0.7, tol=1e-12).fit(X, y)
    assert found.coef_ == pytest.approx(expected.coef_ / scaler.scale_, rel=1e-4, abs=1e-9)
    assert found.predict_proba(X) == pytest.approx(expected.predict_proba(scaler.transform(X)), abs=1e-5)
    assert found.converged_


def test_float32_is_fitted_in_float32_and_agrees():
    X, y = blobs(200, 6)
    double = LogisticProbe().fit(X, y)
    single = LogisticProbe().fit(X.astype(np.float32), y)
    assert single.predict_proba(X.astype(np.float32)) == pytest.approx(double.predict_proba(X), abs=1e-3)


@pytest.mark.parametrize("probe", [LogisticProbe(tol=1e-8), MassMeanProbe()])
def test_a_weight_of_zero_removes_a_row_and_order_and_repetition_change_no_digit(probe):
    X, y = blobs(60, 4)
    weight = np.random.default_rng(1).integers(0, 3, size=60)
    weighted = probe.fit(X, y, sample_weight=weight).decision_function(X)
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(60), weight))
    assert (probe.fit(X[order], y[order]).decision_function(X) == weighted).all()


def test_a_scalar_scale_keeps_rotations_exact():
    X, y = blobs(80, 5)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    plain = LogisticProbe(standardize="scale", tol=1e-12).fit(X, y)
    turned = LogisticProbe(standardize="scale", tol=1e-12).fit(X @ rotation, y)
    assert plain.coef_ @ rotation == pytest.approx(turned.coef_, abs=1e-6 * np.abs(plain.coef_).max())


def test_a_fit_cut_short_says_so_and_names_separable_classes():
    X = np.random.default_rng(0).normal(size=(30, 40))
    y = np.arange(30) % 2
    with pytest.warns(ConvergenceWarning, match="separable.*lower C"):
        probe = LogisticProbe(C=1e12, max_iter=4, tol=1e-12).fit(X, y)
    assert not probe.converged_
    X, y = blobs(300, 3)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        LogisticProbe(C=10, max_iter=2, tol=1e-12).fit(X, y)


def test_the_difference_of_means_is_the_direction_and_its_threshold_lies_half_way():
    X, y = blobs(200, 4)
    probe = MassMeanProbe(standardize=False).fit(X, y)
    means = X[y == 0].mean(0), X[y == 1].mean(0)
    cosine = probe.coef_[0] @ (means[1] - means[0])
    cosine /= np.linalg.norm(probe.coef_[0]) * np.linalg.norm(means[1] - means[0])
    assert cosine == pytest.approx(1)
    assert probe.decision_function([(means[0] + means[1]) / 2]) == pytest.approx(0, abs=1e-9)


def test_the_difference_of_means_of_many_classes_is_the_nearest_mean():
    X, y = blobs(300, 5, classes=4)
    probe = MassMeanProbe(standardize=False).fit(X, y)
    means = np.stack([X[y == k].mean(0) for k in range(4)])
    nearest = ((X[:, None] - means) ** 2).sum(2).argmin(1)
    assert (probe.predict(X) == nearest).all()


@pytest.mark.parametrize("standardize", [True, "scale", False])
def test_constant_features_do_not_change_the_probabilities_of_the_difference_of_means(standardize):
    X, y = blobs(100, 4)
    wide = np.hstack([X, np.full((100, 3), 5.0)])
    probe = MassMeanProbe(standardize=standardize)
    if standardize == "scale":  # the one scalar is of all features
        X = np.hstack([X, np.zeros((100, 3))])
    assert probe.fit(wide, y).predict_proba(wide) == pytest.approx(probe.fit(X, y).predict_proba(X))


@pytest.mark.parametrize("probe", [LogisticProbe(C=0.3), MassMeanProbe()])
def test_a_saved_probe_comes_back_whole_with_its_card(probe, tmp_path):
    X, y = blobs(100, 4)
    names = np.array(["false", "true"])[y]
    probe.fit(X, names)
    path = probe.save(tmp_path / "layer.11", {"layer": "resid_post.11", "threshold": 0.5})
    assert path.name == "layer.11.safetensors"
    again = type(probe).load(path)
    assert (again.predict(X) == probe.predict(X)).all()
    assert (again.decision_function(X) == probe.decision_function(X)).all()
    assert again.get_params() == probe.get_params()
    assert again.card_ == {"layer": "resid_post.11", "threshold": 0.5}
    assert json.loads((tmp_path / "layer.11.json").read_text())["card"] == again.card_


def test_files_that_are_no_probes_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no probe at"):
        LogisticProbe.load(tmp_path / "absent.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"junk")
    with pytest.raises(InputError, match="no safetensors file"):
        LogisticProbe.load(broken)
    other = MassMeanProbe().fit(*blobs(30, 2)).save(tmp_path / "other")
    with pytest.raises(InputError, match="MassMeanProbe"):
        LogisticProbe.load(other)


@pytest.mark.parametrize("kind", [LogisticProbe, MassMeanProbe])
def test_numpys_false_is_false_and_zero_is_refused(kind):
    X, y = blobs(60, 4)
    assert (kind(standardize=np.False_).fit(X, y).coef_ == kind(standardize=False).fit(X, y).coef_).all()
    assert (kind(standardize=np.True_).fit(X, y).coef_ == kind(standardize=True).fit(X, y).coef_).all()
    for standardize in (0, 1, None, "x", np.ones(2)):
        with pytest.raises(InputError, match="standardize="):
            kind(standardize=standardize).fit(X, y)


@pytest.mark.parametrize(
    "change", [{"C": "x"}, {"C": None}, {"C": [1.0, 2.0]}, {"tol": "x"}, {"max_iter": 0}, {"device": "banana"}]
)
def test_parameters_out_of_range_are_refused_with_a_sentence(change):
    X, y = blobs(60, 4)
    with pytest.raises(InputError, match=r"must (be|hold)|not allowed|cannot be used"):
        LogisticProbe(**change).fit(X, y)


@pytest.mark.parametrize("card", [{"score": float("nan")}, {"score": np.float32(1)}, {"layer": object()}])
def test_a_card_that_is_no_json_is_refused_before_anything_is_written(card, tmp_path):
    probe = LogisticProbe().fit(*blobs(60, 4))
    with pytest.raises(InputError, match="card must hold"):
        probe.save(tmp_path / "probe", card)
    assert not list(tmp_path.iterdir())


def test_a_probe_with_numpys_numbers_as_parameters_is_saved_with_pythons(tmp_path):
    path = LogisticProbe(C=np.float32(0.5), standardize=np.True_).fit(*blobs(60, 4)).save(tmp_path / "probe")
    assert LogisticProbe.load(path).get_params()["C"] == 0.5
    assert LogisticProbe.load(path).standardize is True


def test_importing_the_module_loads_no_torch():
    code = "import sys, concept_depth.probing.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("standardize", [True, "scale", False])
@pytest.mark.parametrize("kind", [LogisticProbe, MassMeanProbe])
def test_the_last_digit_of_a_constant_is_not_read(kind, standardize):
    y = np.arange(40) % 2
    X = np.full((40, 5), 3.0, np.float32)
    X[y == 1, 0] = np.nextafter(np.float32(3), np.float32(9))
    probe = kind(standardize=standardize).fit(X, y)
    assert (probe.coef_ == 0).all()
    assert (probe.predict(X) == y).mean() == 0.5
