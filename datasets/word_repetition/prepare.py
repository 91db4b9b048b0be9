"""A list of words: has the last one come before?"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import between, example, facts, pick, shuffled, write

GROUPS = 200
WORDS = [row["english"] for row in facts("words") if row["kind"] not in ("verb", "quality")]

rng = random.Random(19)
examples = []
for group in range(GROUPS):
    count = between(rng, 3, 8)
    words = shuffled(rng, WORDS)[: 2 * count]
    lists = [words[:count], words[count:]]
    # The last words are exchanged: each comes once where it repeats and once where it is new.
    lasts = [pick(rng, words) for words in lists]
    for own, words in enumerate(lists):
        for which, last in enumerate(lasts):
            label = "yes" if which == own else "no"
            examples.append(example(" ".join([*words, last]), label, group))
write(examples, __file__)
