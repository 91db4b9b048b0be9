"""A sum, difference or product: right, or with the result of another problem close by."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, pick, shuffled, write

Problem = tuple[int, int, int]
STYLES = {
    "add": ("{} + {} = {}.", "{} plus {} equals {}."),
    "subtract": ("{} - {} = {}.", "{} minus {} equals {}."),
    "multiply": ("{} * {} = {}.", "{} times {} equals {}."),
}
# How far the wrong result is from the right one; ten keeps the last digit, one and two mostly the first ones.
GAPS = (-20, -10, -10, -9, -2, -1, 1, 2, 9, 10, 10, 20)


def problems(rng: random.Random, operation: str) -> tuple[Problem, Problem]:
    """Two problems with different results, close together."""
    if operation == "multiply":
        a, b = between(rng, 3, 25), between(rng, 3, 19)
        return (a, b, a * b), (a, b + 1, a * (b + 1))
    if operation == "add":
        a, b = between(rng, 3, 150), between(rng, 3, 150)
        result = a + b + pick(rng, GAPS)
        c = between(rng, 2, max(3, result - 2))
        return (a, b, a + b), (c, result - c, result)
    a, b = between(rng, 3, 150), between(rng, 3, 150)
    result, c = a + pick(rng, GAPS), between(rng, 3, 150)
    return (a + b, b, a), (result + c, c, result)


rng = random.Random(6)
plan = shuffled(rng, ["add"] * 110 + ["subtract"] * 110 + ["multiply"] * 80)
examples: list[dict[str, object]] = []
seen: set[str] = set()
for group, operation in enumerate(plan):
    template = STYLES[operation][group % 2]
    while True:
        (a, b, x), (c, d, y) = problems(rng, operation)
        lines = [((a, b, x), "true"), ((a, b, y), "false"), ((c, d, y), "true"), ((c, d, x), "false")]
        texts = [template.format(*numbers) for numbers, _ in lines]
        near = min(a, b, c, d) > 0 and abs(x - y) <= max(2, min(x, y) // 3)
        if near and len(set(texts)) == 4 and not seen & set(texts):
            break
    seen |= set(texts)
    for text, (_, label) in zip(texts, lines, strict=True):
        examples.append(example(text, label, group, operation=operation))
write(examples, __file__)
