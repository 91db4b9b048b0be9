"""All fits of one layer: standardised per training part, C chosen inside it, for every label vector at once.

The real labels and their permutations share the matrix, so they are solved together; nothing tells the solver which are
real. With two classes and no more features than rows, all splits are solved on one matrix (`masks.py`); with
fewer rows, each split on its own, in the coordinates of its rows' space; more than two classes split by split
too. Inner parts keep their outer part's standardisation, which no example that is held out there has entered. How
C is chosen: `plan.py`.

Shapes: N examples, D features, K classes, S splits, M label vectors (the real one first), J penalties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from concept_depth.probing import metrics
from concept_depth.probing.design import Design, eigenvectors, lower_gram
from concept_depth.probing.logistic import fit_path
from concept_depth.probing.masked_layer import MaskedLayer, rounding
from concept_depth.probing.masks import MaskedFits, Masks
from concept_depth.probing.multinomial import fit_multinomial
from concept_depth.probing.plan import (
    PENALTIES,
    TOL_INNER,
    Choice,
    FitPlan,
    FloatArray,
    IntArray,
    LayerFits,
    Pair,
)

_MAKING = Lock()
_FEW = 24  # label vectors whose inner parts are rather solved together than one after the other
_MAX_ITER = 1000
_JITTER = 1e-12  # of the largest squared row: beyond the rounding of products in float64
_MAX_ITER_MASKED = 200  # what is not solved by then is solved here


@torch.inference_mode()
def fit_layer(X_ND: npt.NDArray[np.floating], *plans: FitPlan, device: str = "cpu") -> list[LayerFits]:
    """Fit and score one layer.

    Args:
        X_ND: (N, D) activations.
        plans: what to fit, with one standardisation.
        device: where to compute.

    Returns:
        What each plan gave.
    """
    X = torch.as_tensor(np.ascontiguousarray(X_ND), device=device)
    X = X if X.dtype in (torch.float32, torch.float64) else X.float()
    # Differences of examples are all that matters; without their mean float32 keeps more digits of them. Those that are
    # the rounding of a constant go: however small, the sign of a decision would tell classes by them.
    centre = X.double().mean(0)
    X64 = X.double() - centre
    varies = X64.square().mean(0).sqrt() > rounding(centre, X.dtype)
    X = torch.where(varies, X64, 0.0).to(X.dtype)
    masked = MaskedLayer(X, plans[0].standardize, centre)
    return [_fit(_Layer(X, plan, masked)) for plan in plans]


def _fit(layer: _Layer) -> LayerFits:
    """What a plan gives at a layer."""
    plan = layer.plan
    splits = range(len(plan.pairs))
    if plan.n_classes > 2:
        found: Iterable[_Found] = (_several_classes(layer, plan, s) for s in splits)
    elif layer.X.shape[1] > plan.smallest:
        found = (_few_rows(layer, plan, s) for s in splits)
    else:
        found = _together(layer, plan)
    decision: list[FloatArray] = []
    null = np.empty((len(plan.labelings) - 1, len(plan.pairs)))
    penalty, fine = np.empty(len(plan.pairs)), np.empty(len(plan.pairs), bool)
    for s, (decided, penalty_M, fine_M) in enumerate(found):
        decision.append(decided[0])
        penalty[s], fine[s] = penalty_M[0], fine_M[0]
        if len(decided) > 1:
            labels = plan.labelings[1:, plan.pairs[s][1]]
            null[:, s] = metrics.score(plan.scoring, decided[1:], labels, plan.n_classes)
    C_used = np.array([1 / (value * len(train)) for value, (train, _) in zip(penalty, plan.pairs, strict=True)])
    edge = np.isin(penalty, (PENALTIES[0], PENALTIES[-1])) & (plan.C is None)
    return LayerFits(decision, null, C_used, edge, float(fine.mean()), layer.n_fits)


_Found = tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]
"""Of one split: decisions (M, n_test) or (M, n_test, K), λ (M,), convergence (M,)."""


def _together(layer: _Layer, plan: FitPlan) -> Iterator[_Found]:
    """All splits at once, on one matrix; what does not converge there is solved again, alone and in float64."""
    with _MAKING:  # the first of the layers that are fitted at once makes them for all
        masks = plan_masks(plan, layer.X.dtype, str(layer.X.device))
    fits = MaskedFits(layer.masked, masks, plan.tol, _MAX_ITER_MASKED)
    penalties, theta, converged = fits.run(plan)
    layer.n_fits += fits.n_fits
    for s, (train, test) in enumerate(plan.pairs):
        decided, fine = fits.decisions(theta, s, test), converged[s]
        if not fine.all():
            _again(_Fold(layer, train, test), decided, penalties[s], fine)
        yield decided, penalties[s], fine


def _few_rows(layer: _Layer, plan: FitPlan, split: int) -> _Found:
    """One split with fewer rows than features: as `_together`, in the coordinates of its rows' space."""
    train, test = plan.pairs[split]
    rows = np.concatenate([train, test])
    X = layer.X[torch.as_tensor(rows, device=layer.X.device)]
    shift, scale = layer.moments(X[: len(train)])
    Z = row_coordinates(X.sub_(shift).div_(scale), len(train))
    place = np.full(len(layer.X), -1)
    place[train] = np.arange(len(train))
    inner = [[(place[part], place[held]) for part, held in plan.inner[split]]] if plan.inner else []
    pairs = [(np.arange(len(train)), np.arange(len(train), len(rows)))]
    small = replace(plan, labelings=plan.labelings[:, rows], pairs=pairs, inner=inner, standardize=False)
    masks = Masks(small, Z.dtype, str(Z.device))
    fits = MaskedFits(MaskedLayer(Z, None), masks, plan.tol, _MAX_ITER_MASKED)
    penalties, theta, converged = fits.run(small)
    layer.n_fits += fits.n_fits
    decided, fine = fits.decisions(theta, 0, pairs[0][1]), converged[0]
    if not fine.all():
        _again(_Fold(layer, train, test), decided, penalties[0], fine)
    return decided, penalties[0], fine


def row_coordinates(X: Tensor, n: int) -> Tensor:
    """Coordinates of all rows of X (N, D) in the space of the first n: (N, min(n, D)).

    Products of a row with one of the first n stay what they are, but for rounding; a part outside their space, which
    no weight of a fit to them can see, is dropped. The first n are the rows of a Cholesky factor of their products,
    taken in float64; an orthonormal basis of their space (QR) costs two to four times as much.
    """
    if X.shape[1] <= n:
        return X
    first = X[:n].double()
    products = lower_gram(first.T)
    # Equal rows make it singular. What this adds is a feature of each row's own, too small for any penalty of ours.
    products.diagonal().add_(_JITTER * products.diagonal().max().clamp_min(1e-30))
    factor, failed = torch.linalg.cholesky_ex(products)
    if bool(failed):
        basis: Tensor = torch.linalg.qr(X[:n].T)[0]
        return X @ basis
    rest = torch.linalg.solve_triangular(factor, first @ X[n:].double().T, upper=False)
    return torch.cat([factor, rest.T]).to(X.dtype)


def _again(fold: _Fold, decided: FloatArray, penalties: FloatArray, fine: npt.NDArray[np.bool_]) -> None:
    """Solve once more, in float64 where that helps, what did not converge."""
    left = np.flatnonzero(~fine)
    C = 1 / (penalties[left] * len(fold.train))
    decided[left], fine[left] = fold.decide(left, C, fold.layer.plan.tol)
    fold.layer.n_fits -= len(left)  # they were counted before


@lru_cache(maxsize=4)
def plan_masks(plan: FitPlan, dtype: torch.dtype, device: str) -> Masks:
    """The plan's masks, kept from layer to layer."""
    return Masks(plan, dtype, device)


def _several_classes(layer: _Layer, plan: FitPlan, split: int) -> _Found:
    """One split of more than two classes."""
    train, test = plan.pairs[split]
    fold, M = _Fold(layer, train, test), len(plan.labelings)
    if plan.C is None:
        penalties = np.asarray(PENALTIES)[layer.choose(fold, plan.inner[split])]
    else:
        penalties = np.full(M, 1 / (plan.C * len(train)))
    decided, fine = fold.decide(np.arange(M), 1 / (penalties * len(train)), plan.tol)
    return decided, penalties, fine


class _Layer:
    """One layer's matrix on the device, with a rotation that serves all its folds."""

    def __init__(self, X: Tensor, plan: FitPlan, masked: MaskedLayer) -> None:
        self.X, self.plan, self.masked, self.n_fits = X, plan, masked, 0

    @cached_property
    def rotation(self) -> Tensor | None:
        """Principal directions, where they span what every training part spans."""
        if self.X.shape[1] > self.plan.smallest:
            return None
        shift, scale = self.moments(self.X)
        return eigenvectors((self.X - shift) / scale)

    def moments(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """(D,) what to subtract from rows of this layer, and (D,) what to divide them by.

        Features that are constant among these rows, or vary by the rounding of the values as they were given, are
        divided by infinity: a fit to these rows learns nothing of them, so they must not speak where they do vary.
        """
        X64 = X.to(torch.float64, copy=True)
        mean = X64.mean(0)
        variance = X64.sub_(mean).square_().mean(0)
        size = torch.maximum(X.abs().amax(0).double(), (mean + self.masked.centre).abs())
        constant = variance.sqrt() <= rounding(size, X.dtype)
        if self.plan.standardize is False:
            mean, variance = torch.zeros_like(mean), torch.ones_like(variance)
        elif self.plan.standardize == "scale":
            variance = variance.mean().expand(variance.shape)
        return mean.to(X.dtype), torch.where(constant, torch.inf, variance.sqrt()).to(X.dtype)

    def choose(self, outer: _Fold, inner: Sequence[Pair]) -> IntArray:
        """(M,) index into PENALTIES of each label vector's choice."""
        folds = [_Fold(self, train, test, outer) for train, test in inner]
        M, n = len(self.plan.labelings), sum(len(test) for _, test in inner)
        choice = Choice((M,), self.plan.n_classes)
        start = 0
        while start < len(PENALTIES) and choice.walking.any():
            walking = np.flatnonzero(choice.walking)
            # Hardly anybody stops before the third value, so the first three are solved in one call. The later
            # ones of a few label vectors too, all inner parts together: a larger call costs less than more calls.
            few = len(walking) <= _FEW
            stop = min(start + (3 if few or not start else 1), len(PENALTIES))
            grid = PENALTIES[start:stop]
            if few:
                loss_JM = outer.masked_losses(inner, walking, grid) / n
            else:
                loss_JM = np.sum([fold.losses(walking, grid) for fold in folds], axis=0) / n
            for j, loss in zip(range(start, stop), loss_JM, strict=True):
                everyone = np.full(M, np.nan)
                everyone[walking] = loss
                choice.update(j, everyone)
            start = stop
        return choice.chosen


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
        shift, scale = layer.moments(X)
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
        plan, like = self.layer.plan, self.Z_test
        labels = torch.as_tensor(plan.labelings[which][:, self.train], device=like.device)
        C = torch.as_tensor(C_B, dtype=torch.float64, device=like.device)
        weight = torch.ones((1, 1)).to(like).expand(labels.shape) if weight_BN is None else weight_BN.to(like)
        self.layer.n_fits += len(labels)
        if plan.n_classes == 2:
            fits = fit_path(self.design, 2 * labels.to(like.dtype) - 1, weight, C, tol=tol, max_iter=_MAX_ITER)
            z, fine = fits.theta.to(like.dtype) @ like.T, fits.converged
            return np.asarray(z.double().cpu().numpy()), np.asarray(fine.cpu().numpy())
        theta, _, fine = fit_multinomial(
            self.design, labels, weight, C, n_classes=plan.n_classes, tol=tol, max_iter=_MAX_ITER
        )
        log_p = torch.einsum("bkp,np->bnk", theta.to(like.dtype), like).double().log_softmax(-1)
        return np.asarray(log_p.cpu().numpy()), np.asarray(fine.cpu().numpy())

    def losses(self, which: IntArray, penalties: Sequence[float]) -> FloatArray:
        """(J, B) summed log-loss on the test part for each penalty and label vector."""
        C = np.repeat(1.0 / (np.asarray(penalties) * len(self.train)), len(which))
        repeated = np.tile(which, len(penalties))
        decided, _ = self.decide(repeated, C, TOL_INNER)
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
        decided, _ = whole.decide(repeated, C, TOL_INNER, train_FN.repeat_interleave(size, 0))
        labels = self.layer.plan.labelings[repeated][:, self.train]
        likelihood = metrics.log_likelihood(decided, labels, self.layer.plan.n_classes)
        loss = -(likelihood * test_BN).sum(-1)
        return np.asarray(loss.reshape(len(parts), len(penalties), len(which)).sum(0))
