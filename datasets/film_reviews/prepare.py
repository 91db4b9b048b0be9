"""Turn reviews.txt, written by hand, into data.jsonl.

Notation of reviews.txt: `# style label` opens a section; each line below it is one review.

Usage: python datasets/film_reviews/prepare.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def examples(source: str) -> Iterator[dict[str, object]]:
    """Yield the reviews; those at the same place of a style's two sections were written together: one group."""
    style, label, place = "", "", 0
    for line in source.splitlines():
        if line.startswith("#"):
            style, label = line[1:].split()
            place = 0
            continue
        yield {"text": line, "label": label, "group": f"{style}-{place}", "style": style}
        place += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "data.jsonl")
    out = parser.parse_args().out
    rows = examples((HERE / "reviews.txt").read_text(encoding="utf-8"))
    out.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
