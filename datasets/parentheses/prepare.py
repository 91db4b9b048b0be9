"""Is a string of parentheses balanced? Nested 2 to 5 deep.

What is easy to count is equal in a balanced string and its unbalanced twin: signs, opening and closing ones, the
deepest nesting, every sequence of three signs, the first four and last two signs, and the mean place of the opening
ones. A mere shuffle would not do: there opening signs stand later in the unbalanced string, and the first layers of
a network sum that up.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, write

GROUPS_PER_STEP = 152
BEGIN, END = 4, 2
LOWEST = -2
MOST_DRAWN = 300_000


def string(rng: random.Random, pairs: int, deepest: int) -> str:
    """A random string of as many opening as closing signs within the depths; opens first, closes last."""
    text, level = "(", 1
    for left in range(2 * pairs - 2, 0, -1):
        # The last sign closes, so one level is open before it, and every level must be within reach of that.
        steps = [step for step in (1, -1) if LOWEST <= level + step <= deepest and abs(level + step - 1) < left]
        step = steps[int(rng.random() * len(steps))]
        text, level = text + ("(" if step == 1 else ")"), level + step
    return text + ")"


def easy(text: str) -> tuple[object, ...]:
    """Everything that must be equal in twins; the sum of depths stands for the mean place of opening signs."""
    threes = Counter(map("".join, zip(text, text[1:], text[2:], strict=False)))
    return text[:BEGIN], text[-END:], sum(depths(text)), frozenset(threes.items())


def depths(text: str) -> list[int]:
    """How many parentheses are open behind each sign."""
    return list(accumulate(1 if sign == "(" else -1 for sign in text))


def twins(rng: random.Random, deepest: int) -> list[tuple[str, str]]:
    """Balanced strings, each with an unbalanced one that is like it in all that is easy."""
    waiting: dict[tuple[object, ...], dict[bool, list[str]]] = {}
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    for _ in range(MOST_DRAWN):
        text = string(rng, between(rng, 7, 12), deepest)
        levels = depths(text)
        # Below zero within the beginning it could have no twin.
        if text in seen or max(levels) < deepest or min(levels[:BEGIN]) < 0:
            continue
        seen.add(text)
        alike = waiting.setdefault(easy(text), {True: [], False: []})
        alike[min(levels) >= 0].append(text)
        if alike[True] and alike[False]:
            found.append((alike[True].pop(0), alike[False].pop(0)))
        if len(found) == GROUPS_PER_STEP:
            return found
    raise RuntimeError(f"only {len(found)} pairs of strings nested {deepest} deep; draw from longer ones")


rng = random.Random(18)
examples = []
for steps in (2, 3, 4, 5):
    for pair in twins(rng, steps):
        for text, label in zip(pair, ("balanced", "unbalanced"), strict=True):
            group = len(examples) // 2
            examples.append(example(" ".join(text), label, group, steps=steps, pairs=len(text) // 2))
write(examples, __file__)
