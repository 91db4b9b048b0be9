"""Label permutations that respect groups and splits, and what follows from the scores they give.

Under the null hypothesis a label says nothing about the activations. Exchangeable then are labels *inside* a group
(a fact and its false twin) and, where a group has one label only, the labels of *whole groups* of like size. But the
folds were dealt with the real labels in hand, so that every part has its share of each class. Labels permuted
without regard to that make a class rare in the training part where it is frequent in the test part, and score worse
than real noise does: such a null is too easily beaten. So groups exchange labels inside *cells*, the groups that
stand in the same parts of all splits: every part keeps its class counts, and the folds are as likely to be dealt
under the permuted labels as under the real ones.

Where cells are too small (few groups of a size, many repeats) labels are exchanged among all groups of like size, and
then pairs of groups swap labels until every part holds as many examples of each class as under the real labels, or
as nearly as such swaps lead. The inner folds, by which C is chosen, are matched in neither way: on noise that choice
hardly depends on them.

Shapes: N examples, K classes, U units (what moves as one), S splits, P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_FEWEST_ALIKE = 10  # groups of one size; rarer sizes are exchanged with their neighbours
# Mean number of groups in a cell: permuted inside cells of n, one label in n stays where it was, and the null of a
# concept that is there rises by an n-th of its gain.
_FEWEST_IN_CELL = 8
_TRIES = 100
_LOOKS = 200  # units that one is held against, to find the best swap
_IDLE = 100  # units in a row without a swap that helps


def permuted_labels(
    labels: IntArray,
    groups: IntArray,
    permutations: int,
    *,
    pairs: Sequence[tuple[IntArray, IntArray]] | None = None,
    random_state: int = 0,
) -> IntArray:
    """Draw label vectors from the null distribution; none is the original.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        permutations: P.
        pairs: (train, test) row numbers of the splits whose parts are to keep their class counts; rows that stand
            in none keep their labels. None: there are no splits.
        random_state: seed.

    Returns:
        (P, N) class indices; each part of each pair holds every class that it holds under the real labels.

    Raises:
        InputError: no permutation of this kind changes anything.
    """
    rng = np.random.default_rng([random_state, 2])
    parts = _parts(pairs, len(labels))
    used = np.arange(len(labels)) if pairs is None else np.flatnonzero(parts.any(0))
    units = _Units.of(labels[used], groups[used], parts[:, used])
    result = np.tile(labels, (permutations, 1))
    for p in range(permutations):
        for _ in range(_TRIES):
            drawn = units.draw(rng)
            if units.complete(drawn) and np.any(drawn != units.label):
                result[p, used] = drawn[units.of_row]
                break
        else:
            raise InputError(
                "the labels cannot be permuted: no group holds two classes, and no two groups of like size differ "
                "that stand in the same parts of the splits; give a finer grouping (group=...) or permutations=0"
            )
    return result


@dataclass(frozen=True, eq=False)
class _Units:
    """What moves as one: a whole group of one class, or a single row of a group that holds several.

    Attributes:
        of_row: (N,) unit of each row.
        label: (U,) real class of each unit.
        pool: (U,) units of one pool exchange labels.
        loose: units whose pool reaches over several cells.
        weight: (2 S, U) rows of each unit in each part.
    """

    of_row: IntArray
    label: IntArray
    pool: IntArray
    loose: IntArray
    weight: FloatArray

    @classmethod
    def of(cls, labels: IntArray, groups: IntArray, parts: npt.NDArray[np.bool_]) -> _Units:
        """The units of a sample, and who exchanges labels with whom."""
        group = np.unique(groups, return_inverse=True)[1]
        low, high = np.full(len(group), labels.max()), np.full(len(group), labels.min())
        np.minimum.at(low, group, labels)
        np.maximum.at(high, group, labels)
        mixed = (low < high)[group]
        # Rows of mixed groups are numbered group by group, so that the order of the groups' rows draws nothing else.
        place = np.argsort(np.argsort(group, kind="stable"))
        unit = np.where(mixed, len(group) + place, group)
        _, first, of_row, size = np.unique(unit, return_index=True, return_inverse=True, return_counts=True)
        pools = _pools(size, np.flatnonzero(~mixed[first]))
        rows = np.flatnonzero(mixed[first])
        rows = rows[np.argsort(group[first[rows]], kind="stable")]
        pools += np.split(rows, np.flatnonzero(np.diff(group[first[rows]])) + 1) if len(rows) else []
        pool, loose = _divided(pools, _cells(of_row, parts))
        weight = np.stack([np.bincount(of_row, part, len(first)).astype(np.float64) for part in parts])
        return cls(of_row, labels[first], pool, loose, weight)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """(U,) labels exchanged at random inside pools."""
        drawn = np.empty_like(self.label)
        # Sorting by pool first and a random key second shuffles all pools at once.
        shuffled = np.lexsort((rng.random(len(drawn)), self.pool))
        drawn[np.argsort(self.pool, kind="stable")] = self.label[shuffled]
        if len(self.loose):
            self._even_out(drawn, rng)
        return drawn

    def complete(self, drawn: IntArray) -> bool:
        """Whether every part holds each class that it really holds: some metrics need them all."""
        return not np.any((self._counts(drawn) == 0) & (self._counts(self.label) > 0))

    def _counts(self, label_U: IntArray) -> FloatArray:
        """(2 S, K) examples of each class in each part."""
        classes = np.arange(int(self.label.max()) + 1)
        return np.asarray(self.weight @ (label_U[:, None] == classes))

    def _even_out(self, drawn: IntArray, rng: np.random.Generator) -> None:
        """Swap labels inside loose pools while that brings the parts' class counts nearer to the real ones.

        Swaps that bring them neither nearer nor farther are taken too, some times: they may open the way.
        """
        off = self._counts(drawn) - self._counts(self.label)
        members = {number: np.flatnonzero(self.pool == number) for number in np.unique(self.pool[self.loose])}
        idle = 0
        while idle < _IDLE and off.any():
            unit = self.loose[rng.integers(len(self.loose))]
            mine, others = drawn[unit], members[self.pool[unit]]
            others = rng.permutation(others[drawn[others] != mine])[:_LOOKS]
            # What each part would gain of the class `mine` and lose of theirs; half of how the squares would grow.
            gain = self.weight[:, others] - self.weight[:, [unit]]
            growth = ((off[:, [mine]] - off[:, drawn[others]] + gain) * gain).sum(0)
            idle = 0 if growth.min(initial=0) < 0 else idle + 1
            if len(others) and growth.min() <= 0:
                best = growth.argmin()
                off[:, mine] += gain[:, best]
                off[:, drawn[others[best]]] -= gain[:, best]
                drawn[unit], drawn[others[best]] = drawn[others[best]], mine


def _parts(pairs: Sequence[tuple[IntArray, IntArray]] | None, n: int) -> npt.NDArray[np.bool_]:
    """(2 S, N) which rows stand in each training and each test part."""
    parts = np.zeros((2 * len(pairs or ()) or 1, n), bool)
    for row, part in enumerate(part for pair in pairs or () for part in pair):
        parts[row, part] = True
    return parts


def _cells(of_row: IntArray, parts: npt.NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """For each unit the cells of its rows, in order: all that the splits know of it, and its size."""
    cell = np.unique(parts, axis=1, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((cell, of_row))
    members = np.split(cell[order], np.flatnonzero(np.diff(of_row[order])) + 1)
    return [tuple(found.tolist()) for found in members]


def _divided(pools: list[IntArray], cells: list[tuple[int, ...]]) -> tuple[IntArray, IntArray]:
    """(U,) pool of each unit, pools being divided by cells where these are large enough; units of the others."""
    number, loose, count = np.empty(len(cells), np.int64), [], 0
    for pool in pools:
        alike: dict[tuple[int, ...], list[int]] = {}
        for unit in pool.tolist():
            alike.setdefault(cells[unit], []).append(unit)
        if len(alike) > 1 and len(pool) < _FEWEST_IN_CELL * len(alike):
            loose += pool.tolist()
            alike = {(): pool.tolist()}
        for members in alike.values():
            number[members] = count
            count += 1
    return number, np.asarray(loose, np.int64)


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
    # A maximum that is not known (NaN) counts against the concept.
    return float((1 + np.count_nonzero(~(null_max_P < observed - 1e-12))) / (len(null_max_P) + 1))


def threshold(null_max_P: FloatArray, level: float = 0.05) -> float | None:
    """What an observed maximum must exceed for a p-value of at most `level`; None where no maximum could.

    With P = 39 and level 0.05 this is the second largest of the permutation maxima.
    """
    allowed = int(np.floor(level * (len(null_max_P) + 1) + 1e-9)) - 1
    if allowed < 0:
        return None
    return float(np.sort(null_max_P)[::-1][allowed])
