"""Write the measured part of every bundled concept's card, and the table of all in datasets/README.md.

Counts, balance, groups, lengths, the checksum of data.jsonl, and what the audit says that a reader of mere words
reaches: majority, length, bag of words, character n-grams, by logistic regression with the groups kept whole.

    python scripts/cards.py [CONCEPT ...]

`tests/test_bundled.py` imports these functions and holds every card to them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from concept_depth.concepts.audit import Audit, audit
from concept_depth.concepts.concept import Concept

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
BEGIN = "<!-- measured: python scripts/cards.py -->"
END = "<!-- end -->"


@dataclass(frozen=True)
class Card:
    """One folder of datasets/."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What concept.json says."""
        meta: dict[str, Any] = json.loads((self.folder / "concept.json").read_text(encoding="utf-8"))
        return meta

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The examples."""
        return [json.loads(line) for line in (self.folder / "data.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def texts(self) -> list[str]:
        """The N texts."""
        return [row["text"] for row in self.rows]

    @property
    def labels(self) -> np.ndarray:
        """The N class indices."""
        return np.array([self.meta["classes"].index(row["label"]) for row in self.rows])

    @property
    def groups(self) -> np.ndarray:
        """The N group numbers."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(str(row["group"]), len(numbers)) for row in self.rows])

    @property
    def checksum(self) -> str:
        """SHA-256 of data.jsonl."""
        return hashlib.sha256((self.folder / "data.jsonl").read_bytes()).hexdigest()


def bundled() -> list[Card]:
    """All bundled concepts that have a card, by name."""
    folders = [path.parent for path in sorted(DATASETS.glob("*/concept.json"))]
    return [Card(folder) for folder in folders if (folder / "README.md").exists()]


def audited(card: Card) -> Audit:
    """What `concept-depth audit` finds in the examples."""
    concept = Concept(
        name=card.folder.name,
        inputs=card.texts,
        labels=card.labels,
        classes=tuple(card.meta["classes"]),
        groups=card.groups,
    )
    return audit(concept)


def counted(card: Card) -> dict[str, str]:
    """What a card says that can be counted, as it is written there."""
    classes = Counter(row["label"] for row in card.rows)
    sizes = np.bincount(card.groups)
    lengths = [len(text) for text in card.texts]
    told = {
        "examples": f"{len(card.rows)}",
        "balance": ", ".join(f"{name} {classes[name]}" for name in card.meta["classes"]),
        "groups": f"{len(sizes)} of {sizes.min()} to {sizes.max()} examples",
        "length": f"{min(lengths)} to {max(lengths)} characters, median {int(np.median(lengths))}",
        "sha256 of data.jsonl": f"`{card.checksum}`",
    }
    if "steps" in card.meta:
        steps = Counter(row["steps"] for row in card.rows)
        told["steps"] = ", ".join(f"{step}: {steps[step]}" for step in sorted(steps))
    return told


def measured(card: Card) -> dict[str, float]:
    """Balanced accuracy that each lexical feature reaches, groups kept whole."""
    return {name.replace("_", " "): baseline.score for name, baseline in audited(card).baselines.items()}


def told(card: Card) -> dict[str, str]:
    """The rows of the table that stands in the card now."""
    text = (card.folder / "README.md").read_text(encoding="utf-8")
    block = text.partition(BEGIN)[2].partition(END)[0]
    cells = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}


def write_card(card: Card) -> None:
    """Replace the part between the marks of the card."""
    path = card.folder / "README.md"
    before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not mark:
        before, rest = before.rstrip("\n") + "\n\n", END + "\n"
    after = rest.partition(END)[2]
    lines = [f"| {name} | {value} |" for name, value in counted(card).items()]
    lines += [f"| baseline: {name} | {value:.2f} |" for name, value in measured(card).items()]
    table = "\n".join(["| measured | |", "|---|---|", *lines])
    note = (
        "Baselines: balanced accuracy of a logistic regression, 5-fold cross-validation with whole groups; "
        f"`concept-depth audit {card.folder.name}` measures them."
    )
    path.write_text(f"{before}{BEGIN}\n{table}\n\n{note}\n{END}{after}", encoding="utf-8")


def write_overview(cards: list[Card]) -> None:
    """Replace the table of all concepts in datasets/README.md."""
    path = DATASETS / "README.md"
    before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not mark:
        raise SystemExit(f"{path} has no line {BEGIN}; put one where the table belongs, and {END} behind it")
    head = "| concept | what it asks | kind | made | examples | groups | steps | words | characters |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for card in cards:
        facts, meta = told(card), card.meta
        steps = f"{min(meta['steps'])} to {max(meta['steps'])}" if "steps" in meta else ""
        cells = [
            f"[{meta['name']}]({meta['name']}/README.md)",
            meta["question"],
            f"{meta['kind']}, {meta['category']}",
            meta["made"],
            facts["examples"],
            facts["groups"].split(" of ")[0],
            steps,
            facts["baseline: bag of words"],
            facts["baseline: char ngrams"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    after = rest.partition(END)[2]
    path.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def main() -> None:
    """Write the cards named, or all, then the overview."""
    parser = argparse.ArgumentParser(description="Write the measured part of the cards of bundled concepts.")
    parser.add_argument("concepts", nargs="*", help="names of folders of datasets/; none means all")
    names = parser.parse_args().concepts
    cards = bundled()
    unknown = sorted(set(names) - {card.folder.name for card in cards})
    if unknown:
        parser.error(f"no bundled concept {unknown[0]!r}; there are {', '.join(c.folder.name for c in cards)}")
    for card in cards:
        if not names or card.folder.name in names:
            write_card(card)
    write_overview([card for card in cards if told(card)])


if __name__ == "__main__":
    main()
