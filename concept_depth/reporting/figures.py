"""Figures for papers and talks: one style, colour-blind safe, readable at column width, the same bytes each time.

Uses matplotlib's objects without pyplot, so that no global state, window or backend is involved. The kinds:
`curve` (score by layer; a panel a concept), `ladder` (concepts ordered by depth), `heatmap` (model × concept),
`space` (examples along the probe's direction, at four layers) and `cosine` (directions of all pairs of layers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.reporting import plots
from concept_depth.reporting.style import GREY, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from concept_depth.reporting.record import Report

FORMATS = (".pdf", ".svg", ".png")
RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look alike everywhere
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "concept_depth",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "figure.dpi": 100,
    "savefig.dpi": 300,
}


def figure(kind: str, runs: Report | Sequence[Report], *, metric: str | None = None) -> Figure:
    """A matplotlib figure of one or many runs.

    Args:
        kind: curve, ladder, heatmap, space or cosine.
        runs: from `Report.of` or `Report.load`.
        metric: which metric a `curve` shows; by default the one that was scored.

    Raises:
        InputError: there is no such kind, no run, or the runs lack what the figure shows.
    """
    import matplotlib

    chosen = [runs] if not isinstance(runs, Sequence) else list(runs)
    if kind not in _KINDS:
        raise InputError(f"there is no figure {kind!r}; the kinds are {', '.join(_KINDS)}")
    if not chosen:
        raise InputError("there is no run to draw; give a folder that 'concept-depth run' wrote")
    with matplotlib.rc_context(RC):
        drawn = _KINDS[kind](chosen, metric)
        # The layout is solved once and kept: it costs more than the drawing, and there are several formats.
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
    return drawn


def save_figure(
    kind: str, runs: Report | Sequence[Report], path: str | Path, *, metric: str | None = None
) -> Path:
    """Draw a figure into a file, in the format that its name ends on: .pdf and .svg are vectors, .png pixels.

    Raises:
        InputError: as `figure`, or the name ends differently.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} does not end on a known format; name a file that ends on {', '.join(FORMATS)}")
    _write(figure(kind, runs, metric=metric), path)
    return path


def save_run_figures(run: Report, folder: Path) -> None:
    """The figure of a run folder, in every format."""
    drawn = figure("curve", run)
    for suffix in FORMATS:
        _write(drawn, folder / f"curve{suffix}")


def save_overview_figures(runs: Sequence[Report], folder: Path) -> None:
    """The figures of a folder of many runs."""
    kinds = ["ladder", "curve", *(["heatmap"] if len({run.model for run in runs}) > 1 else [])]
    for kind in kinds:
        drawn = figure(kind, runs)
        for suffix in (".pdf", ".svg", ".png"):
            _write(drawn, folder / f"{kind}{suffix}")


def _write(drawn: Figure, path: Path) -> None:
    """Write atomically, without the date and the names that would make equal figures differ."""
    import matplotlib

    suffix = path.suffix.lower()
    dates: dict[str, dict[str, None]] = {
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".svg": {"Date": None, "Creator": None},
        ".png": {"Software": None},
    }
    with matplotlib.rc_context(RC), files.atomic_path(path) as temporary:
        drawn.savefig(temporary, format=suffix[1:], metadata=dates[suffix])


_KINDS: dict[str, Callable[[Sequence[Report], str | None], Figure]] = {
    "curve": plots.draw_curve,
    "ladder": plots.draw_ladder,
    "heatmap": plots.draw_heatmap,
    "space": plots.draw_space,
    "cosine": plots.draw_cosine,
}
