"""The French or German word for an English one: right, or that for another word of its kind."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "_making"))

from making import example, facts, pair_up, swap, write

TEMPLATE = 'The {language} word for "{{0}}" is "{{1}}".'
pairs = pair_up(random.Random(12), facts("words"), fits=lambda a, b: a["kind"] == b["kind"])
examples = [
    example(text, "true" if truth else "false", group, language=language)
    for group, (a, b) in enumerate(pairs)
    for language in ("french", "german")
    for text, truth in swap(
        TEMPLATE.format(language=language.title()), (a["english"], a[language]), (b["english"], b[language])
    )
]
write(examples, __file__)
