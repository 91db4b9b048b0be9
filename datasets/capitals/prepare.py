"""A city is the capital of a country: true; the capital of another country; or a big city that is no capital."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, facts, pair_up, sentence, swap, write

rows = [row for row in facts("countries") if row["capital"]]
# Neighbours in the world make the plausible falsehoods; where the continent is open, the pair is among these.
pairs = pair_up(random.Random(2), rows, fits=lambda a, b: a["continent"] == b["continent"])
examples = []
for group, (a, b) in enumerate(pairs):
    for text, truth in swap(
        "{0} is the capital of {1}.", (a["capital"], a["country"]), (b["capital"], b["country"])
    ):
        wrong = "" if truth else "other capital"
        examples.append(example(text, "true" if truth else "false", group, wrong=wrong))
    # Of the wrong sentences in the second wording one names another big city of the country itself. Not more of
    # them: a probe of "is a capital, of whatever country" must stay near chance.
    if not b["big_city"]:
        a, b = b, a
    false_city, falsehood = (b["big_city"], "big city") if b["big_city"] else (a["capital"], "other capital")
    for country, city, wrong in [
        (a["country"], a["capital"], ""),
        (a["country"], b["capital"], "other capital"),
        (b["country"], b["capital"], ""),
        (b["country"], false_city, falsehood),
    ]:
        text = sentence(f"the capital of {country} is {city}.")
        examples.append(example(text, "false" if wrong else "true", group, wrong=wrong))
write(examples, __file__)
