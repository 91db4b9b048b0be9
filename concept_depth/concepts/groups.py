"""Groups: which examples must never stand on both sides of a split.

A fact and its false twin ("The city of Lodz is in Poland." / "… in Russia.") share everything but the answer, so a
probe that has seen one has seen the other. Where a data set has no group column, the texts themselves tell: two
texts are variants when they are identical but for one slot, and twins when such a set of variants is small and holds
more than one class (`concepts.variants`).

In templated sets every text differs in one slot from many others ("The city of [Lodz | Krakow] is in Poland."),
and joining all of them would put the whole set into one group. So several groupings are tried:

1. `one slot`: all variants, whatever their labels. Taken, unless it collapses;
2. by the position of the slot: `slot at the end`, `slot at the start`, `slot inside`. Each text is joined with the
   whole of its nearest, that is smallest, set of twins with the slot there. The position that pairs the most
   examples with another text of another class holds the answers (of those within 2 % the one with the most groups);
   others are added, the best first, as long as that pairs more than 2 % of the examples for the first time. Texts
   that are still without a twin are joined with the nearest at any position (`nearest twins`) or, where that
   collapses, all texts with those whose nearest they are in turn (`mutual twins`);
3. `duplicates`: only equal texts, when all others collapse.

A grouping collapses when its largest group exceeds 5 % of the examples, or when fewer than 20 groups are left. So
twins can still be split, where joining them would join everything; `split_twins` finds those, for the audit. Near
duplicates beyond one slot are reported by the audit and grouped nowhere. This module does not read files.

Shapes: N examples, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.concepts.variants import (
    END,
    INSIDE,
    START,
    BoolArray,
    Edges,
    IntArray,
    Variants,
    normalise,
    tokens,
)

LARGEST = 0.05
FEWEST = 20
CLOSE = 0.02  # a few chance twins do not outweigh a far finer grouping
_POSITIONS = {END: "slot at the end", START: "slot at the start", INSIDE: "slot inside"}


@dataclass(frozen=True, eq=False)
class Grouping:
    """N group numbers and how they were found.

    Args:
        groups: (N,) group numbers 0 … G−1, in order of first appearance.
        details: JSON-serialisable: how, column, n_groups, largest (examples in the largest group), mixed (share of
            examples whose group holds more than one class; None without labels), refused (groupings that
            collapsed).
    """

    groups: IntArray
    details: dict[str, Any]


def fault(groups: npt.ArrayLike) -> str | None:
    """Why a grouping cannot be used (it has collapsed), as the end of a sentence, or None where it can.

    Args:
        groups: (N,) group numbers.
    """
    counts = np.unique(np.asarray(groups), return_counts=True)[1]
    n, largest = int(counts.sum()), int(counts.max(initial=0))
    if largest > _most(n):
        return f"puts {largest} of {n} examples ({largest / n:.0%}) into one group; {LARGEST:.0%} is the most"
    if len(counts) < FEWEST:
        return f"leaves {len(counts)} groups; {FEWEST} are the fewest that can be split into folds"
    return None


def derive_groups(texts: Sequence[str], labels: npt.ArrayLike | None = None) -> Grouping:
    """Groups of duplicates and twins, found from the texts (see the module's docstring for the rule).

    Args:
        texts: N texts.
        labels: N class indices; without them every small set of variants counts as twins.

    Returns:
        The grouping that was taken, with its origin and the groupings that were refused.
    """
    classes = None if labels is None else np.asarray(labels, dtype=np.int64)
    duplicates = _copies(texts)
    search = _Search(_variants(texts, classes, duplicates), classes, duplicates, [])
    best = search.joined("one slot", duplicates, search.variants.all_edges()) or search.twins()
    if best is None:
        best = Grouping(duplicates, describe(duplicates, "duplicates", labels=classes))
    return Grouping(best.groups, {**best.details, "refused": search.refused})


def split_twins(texts: Sequence[str], labels: npt.ArrayLike, groups: IntArray) -> BoolArray:
    """(N,) whether a text that differs in one slot, from a small set that holds another class, is in another group.

    Args:
        texts: N texts.
        labels: N class indices.
        groups: N group numbers, from a column or derived.
    """
    return _variants(texts, np.asarray(labels, dtype=np.int64), _copies(texts)).split(groups)


def _copies(texts: Sequence[str]) -> IntArray:
    return number_groups([normalise(text) for text in texts])


def _variants(texts: Sequence[str], classes: IntArray | None, copies: IntArray) -> Variants:
    labels = copies if classes is None else classes
    return Variants.of(map(tokens, texts), labels, copies, most=_most(len(texts)))


def _most(n: int) -> float:
    """How many of n examples one group may hold; a single pair is more than 5 % of a very small set."""
    return max(LARGEST * n, 2)


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for a grouping that keeps twins together and does not collapse."""

    variants: Variants
    classes: IntArray | None
    copies: IntArray
    refused: list[str]

    def share_paired(self, groups: IntArray) -> float:
        """The share of examples that are paired."""
        return float(self._paired(groups).mean())

    def _paired(self, groups: IntArray) -> BoolArray:
        """(N,) whether a text is beside another text of another class; without labels, beside another text."""
        several = _mixed_groups(groups, self.copies)
        if self.classes is not None:
            several = np.intersect1d(several, _mixed_groups(groups, self.classes))
        paired: BoolArray = np.isin(groups, several)
        return paired

    def joined(self, how: str, groups: IntArray, edges: Edges) -> Grouping | None:
        """The groups joined by edges, or None where they collapse, which is noted."""
        coarser = _join(groups, edges)
        problem = fault(coarser)
        if problem is not None:
            self.refused.append(f"{how} {problem}")
            return None
        return Grouping(coarser, describe(coarser, how, labels=self.classes))

    def twins(self) -> Grouping | None:
        """The groupings by the position of the slot, one after the other (2 in the module's docstring)."""
        groups, names, found = self.copies, "", None
        left = dict(_POSITIONS)
        while left:
            tried = {
                position: self.joined(names + name, groups, self.variants.twin_edges(position))
                for position, name in left.items()
            }
            position, best = self._finest(tried)
            if best is None or self.share_paired(best.groups) <= self.share_paired(groups) + CLOSE:
                break
            groups, names, found = best.groups, f"{names}{left.pop(position)}, ", best
        alone = ~self._paired(groups)
        if alone.any():
            last = self.joined(f"{names}nearest twins", groups, self.variants.twin_edges(of=alone))
            last = last or self.joined(f"{names}mutual twins", groups, self.variants.mutual_edges())
            if last is not None and self.share_paired(last.groups) > self.share_paired(groups):
                found = last
        return found

    def _finest(self, candidates: dict[int, Grouping | None]) -> tuple[int, Grouping | None]:
        """The one with the most groups among those that pair nearly as many examples as any."""
        usable = {key: one for key, one in candidates.items() if one is not None}
        shares = {key: self.share_paired(one.groups) for key, one in usable.items()}
        close = [key for key, share in shares.items() if share >= max(shares.values()) - CLOSE]
        best = max(close, key=lambda key: int(usable[key].groups.max()), default=END)
        return best, usable.get(best)


def describe(
    groups: IntArray, how: str, *, column: str | None = None, labels: IntArray | None = None
) -> dict[str, Any]:
    """What a record says of a grouping: how it was found, number of groups, size of the largest, share mixed."""
    counts = np.bincount(groups)
    mixed = None
    if labels is not None:
        mixed = float(np.isin(groups, _mixed_groups(groups, labels)).mean())
    return {
        "how": how,
        "column": column,
        "n_groups": int(np.count_nonzero(counts)),
        "largest": int(counts.max(initial=0)),
        "mixed": mixed,
    }


def _mixed_groups(groups: IntArray, labels: IntArray) -> IntArray:
    pairs = np.unique(np.stack([groups, labels], axis=1), axis=0)
    numbers, classes = np.unique(pairs[:, 0], return_counts=True)
    chosen: IntArray = numbers[classes > 1]
    return chosen


def number_groups(keys: Sequence[Any]) -> IntArray:
    """Group numbers 0 … G−1 of hashable keys, in order of first appearance."""
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), dtype=np.int64, count=len(keys))


def by_content(groups: IntArray, *columns: Sequence[Any]) -> IntArray:
    """The same groups, numbered in the order of their examples: folds dealt by number do not depend on that of rows.

    Args:
        groups: (N,) group numbers 0 … G−1.
        columns: of N values each, compared in this order as they are written: texts, classes, …
    """
    members: list[list[tuple[str, ...]]] = [[] for _ in range(int(groups.max(initial=-1)) + 1)]
    for group, *values in zip(groups.tolist(), *columns, strict=True):
        members[group].append(tuple(map(str, values)))
    for written in members:
        written.sort()
    number = np.empty(len(members), np.int64)
    number[sorted(range(len(members)), key=members.__getitem__)] = np.arange(len(members))
    numbered: IntArray = number[groups]
    return numbered


def _join(groups: IntArray, edges: Edges) -> IntArray:
    """The connected components of texts joined by equal group and by edges, numbered by first appearance."""
    left, right = groups[edges[0]], groups[edges[1]]
    lowest = np.arange(int(groups.max(initial=-1)) + 1)
    while True:
        before = lowest.copy()
        low = np.minimum(lowest[left], lowest[right])
        # Lower the representatives of both ends, then follow the pointers: components halve in depth each round.
        np.minimum.at(lowest, lowest[left], low)
        np.minimum.at(lowest, lowest[right], low)
        lowest = lowest[lowest]
        if np.array_equal(before, lowest):
            return number_groups(lowest[groups].tolist())
