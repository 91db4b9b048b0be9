"""Certificates of linear separability, checked in rational arithmetic."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.optimize import linprog

from concept_depth.errors import InputError
from concept_depth.probing.rational import decide, to_fractions
from concept_depth.probing.separability import TOLERANCE, separability


def small_instance(seed):
    """Small samples of every awkward kind: integers (ties, touching hulls), duplicates, floats, thin margins."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 13)), int(rng.integers(1, 5))
    kind = seed % 4
    X = rng.integers(-2, 3, size=(n, d)) if kind < 2 else rng.normal(size=(n, d))
    y = rng.integers(2, size=n)
    if kind == 3:  # labels that a hyperplane gives, so that half of all instances are separable
        y = (X @ rng.normal(size=d) > 0).astype(int)
    y[:2] = 0, 1
    return X.astype(float), y


def proved(found, X, y):
    """The certificate, checked with fractions and nothing of the package."""
    rows = [[Fraction(float(v)) for v in row] for row in X]
    if found.separable:
        normal, offset = [Fraction(float(v)) for v in found.normal], Fraction(float(found.offset))
        values = [sum(a * b for a, b in zip(row, normal, strict=True)) + offset for row in rows]
        return all((value > 0) == (label == 1) and value != 0 for value, label in zip(values, y, strict=True))
    weights = found.proof
    first = [w for w, label in zip(weights, y, strict=True) if label == 0]
    second = [w for w, label in zip(weights, y, strict=True) if label == 1]
    means = [
        [
            sum(w * row[j] for w, row, label in zip(weights, rows, y, strict=True) if label == side)
            for j in range(X.shape[1])
        ]
        for side in (0, 1)
    ]
    return min(weights) >= 0 and sum(first) == sum(second) == 1 and means[0] == means[1]


def test_a_thousand_small_certificates_hold_in_rational_arithmetic():
    answers = []
    for seed in range(1000):
        X, y = small_instance(seed)
        found = separability(X, y, directions=False)
        assert proved(found, X, y), seed
        assert found.verify(X, y), seed
        answers.append(found.separable)
    assert 300 < sum(answers) < 800  # to be sure: both answers are common


@pytest.mark.parametrize("seed", range(12))
def test_the_float_path_agrees_with_the_rational_one(seed, monkeypatch):
    X, y = small_instance(1000 + seed)
    exact = separability(X, y, directions=False)
    monkeypatch.setattr("concept_depth.probing.separability._RATIONAL_WORK", 0)
    found = separability(X, y, directions=False)
    assert found.separable == exact.separable
    assert found.verify(X, y)


def test_a_thousand_small_integer_samples_are_decided_alike_in_floats_and_in_fractions(monkeypatch):
    monkeypatch.setattr("concept_depth.probing.separability._RATIONAL_WORK", 0)
    answers = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(3, 16)), int(rng.integers(1, 6))
        X = rng.integers(-1, 2, size=(n, d)).astype(float)  # ties everywhere: hulls that just touch
        y = rng.integers(2, size=n) if seed % 2 else (X @ rng.integers(-2, 3, size=d) > 0).astype(int)
        y[:2] = 0, 1
        if seed % 4 == 1:
            X[1] = X[0]
        found = separability(X, y, directions=False)
        assert found.separable == isinstance(decide(to_fractions(X), (y == 1).tolist()), tuple), seed
        assert found.verify(X, y), seed
        assert (found.margin > 0) == found.separable
        answers.append(found.separable)
    assert 300 < sum(answers) < 700  # to be sure: both answers are common


def contradictory(kind, seed):
    """Labels that a hyperplane gives (or coins), but for one example that stands in both classes."""
    rng = np.random.default_rng(seed)
    if kind == "integers":
        X, y = rng.integers(-2, 3, size=(78, 72)).astype(float), rng.integers(2, size=78)
    else:
        X = rng.normal(size=(300, 128)).astype(np.float32)
        y = (X @ rng.normal(size=128) > 0).astype(int)
    X[1], y[1] = X[0], 1 - y[0]
    return X, y


@pytest.mark.parametrize("kind", ["integers", "float32"])
@pytest.mark.parametrize("shortcut", [True, False])
def test_an_example_that_stands_in_both_classes_is_never_separable(kind, shortcut, monkeypatch):
    if not shortcut:  # the float path must not need the search for equal rows
        monkeypatch.setattr("concept_depth.probing.separability._equal_rows", lambda sample: None)
    for seed in range(8):
        X, y = contradictory(kind, seed)
        found = separability(X, y)
        assert not found.separable, seed
        assert found.verify(X, y), seed
        assert found.exact == shortcut
        assert found.residual <= (0 if shortcut else TOLERANCE)
        assert found.n_directions is None
        X[1, 0] += 1  # to be sure: it is that example alone
        assert kind == "integers" or separability(X, y, directions=False).separable


@pytest.mark.parametrize(("n", "d", "rows"), [(78, 72, 2), (150, 40, 8), (300, 128, 4)])
@pytest.mark.parametrize("offset", [0.0, 2.0**20])
def test_hulls_that_touch_in_one_point_are_not_separable_and_parted_a_little_they_are(n, d, rows, offset):
    # All but the last few rows lie off the plane x_0 = 0, each on its class's side; `rows` rows of one class lie
    # on it, and their mean is of the other class. A shear in whole numbers hides the plane, without rounding.
    rng = np.random.default_rng(d)
    X = rng.integers(-4, 5, size=(n, d)).astype(float) * rows
    X = X[X[:, 0] != 0]
    touching = rng.integers(-4, 5, size=(rows, d)).astype(float) * rows
    touching[:, 0] = 0
    X, y = np.vstack([X, touching, touching.mean(0)]), np.r_[X[:, 0] > 0, np.zeros(rows), 1].astype(int)
    for parted in (0.0, 1e-6):
        X[-1, 0] = parted
        sheared = X.copy()
        sheared[:, 1:] += X[:, :1]
        found = separability(sheared + offset, y, directions=False)
        assert found.separable == (parted > 0)
        assert found.verify(sheared + offset, y)
        assert (found.margin > 0) == found.separable


def test_a_hyperplane_that_floats_cannot_hold_is_proved_in_fractions():
    # Between 2^53 and 2^53 + 2 lies one float, and a normal of 1 leaves no float for the offset.
    X, y = np.array([[2.0**53], [2.0**53 + 2]]), np.array([0, 1])
    found = separability(X, y)
    assert found.separable
    assert found.margin == pytest.approx(1)
    assert found.verify(X, y)


def test_the_float_path_holds_a_separation_beside_a_large_offset(monkeypatch):
    monkeypatch.setattr("concept_depth.probing.separability._RATIONAL_WORK", 0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 6)), np.arange(60) % 2
    X[:, 2] = 2.0**45 + np.where(y, 1.0, -1.0) / 128
    found = separability(X, y)
    assert found.separable
    assert found.margin == pytest.approx(1 / 128, rel=0.5)
    assert found.verify(X, y)


@pytest.mark.parametrize("seed", range(8))
def test_directions_that_only_rounding_separates_do_not_count(seed):
    # In the leading directions two examples of unlike labels both lie at the origin, where the hulls touch; the
    # weakest direction alone parts them. A rotation makes the origin's zeros rounding noise of either sign.
    rng = np.random.default_rng(seed)
    d = 20
    half = rng.normal(size=(100, d))
    X = np.vstack([np.zeros((2, d)), half, -half])
    X[0, -1], X[1, -1], X[2:, -1] = 0.1, -0.1, 0
    y = np.r_[1, 0, X[2:, 0] > 0].astype(int)
    found = separability(X @ np.linalg.qr(rng.normal(size=(d, d)))[0], y)
    assert found.separable
    assert found.n_directions == d


def by_linear_program(X, y):
    """The slow, obvious reference: is there a hyperplane with margins of at least 1?"""
    sign = 2.0 * y - 1
    rows = -sign[:, None] * np.column_stack([X, np.ones(len(X))])
    free = [(None, None)] * rows.shape[1]
    return linprog(np.zeros(rows.shape[1]), rows, -np.ones(len(X)), bounds=free, method="highs").status == 0


@pytest.mark.parametrize(("n", "d"), [(100, 30), (60, 29), (60, 30), (60, 31), (40, 80)])
@pytest.mark.parametrize("seed", range(3))
def test_random_samples_near_covers_threshold_agree_with_a_linear_program(n, d, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)) + 10, np.arange(n) % 2
    found = separability(X, y)
    assert found.separable == by_linear_program(X, y)
    assert found.verify(X, y)
    assert found.residual <= TOLERANCE
    if found.separable:
        assert found.margin > 0
        assert found.exact


def test_the_number_of_directions_is_the_first_that_separates():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 12)) * np.arange(12, 0, -1)
    y = (X[:, 7] > 0).astype(int)
    found = separability(X, y)
    centred = X - X.mean(0)
    principal = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    separates = [by_linear_program(principal[:, :k], y) for k in range(1, 13)]
    assert found.n_directions == separates.index(True) + 1
    assert not separates[0]  # to be sure: the search had something to find


def test_covers_probability_is_the_written_sum():
    for n, d in [(10, 3), (20, 9), (7, 6)]:
        y = np.arange(n) % 2
        found = separability(np.random.default_rng(n).normal(size=(n, d)), y)
        assert found.cover_probability == pytest.approx(sum(comb(n - 1, k) for k in range(d + 1)) / 2 ** (n - 1))
    assert found.cover_probability == pytest.approx(1)  # n = d + 1: always


def test_equal_examples_of_both_classes_and_constant_samples_are_not_separable():
    X = np.random.default_rng(0).normal(size=(200, 50))
    y = np.arange(200) % 2
    X[1] = X[0]
    assert not separability(X, y).separable
    constant = separability(np.ones((200, 50)), y)
    assert not constant.separable
    assert constant.verify(np.ones((200, 50)), y)


def test_an_input_layer_where_every_text_ends_alike_is_not_separable():
    row = np.random.default_rng(0).normal(size=768).astype(np.float32)
    X, y = np.repeat(row[None], 100, 0), np.arange(100) % 2
    found = separability(X, y)
    assert not found.separable
    assert found.exact
    assert found.verify(X, y)
    assert np.count_nonzero(found.weights) == 2


def test_zeros_of_either_sign_are_equal():
    X = np.random.default_rng(0).normal(size=(300, 20))
    y = (X[:, 0] > 0).astype(int)
    X[0] = np.where(np.arange(20) < 10, 0.0, X[0])
    X[1] = np.where(np.arange(20) < 10, -0.0, X[0])
    y[:2] = 0, 1
    found = separability(X, y)
    assert not found.separable
    assert found.exact


def test_outlier_dimensions_do_not_hide_a_separation():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 40))
    y = (X[:, 3] > 0).astype(int)
    X[:, 3] += 0.1 * (2 * y - 1)
    X[:, 0] = 1e4 + 1e3 * X[:, 0]
    found = separability(X.astype(np.float32), y)
    assert found.separable
    assert found.exact
    assert found.verify(X.astype(np.float32), y)


@pytest.mark.parametrize("y", [np.zeros(4), np.arange(4), np.arange(3) % 2, [0, np.nan, 0, 1]])
def test_other_than_two_classes_are_refused(y):
    with pytest.raises(InputError, match="two classes"):
        separability(np.eye(4), y)


@pytest.mark.parametrize(
    "X", [[["a"], ["b"]], [[1], [1, 2]], np.zeros((2, 0)), [[np.nan], [1]], [[1e200], [1]], [1, 2]]
)
def test_what_is_no_finite_matrix_is_refused_with_a_sentence(X):
    with pytest.raises(InputError, match="matrix"):
        separability(X, [0, 1])


def test_a_certificate_is_checked_against_its_own_sample_only():
    found = separability(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(InputError, match="matrix"):
        found.verify(np.eye(5), [0, 1, 0, 1, 0])
