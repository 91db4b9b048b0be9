"""What the vectors themselves say of each layer: probe directions, how far the classes stand apart, one more axis.

Needs the activations for directions; the rest comes from out-of-fold decision values alone. Decides no depth.

Shapes: L layers, N examples, D hidden, S sampled examples, R repeats, K classes.

- *Separation* of a layer (two classes): (mean decision value of class 1 − that of class 0) / pooled standard
  deviation within the classes, from out-of-fold decision values: d′ of signal detection. 0 at chance.
- *Margin*: the 5th percentile over examples of the signed, out-of-fold decision value, in the same unit; above 0
  when at least 95 % of unseen examples fall on their side.
- *Cosine* between layers: of the directions of probes fitted on all examples, in the coordinates of the residual
  stream. Its *floor* is what one layer reaches with itself: the cosine of probes from two halves of the groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concept_depth.activations import Activations
    from concept_depth.probing.scores import LayerScores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SAMPLE = 300  # points of the space view; more are neither seen nor needed


@dataclass(frozen=True, eq=False)
class Geometry:
    """Numbers by layer, and for a sample of examples their place along the probe's direction and across it.

    Args:
        separation: (L,) d′ of the out-of-fold decision values; None with more than two classes.
        margin: (L,) 5th percentile of the signed decision value, in within-class standard deviations; or None.
        cosine: (L, L) cosine between the layers' probe directions; None without activations of one width.
        floor: (L,) cosine of directions from two halves of the groups, layer by layer; or None.
        sample: (S,) which examples the points are.
        x: (L, S) place along the probe's direction, out of fold, in within-class deviations; 0 is the border.
        y: (L, S) place along the widest direction across it, in standard deviations; None without activations.
    """

    separation: FloatArray | None
    margin: FloatArray | None
    cosine: FloatArray | None
    floor: FloatArray | None
    sample: IntArray = field(repr=False)
    x: FloatArray = field(repr=False)
    y: FloatArray | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What belongs into a record: the numbers by layer."""
        return {
            "separation": self.separation,
            "margin": self.margin,
            "cosine": self.cosine,
            "cosine_floor": self.floor,
        }


def measure_geometry(acts: Activations | None, scores: LayerScores, *, random_state: int = 0) -> Geometry:
    """The geometry of a run; without activations what the decision values alone give."""
    sample = draw_sample(scores.labels, SAMPLE, random_state)
    if scores.decision.ndim == 4:
        x_LS, y_LS = _many_classes(scores, sample)
        separation = margin = None
    else:
        units_LN, separation, margin = _two_classes(scores)
        x_LS, y_LS = units_LN[:, sample], None
    cosine = floor = None
    if acts is not None:
        cosine, floor, across_LS = _directions(acts, scores, sample, random_state)
        y_LS = across_LS if y_LS is None else y_LS
    return Geometry(separation, margin, cosine, floor, sample, x_LS, y_LS)


def draw_sample(labels: IntArray, size: int, random_state: int) -> IntArray:
    """At most `size` examples, the classes as equally often as they allow, in their original order."""
    rng = np.random.default_rng(random_state)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    # Round by round one example of each class, so that any prefix is balanced as long as it can be.
    order = sorted((rank, which, index) for which, ms in enumerate(members) for rank, index in enumerate(ms))
    return np.sort(np.asarray([index for _, _, index in order[:size]], dtype=np.int64))


def _two_classes(scores: LayerScores) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Out-of-fold decision values in within-class standard deviations (L, N), separation (L,), margin (L,)."""
    values_LN = _out_of_fold(scores)
    positive = scores.labels == 1
    spread_L = np.sqrt(
        (np.nanvar(values_LN[:, positive], axis=1) + np.nanvar(values_LN[:, ~positive], axis=1)) / 2
    )
    units_LN = values_LN / np.where(spread_L > 0, spread_L, 1.0)[:, None]
    separation = np.nanmean(units_LN[:, positive], axis=1) - np.nanmean(units_LN[:, ~positive], axis=1)
    margin = np.nanpercentile(np.where(positive, units_LN, -units_LN), 5, axis=1)
    return units_LN, separation, margin


def _out_of_fold(scores: LayerScores) -> FloatArray:
    """(L, N, …): the first repeat's decision value of each example, by the probe that did not see it.

    Each fold's values are brought to one scale first: folds choose their C apart, and C sets the scale.
    """
    values = np.array(scores.decision[:, 0], dtype=np.float64)
    fold_N = np.asarray(scores.fold)[0]
    for fold in np.unique(fold_N[fold_N >= 0]):
        tested = fold_N == fold
        scale = np.nanstd(values[:, tested].reshape(len(values), -1), axis=1)
        scale = np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (values.ndim - 1))
        values[:, tested] = values[:, tested] / scale
    return values


def _many_classes(scores: LayerScores, sample: IntArray) -> tuple[FloatArray, FloatArray]:
    """Two axes for K classes: the leading principal directions of the out-of-fold decision values."""
    values_LNK = np.nan_to_num(_out_of_fold(scores))
    x_LS = np.empty((len(values_LNK), len(sample)))
    y_LS = np.empty_like(x_LS)
    previous: FloatArray | None = None
    for i, values_NK in enumerate(values_LNK):
        centred = values_NK - values_NK.mean(axis=0)
        axes = np.linalg.svd(centred.T @ centred)[0][:, :2]
        if previous is not None:
            axes = axes * np.where((axes * previous).sum(axis=0) < 0, -1.0, 1.0)
        previous = axes
        points = centred @ axes
        points = points / max(float(points.std()), 1e-12)
        x_LS[i], y_LS[i] = points[sample].T
    return x_LS, y_LS


def _directions(
    acts: Activations, scores: LayerScores, sample: IntArray, random_state: int
) -> tuple[FloatArray | None, FloatArray | None, FloatArray]:
    """Cosine between layers (L, L), its floor (L,), and the place of the sample across the direction (L, S)."""
    weights_NW = _whole_and_halves(acts.groups, acts.labels, random_state)
    wholes: list[FloatArray] = []
    floor = np.full(len(scores.names), np.nan)
    across_LS = np.empty((len(scores.names), len(sample)))
    for i, name in enumerate(scores.names):
        hidden_ND = np.asarray(acts[name], dtype=np.float32)
        chosen = np.asarray(scores.C_chosen[i], dtype=np.float64)
        C = float(np.nanmedian(chosen)) if np.isfinite(chosen).any() else 0.01
        directions, spread_D = _fit_directions(hidden_ND, acts.labels, weights_NW, C)
        wholes.append(directions[0])
        if len(directions) == 3:
            floor[i] = _cosine(directions[1], directions[2])
        across_LS[i] = _across(hidden_ND[sample], directions[0], spread_D)
        if i and np.dot(across_LS[i], across_LS[i - 1]) < 0:  # so that points do not jump to the other side
            across_LS[i] *= -1
    if len({whole.shape for whole in wholes}) > 1:
        return None, floor, across_LS
    cosine = np.array([[_cosine(a, b) for b in wholes] for a in wholes])
    return cosine, floor, across_LS


def _fit_directions(
    hidden_ND: npt.NDArray[np.float32], labels: IntArray, weights_NW: FloatArray, C: float
) -> tuple[list[FloatArray], FloatArray]:
    """For each column of weights the probe's direction in the data's coordinates, (D,) or one a class, joined;
    and the (D,) standard deviations, 0 for features that carry nothing.

    All are solved in one call, on one standardisation, so that the halves differ from the whole in examples alone.
    """
    from concept_depth.probing.logistic import solve_logistic

    spread_D = hidden_ND.std(axis=0, dtype=np.float64)
    mean_D = hidden_ND.mean(axis=0, dtype=np.float64)
    # Features without spread (all of layer 0 at the last token, where every text ends alike) carry nothing.
    alive_D = spread_D > 1e-6 * (np.abs(mean_D) + spread_D.max())
    K = int(labels.max()) + 1
    targets_NK = np.stack([labels == k for k in (range(K) if K > 2 else (1,))], axis=1).astype(np.float32)
    W = weights_NW.shape[1]
    if not alive_D.any():
        return [np.zeros(hidden_ND.shape[1] * targets_NK.shape[1])] * W, np.zeros_like(spread_D)
    standard_ND = (hidden_ND[:, alive_D] - mean_D[alive_D]) / spread_D[alive_D]
    solution = solve_logistic(
        standard_ND.astype(np.float32),
        np.tile(targets_NK, (1, W)),
        C=np.full(W * targets_NK.shape[1], C),
        sample_weight=np.repeat(weights_NW, targets_NK.shape[1], axis=1).astype(np.float32),
    )
    coef_DWK = np.zeros((hidden_ND.shape[1], W, targets_NK.shape[1]))
    scaled = np.asarray(solution.coef, dtype=np.float64) / spread_D[alive_D][:, None]
    coef_DWK[alive_D] = scaled.reshape(-1, W, targets_NK.shape[1])
    return [coef_DWK[:, w].T.ravel() for w in range(W)], np.where(alive_D, spread_D, 0.0)


def _cosine(a: FloatArray, b: FloatArray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else float("nan")


def _across(hidden_SD: npt.NDArray[np.float32], direction: FloatArray, spread_D: FloatArray) -> FloatArray:
    """(S,): place along the widest direction of the sample that is orthogonal to the probe's, unit variance.

    In standardised coordinates, as the probe sees them: the few features with values a thousand times the rest
    would otherwise be all that there is to see.
    """
    scale_D = np.divide(1.0, spread_D, out=np.zeros_like(spread_D), where=spread_D > 0)
    centred = (hidden_SD - hidden_SD.mean(axis=0)) * scale_D
    if len(direction) == len(spread_D) and direction.any():
        unit = direction * spread_D  # the direction in standardised coordinates
        unit = unit / np.linalg.norm(unit)
        centred = centred - np.outer(centred @ unit, unit)
    gram = centred @ centred.T
    if not gram.any():
        return np.zeros(len(gram))
    place: FloatArray = np.linalg.eigh(gram)[1][:, -1] * np.sqrt(len(gram))
    # The sign of an eigenvector is arbitrary; the largest entry is made positive, so that runs agree.
    oriented: FloatArray = place * np.sign(place[np.argmax(np.abs(place))])
    return oriented


def _whole_and_halves(groups: IntArray, labels: IntArray, random_state: int) -> FloatArray:
    """(N, 3) weights: all examples, and two halves by whole groups with every class; (N, 1) if none are found."""
    distinct = np.unique(groups)
    everything = set(labels.tolist())
    rng = np.random.default_rng(random_state)
    whole = np.ones(len(labels))
    for _ in range(20):
        first = np.isin(groups, rng.permutation(distinct)[: len(distinct) // 2])
        if set(labels[first].tolist()) == everything == set(labels[~first].tolist()):
            return np.stack([whole, first, ~first], axis=1).astype(np.float64)
    return whole[:, None]
