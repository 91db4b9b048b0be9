"""Syllogisms over made-up nouns: does the conclusion follow?"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, pick, sentence, shuffled, write

FORMS = {"A": "all {} are {}", "E": "no {} are {}", "I": "some {} are {}", "O": "some {} are not {}"}
# Mood, a figure in which it is valid, one in which it is not. Each mood comes as often valid as invalid, and so
# does each figure: neither the words nor the order of the terms tells alone. No form here turns on whether a kind
# is empty.
PATTERNS = [
    *[("AAA", 1, 2), ("AAA", 1, 2), ("EAE", 1, 3), ("EAE", 2, 3), ("AEE", 2, 1), ("AEE", 4, 3), ("AII", 1, 2)],
    *[("AII", 3, 4), ("IAI", 3, 1), ("IAI", 4, 2), ("OAO", 3, 1), ("OAO", 3, 1), ("AOO", 2, 3), ("AOO", 2, 4)],
]
REPEATS = 32
ONSETS = "bl br cr d dr f fl g gl gr h j k kl kr l m n pl pr r sk sn spl str t tr v w y z zw".split()  # noqa: SIM905
MIDDLES = "b bl d dr f g gl k l lm lp m mb n nd ng nk p pl r rb rk rv t v z".split()  # noqa: SIM905
# Found by reading the nouns: parts that make an ugly one.
AVOIDED = ("fag", "nig", "porn", "vag")
CODAS = ["b", "ck", "g", "k", "lk", "m", "nt", "p", "rf", "rn", "v", "x"]


def noun(rng: random.Random) -> str:
    """A made-up noun in the plural."""
    stem = pick(rng, ONSETS) + pick(rng, "aeiou") + pick(rng, MIDDLES) + pick(rng, "aeiou") + pick(rng, CODAS)
    return stem + ("es" if stem.endswith("x") else "s")


def syllogism(mood: str, figure: int, terms: list[str], *, minor_first: bool) -> str:
    """The two premises and the conclusion; terms are subject, middle and predicate."""
    s, m, p = terms
    major = (p, m) if figure in (2, 4) else (m, p)
    minor = (m, s) if figure in (3, 4) else (s, m)
    premises = [FORMS[mood[0]].format(*major), FORMS[mood[1]].format(*minor)]
    if minor_first:
        premises.reverse()
    first, second = premises
    return f"{sentence(first)}. {sentence(second)}. Therefore, {FORMS[mood[2]].format(s, p)}."


rng = random.Random(16)
nouns: list[str] = []
while len(nouns) < 3 * REPEATS * len(PATTERNS) // 2:
    word = noun(rng)
    if word not in nouns and not any(part in word for part in AVOIDED):
        nouns.append(word)
# Two patterns a group. The list is turned half round so that a group never holds one mood twice.
half = len(PATTERNS) // 2
couples = [(PATTERNS[index], PATTERNS[index + half]) for index in range(half)] * REPEATS
examples = []
for group, couple in enumerate(shuffled(rng, couples)):
    terms = nouns[3 * group : 3 * group + 3]
    for mood, valid, invalid in couple:
        order = rng.random() < 0.5
        for figure, label in [(valid, "valid"), (invalid, "invalid")]:
            text = syllogism(mood, figure, terms, minor_first=order)
            examples.append(example(text, label, group, mood=mood, figure=figure))
write(examples, __file__)
