"""One whole number is larger than another, of 2 to 4 digits."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, write

GROUPS = 300
rng = random.Random(3)
examples = []
seen: set[int] = set()
while len(examples) < 4 * GROUPS:
    # The middle is log-uniform. The gap is small beside it: with a large one, a leading digit would tell.
    middle = round(10 ** (1.2 + 2.75 * rng.random()))
    gap = between(rng, 1, max(2, middle // 8))
    numbers = {middle - gap, middle, middle + gap}
    if numbers & seen:
        continue
    seen |= numbers
    low, high = middle - gap, middle + gap
    # Each number stands as often first as second, and as often in a true as in a false sentence.
    for a, b in [(high, middle), (middle, high), (low, middle), (middle, low)]:
        text = f"{a} is larger than {b}."
        examples.append(example(text, "true" if a > b else "false", len(examples) // 4))
write(examples, __file__)
