"""Is a string of parentheses balanced? Nested 2 to 5 deep."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, write

GROUPS_PER_STEP = 160


def balanced(rng: random.Random, pairs: int) -> str:
    """A balanced string: at each place opening or closing at random, where both are possible."""
    text, depth = "", 0
    while len(text) < 2 * pairs:
        closing = 2 * pairs - len(text) == depth or (depth > 0 and rng.random() < 0.5)
        text += ")" if closing else "("
        depth += -1 if closing else 1
    return text


def nesting(text: str) -> int:
    """How deep a balanced string is nested."""
    return max(2 * text[:end].count("(") - end for end in range(1, len(text) + 1))


def runs(text: str) -> tuple[int, int]:
    """How many signs of opening the string begins with, and of closing it ends with."""
    return len(text) - len(text.lstrip("(")), len(text) - len(text.rstrip(")"))


def rotations(text: str) -> list[str]:
    """The string turned round so that it closes before it opens, without a trace in its short sequences.

    Turned at a place inside, a balanced string has the same neighbours everywhere but at the seam. Only places
    whose two sides look like the two ends of the string are taken: then every short sequence of signs comes as
    often before as after, and the string still begins with opening and ends with closing.
    """
    turned = []
    for cut in range(1, len(text)):
        inside = text[cut - 1 : cut + 1] == ")(" and 2 * text[:cut].count("(") > cut
        if inside and (runs(text[cut:])[0], runs(text[:cut])[1]) == runs(text):
            turned.append(text[cut:] + text[:cut])
    return turned


rng = random.Random(18)
examples = []
seen: set[str] = set()
group = 0
for steps in (2, 3, 4, 5):
    made = 0
    while made < GROUPS_PER_STEP:
        text = balanced(rng, between(rng, steps + 3, steps + 9))
        candidates = [other for other in rotations(text) if other not in seen] if nesting(text) == steps else []
        if text in seen or not candidates:
            continue
        twins = [(text, "balanced"), (candidates[int(rng.random() * len(candidates))], "unbalanced")]
        for signs, label in twins:
            seen.add(signs)
            examples.append(example(" ".join(signs), label, group, steps=steps, pairs=len(signs) // 2))
        group += 1
        made += 1
write(examples, __file__)
