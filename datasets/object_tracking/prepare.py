"""Three people swap what they hold, 1 to 5 times: who holds what at the end?"""

from __future__ import annotations

import random
import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import NAMES, example, pick, shuffled, write

GROUPS_PER_STEP = 50
THINGS = (  # noqa: SIM905 - a column of words is harder to read
    "apple ball bell book bottle brush candle coin cup flute hat key lamp letter map pen ring rope spoon stone"
).split()
# A wrong ending is another permutation of the same parity: then a wrong sentence names what the person held at the
# beginning as often as a right one does.
CYCLES = ((1, 2, 0), (2, 0, 1))
EXCHANGES = ((0, 2, 1), (2, 1, 0), (1, 0, 2))

rng = random.Random(17)
examples = []
group = 0
for steps in range(1, 6):
    made = 0
    while made < GROUPS_PER_STEP:
        people, things = shuffled(rng, NAMES)[:3], shuffled(rng, THINGS)[:3]
        holds = [0, 1, 2]
        swaps: list[tuple[int, int]] = []
        for _ in range(steps):
            # The same two never swap twice in a row.
            first, second = pick(rng, [pair for pair in combinations(range(3), 2) if pair not in swaps[-1:]])
            swaps.append((first, second))
            holds[first], holds[second] = holds[second], holds[first]
        right = tuple(holds)
        if right == (0, 1, 2):
            continue
        wrong = pick(rng, [other for other in (EXCHANGES if steps % 2 else CYCLES) if other != right])
        story = f"{people[0]} holds the {things[0]}, {people[1]} the {things[1]} and {people[2]} the {things[2]}. "
        story += " ".join(f"{people[first]} and {people[second]} swap what they hold." for first, second in swaps)
        for person in range(3):
            for ending, label in [(right, "true"), (wrong, "false")]:
                text = f"{story} At the end, {people[person]} holds the {things[ending[person]]}."
                examples.append(example(text, label, group, steps=steps))
        group += 1
        made += 1
write(examples, __file__)
