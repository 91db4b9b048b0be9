"""A coin is turned over or left alone by 1 to 4 people: which side is up at the end?"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from itertools import product

from making import NAMES, example, pick, shuffled, write

GROUPS_PER_STEP = 76
FLIPS = ("{} flips the coin.", "{} turns the coin over.", "{} flips it over.")
LEAVES = ("{} does not flip the coin.", "{} does not turn the coin over.", "{} leaves it as it is.")
SIDES = ("heads", "tails")

examples = []
seen: set[str] = set()
rng = random.Random(7)
group = 0
for steps in (1, 2, 3, 4):
    patterns = shuffled(rng, list(product((True, False), repeat=steps)) * GROUPS_PER_STEP)
    # Half of the groups have an odd number of flips, and no story comes twice.
    for odd in (True, False):
        for flips in [pattern for pattern in patterns if sum(pattern) % 2 == odd][: GROUPS_PER_STEP // 2]:
            story = ""
            while not story or story in seen:
                people = shuffled(rng, NAMES)[:steps]
                acts = [pick(rng, FLIPS if flip else LEAVES) for flip in flips]
                story = " ".join(act.format(name) for act, name in zip(acts, people, strict=True))
            seen.add(story)
            # Start and question vary over all four cases: neither the sides named nor the verbs tell the answer.
            for start, asked in product(SIDES, repeat=2):
                text = f"A coin lies {start} up. {story} Is it {asked} up at the end?"
                answer = "yes" if (start == asked) != odd else "no"
                examples.append(example(text, answer, group, steps=steps, flips=sum(flips)))
            group += 1
write(examples, __file__)
