"""What the scripts of the model families share: `--size` chooses a checkpoint, the rest is `concept-depth run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from concept_depth.cli.main import end_in_order, exit_code


def main(family: str, checkpoints: Mapping[str, str], *, default: str, **defaults: Any) -> None:
    """Probe a checkpoint of a family on concepts, all bundled ones by default.

    Args:
        family: name of the family, for help and folders.
        checkpoints: size → bundled name or Hub id.
        default: the size used when none is given.
        defaults: the family's own defaults for options of `run`; what the user types wins.
    """
    sizes = "\n".join(f"  {size:<14} {name}" for size, name in checkpoints.items())
    parser = argparse.ArgumentParser(
        usage="%(prog)s [CONCEPT…] [--size SIZE] [OPTION…]",
        description=f"Probe a {family} model. Sizes:\n{sizes}",
        epilog="Concepts and other options: those of 'concept-depth run' (see 'concept-depth run --help').",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--size", choices=list(checkpoints), default=default, help=f"checkpoint (default {default})"
    )
    known, rest = parser.parse_known_args()
    out = f"runs/{family.lower()}-{known.size}"
    end_in_order()
    sys.exit(exit_code(["run", checkpoints[known.size], *rest], {"concepts": ["all"], "out": out, **defaults}))
