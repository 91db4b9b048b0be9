"""The audit of a concept: what could give its answer away, or make its numbers mean less than they seem to.

Balance, duplicates and label conflicts, twins and groups, near duplicates across groups, lengths, lexical
baselines (`lexical`) and the most telling words. No network takes part.

Shapes: N examples, S shingles of a text, H hash functions.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.concepts import groups as grouping
from concept_depth.concepts import lexical
from concept_depth.concepts.concept import Concept, IntArray
from concept_depth.concepts.lexical import Baseline, TellingWord
from concept_depth.concepts.variants import normalise
from concept_depth.errors import InputError

LEXICAL = 0.2  # the share of the way from chance to 1 beyond which a concept is lexical: 0.60 with two classes
MOST_FOR_BASELINES = 6000
ALIKE = 0.8
SHINGLE = 5
HASHES, ROWS = 64, 4


@dataclass(frozen=True)
class Audit:
    """What an audit found; `str` gives a page of text, `to_dict` JSON.

    Args:
        name: the concept.
        n: examples.
        class_counts: examples of each class.
        majority: share of the largest class: the accuracy of a constant answer.
        duplicates: examples whose text stands there already (but for case, white space, quotes, a final full
        stop).
        conflicts: texts that stand there with more than one label.
        conflict_examples: the first of them.
        groups: how the groups were found, how many, the largest, the share that holds more than one class.
        split_twins: examples with a twin in another group: a text that differs in one slot, from a small set with
            more than one class (see `concepts.groups`). Of derived groups these are the ones that could not be
            joined without joining everything.
        near_duplicates: examples with a text at least 80 % alike (character 5-grams) in another group; at least so
            many, since of many alike only neighbours are compared.
        near_examples: the first of these pairs.
        lengths: "characters" and "words": min, median, max, and the mean of each class.
        baselines: lexical baselines, by name.
        baseline_n: examples that the baselines were measured on.
        telling: the most telling words.
        warnings: sentences on what a reader of the results should know; empty is good.
    """

    name: str
    n: int
    class_counts: Mapping[str, int]
    majority: float
    duplicates: int
    conflicts: int
    conflict_examples: tuple[str, ...]
    groups: Mapping[str, Any]
    split_twins: int
    near_duplicates: int
    near_examples: tuple[tuple[str, str], ...]
    lengths: Mapping[str, Mapping[str, Any]]
    baselines: Mapping[str, Baseline]
    baseline_n: int
    telling: tuple[TellingWord, ...]
    warnings: tuple[str, ...]

    @property
    def lexical(self) -> bool:
        """Whether lengths, words or n-grams alone tell the classes, and not by chance: a balanced accuracy above
        0.60 with two classes, a fifth of the way from chance to 1 with more.
        """
        return bool(_telling_baselines(self.baselines))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {**asdict(self), "lexical": self.lexical}

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        words = self.lengths["words"]
        means = ", ".join(f"{name} {mean:.1f}" for name, mean in words["mean"].items())
        groups = self.groups
        lines = [f"{self.name}: {self.n} examples; {counts}; a constant answer is right in {self.majority:.0%}"]
        lines.append(
            f"groups: {groups['n_groups']} ({_origin(groups)}), the largest {groups['largest']}, "
            f"{groups['mixed']:.0%} of examples beside another class"
        )
        lines.append(
            f"copies: {self.duplicates} duplicates, {self.conflicts} with conflicting labels, "
            f"{self.split_twins} twins and {self.near_duplicates} near duplicates across groups"
        )
        lines.append(
            f"words a text: {words['min']} to {words['max']}, median {words['median']:g}; mean of {means}"
        )
        if self.baselines:
            lines.append(f"balanced accuracy without a network, groups kept whole ({self.baseline_n} examples):")
            lines += [
                f"  {name.replace('_', ' '):<14} {b.score:.3f}  (95% {b.low:.3f}–{b.high:.3f})"
                for name, b in self.baselines.items()
            ]
        if self.telling:
            lines.append("most telling words (texts of that class : of others):")
            lines += [f"  {t.word:<14} {t.label}  {t.inside}:{t.outside}" for t in self.telling]
        lines += [f"! {warning}" for warning in self.warnings] or ["nothing to warn of"]
        return "\n".join(lines)


def _telling_baselines(baselines: Mapping[str, Baseline]) -> dict[str, Baseline]:
    chance = baselines["majority"].score if baselines else 1.0
    return {
        name: b for name, b in baselines.items() if b.score > chance + LEXICAL * (1 - chance) and b.low > chance
    }


def _origin(groups: Mapping[str, Any]) -> str:
    return f"column {groups['column']}" if groups["column"] else str(groups["how"])


def audit(concept: Concept, *, random_state: int = 0) -> Audit:
    """Look for what could give the answer away.

    Args:
        concept: texts with labels; one's own as well as a bundled one.
        random_state: seed of folds, resampling and hash functions.

    Returns:
        The findings.

    Raises:
        InputError: the concept holds arrays, not texts.
    """
    if not concept.is_text:
        raise InputError(f"concept {concept.name!r} holds arrays; an audit needs texts")
    texts = [str(text) for text in concept.inputs]
    if concept.groups is None:
        derived = grouping.derive_groups(texts, concept.labels)
        groups, described = derived.groups, derived.details
    else:
        groups, described = concept.groups, concept.details.get("groups", {})
    described = {**grouping.describe(grouping.number_groups(groups.tolist()), "given", labels=concept.labels)} | {
        key: described[key] for key in ("how", "column") if key in described
    }
    copies = grouping.number_groups([normalise(text) for text in texts])
    conflicting = _with_several(copies, concept.labels)
    near = near_duplicates(texts, groups, random_state=random_state)
    measured = replace(concept, groups=groups).take(MOST_FOR_BASELINES)
    assert measured.groups is not None, "they were put there"
    found: dict[str, Any] = {
        "name": concept.name,
        "n": len(concept),
        "class_counts": concept.class_counts,
        "majority": max(concept.class_counts.values()) / len(concept),
        "duplicates": len(texts) - int(copies.max()) - 1,
        "conflicts": len(conflicting),
        "conflict_examples": tuple(texts[int(np.flatnonzero(copies == copy)[0])] for copy in conflicting[:5]),
        "groups": described,
        "split_twins": int(grouping.split_twins(texts, concept.labels, groups).sum()),
        "near_duplicates": len({index for pair in near for index in pair}),
        "near_examples": tuple((texts[a], texts[b]) for a, b in near[:5]),
        "lengths": _lengths(concept, texts),
        "baselines": lexical.baselines(
            [str(text) for text in measured.inputs],
            measured.labels,
            measured.groups,
            random_state=random_state,
        ),
        "baseline_n": len(measured),
        "telling": lexical.telling_words(texts, concept.labels, concept.classes),
    }
    said = _warnings(found)
    collapsed = grouping.fault(groups)
    if collapsed is not None:
        said.append(f"the grouping {collapsed}: name another group column")
    return Audit(**found, warnings=tuple(said))


def _with_several(keys: IntArray, values: IntArray) -> IntArray:
    """The keys that occur with more than one value."""
    pairs = np.unique(np.stack([keys, values], axis=1), axis=0)
    numbers, counts = np.unique(pairs[:, 0], return_counts=True)
    several: IntArray = numbers[counts > 1]
    return several


def _lengths(concept: Concept, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, sizes in (("characters", [len(t) for t in texts]), ("words", [len(t.split()) for t in texts])):
        by_class = np.asarray(sizes)
        found[name] = {
            "min": min(sizes),
            "median": float(statistics.median(sizes)),
            "max": max(sizes),
            "mean": {
                label: float(by_class[concept.labels == index].mean())
                for index, label in enumerate(concept.classes)
            },
        }
    return found


def _warnings(found: Mapping[str, Any]) -> list[str]:
    said = []
    if found["majority"] > 1.2 / len(found["class_counts"]):
        said.append(
            f"the classes are not balanced: a constant answer is right in {found['majority']:.0%}; "
            "judge by balanced accuracy, or use Concept.balanced()"
        )
    if found["conflicts"]:
        said.append(
            f"{found['conflicts']} texts stand there with different labels, as {found['conflict_examples'][0]!r}; "
            "correct or remove them"
        )
    # Where the author has grouped examples so that every group holds more than one class, twins across groups are
    # what remains of a template, and no leak.
    designed = found["groups"].get("column") is not None and found["groups"]["mixed"] > 0.95
    if found["split_twins"] > 0.02 * found["n"] and not designed:
        said.append(
            f"{found['split_twins']} examples have a twin that differs in one slot in another group: "
            "the split may give answers away; name a group column that holds them together"
        )
    if found["near_duplicates"] > 0.02 * found["n"] and not designed:
        said.append(
            f"{found['near_duplicates']} examples have a near duplicate in another group; look at some of them"
        )
    for name, baseline in _telling_baselines(found["baselines"]).items():
        said.append(
            f"{name.replace('_', ' ')} alone tells the classes ({baseline.score:.2f} balanced accuracy): "
            "a depth near the input may be the words', not the concept's"
        )
    if not found["baselines"]:
        said.append("there are too few groups for cross-validation, so no lexical baseline was measured")
    return said


def near_duplicates(texts: Sequence[str], groups: IntArray, *, random_state: int = 0) -> list[tuple[int, int]]:
    """Pairs of different texts in different groups that share at least 80 % of their character 5-grams (Jaccard).

    Candidates come from MinHash signatures in 16 bands of 4 rows (Broder 1997; a pair 80 % alike is missed once in
    ten thousand), and are then compared exactly. Of many alike texts only close neighbours are compared, so every
    example that has a near duplicate is found, but not every pair.

    Args:
        texts: N texts.
        groups: N group numbers.
        random_state: seed of the hash functions.

    Returns:
        Pairs of indices, the lower first, sorted.
    """
    plain = [normalise(text) for text in texts]
    shingles = [_shingles(text) for text in plain]
    signature_NH = _signatures(shingles, random_state)
    seen: dict[tuple[int, int], bool] = {}
    for band in range(0, HASHES, ROWS):
        rows = np.ascontiguousarray(signature_NH[:, band : band + ROWS])
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * ROWS))).ravel()
        order = np.argsort(keys, kind="stable")
        for near in (1, 2, 3):
            same = np.flatnonzero(keys[order[near:]] == keys[order[:-near]])
            for at in same.tolist():
                a, b = sorted((int(order[at]), int(order[at + near])))
                if (a, b) not in seen:
                    different = groups[a] != groups[b] and plain[a] != plain[b]
                    seen[a, b] = bool(different and _jaccard(shingles[a], shingles[b]) >= ALIKE)
    return sorted(pair for pair, alike in seen.items() if alike)


def _shingles(text: str) -> npt.NDArray[np.uint64]:
    """Hashes of the distinct character 5-grams of a text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < SHINGLE:
        codes = np.pad(codes, (0, SHINGLE - len(codes)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    powers = np.asarray([pow(0x9E3779B97F4A7C15, i, 2**64) for i in range(1, SHINGLE + 1)], dtype=np.uint64)
    return np.unique((windows * powers).sum(axis=1, dtype=np.uint64))


def _signatures(shingles: Sequence[npt.NDArray[np.uint64]], random_state: int) -> npt.NDArray[np.uint64]:
    rng = np.random.default_rng(random_state)
    factor_H1 = rng.integers(1, 2**63, size=(HASHES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signature_NH = np.empty((len(shingles), HASHES), dtype=np.uint64)
    for index, hashes_S in enumerate(shingles):
        mixed = factor_H1 * hashes_S
        # The low bits of a product know only the low bits of its factors, so they are mixed before the minimum.
        signature_NH[index] = (mixed ^ (mixed >> np.uint64(32))).min(axis=1)
    return signature_NH


def _jaccard(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
