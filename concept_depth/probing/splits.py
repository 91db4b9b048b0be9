"""Splits in which a group never stands on both sides: repeated stratified group k-fold, and splits of one's own.

A fact and its false twin share a group. If one may be trained on and the other tested, a probe that remembers the
shared entity is rewarded or punished for it, and the curve says nothing about the concept.

Shapes: N examples, G groups, K classes, F folds, R repeats, S splits (R × F of them in the default).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError

IntArray = npt.NDArray[np.int64]

LARGEST_SHARE = 0.05
FEWEST_GROUPS = 20


@dataclass(frozen=True, eq=False)
class Splits:
    """S pairs (train, test) of row numbers, packed into R repeats in each of which an example is tested at most
    once.

    Attributes:
        pairs: the S pairs, repeat by repeat.
        repeat: (S,) the repeat of each pair.
        fold: (R, N) which pair of its repeat tests an example; -1 for none.
        in_sample: the whole sample is both trained and tested on (`cv=None`).
        kind: how they were made, for the record.
    """

    pairs: tuple[tuple[IntArray, IntArray], ...] = field(repr=False)
    repeat: IntArray
    fold: npt.NDArray[np.int16] = field(repr=False)
    in_sample: bool = False
    kind: str = ""

    def __len__(self) -> int:
        return len(self.pairs)


def make_splits(
    labels: IntArray,
    groups: IntArray,
    *,
    cv: Any = 5,
    repeats: int = 2,
    random_state: int = 0,
    classes: tuple[str, ...] | None = None,
) -> Splits:
    """The splits that `score_layers` uses.

    Args:
        labels: (N,) class indices 0 … K−1.
        groups: (N,) group numbers.
        cv: a number of folds F (repeated stratified group k-fold); a scikit-learn splitter, asked as
            `cv.split(X, labels, groups)`; an iterable of (train, test) row numbers; or None: the whole sample is
            trained on and scored.
        repeats: R, how often the F folds are dealt anew; for a number of folds only.
        random_state: seed of the deal; the same seed gives the same splits.
        classes: names of the classes, for messages.

    Returns:
        The splits; every class stands in every training and every test part.

    Raises:
        InputError: the groups cannot be used (see `check_groups`), there are too few examples for so many folds,
            or given pairs overlap, are empty or lack a class.
    """
    n = len(labels)
    names = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    if cv is None:
        rows = np.arange(n)
        return Splits(((rows, rows),), np.zeros(1, np.int64), np.zeros((1, n), np.int16), True, "whole sample")
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        return _repeated_folds(labels, groups, int(cv), repeats, random_state, names)
    return _given(labels, groups, cv, names)


def check_groups(labels: IntArray, groups: IntArray, classes: tuple[str, ...], folds: int) -> None:
    """Refuse a grouping that leaves too little to split.

    Raises:
        InputError: fewer than 20 groups, a group with more than 5 % of the examples, or a class that stands in
            fewer groups than there are folds.
    """
    n = len(labels)
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) < FEWEST_GROUPS:
        raise InputError(
            f"{n} examples in {len(sizes)} groups are too few to split, which takes {FEWEST_GROUPS} groups: "
            "give more examples, a finer grouping (group=...), or splits of your own (cv=[(train, test), ...])"
        )
    if sizes.max() > LARGEST_SHARE * n:
        raise InputError(
            f"the largest group holds {sizes.max()} of {n} examples ({sizes.max() / n:.0%}); at most "
            f"{LARGEST_SHARE:.0%} is allowed: group by something finer (group=...), or give splits of your own "
            "(cv=[(train, test), ...])"
        )
    for k, name in enumerate(classes):
        holding = len(np.unique(groups[labels == k]))
        if holding < folds:
            raise InputError(
                f"class {name!r} stands in {holding} group{'s' * (holding != 1)}, too few for {folds} folds; "
                f"give more examples of it{f' or cv={holding}' if holding > 1 else ''}"
            )


def group_folds(labels: IntArray, groups: IntArray, folds: int, rng: np.random.Generator) -> IntArray:
    """Deal whole groups to folds so that sizes and class shares come out as even as whole groups allow.

    Groups with the same count of each class are interchangeable: they are shuffled and dealt out evenly; what is
    left over goes, largest first, to the fold in which its classes are rarest. Neither the order of the examples
    nor which class is called 0 makes a difference; the numbers of the groups do, as they tell them apart.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        folds: F.
        rng: source of the shuffles.

    Returns:
        (N,) fold of each example.
    """
    inverse = np.unique(groups, return_inverse=True)[1]
    n_groups, n_classes = int(inverse.max()) + 1, int(labels.max()) + 1
    counts_GK = np.zeros((n_groups, n_classes), np.int64)
    np.add.at(counts_GK, (inverse, labels), 1)
    patterns, first, pattern_of = np.unique(counts_GK, axis=0, return_index=True, return_inverse=True)
    pattern_of = pattern_of.reshape(-1)
    fold_of_group = np.empty(n_groups, np.int64)
    filled_FK = np.zeros((folds, n_classes))
    share_K = np.maximum(np.bincount(labels, minlength=n_classes), 1).astype(float)
    leftovers: list[int] = []
    # By their first group: by their counts, the order would depend on which class is called 0.
    for pattern in np.argsort(first).tolist():
        members = rng.permutation(np.flatnonzero(pattern_of == pattern))
        even = len(members) - len(members) % folds
        fold_of_group[members[:even]] = np.arange(even) % folds
        filled_FK += patterns[pattern] * (even // folds)
        leftovers.extend(members[even:].tolist())
    order = rng.permutation(len(leftovers))
    leftovers = [leftovers[i] for i in order]
    leftovers.sort(key=lambda group: -int(counts_GK[group].sum()))
    for group in leftovers:
        # What the sum of squares of class shares would grow by; among equals, a fold drawn at random.
        growth = (filled_FK / share_K**2) @ counts_GK[group]
        best = np.flatnonzero(growth <= growth.min() + 1e-15)
        least = best[filled_FK[best].sum(1) == filled_FK[best].sum(1).min()]
        chosen = int(rng.choice(least))
        fold_of_group[group] = chosen
        filled_FK[chosen] += counts_GK[group]
    result: IntArray = fold_of_group[inverse]
    return result


def inner_pairs(
    labels: IntArray, groups: IntArray, train: IntArray, folds: int, rng: np.random.Generator
) -> list[tuple[IntArray, IntArray]]:
    """Group k-fold of the rows `train` alone, as pairs of row numbers of the whole sample."""
    fold = group_folds(labels[train], groups[train], folds, rng)
    return [(train[fold != f], train[fold == f]) for f in range(folds)]


def _repeated_folds(
    labels: IntArray, groups: IntArray, folds: int, repeats: int, random_state: int, classes: tuple[str, ...]
) -> Splits:
    if folds < 2:
        raise InputError(
            f"cv={folds} is no cross-validation; give 2 or more folds, or cv=None for the whole sample"
        )
    if repeats < 1:
        raise InputError(f"repeats={repeats} leaves nothing to do; give 1 or more")
    check_groups(labels, groups, classes, folds)
    pairs, fold_RN = [], np.empty((repeats, len(labels)), np.int16)
    for r in range(repeats):
        fold = group_folds(labels, groups, folds, np.random.default_rng([random_state, 1, r]))
        fold_RN[r] = fold
        pairs += [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(folds)]
    _check_classes(pairs, labels, classes)
    kind = f"{repeats} × stratified group {folds}-fold"
    return Splits(tuple(pairs), np.repeat(np.arange(repeats), folds), fold_RN, False, kind)


def _given(labels: IntArray, groups: IntArray, cv: Any, classes: tuple[str, ...]) -> Splits:
    """Pairs of the caller; consecutive pairs with disjoint test parts form a repeat."""
    n = len(labels)
    if hasattr(cv, "split") and not isinstance(cv, str):
        try:
            with warnings.catch_warnings():
                # That a splitter ignores groups is the caller's choice; the leak audit says what comes of it.
                warnings.simplefilter("ignore", UserWarning)
                raw = list(cv.split(np.zeros((n, 1)), labels, groups))
        except ValueError as error:
            raise InputError(f"the splitter {type(cv).__name__} cannot split these examples: {error}") from error
        kind = repr(cv)
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        raw, kind = list(cv), "given pairs"
    else:
        raise InputError(
            f"cv={cv!r} is no way to split; give a number of folds, a scikit-learn splitter, "
            "(train, test) pairs, or None for the whole sample"
        )
    pairs = [_checked_pair(pair, n, number) for number, pair in enumerate(raw, start=1)]
    if not pairs:
        raise InputError("cv gives no (train, test) pair; give one or more")
    _check_classes(pairs, labels, classes)
    repeat: list[int] = []
    folds: list[npt.NDArray[np.int16]] = []
    in_repeat = 0
    for _, test in pairs:
        if not folds or np.any(folds[-1][test] >= 0):
            folds.append(np.full(n, -1, np.int16))
            in_repeat = 0
        folds[-1][test] = in_repeat
        in_repeat += 1
        repeat.append(len(folds) - 1)
    return Splits(
        tuple(pairs), np.asarray(repeat, np.int64), np.stack(folds), False, f"{kind}, {len(pairs)} pairs"
    )


def _checked_pair(pair: Any, n: int, number: int) -> tuple[IntArray, IntArray]:
    try:
        train, test = (_rows(part, n) for part in pair)
    except (TypeError, ValueError) as error:
        raise InputError(f"pair {number} of cv is no (train, test) pair of row numbers: {error}") from error
    if not len(train) or not len(test):
        raise InputError(f"pair {number} of cv has an empty part; both need rows")
    for part in (train, test):
        if part.min() < 0 or part.max() >= n or len(np.unique(part)) < len(part):
            raise InputError(f"pair {number} of cv names rows twice or outside 0 … {n - 1}")
    if len(np.intersect1d(train, test)):
        raise InputError(f"pair {number} of cv tests rows that it trains on; for that use cv=None")
    return train, test


def _rows(part: Any, n: int) -> IntArray:
    """Row numbers, also from a boolean mask."""
    rows = np.asarray(part)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(f"got an array of shape {rows.shape} and type {rows.dtype}")
    return rows.astype(np.int64)


def _check_classes(pairs: list[tuple[IntArray, IntArray]], labels: IntArray, classes: tuple[str, ...]) -> None:
    for number, pair in enumerate(pairs, start=1):
        for part, name in zip(pair, ("training", "test"), strict=True):
            missing = np.flatnonzero(np.bincount(labels[part], minlength=len(classes)) == 0)
            if len(missing):
                raise InputError(
                    f"the {name} part of split {number} has no example of class {classes[missing[0]]!r}; "
                    "use fewer folds, more examples or a finer grouping"
                )
