"""Is a sample strictly linearly separable? Exactly, with a certificate either way.

Two finite classes are strictly separable if and only if their convex hulls do not meet (Gordan 1873, Farkas 1902).
The certificate of "yes" is a hyperplane with every margin positive; of "no", non-negative weights that sum to 1 in
either class and give both classes one weighted mean. Small samples are decided in rational arithmetic
(`rational.py`), and so are samples of any size with equal rows of unlike labels. Others in float64
(`floating.py`), where no hyperplane is believed before its margins on the very numbers given are positive beyond
rounding, or in rational arithmetic.

That a sample is separable says little by itself: n points in general position in d dimensions with random labels
are separable with probability 2^(1-n) Σ_{k<=d} C(n-1, k) (Cover 1965). Unseen examples are not here: see
`scores.py`.

Shapes: N examples, D features, R rank of the centred sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.stats import binom

from concept_depth.errors import InputError
from concept_depth.probing import floating, rational
from concept_depth.probing.floating import EPS, BoolArray, FloatArray

# Residual, relative to the spread of the sample, below which float64 hulls are said to meet; float32 rounds at 6e-8.
TOLERANCE = 1e-8
_RATIONAL_WORK = 30_000  # (d + 2)² n up to which rational arithmetic takes moments
_LARGEST = 1e150  # squares of larger numbers overflow


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
        exact: whether the proof is exact; a "yes" always is, a "no" by float64 weights is meant within TOLERANCE.
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
        if X_ND.shape != (self.n, self.d):
            raise InputError(
                f"the certificate is of a {(self.n, self.d)} matrix, not of {X_ND.shape}; give that one"
            )
        if self.separable:
            assert self.normal is not None
            assert self.offset is not None
            proof = self.proof or (*map(Fraction, self.normal.tolist()), Fraction(self.offset))
            rows = rational.to_fractions(X_ND)
            return rational.separates(rows, positive.tolist(), list(proof[:-1]), proof[-1])
        assert self.weights is not None
        given = self.proof or tuple(map(Fraction, self.weights.tolist()))
        bears = [i for i, weight in enumerate(given) if weight]  # often few, and fractions are slow
        weights = [given[i] for i in bears]
        rows, signs = rational.to_fractions(X_ND[bears]), positive[bears].tolist()
        if self.proof:
            return rational.hulls_meet(rows, signs, weights)
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
    sample = _Sample(*_checked(X, y))
    N, D = sample.X.shape
    found: _Hyperplane | _Weights | None = _equal_rows(sample)
    if found is None and (D + 2) ** 2 * N <= _RATIONAL_WORK:
        found = _by_fractions(sample)
    if found is None:
        found = _by_floats(sample)
    answer = partial(Separability, cover_probability=float(binom.cdf(D, N - 1, 0.5)), n=N, d=D, proof=found.proof)
    if isinstance(found, _Weights):
        residual = sample.residual(found)
        return answer(False, 0.0, None, None, found.weights, residual, bool(found.proof), n_directions=None)
    fewest = _fewest_directions(sample) if directions else None
    return answer(True, found.margin, found.normal, found.offset, None, 0.0, True, n_directions=fewest)


def _checked(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    try:
        X_ND, labels = np.asarray(X, np.float64), np.asarray(y)
        classes = np.unique(labels)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"separability needs a matrix of numbers and labels that sort; got neither ({error})"
        ) from error
    if X_ND.ndim != 2 or not X_ND.size or not (np.abs(X_ND) < _LARGEST).all():
        raise InputError(
            f"X must be a finite (n, d) matrix; got shape {X_ND.shape}, or it holds NaN, infinity or numbers "
            f"beyond {_LARGEST:g}"
        )
    if labels.shape != (len(X_ND),) or len(classes) != 2 or not (classes == classes).all():
        raise InputError(
            f"separability needs one label a row and two classes; got {labels.shape} labels of {len(classes)} "
            f"classes for {len(X_ND)} rows"
        )
    return X_ND, labels == classes[1]


def _spread(X_ND: FloatArray) -> float:
    """The largest deviation of an entry from its column's mean; 1 where all rows are equal."""
    return float(np.abs(X_ND - X_ND.mean(0)).max()) or 1.0


@dataclass(frozen=True, eq=False)
class _Hyperplane:
    """One that separates beyond doubt: with its floats, or with the fractions of its proof where there are any."""

    normal: FloatArray
    offset: float
    margin: float
    proof: tuple[Fraction, ...]


@dataclass(frozen=True, eq=False)
class _Weights:
    """Weights by which the hulls meet: exactly, where there is a proof."""

    weights: FloatArray
    proof: tuple[Fraction, ...] = ()


class _Sample:
    """A sample with its centred rows; whitened when that is first asked for."""

    def __init__(self, X_ND: FloatArray, positive: BoolArray) -> None:
        self.X, self.positive, self.sign = X_ND, positive, np.where(positive, 1.0, -1.0)
        self.centre = X_ND.mean(0)
        self.centred = X_ND - self.centre

    @cached_property
    def whitened(self) -> tuple[FloatArray, FloatArray]:
        """Z (N, R) = √N times the left singular vectors, strongest first; w_X = w_Z @ back (R, D)."""
        N = len(self.X)
        U, s, Vt = scipy.linalg.svd(self.centred, full_matrices=False)
        rank = int((s > s.max(initial=0.0) * max(self.X.shape) * EPS).sum())
        return U[:, :rank] * np.sqrt(N), np.sqrt(N) * Vt[:rank] / s[:rank, None]

    def residual(self, found: _Weights) -> float:
        """Largest entry of the difference of the weighted means, relative to the spread."""
        gap = (self.sign * found.weights) @ self.centred
        return 0.0 if found.proof else float(np.abs(gap).max() / _spread(self.X))

    def margins(self, theta: FloatArray) -> tuple[FloatArray, float, FloatArray, FloatArray]:
        """Normal (D,) in X of theta (k + 1,) in the first k columns of Z; offset half way between the classes;
        margins (N,) and bounds (N,) of their rounding.

        They are margins of x - centre, so that no digits go to an offset common to all examples.
        """
        normal = theta[:-1] @ self.whitened[1][: len(theta) - 1]
        values = self.centred @ normal
        middle = -float(values[self.positive].min() + values[~self.positive].max()) / 2
        size = np.linalg.norm(self.centred, axis=1) * np.linalg.norm(normal) + abs(middle)
        return normal, middle, self.sign * (values + middle), (self.X.shape[1] + 4) * EPS * size

    def clears_rounding(self, theta: FloatArray) -> bool:
        """Whether theta separates by more than rounding, that of its own normal too."""
        _, _, margins, rounding = self.margins(theta)
        return bool((margins > rounding).all())

    def hyperplane(self, theta: FloatArray) -> _Hyperplane | None:
        """The hyperplane of theta, where it separates the numbers given; rational arithmetic settles doubts."""
        normal, middle, margins, rounding = self.margins(theta)
        if not np.isfinite(normal).all():
            return None
        exact = [Fraction(value) for value in normal.tolist()]
        exact.append(Fraction(middle) - rational.dot(exact, [Fraction(value) for value in self.centre.tolist()]))
        unsure = np.flatnonzero(margins <= rounding)
        for i in unsure[np.argsort(margins[unsure])]:
            [row] = rational.to_fractions(self.X[[i]])
            margins[i] = self.sign[i] * float(rational.dot(exact[:-1], row) + exact[-1])
            if margins[i] <= 0:
                return None
            rounding[i] = 0.0
        offset = float(exact[-1])
        lost = 2 * abs(float(Fraction(offset) - exact[-1]))
        proof = () if (margins > rounding + lost).all() else tuple(exact)
        return _Hyperplane(normal, offset, float(margins.min() / np.linalg.norm(normal)), proof)


def _equal_rows(sample: _Sample) -> _Weights | None:
    """Two equal rows of unlike labels, as of texts that end alike at the input of a network, are proof enough."""
    # + 0.0 turns -0.0 into 0.0; digests, since the rows themselves would be a second copy of the matrix.
    digests = [hashlib.sha256((row + 0.0).tobytes()).digest() for row in sample.X]
    first = {digest: i for i, digest in enumerate(digests) if not sample.positive[i]}
    for i in np.flatnonzero(sample.positive).tolist():
        twin = first.get(digests[i])
        if twin is not None:
            weights = np.zeros(len(digests))
            weights[[i, twin]] = 1.0
            return _Weights(weights, tuple(Fraction(int(value)) for value in weights))
    return None


def _by_fractions(sample: _Sample) -> _Hyperplane | _Weights:
    """The answer in rational arithmetic."""
    rows, positive = rational.to_fractions(sample.X), sample.positive.tolist()
    found = rational.decide(rows, positive)
    if not isinstance(found, tuple):
        return _Weights(np.array([float(value) for value in found]), tuple(found))
    largest = max(map(abs, found[0]))  # a normal of size 1 has floats, whatever the fractions
    normal, offset = [value / largest for value in found[0]], found[1] / largest
    margins = [rational.dot(normal, row) + offset for row in rows]
    floats = np.array([float(value) for value in normal])
    margin = float(min(map(abs, margins))) / float(np.linalg.norm(floats))
    return _Hyperplane(floats, float(offset), margin, (*normal, offset))


def _by_floats(sample: _Sample) -> _Hyperplane | _Weights:
    """The answer in float64; only a hyperplane that separates the very numbers given is taken."""
    separates, found = floating.decide(
        sample.whitened[0], sample.positive, lambda theta: sample.hyperplane(theta) is not None
    )
    if separates:
        hyperplane = sample.hyperplane(found)
        assert hyperplane is not None
        return hyperplane
    return _Weights(found)


def _fewest_directions(sample: _Sample) -> int:
    """The smallest k for which the first k columns of Z separate, given that all do: more columns never hurt."""
    Z_NR = sample.whitened[0]
    low, high = 0, int(Z_NR.shape[1])
    while high - low > 1:
        middle = (low + high) // 2
        if floating.decide(Z_NR[:, :middle], sample.positive, sample.clears_rounding)[0]:
            high = middle
        else:
            low = middle
    return high
