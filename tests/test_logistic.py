"""The batched solver against slow, obvious references: scipy on the written objective, scikit-learn, algebra."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from concept_depth.errors import InputError
from concept_depth.probing.logistic import rotation_of, solve_logistic


def objective(theta, X, y, C, weight):
    """The objective as the docstring of `logistic` writes it, and its gradient."""
    sign = 2 * y - 1
    margin = sign * (X @ theta[:-1] + theta[-1])
    value = 0.5 * theta[:-1] @ theta[:-1] + C * weight @ np.logaddexp(0, -margin)
    pull = -C * weight * sign * np.exp(-np.logaddexp(0, margin))
    return value, np.append(theta[:-1] + X.T @ pull, pull.sum())


def reference(X, y, C, weight):
    """The minimum by Newton's method with halved steps on the written objective: ten lines, dense, float64."""
    A = np.column_stack([X - X.mean(0), np.ones(len(X))])
    penalty = np.append(np.ones(X.shape[1]), 0.0)
    theta, sign = np.zeros(A.shape[1]), 2 * y - 1

    def value_at(point):
        return 0.5 * penalty @ point**2 + C * weight @ np.logaddexp(0, -sign * (A @ point))

    for _ in range(200):
        p = np.exp(-np.logaddexp(0, sign * (A @ theta)))
        gradient = penalty * theta - A.T @ (C * weight * sign * p)
        hessian = (A.T * (C * weight * p * (1 - p))) @ A + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-13 * np.trace(hessian) / len(theta) * np.eye(len(theta)), -gradient)
        while value_at(theta + step) > value_at(theta) and np.abs(step).max() > 1e-14:
            step /= 2
        theta = theta + step
    return value_at(theta)


def batch(n, d, B=6, seed=0):
    """Noisy labels on one matrix, weights of 0, 1 and 2.5, and values of C over six decades."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + 3
    Y = (X[:, :1] + rng.normal(size=(n, B)) > 3).astype(float)
    weight = rng.choice([0.0, 1.0, 2.5], size=(n, B))
    return X, Y, np.geomspace(1e-3, 1e3, B), weight


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50), (40, 40)])
def test_solutions_equal_scipys_on_the_written_objective(n, d):
    X, Y, C, weight = batch(n, d)
    found = solve_logistic(X, Y, C=C, sample_weight=weight, tol=1e-10)
    assert found.converged.all()
    options = {"gtol": 1e-10, "maxiter": 20000, "ftol": 1e-16, "maxfun": 100000}
    for b in range(6):
        data = (X, Y[:, b], C[b], weight[:, b])
        fit = minimize(objective, np.zeros(d + 1), data, "L-BFGS-B", jac=True, options=options)
        assert found.objective[b] <= fit.fun * (1 + 1e-8)
        assert found.coef[:, b] == pytest.approx(fit.x[:-1], abs=2e-4 * np.abs(fit.x).max())
        value, gradient = objective(np.append(found.coef[:, b], found.intercept[b]), *data)
        assert found.objective[b] == pytest.approx(value, rel=1e-12)
        assert found.grad_norm[b] == pytest.approx(np.abs(gradient).max() / (C[b] * weight[:, b].sum()), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(80, 6), (30, 60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_solutions_equal_scikit_learns_at_a_tight_tolerance(n, d, dtype):
    X, Y, C, _ = batch(n, d)
    found = solve_logistic(X.astype(dtype), Y, C=C, tol=1e-10)
    assert found.coef.dtype == dtype
    for b in range(6):
        model = LogisticRegression(C=C[b], tol=1e-10, max_iter=100_000, solver="newton-cholesky")
        model.fit(X.astype(dtype).astype(np.float64), Y[:, b])
        expected = np.append(model.coef_[0], model.intercept_)
        value, _ = objective(expected, X.astype(dtype).astype(np.float64), Y[:, b], C[b], np.ones(n))
        assert found.objective[b] == pytest.approx(value, rel=1e-7)
        assert found.coef[:, b] == pytest.approx(model.coef_[0], abs=1e-3 * np.abs(expected).max())


def test_a_solution_known_by_algebra():
    # One feature, -1 and +1, labelled alike: by symmetry c = 0, and w = 2 C / (1 + exp(w)).
    found = solve_logistic(np.array([[-1.0], [1.0]]), np.array([0, 1]), C=3.0, tol=1e-12)
    w = found.coef[0, 0]
    assert found.intercept[0] == pytest.approx(0, abs=1e-6)
    assert w == pytest.approx(2 * 3.0 / (1 + np.exp(w)), rel=1e-5)


def test_constant_features_leave_the_intercept_at_the_log_odds():
    y = np.array([1, 1, 1, 0])
    found = solve_logistic(np.full((4, 3), 7.0), y, C=1.0, tol=1e-12)
    assert found.coef == pytest.approx(0, abs=1e-6)
    assert found.intercept[0] + 7 * found.coef.sum() == pytest.approx(np.log(3), abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_weight_of_zero_removes_the_row_and_a_weight_of_two_repeats_it(dtype):
    X, Y, C, _ = batch(50, 8)
    weight = np.random.default_rng(5).integers(0, 3, size=50)
    rows = np.repeat(np.arange(50), weight)
    weighted = solve_logistic(X.astype(dtype), Y, C=C, sample_weight=weight, tol=1e-10)
    repeated = solve_logistic(X[rows].astype(dtype), Y[rows], C=C, tol=1e-10)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-8)
    assert weighted.coef == pytest.approx(repeated.coef, abs=1e-3 * float(np.abs(repeated.coef).max()))


def hard_matrix(kind, rng, n=150, d=20):
    X = rng.normal(size=(n, d))
    if kind == "conditioning 1e8":
        left, _, right = np.linalg.svd(X, full_matrices=False)
        return left * np.geomspace(1e4, 1e-4, d) @ right
    if kind == "outlier dimensions":
        return X * np.where(np.arange(d) < 2, 1000, 1) + np.where(np.arange(d) < 2, 5000, 0)
    if kind == "constant columns":
        return np.where(np.arange(d) % 3 == 0, 5.0, X)
    return X[rng.integers(0, n // 4, size=n)]  # duplicates


@pytest.mark.parametrize("kind", ["conditioning 1e8", "outlier dimensions", "constant columns", "duplicates"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hard_matrices_reach_the_optimum_at_every_penalty(kind, dtype):
    rng = np.random.default_rng(0)
    X = hard_matrix(kind, rng).astype(dtype)
    y = (X[:, 4] / X[:, 4].std() + 2 * rng.normal(size=150) > 0).astype(int)
    C = np.geomspace(1e-4, 1e4, 9)
    found = solve_logistic(X, np.repeat(y[:, None], 9, 1), C=C)
    assert found.converged.all()
    best = [reference(X.astype(np.float64), y, c, np.ones(150)) for c in C]
    assert (found.objective <= np.array(best) * np.where(C < 100, 1 + 1e-5, 1 + 1e-4)).all()
    tight = solve_logistic(X, np.repeat(y[:, None], 9, 1), C=C, tol=1e-9)
    assert (tight.objective <= np.array(best) * (1 + 1e-8)).all()


@pytest.mark.parametrize("folds", [5, 20])  # few problems a value of C get Hessians, many do not
def test_a_grid_of_folds_and_penalties_reaches_the_optimum_of_each(folds):
    rng = np.random.default_rng(0)
    n, d = 200, 60
    X = (rng.normal(size=(n, d)) * np.geomspace(30, 0.1, d) + 5).astype(np.float32)
    y = (X[:, 1] - X[:, 1].mean() + 20 * X[:, 40] - 20 * X[:, 40].mean() + 5 * rng.normal(size=n) > 0).astype(int)
    C = np.tile(np.geomspace(1e-4, 1e4, 5), folds)
    weight = np.repeat(np.stack([np.arange(n) % folds != f for f in range(folds)], 1), 5, axis=1).astype(float)
    found = solve_logistic(X, np.repeat(y[:, None], 5 * folds, 1), C=C, sample_weight=weight)
    assert found.converged.all()
    for b in range(0, 5 * folds, 3):
        best = reference(X.astype(np.float64), y, C[b], weight[:, b])
        assert found.objective[b] <= best * (1 + (1e-5 if C[b] < 100 else 1e-4))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_a_thousand_times_larger_do_not_end_a_fit_before_its_minimum(seed):
    # Once on their right side such rows curve the loss no more, and the matrix that stops L-BFGS is far too small
    # in their directions: seed 2 ended 0.2 % above its minimum and was called converged.
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=250)
    X = rng.normal(size=(250, 100))
    X[:, :2] += 0.6 * (2 * y[:, None] - 1)
    X[:5] *= 1000
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    C = np.array([0.1, 1.0, 10.0, 100.0])
    found = solve_logistic(X, np.repeat(y[:, None], 4, 1), C=C)
    assert found.converged.all()
    for b in range(4):
        best = reference(X.astype(float), y, C[b], np.ones(250))
        # `decrement.py` doubts what is ten times the tolerance away.
        assert found.objective[b] <= best * (1 + 2e-5)


def test_a_rotation_given_changes_the_path_and_not_the_solution():
    X, Y, C, weight = batch(60, 8)
    own = solve_logistic(X, Y, C=C, sample_weight=weight, tol=1e-10)
    other = rotation_of(np.random.default_rng(1).normal(size=(60, 8)))
    assert other.T @ other == pytest.approx(np.eye(8), abs=1e-12)
    given = solve_logistic(X, Y, C=C, sample_weight=weight, tol=1e-10, rotation=other)
    assert given.objective == pytest.approx(own.objective, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rotation_of_a_wide_matrix_serves_its_parts_standardised_otherwise(dtype):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(40, 100)) * np.geomspace(1, 50, 100)).astype(dtype)
    y = (X[:30, 0] > 0).astype(int)
    rotation = rotation_of((X - X.mean(0)) / X.std(0))
    assert rotation.shape == (100, 100)
    assert rotation.T @ rotation == pytest.approx(np.eye(100), abs=1e-4 if dtype == np.float32 else 1e-12)
    part = (X[:30] - X[:30].mean(0)) / X[:30].std(0)
    own = solve_logistic(part, y, C=1.0, tol=1e-9)
    given = solve_logistic(part, y, C=1.0, tol=1e-9, rotation=rotation)
    assert given.objective == pytest.approx(own.objective, rel=1e-6)


def test_a_basis_that_is_no_rotation_is_refused():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 8)), np.arange(30) % 2
    thin = np.linalg.qr(rng.normal(size=(8, 5)))[0]
    skewed = np.eye(8) + 0.01 * rng.normal(size=(8, 8))
    for rotation in (thin, skewed, np.eye(3), np.ones(8), [["a"]]):
        with pytest.raises(InputError, match="rotation must"):
            solve_logistic(X, y, rotation=rotation)


def test_a_single_class_and_an_empty_problem_are_answered_without_a_fit():
    X, Y, C, weight = batch(40, 4)
    Y[:, 1] = 1
    Y[:, 2] = np.where(weight[:, 2] > 0, 0, Y[:, 2])
    weight[:, 3] = 0
    found = solve_logistic(X, Y, C=C, sample_weight=weight)
    assert (found.coef[:, 1:4] == 0).all()
    assert found.intercept[1:4].tolist() == [36, -36, 0]
    assert found.objective[1:4] == pytest.approx(0, abs=1e-9)
    alone = solve_logistic(X, Y[:, [0]], C=C[0], sample_weight=weight[:, [0]])
    assert found.objective[0] == pytest.approx(alone.objective[0], rel=1e-6)


def test_separable_classes_have_weights_that_grow_as_the_penalty_falls():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 40))
    y = np.arange(30) % 2
    found = solve_logistic(X, np.repeat(y[:, None], 4, 1), C=np.array([1.0, 1e3, 1e6, 1e9]), tol=1e-6)
    margin = ((2 * y - 1)[:, None] * (X @ found.coef + found.intercept)).min(0)
    assert (margin > 0).all()
    assert (np.diff(np.linalg.norm(found.coef, axis=0)) > 0).all()
    assert found.converged.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_cut_short_says_so(dtype):
    X, Y, _, _ = batch(80, 10)
    short = solve_logistic(X.astype(dtype), Y, C=1e4, max_iter=3)
    assert not short.converged.any()
    assert (short.n_iter <= 3).all()
    full = solve_logistic(X.astype(dtype), Y, C=1e4)
    assert full.converged.all()
    assert (full.objective <= short.objective * (1 + 1e-6)).all()
    assert (full.n_iter > 3).all()


def test_solutions_of_tensors_may_take_part_in_training():
    X, _ = load_wine(return_X_y=True)
    X = torch.as_tensor(StandardScaler().fit_transform(X))
    found = solve_logistic(X, (X[:, 0] > 0).long())
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (scale * found.coef).sum().backward()
    assert scale.grad.item() == pytest.approx(found.coef.sum().item())


def test_tensors_come_back_as_tensors_and_numbers_of_problems_do_not_matter():
    X, Y, C, _ = batch(60, 5)
    one = solve_logistic(torch.tensor(X), torch.tensor(Y[:, 4]), C=float(C[4]), tol=1e-10)
    assert isinstance(one.coef, torch.Tensor)
    many = solve_logistic(X, Y, C=C, tol=1e-10)
    assert one.coef[:, 0].numpy() == pytest.approx(many.coef[:, 4], abs=1e-5 * np.abs(many.coef[:, 4]).max())


@pytest.mark.parametrize(("n", "d"), [(90, 4), (30, 50)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_classes_equal_scikit_learns_multinomial_solution(n, d, dtype):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, d)) + 2).astype(dtype)
    Y = np.stack([rng.integers(3, size=n), (X[:, 0] > 2).astype(int) + (X[:, 1] > 2)], 1)
    C = np.array([0.1, 10.0])
    found = solve_logistic(X, Y, C=C, n_classes=3, tol=1e-9)
    assert found.coef.shape == (d, 2, 3)
    assert found.converged.all()
    for b in range(2):
        model = LogisticRegression(C=C[b], tol=1e-10, max_iter=100_000).fit(X.astype(np.float64), Y[:, b])
        assert found.coef[:, b] == pytest.approx(model.coef_.T, abs=2e-3 * np.abs(model.coef_).max())
        logits = X.astype(np.float64) @ found.coef[:, b].astype(np.float64) + found.intercept[b]
        loss = logsumexp(logits, axis=1) - logits[np.arange(n), Y[:, b]]
        value = 0.5 * (found.coef[:, b].astype(np.float64) ** 2).sum() + C[b] * loss.sum()
        assert found.objective[b] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y": np.array([1, 2, 1])}, "0 or 1"),
        ({"Y": np.array([0, 1])}, "one row of labels per row"),
        ({"C": 0.0}, "positive finite"),
        ({"sample_weight": np.array([1.0, -1.0, 1.0])}, "not negative"),
        ({"X": np.array([[np.nan], [1.0], [2.0]])}, "NaN"),
        ({"X": [["a"], ["b"], ["c"]]}, "matrix of numbers"),
        ({"X": [[1.0], [1.0, 2.0], [3.0]]}, "matrix of numbers"),
        ({"Y": ["a", "b", "a"]}, "must hold numbers"),
        ({"Y": np.zeros((3, 1, 1))}, "one row of labels per row"),
        ({"C": [1.0, 2.0]}, "one per column of Y"),
        ({"C": None}, "must hold numbers"),
        ({"C": "x"}, "must hold numbers"),
        ({"sample_weight": np.ones(2)}, "one row of weights per row"),
        ({"sample_weight": np.ones((3, 2))}, "one row of weights per row"),
        ({"tol": "x"}, "tol="),
        ({"tol": float("nan")}, "tol="),
        ({"max_iter": 0}, "max_iter="),
        ({"device": "banana"}, "device="),
    ],
)
def test_what_cannot_be_solved_is_refused_with_a_sentence(change, message):
    given = {"X": np.eye(3), "Y": np.array([0, 1, 1]), "C": 1.0, **change}
    with pytest.raises(InputError, match=message):
        solve_logistic(given.pop("X"), given.pop("Y"), **given)


@pytest.mark.parametrize("size", [0.0, 1e-22, 1.0])
def test_layers_of_equal_rows_with_rounding_noise_are_fitted(size):
    # At the last token of texts that end alike, layer 0 is constant; float32's eigensolver gives up on its noise.
    noise = np.random.default_rng(0).normal(size=(100, 40)) * size * 1e-8
    X = (np.random.default_rng(1).normal(size=40) + noise).astype(np.float32)
    y = np.arange(100) % 2
    found = solve_logistic(X, np.repeat(y[:, None], 3, 1), C=np.array([1e-3, 1.0, 1e3]))
    assert found.converged.all()
    assert found.objective == pytest.approx(100 * np.log(2) * np.array([1e-3, 1.0, 1e3]), rel=1e-3)


@pytest.mark.parametrize("C", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("data", [load_wine, load_iris])
def test_many_classes_at_a_weak_penalty_stop_at_the_minimum_or_say_no(data, C):
    """L-BFGS's own estimate of the distance called points converged that lay 2 % above the minimum."""
    X, y = data(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-11, max_iter=1000).fit(X, y)
    minimum = 0.5 * (theirs.coef_**2).sum() + C * log_loss(y, theirs.predict_proba(X), normalize=False)
    for dtype in (np.float32, np.float64):
        found = solve_logistic(X.astype(dtype), y[:, None], C=C, n_classes=3)
        assert found.converged.all()
        assert abs(found.objective[0] / minimum - 1) < 1e-5


def test_many_classes_that_are_not_solved_are_not_called_so():
    X, y = load_digits(return_X_y=True)
    X, y = StandardScaler().fit_transform(X[:600]), y[:600]
    found = solve_logistic(X, y[:, None], C=1e5, n_classes=10, max_iter=60)
    assert not found.converged.any()
