"""The commands that work on results: report, figure, compare, apply."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from concept_depth.cli import options as o
from concept_depth.errors import InputError

FoldersArgument = Annotated[
    list[Path],
    typer.Argument(metavar="DIR", help="Folders of runs; searched at any depth.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command(epilog="Example:  concept-depth report runs/smollm2 runs/gemma --out runs/both")(report)
    app.command(epilog="Example:  concept-depth figure ladder runs/first -o ladder.pdf")(figure)
    app.command(epilog="Example:  concept-depth compare runs/plain runs/noisy")(compare)
    app.command(epilog='Example:  concept-depth apply runs/first/cities "Rome is in Italy."')(apply)


def report(
    folders: FoldersArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the page (default: the first).", parser=o.path_of, metavar="DIR"
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Print a table instead: markdown, latex or csv.")
    ] = None,
) -> None:
    """Make one page of one or many runs."""
    if table is not None:
        from concept_depth.reporting.record import load_runs
        from concept_depth.reporting.tables import depth_table

        typer.echo(depth_table(load_runs(folders), style=table))
        return
    from concept_depth.reporting.overview import write_overview

    if out is None and len(folders) > 1 and (folders[0] / "record.json").is_file():
        raise InputError(
            f"a page of several runs would replace that of {folders[0]}; name its folder with --out DIR"
        )
    typer.echo(f"report: {write_overview(folders, out or folders[0])}")


def figure(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="curve, ladder, heatmap, space or cosine.", show_default=False)
    ],
    folders: FoldersArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File: .pdf, .svg or .png.", show_default=False, parser=o.path_of, metavar="FILE"
        ),
    ],
) -> None:
    """Draw a figure for a paper, as vectors or pixels."""
    from concept_depth.reporting.figures import save_figure
    from concept_depth.reporting.record import load_runs

    save_figure(kind, load_runs(folders), out)
    typer.echo(str(out))


def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR_A", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="DIR_B", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write a page into this folder.", parser=o.path_of, metavar="DIR"),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="How depth is read (default: as in DIR_A).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of bootstrap and test.")] = 0,
    json_: o.JsonOption = False,
) -> None:
    """Compare two runs concept by concept: the difference in depth and peak, with interval and test."""
    from concept_depth.cli.tables import text_table
    from concept_depth.reporting.overview import write_overview
    from concept_depth.reporting.pairs import compare_folders, entry
    from concept_depth.reporting.record import load_runs

    left, right = load_runs([a]), load_runs([b])
    results = compare_folders(left, right, rule=rule, random_state=seed)
    for folder, mine, others in ((a, left, right), (b, right, left)):
        alone = sorted({run.concept for run in mine} - {run.concept for run in others})
        if alone and not len(left) == len(right) == 1:
            print(f"concept-depth: only in {folder}: {', '.join(alone)}", file=sys.stderr)
    if json_:
        rows = [{"concept": name, **result.to_dict()} for name, result in results]
        typer.echo(json.dumps({"results": rows}, indent=1, ensure_ascii=False))
    else:
        typer.echo(
            text_table(["concept", "comparison (B − A)"], [(name, str(result)) for name, result in results])
        )
    if out is not None:
        paired = [entry(name, f"{b.name} − {a.name}", result) for name, result in results]
        page = write_overview([a, b], out, paired=paired)
        print(f"report: {page}", file=sys.stderr if json_ else sys.stdout)


def apply(
    probe: Annotated[
        Path, typer.Argument(metavar="PROBE", help="A run's folder, or the probe file in it.", show_default=False)
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; none: one a line from standard input.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model (default: the probe's own).")] = None,
    json_: o.JsonOption = False,
) -> None:
    """Score new texts with a stored probe."""
    from concept_depth.application import apply_probe

    # Windows ends lines by two characters, and begins files with a mark.
    given = texts or [
        line.rstrip("\r\n") for line in sys.stdin.read().removeprefix("\ufeff").split("\n") if line.strip()
    ]
    if not given:
        raise InputError('no text to score; give texts behind the probe, as in: apply PROBE "Rome is in Italy."')
    for row in apply_probe(probe, given, model=model):
        if json_:
            typer.echo(json.dumps(row, ensure_ascii=False))
        else:
            typer.echo(f"{row['probability']:.3f}  {row['class']}  {row['text']}")
