"""Write what `concept-depth --help` prints now into README.md and docs/cli.md, and the settings of sweep plans.

    python scripts/help_texts.py            rewrites what stands between the markers
    python scripts/help_texts.py --check    writes nothing; exit code 1 and the names of the files that are stale

The part of a file that is written stands between `<!-- NAME -->` and `<!-- end of NAME -->`, where NAME is `help`,
`help COMMAND` for each command, or `settings`. It complains where docs/cli.md has no place for a command.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100
README, REFERENCE = ROOT / "README.md", ROOT / "docs" / "cli.md"

# Typer and Rich read these when they are imported, so they are set before anything of ours is.
_PLAIN = {"COLUMNS": str(WIDTH), "TERM": "dumb", "NO_COLOR": "1", "TERMINAL_WIDTH": str(WIDTH)}
_LOUD = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TYPER_USE_RICH")


# Settings that are no option of `run`.
_ELSEWHERE = {
    "prefix_sharing": "Compute shared beginnings of prompts once: true, false, auto (where it pays and is right).",
    "standardize": 'Standardise features on the training part: true, false, or "scale" (one number for all).',
}


def help_of(*command: str) -> str:
    """What `concept-depth COMMAND --help` prints on a terminal without colours, `WIDTH` characters wide."""
    from typer.testing import CliRunner

    from concept_depth.cli.main import app

    done = CliRunner().invoke(app, [*command, "--help"], prog_name="concept-depth")
    if done.exit_code != 0:
        raise SystemExit(f"'concept-depth {' '.join(command)} --help' failed: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.splitlines()).strip("\n")


def command(name: str) -> Any:
    """The parser of one command."""
    import typer

    from concept_depth.cli.main import app

    return typer.main.get_command(app).commands[name]


def commands() -> list[str]:
    """Names of all commands, in the order in which the help lists them."""
    import typer

    from concept_depth.cli.main import app

    return list(typer.main.get_command(app).commands)


def settings_table() -> str:
    """The fields of `measure.Settings` as a table: name, kind, default, meaning, by what they belong to."""
    from concept_depth.measure import Settings

    lines = textwrap.dedent(inspect.getsource(Settings)).splitlines()
    comments = {number: line.strip(" #") for number, line in enumerate(lines, 1) if line.strip().startswith("#")}
    (body,) = ast.parse("\n".join(lines)).body
    assert isinstance(body, ast.ClassDef)
    starts = {node.target.id: node.lineno for node in body.body if isinstance(node, ast.AnnAssign)}
    options = {
        str(option.name).lower(): option.help for option in command("run").params if hasattr(option, "help")
    }
    rows = ["| setting | kind | default | meaning |", "|---|---|---|---|"]
    last = ""
    for item in dataclasses.fields(Settings):
        part = comments[max(number for number in comments if number < starts[item.name])]
        if part != last:
            rows.append(f"| **{part}** | | | |")
            last = part
        meaning = options.get(item.name.lower()) or _ELSEWHERE[item.name]
        kind = str(item.type).replace(" | None", "").replace(" | ", " or ")
        rows.append(f"| `{item.name}` | {kind} | {_toml(item.default)} | {meaning} |")
    return "\n".join(rows)


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _details(*command: str) -> str:
    words = " ".join(("concept-depth", *command, "--help"))
    return f"<details>\n<summary><code>{words}</code></summary>\n\n{_block(help_of(*command))}\n\n</details>"


def parts() -> dict[Path, dict[str, Callable[[], str]]]:
    """File → marker → what stands behind it."""
    reference: dict[str, Callable[[], str]] = {"help": lambda: _block(help_of())}
    for name in commands():
        reference[f"help {name}"] = lambda name=name: _block(help_of(name))
    reference["settings"] = settings_table
    return {README: {"help": lambda: _details() + "\n\n" + _details("run")}, REFERENCE: reference}


def rewritten(text: str, made: dict[str, Callable[[], str]], name: str) -> str:
    """`text` with every marked part replaced by what is true now."""
    for marker, make in made.items():
        begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        found = list(pattern.finditer(text))
        if len(found) != 1:
            raise SystemExit(f"{name} needs '{begin}' and '{end}' once each, for the text between them")
        start, stop = found[0].span()
        text = f"{text[:start]}{begin}\n\n{make()}\n\n{end}{text[stop:]}"
    return text


def stale() -> list[Path]:
    """The files whose marked parts differ from what the commands print now."""
    found = []
    for path, made in parts().items():
        text = path.read_text(encoding="utf-8")
        if rewritten(text, made, path.name) != text:
            found.append(path)
    return found


def main() -> int:
    """Rewrite or check; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is stale")
    check = parser.parse_args().check
    for name in _LOUD:
        os.environ.pop(name, None)
    os.environ.update(_PLAIN)
    old = stale()
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is stale; type 'python scripts/help_texts.py'", file=sys.stderr)
        else:
            text = path.read_text(encoding="utf-8")
            path.write_text(rewritten(text, parts()[path], path.name), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
