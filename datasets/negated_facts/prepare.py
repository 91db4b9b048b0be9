"""Facts about countries, affirmed and denied: "not" turns the truth over and so tells nothing by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import country_pairs, example, swap, write

TEMPLATES = {
    "continent": ("{0} is a country in {1}.", "{0} is not a country in {1}."),
    "currency": ("The currency of {0} is the {1}.", "The currency of {0} is not the {1}."),
    "language": ("{1} is an official language of {0}.", "{1} is not an official language of {0}."),
}

examples = []
for group, (a, b) in enumerate(country_pairs(5, list(TEMPLATES))):
    # Two of the three relations for each pair of countries, in turn.
    for relation in [name for index, name in enumerate(TEMPLATES) if index != group % 3]:
        for negated, template in enumerate(TEMPLATES[relation]):
            for text, fact in swap(template, (a["country"], a[relation]), (b["country"], b[relation])):
                label = "true" if fact != bool(negated) else "false"
                examples.append(example(text, label, group, relation=relation, negated=negated))
write(examples, __file__)
