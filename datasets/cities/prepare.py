"""A city lies in a country: true, or with the country of another city of the same region."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, swap, write
from places import city_pairs

examples = [
    example(text, "true" if truth else "false", group)
    for group, (first, second) in enumerate(city_pairs(seed=1, count=360))
    for text, truth in swap("The city of {0} is in {1}.", first, second)
]
write(examples, __file__)
