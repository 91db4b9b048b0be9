"""Scores of out-of-sample decisions, for many label vectors at once.

A decision is, for two classes, the log-odds of class 1 (predict 1 where it is positive); for K > 2, a
log-probability of each class (predict the largest). Formulas, with p the predicted probabilities:

- accuracy: share of right predictions; balanced_accuracy: mean over classes of the share of right ones;
- f1: 2 tp / (2 tp + fp + fn) of class 1; for K > 2 the mean over classes, each against the rest;
- auroc: probability that a random example of class 1 has a larger decision than one of class 0, ties half (Mann
  and Whitney); for K > 2 the mean over classes, each against the rest;
- log_loss: mean of −ln p(true class); nats, lower is better;
- v_information: H(Y) − mean of −log₂ p(true class), H(Y) the entropy of the test labels, in bits (Xu et al. 2020).

Shapes: N examples, K classes, B label vectors with their decisions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logsumexp
from scipy.stats import rankdata

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

METRICS = ("accuracy", "balanced_accuracy", "f1", "auroc", "log_loss", "v_information")
LOWER_IS_BETTER = frozenset({"log_loss"})


def predicted_classes(decision: npt.NDArray[np.floating], n_classes: int) -> IntArray:
    """Class indices: the sign of the log-odds for two classes, else the largest log-probability.

    Args:
        decision: (..., N) for two classes, (..., N, K) for more.
        n_classes: K.
    """
    if n_classes == 2:
        return (decision > 0).astype(np.int64)
    return np.asarray(decision.argmax(-1), dtype=np.int64)


def log_likelihood(decision: npt.NDArray[np.floating], labels: IntArray, n_classes: int) -> FloatArray:
    """ln p(true class) of every example, (..., N)."""
    z = np.asarray(decision, dtype=np.float64)
    if n_classes == 2:
        return np.asarray(log_expit(np.where(labels == 1, z, -z)))
    z = z - logsumexp(z, axis=-1, keepdims=True)
    return np.asarray(np.take_along_axis(z, labels[..., None], axis=-1)[..., 0])


def score(name: str, decision: npt.NDArray[np.floating], labels_BN: IntArray, n_classes: int) -> FloatArray:
    """One metric for each of B label vectors.

    Args:
        name: one of METRICS.
        decision: (B, N), or (B, N, K) for K > 2.
        labels_BN: (B, N) class indices.
        n_classes: K.

    Returns:
        (B,) scores; NaN where a metric needs a class that is not there.
    """
    if name in ("log_loss", "v_information"):
        loss = -log_likelihood(decision, labels_BN, n_classes).mean(-1)
        return np.asarray(loss if name == "log_loss" else entropy_bits(labels_BN, n_classes) - loss / np.log(2))
    if name == "auroc":
        return _auroc(decision, labels_BN, n_classes)
    predicted = predicted_classes(decision, n_classes)
    if name == "accuracy":
        return np.asarray((predicted == labels_BN).mean(-1))
    if name == "f1":
        positive = [1] if n_classes == 2 else range(n_classes)
        return np.asarray(np.mean([_f1(predicted == k, labels_BN == k) for k in positive], axis=0))
    right = predicted == labels_BN
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [(right & (labels_BN == k)).sum(-1) / (labels_BN == k).sum(-1) for k in range(n_classes)]
    return np.asarray(np.mean(shares, axis=0))


def chance(name: str, labels: IntArray, n_classes: int) -> float:
    """What the best constant prediction scores: the majority class, or the class shares as probabilities.

    Args:
        name: one of METRICS.
        labels: (N,) class indices.
        n_classes: K.
    """
    share = np.bincount(labels, minlength=n_classes) / len(labels)
    if name == "accuracy":
        return float(share.max())
    if name == "balanced_accuracy":
        return 1.0 / n_classes
    if name == "auroc":
        return 0.5
    if name == "f1":
        # Always predicting class k has recall 1 and precision share_k: F1 = 2 share / (1 + share).
        return float(
            2 * share[1] / (1 + share[1]) if n_classes == 2 else (2 * share / (1 + share)).max() / n_classes
        )
    if name == "v_information":
        return 0.0
    return float(entropy_bits(labels[None], n_classes)[0] * np.log(2))


def entropy_bits(labels_BN: IntArray, n_classes: int) -> FloatArray:
    """(B,) entropy of each row's class shares, in bits."""
    share_BK = np.stack([(labels_BN == k).mean(-1) for k in range(n_classes)], -1)
    return np.asarray(-(share_BK * np.log2(np.where(share_BK > 0, share_BK, 1.0))).sum(-1))


def _f1(predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> FloatArray:
    """2 tp / (2 tp + fp + fn) along the last axis; 0 where the class is neither there nor predicted."""
    total = predicted.sum(-1) + actual.sum(-1)
    return np.asarray(2 * (predicted & actual).sum(-1) / np.maximum(total, 1))


def _auroc(decision: npt.NDArray[np.floating], labels_BN: IntArray, n_classes: int) -> FloatArray:
    if n_classes > 2:
        each = [_auroc(decision[..., k], (labels_BN == k).astype(np.int64), 2) for k in range(n_classes)]
        return np.asarray(np.mean(each, axis=0))
    rank_BN = rankdata(decision, axis=-1)
    positive = labels_BN.sum(-1)
    negative = labels_BN.shape[-1] - positive
    with np.errstate(invalid="ignore", divide="ignore"):
        wins = (rank_BN * labels_BN).sum(-1) - positive * (positive + 1) / 2
        return np.asarray(wins / (positive * negative))
