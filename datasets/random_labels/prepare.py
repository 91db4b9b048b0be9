"""City sentences with labels that mean nothing: two of the four sentences of each group, drawn at random."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from itertools import combinations

from making import example, shuffled, swap, write
from places import city_pairs

GROUPS = 252
# Each of the six ways to choose two of four sentences is used equally often: so the label does not follow the
# truth of the sentence, nor the city, nor the country.
choices = [set(chosen) for chosen in combinations(range(4), 2)] * (GROUPS // 6)
choices = shuffled(random.Random(80), choices)
examples = [
    example(text, "blue" if index in choices[group] else "red", group, truth="true" if truth else "false")
    for group, (first, second) in enumerate(city_pairs(seed=8, count=GROUPS))
    for index, (text, truth) in enumerate(swap("The city of {0} is in {1}.", first, second))
]
write(examples, __file__)
