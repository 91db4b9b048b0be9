"""All fits of one layer: standardised per training part, C chosen inside it, for every label vector at once.

A layer is fitted split by split. Within a split, the real labels and their permutations share the matrix, so they
are solved together; nothing tells the solver which labels are real. C is chosen by walking a grid of penalties
λ = 1 / (C n) from the strongest to weaker ones, comparing the log-loss of an inner group cross-validation; the
walk ends when two values in a row were no better than the best so far (log-loss has one valley along the path),
and a value must be better by 0.01 % to be preferred: ties go to the stronger penalty. The inner parts share their
outer training part's standardisation, which no held-out example has entered. Other ways to fit are not here.

Shapes: N examples, D features, K classes, S splits, M label vectors (the real one first), J penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_expit, logsumexp
from torch import Tensor

from concept_depth.probing import metrics
from concept_depth.probing.design import Design, eigenvectors
from concept_depth.probing.logistic import fit_path

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Pair = tuple[IntArray, IntArray]

PENALTIES = tuple(float(value) for value in np.geomspace(10.0, 1e-4, 8))
"""The grid of λ = 1 / (C n), strongest first: from all but constant to all but unpenalised."""

_TIE = 1e-4  # relative difference of log-loss below which the stronger penalty stays
_PATIENCE = 2  # values in a row that are no better, after which the walk ends
_FEW = 4  # label vectors whose inner parts are rather solved together, with weights, than each on its own rows
_TOL_INNER = 1e-4  # relative distance from the optimum; choosing among a handful of C needs no more
_TOL = 1e-6
_MAX_ITER = 1000


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
    tol: float = _TOL


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


def fit_layer(X_ND: npt.NDArray[np.floating], plan: FitPlan, device: str = "cpu") -> LayerFits:
    """Fit and score one layer.

    Args:
        X_ND: (N, D) activations.
        plan: what to fit.
        device: where to compute.
    """
    layer = _Layer(X_ND, plan, device)
    splits = len(plan.pairs)
    decision: list[FloatArray] = []
    null = np.empty((len(plan.labelings) - 1, splits))
    C_used, edge, converged = np.empty(splits), np.zeros(splits, bool), np.empty(splits)
    for s, (train, test) in enumerate(plan.pairs):
        fold = _Fold(layer, train, test)
        if plan.C is None:
            penalty_M = layer.choose(fold, plan.inner[s])
            C_M = 1.0 / (np.asarray(PENALTIES)[penalty_M] * len(train))
            edge[s] = penalty_M[0] in (0, len(PENALTIES) - 1)
        else:
            C_M = np.full(len(plan.labelings), plan.C)
        decided, fine = fold.decide(np.arange(len(plan.labelings)), C_M, plan.tol)
        decision.append(decided[0])
        converged[s], C_used[s] = fine[0], C_M[0]
        if len(decided) > 1:
            null[:, s] = metrics.score(plan.scoring, decided[1:], plan.labelings[1:, test], plan.n_classes)
    return LayerFits(decision, null, C_used, edge, float(converged.mean()), layer.n_fits)


class _Layer:
    """One layer's matrix on the device, with a rotation that serves all its folds."""

    def __init__(self, X_ND: npt.NDArray[np.floating], plan: FitPlan, device: str) -> None:
        X = torch.as_tensor(np.ascontiguousarray(X_ND), device=device)
        self.X = X if X.dtype in (torch.float32, torch.float64) else X.float()
        # Differences of examples are all that matters; without their mean float32 keeps more digits of them.
        self.X = (self.X.double() - self.X.double().mean(0)).to(self.X.dtype)
        self.plan, self.n_fits = plan, 0
        smallest = min(len(train) for pairs in (plan.pairs, *plan.inner) for train, _ in pairs)
        self.rotation: Tensor | None = None
        if self.X.shape[1] <= smallest:
            shift, scale = moments(self.X, plan.standardize)
            self.rotation = eigenvectors((self.X - shift) / scale)

    def choose(self, outer: _Fold, inner: Sequence[Pair]) -> IntArray:
        """(M,) index into PENALTIES of each label vector's choice, by walking the grid."""
        folds = [_Fold(self, train, test, outer) for train, test in inner]
        M, n = len(self.plan.labelings), sum(len(test) for _, test in inner)
        best = np.full(M, np.inf)
        chosen, idle = np.zeros(M, np.int64), np.zeros(M, np.int64)
        start = 0
        while start < len(PENALTIES):
            walking = np.flatnonzero(idle < _PATIENCE)
            if not len(walking):
                break
            # Nobody stops before the third value, so the first three are solved in one call. The later ones of a
            # few label vectors too, all inner parts together: more problems in a call cost less than more calls.
            few = len(walking) <= _FEW
            stop = min(start + (_PATIENCE + 1 if few or not start else 1), len(PENALTIES))
            grid = PENALTIES[start:stop]
            if few:
                loss_JM = outer.masked_losses(inner, walking, grid) / n
            else:
                loss_JM = np.sum([fold.losses(walking, grid) for fold in folds], axis=0) / n
            for j, loss in zip(range(start, stop), loss_JM, strict=True):
                still = idle[walking] < _PATIENCE
                better = still & ((loss < best[walking] * (1 - _TIE)) | ~np.isfinite(best[walking]))
                best[walking] = np.where(better, loss, best[walking])
                chosen[walking] = np.where(better, j, chosen[walking])
                idle[walking] = np.where(better, 0, idle[walking] + 1)
            start = stop
        return chosen


class _Fold:
    """A training part, standardised and prepared for many fits, and its test part in the same coordinates."""

    def __init__(self, layer: _Layer, train: IntArray, test: IntArray, outer: _Fold | None = None) -> None:
        """A fold standardised by its own training part; or a part of `outer`'s, in the coordinates of that."""
        self.layer, self.train, self.test = layer, train, test
        self.design: Design
        device = layer.X.device
        if outer is not None:
            place = np.full(len(layer.X), -1)
            place[outer.train] = np.arange(len(outer.train))
            self.design = outer.design.take(torch.as_tensor(place[train], device=device))
            self.Z_test = outer.design.Z[torch.as_tensor(place[test], device=device)]
            return
        X = layer.X[torch.as_tensor(train, device=device)]
        shift, scale = moments(X, layer.plan.standardize)
        self.design = Design.of((X - shift) / scale, layer.rotation)
        X_test = (layer.X[torch.as_tensor(test, device=device)] - shift) / scale
        Z = (X_test - self.design.offset) @ self.design.V
        self.Z_test = torch.cat([Z, Z.new_ones(len(Z), 1)], 1)

    def decide(
        self, which: IntArray, C_B: npt.NDArray[np.floating], tol: float, weight_BN: Tensor | None = None
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Decisions on the test part of label vectors `which` (B,), each with its C, and whether they converged.

        `weight_BN` are the training examples' weights; None is all ones.

        Returns:
            decisions (B, n_test) for two classes, else log-probabilities (B, n_test, K); converged (B,).
        """
        plan = self.layer.plan
        labels = plan.labelings[which][:, self.train]
        K = plan.n_classes
        ones = [labels == 1] if K == 2 else [labels == k for k in range(K)]
        Y = torch.as_tensor(np.concatenate(ones), device=self.Z_test.device)
        sign = 2 * Y.to(self.Z_test.dtype) - 1
        C = torch.as_tensor(np.tile(C_B, len(ones)), dtype=torch.float64, device=sign.device)
        one = torch.ones_like(sign[:1]).expand(sign.shape)
        weight = one if weight_BN is None else weight_BN.to(sign).repeat(len(ones), 1)
        fits = fit_path(self.design, sign, weight, C, tol=tol, max_iter=_MAX_ITER)
        self.layer.n_fits += len(sign)
        z = (fits.theta.to(self.Z_test.dtype) @ self.Z_test.T).double().cpu().numpy()
        fine = np.asarray(fits.converged.cpu().numpy().reshape(len(ones), -1).all(axis=0))
        return (np.asarray(z) if K == 2 else _one_against_rest(z, K)), fine

    def losses(self, which: IntArray, penalties: Sequence[float]) -> FloatArray:
        """(J, B) summed log-loss on the test part for each penalty and label vector."""
        C = np.repeat(1.0 / (np.asarray(penalties) * len(self.train)), len(which))
        repeated = np.tile(which, len(penalties))
        decided, _ = self.decide(repeated, C, _TOL_INNER)
        labels = self.layer.plan.labelings[repeated][:, self.test]
        likelihood = metrics.log_likelihood(decided, labels, self.layer.plan.n_classes)
        return np.asarray(-likelihood.sum(-1).reshape(len(penalties), len(which)))

    def masked_losses(self, inner: Sequence[Pair], which: IntArray, penalties: Sequence[float]) -> FloatArray:
        """(J, B) log-loss summed over the inner test parts: all in one call, rows left out by weights."""
        whole = _Fold(self.layer, self.train, self.train, self)
        parts = [[np.isin(self.train, part) for part in pair] for pair in inner]
        size = len(penalties) * len(which)
        train_FN = torch.as_tensor(np.stack([train for train, _ in parts]), device=self.Z_test.device)
        test_BN = np.repeat(np.stack([test for _, test in parts]), size, axis=0)
        C = np.concatenate(
            [np.repeat(1.0 / (np.asarray(penalties) * train.sum()), len(which)) for train, _ in parts]
        )
        repeated = np.tile(which, len(penalties) * len(parts))
        decided, _ = whole.decide(repeated, C, _TOL_INNER, train_FN.repeat_interleave(size, 0))
        labels = self.layer.plan.labelings[repeated][:, self.train]
        likelihood = metrics.log_likelihood(decided, labels, self.layer.plan.n_classes)
        loss = -(likelihood * test_BN).sum(-1)
        return np.asarray(loss.reshape(len(parts), len(penalties), len(which)).sum(0))


def moments(X: Tensor, standardize: bool | str) -> tuple[Tensor, Tensor]:
    """What to subtract from and divide by: (D,) mean, and (D,) deviations or one scalar.

    Constant features, and those that vary by rounding only, are divided by 1.
    """
    if standardize is False:
        return X.new_zeros(X.shape[1]), X.new_ones(())
    X64 = X.double()
    mean, variance = X64.mean(0), X64.var(0, unbiased=False)
    if standardize == "scale":
        total = variance.mean().sqrt()
        return mean.to(X.dtype), (total if total > 0 else torch.ones_like(total)).to(X.dtype)
    deviation = variance.sqrt()
    rounding = 10 * torch.finfo(X.dtype).eps * X64.abs().amax(0)
    return mean.to(X.dtype), torch.where(deviation > rounding, deviation, 1.0).to(X.dtype)


def _one_against_rest(z: FloatArray, n_classes: int) -> FloatArray:
    """Log-probabilities (B, N, K) from the log-odds (K·B, N) of each class against the rest, normalised."""
    log_p = log_expit(z).reshape(n_classes, -1, z.shape[-1]).transpose(1, 2, 0)
    return np.asarray(log_p - logsumexp(log_p, axis=-1, keepdims=True))
