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
    # The middle is log-uniform, the gap a fifth to three fifths of it: with more, a leading digit would tell.
    middle = round(10 ** (1.4 + 2.38 * rng.random()))
    gap = between(rng, middle // 5, 3 * middle // 5)
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
