"""Facts about a country that is not named, only described: one, two or three steps from a city."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, facts, pair_up, swap, write

WORDS = {row["language"]: row for row in facts("languages")}
CAPITAL = "the country whose capital is {0}"
CITY = "the country in which the city of {0} lies"
# From the city to its country; from there to money or language; from the language to a word of it.
TEMPLATES = {
    1: {"capital": "{0} is the capital of {1}.", "big_city": "The city of {0} lies in {1}."},
    2: {
        "capital": f"The currency of {CAPITAL} is the {{1}}.",
        "big_city": f"An official language of {CITY} is {{1}}.",
    },
    3: {
        "capital": f'In an official language of {CAPITAL}, the word for night is "{{1}}".',
        "big_city": f'In an official language of {CITY}, the word for water is "{{1}}".',
    },
}

Row = dict[str, str]


def spoken(row: Row) -> set[str]:
    """The words for night and water in all languages of the country."""
    words = [WORDS[name] for name in [row["language"], *row["other_languages"].split(";")] if name in WORDS]
    return {word[key].casefold() for word in words for key in ("night", "water")}


def fits(a: Row, b: Row) -> bool:
    """Whether everything the two countries could exchange differs."""
    if a["continent"] == b["continent"] or a["currency"] == b["currency"] or spoken(a) & spoken(b):
        return False
    languages = [{row["language"], *row["other_languages"].split(";")} for row in (a, b)]
    return a["language"] not in languages[1] and b["language"] not in languages[0]


rows = [row for row in facts("countries") if row["capital"] and row["big_city"] and row["currency"]]
rows = [row for row in rows if row["language"] in WORDS]
examples = []
for group, (a, b) in enumerate(pair_up(random.Random(15), rows, fits=fits)):
    for steps, templates in TEMPLATES.items():
        for start, template in templates.items():
            if steps == 3:
                key = "night" if start == "capital" else "water"
                values = [WORDS[row["language"]][key] for row in (a, b)]
            else:
                key = "country" if steps == 1 else "currency" if start == "capital" else "language"
                values = [row[key] for row in (a, b)]
            for text, truth in swap(template, (a[start], values[0]), (b[start], values[1])):
                label = "true" if truth else "false"
                examples.append(example(text, label, group, steps=steps, start=start))
examples.sort(key=lambda line: line["steps"])
write(examples, __file__)
