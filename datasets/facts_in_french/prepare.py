"""Capital, currency and continent of countries in French: true, or with those of another country."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import country_pairs, example, facts, sentence, swap, write

FRENCH = {row["english"]: row["french"] for row in facts("french")}
CONTRACTED = {"le": "du {}", "la": "de la {}", "les": "des {}"}


def of(country: str) -> str:
    """The country behind "de": du Pérou, de la France, de l'Italie, des Pays-Bas, d'Haïti, de Cuba."""
    article, _, rest = country.partition(" ")
    if article in CONTRACTED:
        return CONTRACTED[article].format(rest)
    return f"d'{country}" if country[0] in "HO" else f"de {country}"


def is_country(country: str) -> str:
    """The country and the verb in its number."""
    return f"{country} {'sont' if country.startswith('les ') else 'est'} un pays"


columns = ["continent", "currency", "capital", "fr_country", "fr_capital"]
examples = []
for group, (a, b) in enumerate(country_pairs(14, columns)):
    names = (a["fr_country"], b["fr_country"])
    money, capitals, places = [
        (FRENCH[a["currency"]], FRENCH[b["currency"]]),
        (a["fr_capital"], b["fr_capital"]),
        (FRENCH[a["continent"]], FRENCH[b["continent"]]),
    ]
    sentences = {
        "capital": ("la capitale {0} est {1}.", [of(name) for name in names], capitals),
        "currency": ("la monnaie {0} est {1}.", [of(name) for name in names], money),
        "continent": ("{0} {1}.", [is_country(name) for name in names], places),
    }
    # Krone and koruna are two words in English but one in French, and so no falsehood.
    if money[0] == money[1]:
        del sentences["currency"]
    for relation, (template, subjects, values) in sentences.items():
        for text, truth in swap(template, (subjects[0], values[0]), (subjects[1], values[1])):
            examples.append(example(sentence(text), "true" if truth else "false", group, relation=relation))
write(examples, __file__)
