"""Turn claims.txt, written by hand, into data.jsonl.

Notation of claims.txt: `# topic` opens a topic; a block of lines without an empty line between is one group;
`{a|b}` is the word that decides (a makes the claim true, b makes it false); `[a|b]` is wording that decides
nothing and lets the two claims of a pair differ: pairs take its halves in turn, so that neither half goes
with a label.

Usage: python datasets/common_claims/prepare.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fill(line: str, *, true: bool, turn: int) -> tuple[str, str]:
    """Return the claim and its deciding word."""
    deciding = re.search(r"\{([^|{}]+)\|([^|{}]+)\}", line)
    if deciding is None:
        raise SystemExit(f"no {{true|false}} in the line: {line}")
    word = deciding.group(1 if true else 2)
    text = line.replace(deciding.group(0), word)
    half = 1 if true == (turn % 2 == 0) else 2
    return re.sub(r"\[([^|\[\]]+)\|([^|\[\]]+)\]", lambda found: found.group(half), text), word


def examples(source: str) -> Iterator[dict[str, object]]:
    topic, group, pair, open_block = "", -1, 0, False
    for line in source.splitlines():
        if line.startswith("#") or not line.strip():
            topic = line[1:].strip() if line.startswith("#") else topic
            open_block = False
            continue
        if not open_block:
            group, open_block = group + 1, True
        for label in ("true", "false"):
            text, word = fill(line, true=label == "true", turn=pair)
            yield {"text": text, "label": label, "group": group, "pair": pair, "word": word, "topic": topic}
        pair += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "data.jsonl")
    out = parser.parse_args().out
    rows = examples((HERE / "claims.txt").read_text(encoding="utf-8"))
    out.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
