"""The symbol of a chemical element: right, or that of an element whose symbol begins alike."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, facts, sentence, write

TEMPLATES = (
    "The chemical symbol of {0} is {1}.",
    "{1} is the chemical symbol of {0}.",
    "In the periodic table, {0} is written {1}.",
)
# Neighbours in alphabetical order begin alike: the first letter alone does not tell. 118 = 27 · 4 + 2 · 5.
elements = sorted(facts("elements"), key=lambda row: row["symbol"])
cuts = [*range(0, 108, 4), 108, 113, 118]
examples = []
for group, (start, stop) in enumerate(pairwise(cuts)):
    members = elements[start:stop]
    for wording, template in enumerate(TEMPLATES):
        for index, row in enumerate(members):
            # Each wording shifts the symbols by another number of places: every symbol is once true, once false.
            wrong = members[(index + 1 + wording) % len(members)]
            for symbol, label in [(row["symbol"], "true"), (wrong["symbol"], "false")]:
                examples.append(example(sentence(template.format(row["element"], symbol)), label, group))
write(examples, __file__)
