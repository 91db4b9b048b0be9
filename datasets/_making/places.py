"""Pairs of cities of different countries of one region: `cities` and `random_labels` are made of them."""

from __future__ import annotations

import random

from making import facts, shuffled

REGIONS = {
    "North America": "America",
    "South America": "America",
    "Asia": "Asia",
    "Oceania": "Asia",
    "Africa": "Africa",
    "Europe": "Europe",
}
# The table of countries leaves the continent open where two have a claim; for a plausible falsehood any will do.
OPEN = {"Russia": "Europe", "Turkey": "Asia"}

City = tuple[str, str]


def city_pairs(seed: int, count: int) -> list[tuple[City, City]]:
    """`count` pairs of (city, country), no city twice, the two countries different but of one region."""
    rng = random.Random(seed)
    continent = {row["country"]: row["continent"] for row in facts("countries")}
    regions: dict[str, dict[str, list[City]]] = {}
    for row in facts("cities"):
        country = row["country"]
        region = OPEN.get(country) or REGIONS.get(continent[country], "Asia")
        cities = [(city, country) for city in row["cities"].split(";")]
        regions.setdefault(region, {})[country] = shuffled(rng, cities)
    pairs: list[tuple[City, City]] = []
    for countries in regions.values():
        # The country with most cities left goes first: else the last ones left would all be of one country.
        while sum(bool(left) for left in countries.values()) > 1:
            first = max(countries, key=lambda name: len(countries[name]))
            others = [name for name in countries if name != first for _ in countries[name]]
            second = others[int(rng.random() * len(others))]
            pairs.append((countries[first].pop(), countries[second].pop()))
    pairs = shuffled(rng, pairs)
    if len(pairs) < count:
        raise ValueError(f"only {len(pairs)} pairs of cities, {count} are wanted")
    return pairs[:count]
