"""Turn questions.txt, written by hand, into data.jsonl.

Notation of questions.txt: a block of lines without an empty line between is one group; a line `= facts` holds for
all questions of its block; `y question | facts` and `n question | facts` are questions with the answers yes and
no; ` / ` parts facts.

Usage: python datasets/implicit_questions/prepare.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def examples(source: str) -> Iterator[dict[str, object]]:
    for group, block in enumerate(source.strip().split("\n\n")):
        shared: list[str] = []
        for line in block.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "=":
                shared = rest.split(" / ")
                continue
            text, _, facts = rest.partition(" | ")
            label = {"y": "yes", "n": "no"}[kind]
            yield {"text": text, "label": label, "group": group, "facts": [*shared, *facts.split(" / ")]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "data.jsonl")
    out = parser.parse_args().out
    rows = examples((HERE / "questions.txt").read_text(encoding="utf-8"))
    out.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
