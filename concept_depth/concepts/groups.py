"""Groups: which examples must never stand on both sides of a split.

A fact and its false twin ("The city of Lodz is in Poland." / "… in Russia.") share everything but the answer, so a
probe that has seen one has seen the other. Where a data set has no group column, the texts themselves tell: two
texts are twins when they are identical but for **one slot**, a run of at most `SLOT` tokens that is no longer than
what surrounds it (on both sides the slot may hold different numbers of tokens, also none: "is" / "is not").

In templated sets every text differs in one slot from many others ("The city of [Lodz | Krakow] is in Poland."),
and joining all of them would put the whole set into one group. So several groupings are tried:

1. `one slot`: all texts that differ in one slot, whatever their labels. Taken, unless it collapses or the set
   turns out to be made of designed twins (below);
2. of the next four that with the most groups, among those that come within 2 % of the largest share of examples
   whose group holds more than one class ("mixed"); a designed twin has the other label, and its group is small:
   `nearest twins`: texts joined only through their smallest set of one-slot variants with more than one class, and
   only when it is the smallest for each of them; `slot at the end`, `slot at the start`, `slot inside`: the same
   within one position of the slot. It also replaces 1 when at least 80 % of the examples are mixed in it and no
   more than 2 % fewer than in 1: then it holds every designed pair, in smaller groups;
3. `duplicates`: only equal texts, when all others collapse.

A grouping collapses when its largest group exceeds 5 % of the examples, or when fewer than 20 groups are left.
Near duplicates beyond one slot are reported by the audit and grouped nowhere. This module does not read files.

Shapes: N examples, T tokens of all texts together, K keys (ways to cut a slot out of a text), G groups.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint64]

SLOT = 8  # tokens; "the Democratic Republic of the Congo" has six
LARGEST = 0.05
FEWEST = 20

# Scripts without spaces are read character by character; a word keeps its inner hyphens, dots and apostrophes.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[-'./][^\W{_UNSPACED}]+)*|[^\w\s]")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
_POSITIONS = ("slot at the end", "slot at the start", "slot inside")
DESIGNED = 0.8
CLOSE = 0.02  # a few chance twins do not outweigh a far finer grouping


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


def normalise(text: str) -> str:
    """A text without what a copy may change: case, white space, the form of quotes, a final full stop."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES)
    return " ".join(folded.split()).rstrip(".。 ") or text


def tokens(text: str) -> list[str]:
    """Words, and every other character that is no white space, of the normalised text."""
    return _TOKEN.findall(normalise(text))


def fault(groups: npt.ArrayLike) -> str | None:
    """Why a grouping cannot be used (it has collapsed), as the end of a sentence, or None where it can.

    Args:
        groups: (N,) group numbers.
    """
    counts = np.unique(np.asarray(groups), return_counts=True)[1]
    n, largest = int(counts.sum()), int(counts.max(initial=0))
    # A single pair is more than 5 % of a very small set; that is no collapse.
    if largest > max(LARGEST * n, 2):
        return f"puts {largest} of {n} examples ({largest / n:.0%}) into one group; {LARGEST:.0%} is the most"
    if len(counts) < FEWEST:
        return f"leaves {len(counts)} groups; {FEWEST} are the fewest that can be split into folds"
    return None


def derive_groups(texts: Sequence[str], labels: npt.ArrayLike | None = None) -> Grouping:
    """Groups of duplicates and one-slot twins, found from the texts (see the module's docstring for the rule).

    Args:
        texts: N texts.
        labels: N class indices; without them every set of one-slot variants counts as twins.

    Returns:
        The grouping that was taken, with its origin and the groupings that were refused.
    """
    classes = None if labels is None else np.asarray(labels, dtype=np.int64)
    duplicates = number_groups([normalise(text) for text in texts])
    variants = _Variants.of([tokens(text) for text in texts], classes)
    refused: list[str] = []

    def accepted(how: str, edges: tuple[IntArray, IntArray]) -> Grouping | None:
        groups = _join(duplicates, edges)
        problem = fault(groups)
        if problem is not None:
            refused.append(f"{how} {problem}")
            return None
        return Grouping(groups, describe(groups, how, labels=classes))

    best = accepted("one slot", variants.all_edges())
    if best is None or _share_mixed(best) >= DESIGNED:
        finer = [accepted("nearest twins", variants.nearest_edges())]
        finer += [accepted(name, variants.nearest_edges(p)) for p, name in enumerate(_POSITIONS)]
        usable = [candidate for candidate in finer if candidate is not None]
        twins = _finest(usable)
        if twins is not None and (
            best is None or _share_mixed(twins) >= max(DESIGNED, _share_mixed(best) - CLOSE)
        ):
            best = twins
    if best is None:
        best = Grouping(duplicates, describe(duplicates, "duplicates", labels=classes))
    return Grouping(best.groups, {**best.details, "refused": refused})


def _finest(candidates: Sequence[Grouping]) -> Grouping | None:
    """The one with the most groups among those that hold nearly as many mixed examples as any."""
    most = max(map(_share_mixed, candidates), default=0.0)
    close = [candidate for candidate in candidates if _share_mixed(candidate) >= most - CLOSE]
    return max(close, key=lambda candidate: candidate.details["n_groups"], default=None)


def _share_mixed(grouping: Grouping) -> float:
    mixed: float | None = grouping.details["mixed"]
    return 0.0 if mixed is None else mixed


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


@dataclass(frozen=True, eq=False)
class _Variants:
    """Every set of texts that are identical but for one slot.

    Entries are sorted by set; a text stands in many sets, once in each.
    """

    text: IntArray  # (E,) which text an entry is
    start: IntArray  # (S + 1,) where each set's entries begin
    position: IntArray  # (S,) where the slot lies: 0 end, 1 start, 2 inside
    mixed: npt.NDArray[np.bool_]  # (S,) whether the set holds more than one class
    n: int

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]], labels: IntArray | None) -> _Variants:
        keys, text, position = _slot_keys(texts)
        order = np.lexsort((text, keys))
        keys, text, position = keys[order], text[order], position[order]
        fresh = np.ones(len(keys), dtype=bool)
        fresh[1:] = keys[1:] != keys[:-1]
        first = np.flatnonzero(fresh)
        size = np.diff(np.append(first, len(keys)))
        shared = np.repeat(size > 1, size)
        text, first, position = text[shared], first[size > 1], position[first[size > 1]]
        start = np.concatenate([[0], np.cumsum(size[size > 1])]).astype(np.int64)
        mixed = np.ones(len(first), dtype=bool)
        if labels is not None and len(first):
            lowest = np.minimum.reduceat(labels[text], start[:-1])
            highest = np.maximum.reduceat(labels[text], start[:-1])
            mixed = lowest != highest
        return cls(text, start, position, mixed, len(texts))

    def all_edges(self) -> tuple[IntArray, IntArray]:
        """Pairs of neighbours that connect each set."""
        inner = np.ones(len(self.text), dtype=bool)
        inner[self.start[:-1]] = False
        at = np.flatnonzero(inner)
        return self.text[at - 1], self.text[at]

    def nearest_edges(self, position: int | None = None) -> tuple[IntArray, IntArray]:
        """Pairs that connect the texts for which a set is their smallest with more than one class."""
        size = np.diff(self.start)
        # A set too large for a group is a template, not twins: a text without a twin is not to be joined by it.
        wanted = self.mixed & (size <= max(LARGEST * self.n, 2))
        if position is not None:
            wanted &= self.position == position
        entry_set = np.repeat(np.arange(len(size)), size)
        chosen = wanted[entry_set]
        smallest = np.full(self.n, np.iinfo(np.int64).max)
        np.minimum.at(smallest, self.text[chosen], size[entry_set[chosen]])
        at = np.flatnonzero(chosen & (size[entry_set] == smallest[self.text]))
        linked = at[1:][entry_set[at[1:]] == entry_set[at[:-1]]]
        previous = at[:-1][entry_set[at[1:]] == entry_set[at[:-1]]]
        return self.text[previous], self.text[linked]


def _slot_keys(texts: Sequence[Sequence[str]]) -> tuple[KeyArray, IntArray, IntArray]:
    """(K,) a key for each text and each slot cut out of it: equal keys, equal surroundings.

    A key hashes what stands before and behind the slot: polynomial prefix and suffix hashes modulo 2^64 over
    random 64-bit words, so that all keys of a text cost O(T · SLOT) however long it is. Each text has one row more
    than tokens: the row behind its last token.
    """
    length = np.asarray([len(words) for words in texts], dtype=np.int64)
    closing = np.asarray([_closing(words) for words in texts], dtype=np.int64)
    rows = int((length + 1).sum())
    first = np.concatenate([[0], np.cumsum(length + 1)[:-1]]).astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), length + 1)
    at = np.arange(rows) - first[owner]
    cache: dict[str, int] = {}
    word = np.zeros(rows, dtype=np.uint64)
    for begin, words in zip(first.tolist(), texts, strict=True):
        word[begin : begin + len(words)] = [_word_hash(w, cache) for w in words]
    base = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(int(length.max(initial=0)) + 2, base, dtype=np.uint64))
        ahead = np.cumsum(word * powers[at]) - word * powers[at]  # exclusive: what stands before the row
        prefix = ahead - ahead[first[owner]]
        back = np.cumsum(word * powers[length[owner] - at])
        last = first + length
        suffix = back[last[owner]] - back + word * powers[length[owner] - at]  # inclusive: the row and behind
        keys, owners, positions = [], [], []
        for slot in range(SLOT + 1):
            around = length - slot
            # What surrounds the slot is at least as long as the slot, and more than one token.
            allowed = (around >= np.maximum(slot, 2))[owner] & (at + slot <= length[owner])
            begin = np.flatnonzero(allowed)
            behind = length[owner[begin]] - at[begin] - slot
            key = _mix(prefix[begin] ^ _mix(suffix[begin + slot] + powers[at[begin]]) + powers[behind])
            keys.append(key)
            owners.append(owner[begin])
            # A closing quote or bracket behind the slot leaves it at the end.
            at_end = behind <= closing[owner[begin]]
            positions.append(np.where(at_end, 0, np.where(at[begin] == 0, 1, 2)))
    return np.concatenate(keys), np.concatenate(owners), np.concatenate(positions)


def _closing(words: Sequence[str]) -> int:
    """How many tokens at the end are punctuation."""
    count = 0
    while count < len(words) and not words[-1 - count][0].isalnum():
        count += 1
    return count


def _word_hash(word: str, cache: dict[str, int]) -> int:
    if word not in cache:
        cache[word] = int.from_bytes(
            blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
        )
    return cache[word]


def _mix(values: KeyArray) -> KeyArray:
    # The finaliser of splitmix64: every bit of the input reaches every bit of the key.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _join(groups: IntArray, edges: tuple[IntArray, IntArray]) -> IntArray:
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
