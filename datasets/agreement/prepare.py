"""Turn sentences.txt, written by hand, into data.jsonl.

Notation of sentences.txt: a line begins with the numbers (s singular, p plural) of the subject and of the noun
before the verb; `{a|b}` is the verb (a agrees, b does not); `[a|b]` is wording that decides nothing and lets the
two sentences of a pair differ: pairs take its halves in turn, so that neither half goes with a label. A block of
lines without an empty line between is one group.

Usage: python datasets/agreement/prepare.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
NUMBERS = {"s": "singular", "p": "plural"}


def fill(line: str, *, right: bool, turn: int) -> tuple[str, str]:
    """Return the sentence and its verb."""
    deciding = re.search(r"\{([^|{}]+)\|([^|{}]+)\}", line)
    if deciding is None:
        raise SystemExit(f"no {{right|wrong}} in the line: {line}")
    verb = deciding.group(1 if right else 2)
    text = line.replace(deciding.group(0), verb)
    half = 1 if right == (turn % 2 == 0) else 2
    return re.sub(r"\[([^|\[\]]+)\|([^|\[\]]+)\]", lambda found: found.group(half), text), verb


def examples(source: str) -> Iterator[dict[str, object]]:
    pair = 0
    for group, block in enumerate(source.strip().split("\n\n")):
        for line in block.splitlines():
            numbers, _, sentence = line.partition(" ")
            head, nearest = (NUMBERS[letter] for letter in numbers)
            for label in ("right", "wrong"):
                text, verb = fill(sentence, right=label == "right", turn=pair)
                yield {
                    "text": text,
                    "label": label,
                    "group": group,
                    "pair": pair,
                    "verb": verb,
                    "subject": head,
                    "nearest": nearest,
                }
            pair += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "data.jsonl")
    out = parser.parse_args().out
    rows = examples((HERE / "sentences.txt").read_text(encoding="utf-8"))
    out.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
