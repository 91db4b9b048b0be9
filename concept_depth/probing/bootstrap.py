"""Curves of resampled groups, jointly for all layers: what intervals and paired comparisons are made of.

A replicate gives every group a weight (how often it was drawn) and reads one of the repeats; the probes stay as
they were fitted. Scores are taken per fold and averaged over folds, as in the curve itself, and oriented so that
larger is better (log-loss with its sign changed).

Shapes: M weightings, G groups, L layers, R repeats, F folds, N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from concept_depth.probing import metrics
from concept_depth.probing.scores import LayerScores

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_Fold = Callable[[FloatArray], FloatArray]

_CHUNK = 1 << 23  # weights held at once


class Resampler:
    """Weighted curves of one `LayerScores`.

    Attributes:
        n_groups: G, groups of which some example was tested.
        sign: +1, or −1 where small values of the scoring metric are good.
    """

    def __init__(self, scores: LayerScores, metric: str | None = None) -> None:
        """Prepare; `metric` replaces the scoring metric."""
        name = metric or scores.scoring
        self.sign = -1.0 if name in metrics.LOWER_IS_BETTER else 1.0
        tested = np.flatnonzero((scores.fold >= 0).any(0))
        self.group_ids, inverse = np.unique(scores.groups[tested], return_inverse=True)
        self.n_groups = len(self.group_ids)
        group_of = np.full(len(scores.labels), -1)
        group_of[tested] = inverse
        self.n_layers, self.n_repeats = len(scores.names), len(scores.fold)
        self._folds: list[list[_Fold]] = []
        for r, fold in enumerate(scores.fold):
            rows = [np.flatnonzero(fold == f) for f in range(int(fold.max()) + 1)]
            self._folds.append([_statistic(scores, name, r, idx, group_of[idx], self.n_groups) for idx in rows])

    def curves(self, weight_MG: npt.NDArray[np.floating], repeat_M: IntArray | None = None) -> FloatArray:
        """(M, L) curves; `repeat_M` names the repeat each weighting reads, None the mean of all repeats."""
        out = np.empty((len(weight_MG), self.n_layers))
        step = max(1, _CHUNK // max(1, self.n_groups))
        for start in range(0, len(weight_MG), step):
            part = slice(start, start + step)
            weight = np.asarray(weight_MG[part], np.float64)
            if repeat_M is None:
                out[part] = np.mean([self._one(weight, r) for r in range(self.n_repeats)], axis=0)
                continue
            for r in range(self.n_repeats):
                chosen = np.flatnonzero(repeat_M[part] == r)
                if len(chosen):
                    out[start + chosen] = self._one(weight[chosen], r)
        return out * self.sign

    def _one(self, weight_MG: FloatArray, repeat: int) -> FloatArray:
        """Folds in which a weighting leaves a class without examples are left out of its mean."""
        values_FML = np.stack([fold(weight_MG) for fold in self._folds[repeat]])
        known = np.isfinite(values_FML)
        return np.asarray(np.where(known, values_FML, 0.0).sum(0) / np.maximum(known.sum(0), 1))

    def draw(self, replicates: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
        """Weights (B, G) of groups drawn with replacement, and the repeat (B,) that each replicate reads."""
        share = np.full(self.n_groups, 1.0 / self.n_groups)
        weight = rng.multinomial(self.n_groups, share, size=replicates).astype(np.float64)
        return weight, rng.integers(self.n_repeats, size=replicates)

    def crossfitted_peaks(
        self, weight_MG: FloatArray, repeat_M: IntArray | None, halvings: int, rng: np.random.Generator
    ) -> FloatArray:
        """(M,) height of the peak, its layer chosen on half of the groups and scored on the other half.

        Both halves change places, and `halvings` random halvings are averaged. Copies of a group stay together.
        The layer is chosen on a curve smoothed by the weights 1, 2, 1: on a plateau a layer that is high by
        chance alone would else be chosen too often, and its height on the other half is too low.
        """
        total = np.zeros(len(weight_MG))
        for _ in range(halvings):
            half = rng.permuted(np.tile(np.arange(self.n_groups) % 2, (len(weight_MG), 1)), axis=1)
            a = self.curves(weight_MG * half, repeat_M)
            b = self.curves(weight_MG * (1 - half), repeat_M)
            rows = np.arange(len(a))
            total += (b[rows, _smoothed(a).argmax(1)] + a[rows, _smoothed(b).argmax(1)]) / 2
        return total / halvings


def _smoothed(curve_ML: FloatArray) -> FloatArray:
    """Each layer with half the weight of both neighbours."""
    padded = np.pad(curve_ML, ((0, 0), (1, 1)), mode="edge")
    return np.asarray((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4)


def _statistic(
    scores: LayerScores, name: str, repeat: int, rows: IntArray, group_of: IntArray, n_groups: int
) -> _Fold:
    """The metric of one fold as a function of group weights (M, G) → (M, L)."""
    K = len(scores.classes)
    labels = scores.labels[rows]
    decision = np.asarray(scores.decision[:, repeat, rows], np.float64)
    if name == "auroc":
        return _weighted_auroc(decision, labels, group_of, K)

    def summed(values_LN: npt.NDArray[np.floating] | npt.NDArray[np.bool_]) -> FloatArray:
        """(G, L) sums over each group's examples."""
        out = np.zeros((n_groups, values_LN.shape[0]))
        np.add.at(out, group_of, np.asarray(values_LN, np.float64).T)
        return out

    def counted(mask_N: npt.NDArray[np.bool_]) -> FloatArray:
        return np.bincount(group_of[mask_N], minlength=n_groups).astype(np.float64)

    everyone = counted(np.ones(len(rows), bool))
    if name in ("log_loss", "v_information"):
        loss = summed(-metrics.log_likelihood(decision, np.broadcast_to(labels, decision.shape[:2]), K))
        shares = [counted(labels == k) for k in range(K)]
        return _weighted_loss(loss, everyone, shares if name == "v_information" else None)
    predicted = scores.predicted[:, repeat, rows]
    if name == "accuracy":
        return _mean_ratio([(summed(predicted == labels), everyone)])
    if name == "balanced_accuracy":
        return _mean_ratio([(summed((predicted == k) & (labels == k)), counted(labels == k)) for k in range(K)])
    positive = [1] if K == 2 else range(K)
    return _mean_ratio(
        [
            (2 * summed((predicted == k) & (labels == k)), summed(predicted == k) + counted(labels == k)[:, None])
            for k in positive
        ]
    )


def _mean_ratio(parts: list[tuple[FloatArray, FloatArray]]) -> _Fold:
    """Mean over parts of (weighted sum of numerators) / (weighted sum of denominators)."""

    def curves(weight_MG: FloatArray) -> FloatArray:
        total: FloatArray = np.zeros(())
        with np.errstate(invalid="ignore", divide="ignore"):
            for top, bottom in parts:
                under = weight_MG @ bottom
                total = total + weight_MG @ top / (under if under.ndim == 2 else under[:, None])
        return np.asarray(total / len(parts))

    return curves


def _weighted_loss(loss_GL: FloatArray, everyone: FloatArray, shares: list[FloatArray] | None) -> _Fold:
    """Log-loss in nats, or with the classes' counts: V-information in bits."""

    def curves(weight_MG: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            n = (weight_MG @ everyone)[:, None]
            mean = weight_MG @ loss_GL / n
            if shares is None:
                return np.asarray(mean)
            p = np.stack([weight_MG @ share for share in shares], -1) / n
            entropy = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1, keepdims=True)
            return np.asarray(entropy - mean / np.log(2))

    return curves


def _weighted_auroc(decision: FloatArray, labels: IntArray, group_of: IntArray, n_classes: int) -> _Fold:
    """AUROC with weighted examples, ties half; for K > 2 the mean of each class against the rest."""
    if n_classes > 2:
        parts = [
            _weighted_auroc(decision[..., k], (labels == k).astype(np.int64), group_of, 2)
            for k in range(n_classes)
        ]
        return lambda weight_MG: np.asarray(np.mean([part(weight_MG) for part in parts], axis=0))

    orders = [np.argsort(row, kind="stable") for row in decision]
    # Tied decisions form one step; `starts` says where each step begins.
    starts = [
        np.flatnonzero(np.r_[True, np.diff(row[order]) > 0]) for row, order in zip(decision, orders, strict=True)
    ]

    def curves(weight_MG: FloatArray) -> FloatArray:
        weight_MN = weight_MG[:, group_of]
        positive, negative = weight_MN * (labels == 1), weight_MN * (labels == 0)
        out = np.empty((len(weight_MG), len(decision)))
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = positive.sum(1) * negative.sum(1)
            for layer, (order, start) in enumerate(zip(orders, starts, strict=True)):
                pos = np.add.reduceat(positive[:, order], start, axis=1)
                neg = np.add.reduceat(negative[:, order], start, axis=1)
                below = np.cumsum(neg, axis=1) - 0.5 * neg
                out[:, layer] = (pos * below).sum(1) / scale
        return out

    return curves
