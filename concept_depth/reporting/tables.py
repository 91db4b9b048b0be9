"""Results as rows: CSV that rounds nothing, and tables for papers and notes that do.

Shapes: L layers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth import files
from concept_depth.errors import InputError

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report

STYLES = ("markdown", "latex", "csv")


def layer_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a layer of a record: curve, interval, null, every metric with its spread over folds; unrounded."""
    layers, scores = record["layers"], record["scores"]
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(layers["names"]):
        row = {
            "layer": name,
            "number": layers["numbers"][i],
            "fraction": layers["fractions"][i],
            "curve": scores["curve"][i],
            "curve_low": _at(scores["interval"], i, 0),
            "curve_high": _at(scores["interval"], i, 1),
            "null_95": _at(scores["null_band"], i),
            "converged": _at(scores["converged"], i),
            "C_median": _median(_at(scores["C_chosen"], i)),
            "C_at_edge": _at(scores["at_edge"], i),
        }
        for metric, values in scores["per_fold"].items():
            folds = [value for value in values[i] if value is not None]
            row[metric] = scores["means"][metric][i]
            row[f"{metric}_sd"] = float(np.std(folds, ddof=1)) if len(folds) > 1 else None
        rows.append(row)
    return rows


def depth_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The depth of a record as one flat row, unrounded."""
    depth = record["depth"]
    low, high = depth.get("interval") or (None, None)
    first, last = depth.get("interval_numbers") or (None, None)
    return {
        "verdict": depth["verdict"],
        "layer": depth["layer"],
        "number": depth["number"],
        "total": depth["total"],
        "fraction": depth["fraction"],
        "low": low,
        "high": high,
        "low_number": first,
        "high_number": last,
        "rule": depth["rule"],
        "p": depth["p"],
        "gain": depth["gain"],
        "peak": depth.get("peak"),
        "scoring": record["scores"]["scoring"],
        "n_examples": record["n_examples"],
        "n_groups": record["n_groups"],
        "n_fits": record["scores"]["n_fits"],
        **{f"above_{name}": reference["above"] for name, reference in record["references"].items()},
        "sentence": depth["sentence"],
    }


def _at(values: Any, *index: int) -> Any:
    """`values[i]…`, where a scalar stands for every layer and None for nothing known."""
    for i in index:
        if not isinstance(values, list):
            return values
        values = values[i] if i < len(values) else None
    return values


def _median(values: Any) -> float | None:
    kept = [value for value in values or [] if value is not None] if isinstance(values, list) else []
    return float(np.median(kept)) if kept else None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows (a column for every key that any row has) as CSV, atomically and unrounded; None is empty."""
    files.write_text(path, csv_text(rows))


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return compact(value)
    return "" if value is None else value


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def depth_table(runs: Sequence[Report], *, style: str = "markdown") -> str:
    """Depths as a table: a row a run, the earliest depth first.

    Args:
        runs: from `load_runs`.
        style: markdown, latex (booktabs) or csv (unrounded, every column).

    Raises:
        InputError: there is no such style.
    """
    from concept_depth.reporting.style import by_concept

    if style not in STYLES:
        raise InputError(f"there is no table style {style!r}; the styles are {', '.join(STYLES)}")
    ordered = [run for members in by_concept(runs).values() for run in members]
    if style == "csv":
        return csv_text([run.depth_row() for run in ordered]).rstrip("\n")
    conditions = any(run.condition for run in runs)
    models = conditions or len({run.model for run in runs}) > 1
    head = ["concept", *["model"] * models, *["condition"] * conditions]
    head += ["layer", "depth", "95 % interval", "peak", "p", "verdict"]
    body = [_cells(run, models=models, conditions=conditions) for run in ordered]
    return _markdown(head, body) if style == "markdown" else _latex(head, body)


def _cells(run: Report, *, models: bool, conditions: bool) -> list[str]:
    from concept_depth.reporting.style import VERDICTS
    from concept_depth.reporting.views import visible

    depth = run.depth
    found, interval = depth["number"] is not None, depth.get("interval")
    return [
        visible(run.concept, 60),
        *[visible(run.model, 60)] * models,
        *[visible(run.condition or "plain", 60)] * conditions,
        f"{depth['number']:g} of {depth['total']}" if found else "–",
        f"{depth['fraction']:.2f}" if found else "–",
        f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else "–",
        "–" if depth.get("peak") is None else f"{depth['peak']:.3f}",
        "–" if depth["p"] is None else f"{depth['p']:.3f}",
        VERDICTS.get(depth["verdict"], str(depth["verdict"])),
    ]


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def escaped(cell: str) -> str:
        return "".join(f"\\{c}" if c in "\\|`*_{}[]<>#" else c for c in cell)

    rows = [[escaped(cell) for cell in row] for row in [head, *body]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "“": "``", "”": "''", "…": r"\dots{}",
}  # fmt: skip


def _latex(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"

    lines = [rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", row(head), r"\midrule"]
    return "\n".join([*lines, *map(row, body), r"\bottomrule", r"\end{tabular}"])
