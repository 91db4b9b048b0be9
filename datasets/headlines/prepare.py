"""Turn headlines.txt, written by hand, into data.jsonl.

Notation of headlines.txt: a block of two lines is one event, the first line plain, the second sarcastic.

Usage: python datasets/headlines/prepare.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def examples(source: str) -> Iterator[dict[str, object]]:
    for group, block in enumerate(source.strip().split("\n\n")):
        for text, label in zip(block.splitlines(), ("plain", "sarcastic"), strict=True):
            yield {"text": text, "label": label, "group": group}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "data.jsonl")
    out = parser.parse_args().out
    rows = examples((HERE / "headlines.txt").read_text(encoding="utf-8"))
    out.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
