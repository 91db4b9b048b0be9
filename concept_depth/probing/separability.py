"""Is a sample strictly linearly separable? Exactly, with a certificate either way.

Two finite classes are strictly separable if and only if their convex hulls do not meet (Gordan 1873, Farkas 1902).
The certificate of "yes" is a hyperplane with every margin positive; of "no", non-negative weights that sum to 1 in
either class and give both classes one weighted mean. Small samples are decided in rational arithmetic
(`rational.py`). Others in float64, by unpenalised logistic regression in the coordinates of the left singular
vectors: on separable data Newton's steps reach positive margins, on other data the gradient Σ α_i s_i (z_i, 1)
vanishes at weights α > 0, which is the second certificate. Where neither comes about, since the hulls just touch,
a linear program (HiGHS) decides.

That a sample is separable says little by itself: n points in general position in d dimensions with random labels
are separable with probability 2^(1-n) Σ_{k<=d} C(n-1, k) (Cover 1965). Unseen examples are not here: see
`scores.py`.

Shapes: N examples, D features, R rank of the centred sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special
from scipy.optimize import linprog
from scipy.stats import binom

from concept_depth.errors import InputError
from concept_depth.probing import rational

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TOLERANCE = 1e-9  # residual, relative to the spread of the sample, below which float64 hulls are said to meet
_RATIONAL_WORK = 30_000  # (d + 2)² n up to which rational arithmetic takes moments
_NEWTON_STEPS = 60


@dataclass(frozen=True, eq=False)
class Separability:
    """The answer and its proof.

    Attributes:
        separable: whether a hyperplane leaves one class strictly on one side and the other on the other.
        margin: the smallest distance of an example from the hyperplane given (not the widest possible); else 0.
        normal: (D,) with normal · x + offset > 0 on the second class, < 0 on the first; None if not separable.
        offset: the hyperplane's offset; None if not separable.
        weights: (N,) non-negative, summing to 1 in either class, with equal weighted means; None if separable.
        residual: largest entry of the means' difference, over the largest deviation of any entry of X from its
            column's mean; 0 if the proof is rational.
        exact: whether the answer was decided in rational arithmetic (or holds whatever the rounding); else
            "no" is meant within TOLERANCE.
        cover_probability: probability that random labels of N points in general position are separable.
        n_directions: the smallest number of leading principal directions that separates; None if all do not.
        n: number of examples.
        d: number of features.
    """

    separable: bool
    margin: float
    normal: FloatArray | None
    offset: float | None
    weights: FloatArray | None
    residual: float
    exact: bool
    cover_probability: float
    n_directions: int | None
    n: int
    d: int
    proof: tuple[Fraction, ...] = field(default=(), repr=False)

    def verify(self, X: npt.ArrayLike, y: npt.ArrayLike) -> bool:
        """Check the certificate in rational arithmetic; some seconds for a matrix of a million entries.

        Args:
            X: (N, D) the matrix given to `separability`.
            y: (N,) the labels given.

        Returns:
            Whether the hyperplane separates, exactly; or whether the weights prove that the hulls meet: exactly if
            the proof is rational, else with a residual of at most TOLERANCE.
        """
        X_ND, positive = _checked(X, y)
        rows = rational.to_fractions(X_ND)
        signs = positive.tolist()
        if self.separable:
            assert self.normal is not None
            assert self.offset is not None
            proof = self.proof or (*map(Fraction, self.normal.tolist()), Fraction(self.offset))
            return rational.separates(rows, signs, list(proof[:-1]), proof[-1])
        if self.proof:
            return rational.hulls_meet(rows, signs, list(self.proof))
        assert self.weights is not None
        weights = [Fraction(value) for value in self.weights.tolist()]
        total = [
            sum((w for w, s in zip(weights, signs, strict=True) if s is side), Fraction(0))
            for side in (True, False)
        ]
        if min(weights) < 0 or min(total) <= 0:
            return False
        share = [w / total[0] if s else -w / total[1] for w, s in zip(weights, signs, strict=True)]
        gap = max(
            abs(float(sum((w * row[j] for w, row in zip(share, rows, strict=True)), Fraction(0))))
            for j in range(self.d)
        )
        return gap <= TOLERANCE * _spread(X_ND)

    def to_dict(self) -> dict[str, Any]:
        """JSON, without the certificate's vectors."""
        names = ("separable", "margin", "residual", "exact", "cover_probability", "n_directions", "n", "d")
        return {name: getattr(self, name) for name in names}


def separability(X: npt.ArrayLike, y: npt.ArrayLike, *, directions: bool = True) -> Separability:
    """Decide whether two classes are strictly linearly separable, and prove it.

    Args:
        X: (N, D) features.
        y: (N,) labels of exactly two classes, of any type that sorts; the second is the positive one.
        directions: whether to look for the smallest number of leading principal directions that separates.

    Returns:
        The answer with its certificate.

    Raises:
        InputError: X is not a finite matrix, or y does not hold two classes.
    """
    X_ND, positive = _checked(X, y)
    N, D = X_ND.shape
    Z_NR, back_RD, centre = _whiten(X_ND)
    proof: tuple[Fraction, ...] = ()
    if (D + 2) ** 2 * N <= _RATIONAL_WORK:
        found = rational.decide(rational.to_fractions(X_ND), positive.tolist())
        separable = isinstance(found, tuple)
        proof = (*found[0], found[1]) if isinstance(found, tuple) else tuple(found)
        vector = np.array([float(value) for value in proof])
        exact = True
    else:
        separable, in_Z = _decide(Z_NR, positive)
        normal = in_Z[:-1] @ back_RD if separable else in_Z
        vector = np.append(normal, in_Z[-1] - normal @ centre) if separable else in_Z
        exact = separable
        if separable:
            vector, exact = _recentred(X_ND, positive, vector)
    answer = {
        "exact": exact,
        "cover_probability": float(binom.cdf(D, N - 1, 0.5)),
        "n_directions": _fewest_directions(Z_NR, positive) if separable and directions else None,
        "n": N,
        "d": D,
        "proof": proof,
    }
    if separable:
        margins = np.where(positive, 1, -1) * (X_ND @ vector[:-1] + vector[-1])
        margin = float(margins.min() / np.linalg.norm(vector[:-1]))
        return Separability(True, margin, vector[:-1], float(vector[-1]), None, 0.0, **answer)
    gap = np.where(positive, vector, -vector) @ X_ND
    residual = 0.0 if proof else float(np.abs(gap).max() / _spread(X_ND))
    return Separability(False, 0.0, None, None, vector, residual, **answer)


def _checked(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    X_ND, labels = np.asarray(X, np.float64), np.asarray(y)
    if X_ND.ndim != 2 or not np.isfinite(X_ND).all():
        raise InputError(f"X must be a finite (n, d) matrix; got shape {X_ND.shape}, or it holds NaN or infinity")
    classes = np.unique(labels)
    if labels.shape != (len(X_ND),) or len(classes) != 2:
        raise InputError(
            f"separability needs one label a row and two classes; got {labels.shape} labels of {len(classes)} "
            f"classes for {len(X_ND)} rows"
        )
    return X_ND, labels == classes[1]


def _spread(X_ND: FloatArray) -> float:
    """The largest deviation of an entry from its column's mean; 1 where all rows are equal."""
    return float(np.abs(X_ND - X_ND.mean(0)).max()) or 1.0


def _whiten(X_ND: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Z (N, R) = √N times the left singular vectors of the centred X, strongest first; w_X = w_Z @ back (R, D)."""
    N = len(X_ND)
    centre = X_ND.mean(0)
    centred = X_ND - centre
    U, s, Vt = scipy.linalg.svd(centred, full_matrices=False)
    rank = int((s > s.max(initial=0.0) * max(X_ND.shape) * np.finfo(np.float64).eps).sum())
    return U[:, :rank] * np.sqrt(N), np.sqrt(N) * Vt[:rank] / s[:rank, None], centre


def _decide(Z_NR: FloatArray, positive: BoolArray) -> tuple[bool, FloatArray]:
    """(True, (R + 1,) hyperplane, its offset last) or (False, (N,) weights), in float64."""
    N, R = Z_NR.shape
    sign = np.where(positive, 1.0, -1.0)
    A_NP = sign[:, None] * np.column_stack([Z_NR, np.ones(N)])
    if N <= R + 1:
        theta = scipy.linalg.lstsq(A_NP, np.ones(N))[0]
        if (A_NP @ theta > 0.5).all():
            return True, theta
    theta, value = np.zeros(R + 1), N * np.log(2.0)
    margin = np.zeros(N)
    for _ in range(_NEWTON_STEPS):
        alpha = scipy.special.expit(-margin)
        gradient = -alpha @ A_NP
        if np.linalg.norm(gradient) <= 1e-13 * np.sqrt(R + 1) * alpha.sum():
            break
        curvature = alpha * (1 - alpha)
        hessian = (A_NP * curvature[:, None]).T @ A_NP
        hessian[np.diag_indices(R + 1)] += 1e-13 * np.trace(hessian) / (R + 1) + 1e-300
        step = scipy.linalg.solve(hessian, -gradient, assume_a="pos", check_finite=False)
        along = A_NP @ step
        if (margin + along).min() > 0:
            return True, theta + step
        size, fall = 1.0, gradient @ step
        while size > 1e-8:
            trial = np.logaddexp(0, -(margin + size * along)).sum()
            if trial <= value + 1e-4 * size * fall or abs(size * fall) <= 1e-12 * value:
                break
            size /= 2
        theta, margin, value = theta + size * step, margin + size * along, trial
        if margin.min() > 0:
            return True, theta
    weights = _weights(A_NP, alpha, positive)
    return (False, weights) if weights is not None else _by_linear_program(A_NP, positive)


def _weights(A_NP: FloatArray, alpha: FloatArray, positive: BoolArray) -> FloatArray | None:
    """Positive weights near `alpha` with Σ weight · row = 0 but for rounding; None: there are none."""
    weighted = A_NP * alpha[:, None]
    for _ in range(2):  # the second projection removes the rounding of the first
        change = scipy.linalg.lstsq(weighted.T, -(alpha @ A_NP), lapack_driver="gelsy")[0] * alpha
        alpha = alpha + change
    if alpha.min() < 0:
        return None
    residual = np.abs(alpha @ A_NP).max() / alpha.sum()
    if not residual <= 1e-12 * np.abs(A_NP).max():
        return None
    return np.asarray(np.where(positive, alpha / alpha[positive].sum(), alpha / alpha[~positive].sum()))


def _by_linear_program(A_NP: FloatArray, positive: BoolArray) -> tuple[bool, FloatArray]:
    """max t with A θ >= t and |w| <= 1, which HiGHS solves together with its dual, the weights."""
    N, P = A_NP.shape
    constraints = np.column_stack([-A_NP, np.ones(N)])
    bounds = [(-1, 1)] * (P - 1) + [(None, None), (None, 1)]
    objective = np.append(np.zeros(P), -1.0)
    solved = linprog(objective, constraints, np.zeros(N), bounds=bounds, method="highs")
    theta = solved.x[:-1]
    if (A_NP @ theta).min() > 0 and solved.x[-1] > 1e-9:
        return True, theta
    alpha = np.maximum(-solved.ineqlin.marginals, 0)
    return False, np.where(positive, alpha / alpha[positive].sum(), alpha / alpha[~positive].sum())


def _recentred(X_ND: FloatArray, positive: BoolArray, vector: FloatArray) -> tuple[FloatArray, bool]:
    """The hyperplane half way between the classes on X itself, and whether it separates whatever the rounding."""
    values = X_ND @ vector[:-1]
    vector = np.append(vector[:-1], -(values[positive].min() + values[~positive].max()) / 2)
    margins = np.where(positive, 1, -1) * (values + vector[-1])
    rounding = (
        (X_ND.shape[1] + 2) * np.finfo(np.float64).eps * (np.abs(X_ND) @ np.abs(vector[:-1]) + abs(vector[-1]))
    )
    if (margins > rounding).all():
        return vector, True
    unsure = margins <= rounding
    rows = rational.to_fractions(X_ND[unsure])
    normal = [Fraction(value) for value in vector[:-1].tolist()]
    return vector, rational.separates(rows, positive[unsure].tolist(), normal, Fraction(float(vector[-1])))


def _fewest_directions(Z_NR: FloatArray, positive: BoolArray) -> int:
    """The smallest k for which the first k columns separate, given that all do: more columns never hurt."""
    low, high = 0, int(Z_NR.shape[1])
    while high - low > 1:
        middle = (low + high) // 2
        if _decide(Z_NR[:, :middle], positive)[0]:
            high = middle
        else:
            low = middle
    return high
