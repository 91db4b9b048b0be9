"""Curves of resampled groups, jointly for all layers: what intervals and paired comparisons are made of.

A replicate gives every group a weight (how often it was drawn) and reads one of the repeats; the probes stay as
they were fitted. Scores are taken per fold and averaged over folds, as in the curve itself, and oriented so that
larger is better (log-loss with its sign changed). A weighting that leaves a class without examples in every fold has
no scores: NaN.

Shapes: M weightings, G groups, L layers, R repeats, F folds, N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d, gaussian_filter1d

from concept_depth.probing import metrics
from concept_depth.probing.scores import LayerScores

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.uint16]
_Fold = Callable[[FloatArray], FloatArray]

MEDIAN_DISTANCE = 0.674490  # median distance of a standard normal from 0
_CHUNK = 1 << 20  # weights held at once


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
        # Where a repeat tests some examples only (splits of the user's own), one alone says too little.
        self._repeats_stand_alone = bool((scores.fold[:, tested] >= 0).all())
        self._folds: list[list[_Fold]] = []
        for r, fold in enumerate(scores.fold):
            rows = [np.flatnonzero(fold == f) for f in range(int(fold.max()) + 1)]
            self._folds.append([_of_own_groups(scores, name, r, idx, group_of[idx]) for idx in rows])

    def curves(self, weight_MG: npt.NDArray[Any], repeat_M: IntArray | None = None) -> FloatArray:
        """(M, L) curves; `repeat_M` names the repeat each weighting reads, None the mean of all, folds alike."""
        out = np.empty((len(weight_MG), self.n_layers))
        for part in self._chunks(len(weight_MG)):
            start = part.start
            weight = np.asarray(weight_MG[part], np.float64)
            if repeat_M is None:
                out[part] = self._mean(weight, [fold for folds in self._folds for fold in folds])
                continue
            for r in range(self.n_repeats):
                chosen = np.flatnonzero(repeat_M[part] == r)
                if len(chosen):
                    out[start + chosen] = self._mean(weight[chosen], self._folds[r])
        return out * self.sign

    def _mean(self, weight_MG: FloatArray, folds: Sequence[_Fold]) -> FloatArray:
        """(M, L) mean over folds; those in which a weighting leaves a class without examples are left out."""
        values_FML = np.stack([fold(weight_MG) for fold in folds])
        known = np.isfinite(values_FML)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, values_FML, 0.0).sum(0) / known.sum(0))

    def _chunks(self, rows: int) -> Iterator[slice]:
        """As many weightings at a time as memory allows."""
        step = max(1, _CHUNK // max(1, self.n_groups))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def draw(self, replicates: int, rng: np.random.Generator) -> tuple[CountArray, IntArray | None]:
        """Weights (B, G) of groups drawn with replacement, and the repeat (B,) that each replicate reads.

        None, the mean of all repeats, where a repeat does not test every example.
        """
        share = np.full(self.n_groups, 1.0 / self.n_groups)
        weight = np.empty((replicates, self.n_groups), np.uint16)
        for part in self._chunks(replicates):
            weight[part] = rng.multinomial(self.n_groups, share, size=part.stop - part.start)
        repeat = rng.integers(self.n_repeats, size=replicates)
        return weight, repeat if self._repeats_stand_alone else None

    def crossfitted_peaks(
        self,
        weight_MG: npt.NDArray[Any],
        repeat_M: IntArray | None,
        halvings: int,
        rng: np.random.Generator,
        readable: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Heights of peaks, their layer chosen on half of the groups and scored on the other half.

        Both halves change places; copies of a group stay together. Layers are chosen on smoothed curves (`_highest`).
        A halving in which a half lacks a class has the mean of the others, or, where all do (one group of a class),
        the raw maximum.

        Args:
            weight_MG: weights of groups.
            repeat_M: the repeat each weighting reads; None: the mean of all.
            halvings: E, how many random halvings.
            rng: source of the halvings.
            readable: (L',) layers among which peaks are sought; None: all. Without any the peaks are NaN.

        Returns:
            (E, M) peak of each curve, and (E, M, L') peak among the layers up to each.
        """
        layers = np.arange(self.n_layers) if readable is None else np.flatnonzero(readable)
        peak = np.full((halvings, len(weight_MG)), np.nan)
        so_far = np.full((*peak.shape, len(layers)), np.nan)
        if not len(layers):
            return peak, so_far
        sides = np.arange(self.n_groups, dtype=np.uint8) % 2
        for halving in range(halvings):
            for part in self._chunks(len(weight_MG)):
                weight, repeat = weight_MG[part], None if repeat_M is None else repeat_M[part]
                half = rng.permuted(np.tile(sides, (len(weight), 1)), axis=1)
                a = self.curves(weight * half, repeat)[:, layers]
                b = self.curves(weight * (1 - half), repeat)[:, layers]
                known = np.flatnonzero(np.isfinite(a + b).all(1))
                a, b, at = a[known], b[known], part.start + known
                peak[halving, at] = so_far[halving, at] = 0.0
                for chosen, scored in ((a, b), (b, a)):
                    summit, best = _highest(chosen)
                    peak[halving, at] += scored[np.arange(len(at)), summit] / 2
                    so_far[halving, at] += np.take_along_axis(scored, best, axis=1) / 2
        lost = np.isnan(peak)
        if len(raw := np.flatnonzero(lost.all(0))):
            curves = self.curves(weight_MG[raw], None if repeat_M is None else repeat_M[raw])[:, layers]
            peak[:, raw], so_far[:, raw] = curves.max(1), np.maximum.accumulate(curves, axis=1)
        for row in np.flatnonzero(lost.any(0) & ~lost.all(0)):
            gone = lost[:, row]
            peak[gone, row], so_far[gone, row] = peak[~gone, row].mean(), so_far[~gone, row].mean(0)
        return peak, so_far


def _highest(curve_ML: FloatArray) -> tuple[IntArray, IntArray]:
    """(M,) layer where the expected curve is highest, and (M, L) where it is among the layers up to each.

    On a plateau the highest layer is high by chance, and its height on other examples too low, so the maximum of a
    widely smoothed curve is taken (Gaussian, a tenth of the layers). After a jump or around a narrow peak that curve is
    too flat: the maximum under the weights 1, 2, 1 is kept where it is higher under them by more than a standard error
    of the difference. The noise is told from the distances of layers from their 1, 2, 1 means, the median of which
    is 0.67 √0.375 standard deviations of a layer; the difference of two such means has √0.75 of them. Among the
    layers up to one there is no room for the wide curve; of equal ones the first counts.
    """
    narrow = correlate1d(curve_ML, [0.25, 0.5, 0.25], axis=1, mode="nearest")
    wide = gaussian_filter1d(curve_ML, max(curve_ML.shape[1] / 10, 0.7), axis=1, mode="nearest")
    higher = narrow[:, 1:] > np.maximum.accumulate(narrow, axis=1)[:, :-1]
    layers = np.where(higher, np.arange(1, narrow.shape[1]), 0)
    so_far = np.maximum.accumulate(np.pad(layers, ((0, 0), (1, 0))), axis=1)
    rows, peak, summit = np.arange(len(narrow)), so_far[:, -1], wide.argmax(1)
    error = np.sqrt(2) / MEDIAN_DISTANCE * np.median(np.abs(curve_ML - narrow), axis=1)
    return np.where(narrow[rows, peak] - narrow[rows, summit] > error, peak, summit), so_far


def _of_own_groups(scores: LayerScores, name: str, repeat: int, rows: IntArray, group_of: IntArray) -> _Fold:
    """The metric of one fold as a function of the weights (M, G) of all groups, of which it needs its own alone."""
    own, local = np.unique(group_of, return_inverse=True)
    statistic = _statistic(scores, name, repeat, rows, local)
    return lambda weight_MG: statistic(weight_MG[:, own])


def _statistic(scores: LayerScores, name: str, repeat: int, rows: IntArray, group_of: IntArray) -> _Fold:
    """The metric of the examples `rows` as a function of their groups' weights (M, G) → (M, L)."""
    n_groups = int(group_of.max(initial=-1)) + 1
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
        # What labels alone tell is that of the fold: of the few examples of a half it would come out too low.
        entropy = float(metrics.entropy_bits(labels[None], K)[0]) if name == "v_information" else None
        return _weighted_loss(loss, everyone, entropy)
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
        ],
        [counted(labels == k) for k in positive],
    )


def _mean_ratio(parts: list[tuple[FloatArray, FloatArray]], needed: Sequence[FloatArray] = ()) -> _Fold:
    """Mean over parts of (weighted sum of numerators) / (weighted sum of denominators); NaN where one of `needed`
    sums to 0."""

    def curves(weight_MG: FloatArray) -> FloatArray:
        total: FloatArray = np.zeros(())
        with np.errstate(invalid="ignore", divide="ignore"):
            for top, bottom in parts:
                under = weight_MG @ bottom
                total = total + weight_MG @ top / (under if under.ndim == 2 else under[:, None])
        for present in needed:
            total[weight_MG @ present == 0] = np.nan
        return np.asarray(total / len(parts))

    return curves


def _weighted_loss(loss_GL: FloatArray, everyone: FloatArray, entropy: float | None) -> _Fold:
    """Log-loss in nats, or with the labels' entropy: V-information in bits."""

    def curves(weight_MG: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = weight_MG @ loss_GL / (weight_MG @ everyone)[:, None]
            return np.asarray(mean if entropy is None else entropy - mean / np.log(2))

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
