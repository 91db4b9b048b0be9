"""Certificates of linear separability, checked in rational arithmetic."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.optimize import linprog

from concept_depth.errors import InputError
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


@pytest.mark.parametrize("y", [np.zeros(4), np.arange(4), np.arange(3) % 2])
def test_other_than_two_classes_are_refused(y):
    with pytest.raises(InputError, match="two classes"):
        separability(np.eye(4), y)
