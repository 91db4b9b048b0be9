"""What the commands print: rows of results as a table or JSON. Numbers are rounded only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def result_row(folder: Path, variant: str = "") -> dict[str, Any]:
    """One measured result as `--json` prints it, read from the record in its folder."""
    from concept_depth.reporting.record import Report

    run = Report.load(folder)
    row = {
        "model": run.model,
        "concept": run.concept,
        "scoring": run.record["probe"]["scoring"],
        "in_sample": run.in_sample,
        "depth": run.depth,
        "folder": str(folder),
    }
    if variant:
        row["variant"] = variant
    return row


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Results ordered by depth, `never` last, as text for a terminal."""

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        fraction = row["depth"]["fraction"]
        return (fraction is None, 0.0 if fraction is None else fraction)

    with_variant = any(row.get("variant") for row in rows)
    head = [
        "concept",
        *(["variant"] if with_variant else []),
        "model",
        "layer",
        "depth",
        "95 %",
        "peak",
        "verdict",
    ]
    body = []
    for row in sorted(rows, key=order):
        depth = row["depth"]
        found = depth["number"] is not None
        interval = depth.get("interval")
        peak = depth.get("peak")
        body.append(
            [
                row["concept"],
                *([row.get("variant", "")] if with_variant else []),
                row["model"],
                f"{depth['number']:g} of {depth['total']}" if found else "–",
                f"{depth['fraction']:.2f}" if found else "–",
                f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else "–",
                "–" if peak is None else f"{peak:.2f}",
                depth["verdict"],
            ]
        )
    metrics = " and ".join(sorted({row["scoring"].replace("_", " ") for row in rows}))
    fitted = sum(row["in_sample"] for row in rows)
    seen = ", on the examples the probes were fitted to" if fitted else ""
    where = f" ({fitted} of {len(rows)} results)" if 0 < fitted < len(rows) else ""
    return f"{text_table(head, body)}\ndepth: layer / blocks of the model; peak: {metrics}{seen}{where}"


def text_table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """Left-aligned columns, two spaces apart, with a rule under the head."""
    rows = [[str(cell) for cell in row] for row in [head, *body]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])
