"""A string of random letters: is their number even?"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, pick, write

GROUPS = 300
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST, LONGEST = 6, 29

rng = random.Random(20)
examples = []
for group in range(GROUPS):
    # Lengths n and n + 1, once with n even and once with n odd: so odd strings are as long as even ones.
    start = between(rng, SHORTEST // 2, (LONGEST - 3) // 2)
    for length in (2 * start, 2 * start + 1):
        text = "".join(pick(rng, LETTERS) for _ in range(length + 1))
        for letters in (text[:-1], text):
            examples.append(example(letters, "odd" if len(letters) % 2 else "even", group))
write(examples, __file__)
