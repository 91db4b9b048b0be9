"""Do layers read a concept along the same direction? Cosines between probe directions, with their noise.

A direction fitted to few examples is mostly noise, and two layers probed on the same examples share it. So layer
l is fitted on one half of the groups and layer m on the other, for several halvings: the cosine of the two says
how alike the directions are that two independent samples give. Its ceiling is what a layer reaches with itself;
its floor comes from permuted labels.

Directions are in the layers' own coordinates (each feature divided by its deviation for the fit, and the weights
divided again), at unit length. Layers must have one width, as residual streams do.

Shapes: L layers, N examples, D features, H halvings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.activations import Activations
from concept_depth.errors import InputError, check_seed, is_whole
from concept_depth.probing.logistic import solve_logistic
from concept_depth.probing.nulls import permuted_labels

FloatArray = npt.NDArray[np.float64]

_TRIES = 100  # random halvings drawn for one that holds both classes on both sides


@dataclass(frozen=True, eq=False)
class Cosines:
    """How alike the probe directions of layers are.

    Attributes:
        numbers: L layer numbers.
        cosine: (L, L) mean over halvings of the cosine between layer l on one half and layer m on the other,
            symmetric; the diagonal is how well a layer's direction is known. NaN where a fit did not converge.
        deviation: (L, L) standard deviation over halvings.
        floor: 95th percentile, over permutations and pairs, of the same cosine's size with permuted labels; NaN
            without permutations.
        settings: penalty, halvings, seed.
    """

    numbers: tuple[int, ...]
    cosine: FloatArray
    deviation: FloatArray
    floor: float
    settings: dict[str, Any]

    def corrected(self) -> FloatArray:
        """(L, L) cosines divided by the geometric mean of both layers' own: what endless data would give
        (Spearman).

        NaN where a layer's own cosine does not exceed the floor, and where there is none.
        """
        own = np.where(np.diag(self.cosine) > self.floor, np.diag(self.cosine), np.nan)
        return np.asarray(self.cosine / np.sqrt(np.outer(own, own)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {
            "numbers": list(self.numbers),
            "cosine": self.cosine.tolist(),
            "deviation": self.deviation.tolist(),
            "floor": self.floor if np.isfinite(self.floor) else None,
            "settings": self.settings,
        }


def direction_cosines(
    acts: Activations, *, penalty: float = 0.07, halvings: int = 10, permutations: int = 5, random_state: int = 0
) -> Cosines:
    """Cosines between the probe directions of all pairs of layers.

    Args:
        acts: two classes, layers of one width.
        penalty: λ = 1 / (C n) of every fit.
        halvings: random halvings of the groups; both halves hold both classes.
        permutations: label permutations for the floor.
        random_state: seed.

    Raises:
        InputError: more than two classes, layers of different widths, fewer than four groups, a class that stands
            in too few groups to be halved, or a value out of its range.
    """
    check_seed(random_state)
    for name, value, least in (("halvings", halvings, 1), ("permutations", permutations, 0)):
        if not is_whole(value) or value < least:
            raise InputError(f"{name}={value!r} is not allowed; give a whole number of {least} or more")
    if len(acts.classes) != 2:
        raise InputError(f"directions are of two classes, there are {len(acts.classes)}")
    widths = {acts[name].shape[1] for name in acts.names}
    if len(widths) > 1:
        raise InputError(f"the layers have widths {sorted(widths)}; directions can be compared in one width only")
    inverse = np.unique(acts.groups, return_inverse=True)[1]
    n_groups = int(inverse.max()) + 1
    if n_groups < 4:
        raise InputError(f"{n_groups} groups cannot be halved in several ways; give four or more")
    labels = permuted_labels(acts.labels, acts.groups, permutations, random_state=random_state)
    labels = np.concatenate([acts.labels[None], labels])
    rng = np.random.default_rng([random_state, 8])
    halves = np.stack([_halves(row, inverse, halvings, rng) for row in labels])
    shape = (len(labels), halvings, 2, len(acts.names), widths.pop())
    directions = np.empty(shape, np.float32)  # label vectors, halvings, halves, layers, features
    for layer, name in enumerate(acts.names):
        directions[:, :, :, layer] = _directions(np.asarray(acts[name]), labels, halves, penalty)
    a, b = directions[:, :, 0], directions[:, :, 1]
    cosine = np.einsum("phld,phmd->phlm", a, b).astype(np.float64)
    cosine = (cosine + cosine.transpose(0, 1, 3, 2)) / 2
    null = np.abs(cosine[1:].mean(1))
    return Cosines(
        numbers=acts.numbers,
        cosine=cosine[0].mean(0),
        deviation=cosine[0].std(0),
        floor=float(np.quantile(null, 0.95)) if null.size else float("nan"),
        settings={"penalty": penalty, "halvings": halvings, "permutations": permutations, "seed": random_state},
    )


def _halves(
    labels: npt.NDArray[np.int64], group_of: npt.NDArray[np.int64], halvings: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(H, N) halvings by whole groups: 0 or 1, where either half holds both classes."""
    found: list[npt.NDArray[np.int64]] = []
    sides = np.arange(int(group_of.max()) + 1) % 2
    for _ in range(_TRIES * halvings):
        half = rng.permutation(sides)[group_of]
        if all(np.ptp(labels[half == side]) for side in (0, 1)):
            found.append(half)
        if len(found) == halvings:
            return np.stack(found)
    raise InputError(
        "a class stands in too few groups for both halves to hold it; give more groups of either class"
    )


def _directions(
    X: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], halves: npt.NDArray[np.int64], penalty: float
) -> npt.NDArray[np.float32]:
    """Unit directions (label vectors, halvings, 2, D); each label vector has halvings of its own."""
    deviation = X.std(0, dtype=np.float64)
    scale = np.where(deviation > 1e-6 * np.maximum(np.abs(X).max(0), 1e-30), deviation, 1.0)
    Z = ((X - X.mean(0, dtype=np.float64)) / scale).astype(np.float32)
    weight = np.stack([halves == 0, halves == 1], 2).reshape(-1, len(X)).astype(np.float32)
    Y = np.repeat(labels, len(weight) // len(labels), axis=0).T.astype(np.float32)
    fits = solve_logistic(Z, Y, C=1 / (penalty * weight.sum(1)), sample_weight=weight.T, tol=1e-5)
    w = (fits.coef / scale[:, None]).T
    w = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-30)
    w[~np.asarray(fits.converged)] = np.nan  # nothing is read off a fit that did not converge
    return np.asarray(w.reshape(*halves.shape[:2], 2, -1), dtype=np.float32)
