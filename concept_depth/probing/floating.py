"""Linear separability of larger samples decided in float64.

Unpenalised logistic regression: on separable data Newton's steps reach positive margins, a hyperplane; on other data
the gradient Σ α_i s_i (z_i, 1) vanishes at weights α > 0, which prove that the classes' hulls meet. Where neither
comes about, since the hulls nearly touch, a linear program (HiGHS) decides.

Shapes: N examples, R features, P = R + 1 parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special
from scipy.optimize import linprog

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

EPS = float(np.finfo(np.float64).eps)
_NEWTON_STEPS = 60


def decide(Z_NR: FloatArray, positive: BoolArray, accept: Callable[[FloatArray], bool]) -> tuple[bool, FloatArray]:
    """Whether two classes are strictly separable, with what shows it.

    Args:
        Z_NR: (N, R) features of like size, in which the sample has full rank.
        positive: (N,) which rows are of the second class; both classes must occur.
        accept: whether to believe a hyperplane whose margins here are positive beyond rounding.

    Returns:
        True and a hyperplane (R + 1,) that `accept` took, its offset last; or False and weights (N,), non-negative,
        summing to 1 in either class, by which the classes' weighted means differ least.
    """
    N, R = Z_NR.shape
    sign = np.where(positive, 1.0, -1.0)
    A_NP = sign[:, None] * np.column_stack([Z_NR, np.ones(N)])

    def separates(theta: FloatArray) -> bool:
        return _beyond_rounding(A_NP, theta) and accept(theta)

    if N <= R + 1:
        theta = scipy.linalg.lstsq(A_NP, np.ones(N))[0]
        if separates(theta):
            return True, theta
    theta, value = np.zeros(R + 1), N * np.log(2.0)
    margin = np.zeros(N)
    for _ in range(_NEWTON_STEPS):
        alpha = scipy.special.expit(-margin)
        gradient = -alpha @ A_NP
        if np.linalg.norm(gradient) <= 1e-13 * np.sqrt(R + 1) * alpha.sum():
            break
        step = _newton_step(A_NP, alpha * (1 - alpha), gradient)
        along = A_NP @ step
        if (margin + along).min() > 0 and separates(theta + step):
            return True, theta + step
        size, fall = 1.0, gradient @ step
        while size > 1e-8:
            trial = np.logaddexp(0, -(margin + size * along)).sum()
            if trial <= value + 1e-4 * size * fall or abs(size * fall) <= 1e-12 * value:
                break
            size /= 2
        theta, margin, value = theta + size * step, margin + size * along, trial
        if size < 1 and margin.min() > 0 and separates(theta):
            return True, theta
    weights = _weights(A_NP, alpha, positive)
    return (False, weights) if weights is not None else _by_linear_program(A_NP, alpha, positive, separates)


def _beyond_rounding(A_NP: FloatArray, theta: FloatArray) -> bool:
    """Whether all margins are positive by more than the rounding of their sums."""
    return bool((A_NP @ theta > (len(theta) + 2) * EPS * (np.abs(A_NP) @ np.abs(theta))).all())


def _newton_step(A_NP: FloatArray, curvature: FloatArray, gradient: FloatArray) -> FloatArray:
    """Minus the inverse Hessian times the gradient, with the least ridge that rounding asks for."""
    hessian = (A_NP * curvature[:, None]).T @ A_NP
    diagonal = hessian.diagonal().copy()
    for ridge in (1e-13, 1e-11, 1e-9, 1e-6):
        hessian[np.diag_indices(len(diagonal))] = diagonal + ridge * diagonal.mean() + 1e-300
        try:
            factor = scipy.linalg.cho_factor(hessian, check_finite=False)
        except scipy.linalg.LinAlgError:
            continue
        return np.asarray(scipy.linalg.cho_solve(factor, -gradient, check_finite=False))
    return -gradient


def _weights(A_NP: FloatArray, alpha: FloatArray, positive: BoolArray) -> FloatArray | None:
    """Non-negative weights near `alpha` with Σ weight · row = 0 but for rounding; None: there are none."""
    # Where the hulls just touch, the rows outside the touching faces fade step by step, and must bear none.
    alpha = np.where(alpha > 1e-9 * alpha.max(), alpha, 0.0)
    weighted = A_NP * alpha[:, None]
    for _ in range(2):  # the second projection removes the rounding of the first
        change = scipy.linalg.lstsq(weighted.T, -(alpha @ A_NP), lapack_driver="gelsy")[0] * alpha
        alpha = alpha + change
    if alpha.min() < 0:
        return None
    residual = np.abs(alpha @ A_NP).max() / alpha.sum()
    if not residual <= 1e-12 * np.abs(A_NP).max():
        return None
    return _shares(alpha, positive)


def _by_linear_program(
    A_NP: FloatArray, alpha: FloatArray, positive: BoolArray, separates: Callable[[FloatArray], bool]
) -> tuple[bool, FloatArray]:
    """max t with A θ >= t and |w| <= 1, which HiGHS solves together with its dual, the weights."""
    N, P = A_NP.shape
    constraints = np.column_stack([-A_NP, np.ones(N)])
    bounds = [(-1, 1)] * (P - 1) + [(None, None), (None, 1)]
    objective = np.append(np.zeros(P), -1.0)
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # the least it allows
    solved = linprog(objective, constraints, np.zeros(N), bounds=bounds, method="highs", options=options)
    if solved.x is not None:
        if separates(solved.x[:-1]):
            return True, solved.x[:-1]
        alpha = np.maximum(-solved.ineqlin.marginals, 0)
    weights = _weights(A_NP, alpha, positive)
    return False, _shares(alpha, positive) if weights is None else weights


def _shares(alpha: FloatArray, positive: BoolArray) -> FloatArray:
    """Weights that sum to 1 in either class."""
    return np.asarray(np.where(positive, alpha / alpha[positive].sum(), alpha / alpha[~positive].sum()))
