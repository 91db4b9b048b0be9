"""Label permutations that respect groups, and what follows from the scores they give.

Under the null hypothesis a label says nothing about the activations. Exchangeable then are labels *inside* a group
(a fact and its false twin) and, where a group has one label only, the labels of *whole groups* of like size.

Shapes: N examples, L layers, P permutations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_FEWEST_ALIKE = 10  # groups of one size; rarer sizes are exchanged with their neighbours
_TRIES = 100


def permuted_labels(labels: IntArray, groups: IntArray, permutations: int, *, random_state: int = 0) -> IntArray:
    """Draw label vectors from the null distribution; none is the original.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        permutations: P.
        random_state: seed.

    Returns:
        (P, N) class indices.

    Raises:
        InputError: no permutation of this kind changes anything.
    """
    rng = np.random.default_rng([random_state, 2])
    inverse = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)
    mixed = np.array([len(set(labels[rows].tolist())) > 1 for rows in members])
    pools = _pools(np.array([len(rows) for rows in members]), np.flatnonzero(~mixed))
    inside = np.flatnonzero(mixed[inverse])
    result = np.tile(labels, (permutations, 1))
    for p in range(permutations):
        for _ in range(_TRIES):
            drawn = labels.copy()
            # Sorting by group first and a random key second shuffles every mixed group at once.
            shuffled = inside[np.lexsort((rng.random(len(inside)), inverse[inside]))]
            drawn[inside[np.argsort(inverse[inside], kind="stable")]] = labels[shuffled]
            for pool in pools:
                source = rng.permutation(pool)
                for target, origin in zip(pool.tolist(), source.tolist(), strict=True):
                    drawn[members[target]] = labels[members[origin][0]]
            if len(set(drawn.tolist())) == len(set(labels.tolist())) and np.any(drawn != labels):
                result[p] = drawn
                break
        else:
            raise InputError(
                "the labels cannot be permuted: no group holds two classes and no two groups of like size differ; "
                "give a finer grouping (group=...) or permutations=0"
            )
    return result


def _pools(sizes: IntArray, pure: IntArray) -> list[IntArray]:
    """Sets of single-class groups that may swap labels: equal sizes, rare sizes with their neighbours."""
    pools: list[list[int]] = []
    ordered = pure[np.argsort(sizes[pure], kind="stable")]
    for group in ordered.tolist():
        if pools and (sizes[pools[-1][-1]] == sizes[group] or len(pools[-1]) < _FEWEST_ALIKE):
            pools[-1].append(group)
        else:
            pools.append([group])
    if len(pools) > 1 and len(pools[-1]) < _FEWEST_ALIKE:
        last = pools.pop()
        pools[-1] += last
    return [np.asarray(pool, np.int64) for pool in pools]


def p_value(observed: float, null_max_P: FloatArray) -> float | None:
    """(1 + number of permutation maxima at or above the observed maximum) / (P + 1); None without permutations."""
    if not len(null_max_P):
        return None
    return float((1 + np.count_nonzero(null_max_P >= observed - 1e-12)) / (len(null_max_P) + 1))


def threshold(null_max_P: FloatArray, level: float = 0.05) -> float | None:
    """What an observed maximum must exceed for a p-value of at most `level`; None where no maximum could.

    With P = 39 and level 0.05 this is the second largest of the permutation maxima.
    """
    allowed = int(np.floor(level * (len(null_max_P) + 1) + 1e-9)) - 1
    if allowed < 0:
        return None
    return float(np.sort(null_max_P)[::-1][allowed])
