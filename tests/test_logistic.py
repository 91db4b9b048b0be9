"""The batched solver against slow, obvious references: scipy on the written objective, scikit-learn, algebra."""

import numpy as np
import pytest
from scipy.optimize import minimize

from concept_depth.errors import InputError
from concept_depth.probing.logistic import solve_logistic


def objective(theta, X, y, C, weight):
    """The objective as the docstring of `logistic` writes it, and its gradient."""
    sign = 2 * y - 1
    margin = sign * (X @ theta[:-1] + theta[-1])
    value = 0.5 * theta[:-1] @ theta[:-1] + C * weight @ np.logaddexp(0, -margin)
    pull = -C * weight * sign / (1 + np.exp(margin))
    return value, np.append(theta[:-1] + X.T @ pull, pull.sum())


def reference(X, y, C, weight):
    """scipy's minimiser on the written objective."""
    options = {"gtol": 1e-10, "maxiter": 20000, "ftol": 1e-16, "maxfun": 100000}
    fit = minimize(objective, np.zeros(X.shape[1] + 1), (X, y, C, weight), "L-BFGS-B", jac=True, options=options)
    return fit.x, fit.fun


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50), (40, 40)])
def test_solutions_equal_scipys_on_the_written_objective(n, d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)) + 3
    Y = (X[:, :1] + rng.normal(size=(n, 6)) > 3).astype(float)
    weight = rng.choice([0.0, 1.0, 2.5], size=(n, 6))
    C = np.array([1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0])
    found = solve_logistic(X, Y, C=C, sample_weight=weight, tol=1e-10)
    assert found.converged.all()
    for b in range(6):
        theta, value = reference(X, Y[:, b], C[b], weight[:, b])
        assert found.objective[b] <= value * (1 + 1e-8)
        assert found.coef[:, b] == pytest.approx(theta[:-1], abs=2e-4 * np.abs(theta).max())


def test_labels_other_than_0_and_1_are_refused():
    with pytest.raises(InputError, match="0 or 1"):
        solve_logistic(np.eye(3), np.array([1, 2, 1]), C=1.0)
