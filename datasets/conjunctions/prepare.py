"""Two facts about countries joined by "and": true only if both are."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import country_pairs, example, sentence, write

TEMPLATES = {
    "continent": "{0} is a country in {1}",
    "currency": "the currency of {0} is the {1}",
    "language": "{1} is an official language of {0}",
    "capital": "the capital of {0} is {1}",
}
JOINED = (("continent", "currency"), ("language", "capital"), ("currency", "language"))

Row = dict[str, str]


def fact(subject: Row, value: Row, relation: str) -> str:
    """The fact about one country, with the value of the same or of another one."""
    return TEMPLATES[relation].format(subject["country"], value[relation])


pairs = country_pairs(13, list(TEMPLATES))
examples = []
for group, ((a, b), (c, d)) in enumerate(zip(pairs[::2], pairs[1::2], strict=False)):
    for first, second in JOINED:
        # Which values stand where, and whether each half is true. Over the eight, every country and every value
        # stands equally often in true and in false sentences; of the false ones half fail in the first part.
        for left, right, halves in [
            ((a, a), (c, c), "both"),
            ((a, a), (c, d), "first"),
            ((b, b), (d, d), "both"),
            ((b, b), (d, c), "first"),
            ((a, a), (d, d), "both"),
            ((a, b), (c, c), "second"),
            ((b, b), (c, c), "both"),
            ((b, a), (d, d), "second"),
        ]:
            text = sentence(f"{fact(*left, first)}, and {fact(*right, second)}.")
            examples.append(example(text, "true" if halves == "both" else "false", group, right=halves))
write(examples, __file__)
