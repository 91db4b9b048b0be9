"""What the `prepare.py` of several generated concepts share: facts, swaps, stable randomness, writing.

Almost every set is made of *swaps*: two subjects with their own objects give two true sentences, and exchanging
the objects gives two false ones. In such a group each word stands equally often in true and in false sentences,
so a bag of words, the length or a single key word tells nothing, in the training part and the test part alike.

Randomness comes from `random.Random(seed).random()` alone, the one method whose values Python promises to keep,
so that a set is made again byte for byte by any later version.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
FACTS = Path(__file__).resolve().parent

NAMES = (  # noqa: SIM905 - a column of names is harder to read
    "Ada Ali Amy Ana Ben Bob Carl Cleo Dan Dora Ed Ella Emil Eva Finn Fred Gina Greta Hugo Ida Ivan Jack "
    "Jane Joel Kate Karl Lena Leo Lucy Mara Max Mia Nina Noah Omar Otto Paul Pia Rita Rosa Sam Sara Tara "
    "Tom Vera Will Yara Zoe"
).split()


def facts(name: str) -> list[dict[str, str]]:
    """The rows of one of our own tables of facts (`countries`, `cities`, …)."""
    with (FACTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shuffled(rng: random.Random, items: Iterable[Item]) -> list[Item]:
    """The items in random order."""
    pool = list(items)
    keys = [rng.random() for _ in pool]
    return [pool[index] for index in sorted(range(len(pool)), key=keys.__getitem__)]


def pick(rng: random.Random, items: Sequence[Item]) -> Item:
    """One item at random."""
    return items[int(rng.random() * len(items))]


def between(rng: random.Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def sentence(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[0].upper() + text[1:]


def swap(template: str, first: Sequence[str], second: Sequence[str]) -> list[tuple[str, bool]]:
    """Two true sentences and, with the objects exchanged, two false ones.

    Args:
        template: the sentence, with {0} for the subject and {1} for the object.
        first: a subject and its object.
        second: another subject and its object.
    """
    (a, x), (b, y) = first, second
    triples = [(a, x, True), (a, y, False), (b, y, True), (b, x, False)]
    return [(sentence(template.format(subject, obj)), truth) for subject, obj, truth in triples]


def pair_up(rng: random.Random, items: Iterable[Item], *, fits: Any) -> list[tuple[Item, Item]]:
    """Disjoint pairs (a, b) with `fits(a, b)`, as many as a greedy pass in random order finds."""
    left = shuffled(rng, items)
    pairs = []
    while left:
        a = left.pop()
        partner = next((index for index, b in enumerate(left) if fits(a, b)), None)
        if partner is not None:
            pairs.append((a, left.pop(partner)))
    return pairs


def country_pairs(
    seed: int, columns: Sequence[str], *, apart: Sequence[str] = ()
) -> list[tuple[dict[str, str], ...]]:
    """Pairs of countries of which all `columns` are known and different: to exchange them makes a falsehood."""
    rng = random.Random(seed)
    rows = [row for row in facts("countries") if all(row[column] for column in columns)]

    def fits(a: dict[str, str], b: dict[str, str]) -> bool:
        different = all(a[column] != b[column] for column in [*columns, *apart])
        languages = "language" not in columns or not (
            a["language"] in b["other_languages"].split(";") or b["language"] in a["other_languages"].split(";")
        )
        return different and languages

    return pair_up(rng, rows, fits=fits)


def example(text: str, label: str, group: int, **columns: Any) -> dict[str, Any]:
    """One line of a data.jsonl."""
    return {"text": text, "label": label, "group": group, **columns}


def write(examples: Sequence[dict[str, Any]], beside: str) -> None:
    """Write data.jsonl beside the calling prepare.py, or where `--out` says."""
    parser = argparse.ArgumentParser(description="Make data.jsonl of this concept again.")
    parser.add_argument("--out", type=Path, default=Path(beside).resolve().parent / "data.jsonl")
    out: Path = parser.parse_args().out
    texts = [line["text"] for line in examples]
    assert len(set(texts)) == len(texts), "a text occurs twice"
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in examples]
    out.write_bytes("".join(lines).encode("utf-8"))
