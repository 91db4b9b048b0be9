"""What is fitted at a layer, what comes of it, and how C is chosen: shared by the two ways of fitting.

C is chosen by walking a grid of penalties λ = 1 / (C n) from the strongest to weaker ones, comparing the log-loss
of an inner group cross-validation. A value must be better than the best so far by a small share to be preferred,
so that ties go to the stronger penalty. The walk of a label vector ends when its log-loss has risen above the
best by half a hundredth of what knowing nothing costs: permuted labels, whose best penalty is the strongest, stop
soon, and the small hills that real curves have are crossed.

Shapes: S splits, M label vectors (the real one first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Pair = tuple[IntArray, IntArray]

PENALTIES = tuple(float(value) for value in np.geomspace(5.0, 1e-4, 8))
"""The grid of λ = 1 / (C n), strongest first: from all but constant to all but unpenalised."""

TOL = 1e-6  # relative distance of a reported fit's objective from its minimum
TOL_INNER = 1e-3  # of the fits that choose among a handful of C
_TIE = 1e-3  # relative difference of log-loss below which the stronger penalty stays
_HILL = 0.005  # rise, as a share of ln K, that ends the walk


@dataclass(frozen=True, eq=False)
class FitPlan:
    """What is fitted at every layer alike.

    Attributes:
        labelings: (M, N) class indices; row 0 are the real labels.
        n_classes: K.
        pairs: S pairs (train, test).
        inner: for each split, the pairs of its inner cross-validation; empty with a fixed C.
        C: the fixed C, or None: chosen from PENALTIES.
        standardize: True (per feature), "scale" (one scalar), False.
        scoring: the metric reported for the permuted labels.
        tol: relative distance of the reported fits' objectives from their minima.
    """

    labelings: IntArray
    n_classes: int
    pairs: Sequence[Pair]
    inner: Sequence[Sequence[Pair]]
    C: float | None
    standardize: bool | str
    scoring: str
    tol: float = TOL

    @property
    def smallest(self) -> int:
        """Rows of the smallest training part, inner ones too."""
        return min(len(train) for pairs in (self.pairs, *self.inner) for train, _ in pairs)


@dataclass(frozen=True, eq=False)
class LayerFits:
    """What one layer gave.

    Attributes:
        decision: for each split, the real labels' decisions on its test part: (n_test,) or (n_test, K).
        null: (M − 1, S) scores of the permuted labels.
        C_used: (S,) the C that the real labels' fits used.
        edge: (S,) whether it stands at an edge of the grid.
        converged: share of the real labels' reported fits that converged.
        n_fits: number of logistic problems solved.
    """

    decision: list[FloatArray]
    null: FloatArray
    C_used: FloatArray
    edge: npt.NDArray[np.bool_]
    converged: float
    n_fits: int


class Choice:
    """The walk's state for any number of label vectors: the best penalty so far, and who still walks.

    Attributes:
        chosen: index into PENALTIES of the best so far.
        walking: who goes on to the next penalty.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int) -> None:
        self.chosen = np.zeros(shape, np.int64)
        self.walking = np.ones(shape, bool)
        self._best = np.full(shape, np.inf)
        self._hill = _HILL * np.log(n_classes)

    def update(self, index: int, loss: FloatArray) -> npt.NDArray[np.bool_]:
        """Take the losses at penalty `index` of those who walk (others are ignored); who has a new best."""
        first = ~np.isfinite(self._best)
        with np.errstate(invalid="ignore"):
            better = np.asarray(self.walking & (first | (loss < self._best * (1 - _TIE))))
        self.chosen[better] = index
        self._best[better] = loss[better]
        with np.errstate(invalid="ignore"):
            self.walking &= ~(loss > self._best + self._hill)
        return better
