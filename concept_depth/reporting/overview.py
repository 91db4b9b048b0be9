"""Many runs together: one page, one table, the overview figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from concept_depth.reporting.figures import save_overview_figures
from concept_depth.reporting.page import write_page
from concept_depth.reporting.pairs import compare_conditions
from concept_depth.reporting.record import load_runs
from concept_depth.reporting.tables import write_csv

__all__ = ["load_runs", "write_overview"]


def write_overview(
    folders: Iterable[str | Path], out: str | Path, *, paired: Sequence[Mapping[str, Any]] | None = None
) -> Path:
    """Write `report.html`, `depth.csv`, `layers.csv` and the overview figures of some runs.

    Where `out` is itself the folder of the only run, its own page is written and nothing else changes.

    Args:
        folders: folders that hold runs, at any depth.
        out: where the files go.
        paired: comparisons to show, as `pairs.entry` gives them; by default every condition of a model and concept
            against its plain run, where scores are stored.

    Returns:
        The path of the page.

    Raises:
        InputError: a folder holds no run, or `out` cannot be written.
    """
    runs, out = load_runs(folders), Path(out)
    if len(runs) == 1:
        own = runs[0].folder
        if own is not None and own.resolve() == out.resolve():
            return write_page(runs, out / "report.html")
    write_csv(out / "depth.csv", [run.depth_row() for run in runs])
    write_csv(out / "layers.csv", [row for run in runs for row in run.layer_rows()])
    save_overview_figures(runs, out)
    shown = compare_conditions(runs) if paired is None else paired
    return write_page(runs, out / "report.html", paired=shown)
