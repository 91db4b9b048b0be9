"""Variants: sets of texts that are identical but for one slot, a run of at most `SLOT` tokens.

The slot is no longer than what surrounds it, and may hold different numbers of tokens, also none ("is" / "is not").
A text stands in many sets, once for each slot that can be cut out of it. The sets that hold more than one class and
are no larger than a group may be are sets of **twins**: facts and false statements that differ in one slot.

Shapes: N texts, R rows (the tokens of all texts, and one row behind each text), K keys (ways to cut a slot out of a
text), S sets, E entries (texts in sets, all sets together).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]
Edges = tuple[IntArray, IntArray]

SLOT = 8  # tokens; "the Democratic Republic of the Congo" has six
END, START, INSIDE = range(3)
AT_ONCE = 2**20  # keys; long texts have millions, of which few are shared

# Scripts without spaces are read character by character; a word keeps its inner hyphens, dots and apostrophes.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[-'./][^\W{_UNSPACED}]+)*|[^\w\s]")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"})


def normalise(text: str) -> str:
    """A text without what a copy may change: case, white space, the form of quotes, a final full stop."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES)
    return " ".join(folded.split()).rstrip(".。 ") or text


def tokens(text: str) -> list[str]:
    """Words, and every other character that is no white space, of the normalised text."""
    return _TOKEN.findall(normalise(text))


@dataclass(frozen=True, eq=False)
class Variants:
    """Every set of texts that are identical but for one slot, with the entries of a set side by side."""

    text: IntArray  # (E,) which text an entry is
    start: IntArray  # (S + 1,) where each set's entries begin
    position: IntArray  # (S,) where the slot lies: END, START or INSIDE
    twins: BoolArray  # (S,) whether the set holds more than one class, and no more texts than a group may
    n: int

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], labels: IntArray, copies: IntArray, *, most: float) -> Variants:
        """Find the sets.

        Args:
            texts: the tokens of N texts.
            labels: N class indices.
            copies: N numbers, the same for equal texts; a text and its copies alone are no twins.
            most: how many texts a set of twins may hold; a larger one is a template, and no twins.
        """
        rows = _Rows.of(texts)
        parts = [_shared(*part) for part in rows.slot_keys()]
        text = np.concatenate([part[0] for part in parts])
        size = np.concatenate([part[1] for part in parts])
        position = np.concatenate([part[2] for part in parts])
        start = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        several = _differ(labels[text], start) & _differ(copies[text], start)
        return cls(text, start, position, several & (size <= most), len(rows.length))

    @cached_property
    def _set(self) -> IntArray:
        """(E,) which set an entry stands in."""
        return np.repeat(np.arange(len(self.position)), np.diff(self.start))

    def all_edges(self) -> Edges:
        """Pairs of texts that connect every set, whatever its labels and size."""
        return self._connect(np.ones(len(self.text), dtype=bool))

    def twin_edges(self, position: int | None = None, *, of: BoolArray | None = None) -> Edges:
        """Pairs that connect each text with its nearest twins: the whole of its smallest set of twins.

        Args:
            position: only sets whose slot lies there.
            of: (N,) only the nearest sets of these texts.
        """
        near = self._nearest(position)
        if of is not None:
            near &= of[self.text]
        wanted = np.zeros(len(self.position), dtype=bool)
        wanted[self._set[near]] = True
        return self._connect(wanted[self._set])

    def mutual_edges(self) -> Edges:
        """Pairs that connect texts through a set of twins that is the nearest of both."""
        return self._connect(self._nearest(None))

    def split(self, groups: IntArray) -> BoolArray:
        """(N,) whether some of a text's nearest twins, those with the slot at the end, at the start or inside,
        stand in another group.
        """
        found = np.zeros(self.n, dtype=bool)
        divided = _differ(groups[self.text], self.start)[self._set]
        for position in (END, START, INSIDE):
            found[self.text[self._nearest(position) & divided]] = True
        return found

    def _nearest(self, position: int | None) -> BoolArray:
        """(E,) whether an entry's set is the smallest set of twins of its text; all of equally small ones."""
        wanted = self.twins if position is None else self.twins & (self.position == position)
        chosen, size = wanted[self._set], np.diff(self.start)[self._set]
        smallest = np.full(self.n, np.iinfo(np.int64).max)
        np.minimum.at(smallest, self.text[chosen], size[chosen])
        near: BoolArray = chosen & (size == smallest[self.text])
        return near

    def _connect(self, entries: BoolArray) -> Edges:
        """Pairs of neighbours among the given entries of each set."""
        at = np.flatnonzero(entries)
        same = self._set[at[1:]] == self._set[at[:-1]]
        return self.text[at[:-1][same]], self.text[at[1:][same]]


def _differ(values: IntArray, start: IntArray) -> BoolArray:
    """(S,) whether a set holds more than one of the (E,) values."""
    if len(start) == 1:
        return np.zeros(0, dtype=bool)
    different: BoolArray = np.minimum.reduceat(values, start[:-1]) != np.maximum.reduceat(values, start[:-1])
    return different


def _shared(keys: KeyArray, text: IntArray, position: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The keys that several texts have: their texts, set by set, and each set's size and position."""
    order = np.argsort(keys)
    alike = keys[order[1:]] == keys[order[:-1]]
    kept = np.zeros(len(keys), dtype=bool)
    kept[1:] |= alike
    kept[:-1] |= alike
    # Sorted again, the few that are left: with "so" twice in a row a text has one key twice.
    order = order[kept]
    order = order[np.lexsort((position[order], text[order], keys[order]))]
    keys, text, position = keys[order], text[order], position[order]
    once = np.ones(len(keys), dtype=bool)
    once[1:] = (keys[1:] != keys[:-1]) | (text[1:] != text[:-1])
    keys, text, position = keys[once], text[once], position[once]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = keys[1:] != keys[:-1]
    first = np.flatnonzero(fresh)
    size = np.diff(np.append(first, len(keys)))
    if len(first):
        position = np.minimum.reduceat(position, first)
    return text[np.repeat(size > 1, size)], size[size > 1], position[size > 1]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The tokens of all texts as hashes from which every way to cut out a slot has its key at once.

    A key hashes what stands before and behind the slot: polynomial prefix and suffix hashes modulo 2^64 over random
    64-bit words, so that all keys of a text cost O(T · SLOT) however long it is. Texts stand sorted by length.
    """

    length: IntArray  # (N,) tokens of each text
    closing: IntArray  # (N,) tokens at its end that are punctuation
    text: IntArray  # (R,) which text a row belongs to
    at: IntArray  # (R,) which of its tokens the row is
    prefix: KeyArray  # (R,) hash of what stands before the row
    suffix: KeyArray  # (R,) hash of the row and what stands behind
    powers: KeyArray

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> _Rows:
        cache: dict[str, int] = {}
        hashed, closings = [], []
        for words in texts:
            hashed.append(np.asarray([_word_hash(word, cache) for word in words], dtype=np.uint64))
            closings.append(_closing(words))
        length = np.asarray([len(words) for words in hashed], dtype=np.int64)
        order = np.argsort(length, kind="stable")
        rows_of = length[order] + 1
        first = np.concatenate([[0], np.cumsum(rows_of)]).astype(np.int64)[:-1]
        text = np.repeat(order, rows_of)
        at = np.arange(len(text)) - np.repeat(first, rows_of)
        word = np.zeros(len(text), dtype=np.uint64)
        word[at < length[text]] = np.concatenate([*(hashed[i] for i in order), np.zeros(0, np.uint64)])
        with np.errstate(over="ignore"):
            powers = np.full(int(length.max(initial=0)) + 2, 0x9E3779B97F4A7C15, dtype=np.uint64).cumprod()
            ahead = word * powers[at]
            ahead = np.cumsum(ahead) - ahead
            prefix = ahead - np.repeat(ahead[first], rows_of)
            behind = word * powers[length[text] - at]
            back = np.cumsum(behind)
            suffix = np.repeat(back[first + length[order]], rows_of) - back + behind
        return cls(length, np.asarray(closings, dtype=np.int64), text, at, prefix, suffix, powers)

    def slot_keys(self) -> Iterator[tuple[KeyArray, IntArray, IntArray]]:
        """(K,) keys, texts and positions of slots, in parts; no key stands in two parts.

        Texts that share a key have as many tokens around their slots, so a part is a range of that number.
        """
        counts = np.bincount(self.length, minlength=SLOT + 2)
        around = np.arange(len(counts))
        keys = np.zeros(len(counts), dtype=np.int64)
        for slot in range(SLOT + 1):
            keys[: len(counts) - slot] += (around + 1)[: len(counts) - slot] * counts[slot:]
        part = (np.cumsum(keys) - keys) // AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(counts)]
        last_row = np.concatenate([[0], np.cumsum(counts * (around + 1))])
        for low, high in pairwise(bounds):
            parts = []
            for slot in range(SLOT + 1):
                # What surrounds the slot is at least as long as the slot, and more than one token.
                shortest = max(low, slot, 2) + slot
                begin, end = last_row[np.minimum([shortest, high + slot], len(counts))]
                parts.append(self._cut(np.arange(begin, end), slot))
            yield (
                np.concatenate([part[0] for part in parts]),
                np.concatenate([part[1] for part in parts]),
                np.concatenate([part[2] for part in parts]),
            )

    def _cut(self, rows: IntArray, slot: int) -> tuple[KeyArray, IntArray, IntArray]:
        """Keys, texts and positions of a slot of this size that begins at each of the rows."""
        rows = rows[self.at[rows] + slot <= self.length[self.text[rows]]]
        text, at = self.text[rows], self.at[rows]
        behind = self.length[text] - at - slot
        with np.errstate(over="ignore"):
            key = _mix(self.suffix[rows + slot] + self.powers[at])
            key = _mix((self.prefix[rows] ^ key) + self.powers[behind])
        # A closing quote or bracket behind the slot leaves it at the end.
        position = np.where(behind <= self.closing[text], END, np.where(at == 0, START, INSIDE))
        return key, text, position


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
