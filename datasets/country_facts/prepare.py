"""Continent, currency and language of countries: true, or with those of another country."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import country_pairs, example, swap, write

TEMPLATES = {
    "continent": "{0} is a country in {1}.",
    "currency": "The currency of {0} is the {1}.",
    "language": "{1} is an official language of {0}.",
}
examples = [
    example(text, "true" if truth else "false", group, relation=relation)
    for group, (a, b) in enumerate(country_pairs(4, list(TEMPLATES)))
    for relation, template in TEMPLATES.items()
    for text, truth in swap(template, (a["country"], a[relation]), (b["country"], b[relation]))
]
write(examples, __file__)
