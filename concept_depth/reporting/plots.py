"""The drawing of each kind of figure, on matplotlib's objects; `figures.py` sets the style and writes the files.

Shapes: L layers, S sampled examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth.errors import InputError
from concept_depth.reporting import style
from concept_depth.reporting.style import BLUE, CYCLE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, VERMILLION
from concept_depth.reporting.views import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from concept_depth.reporting.record import Report

COLUMN = 3.35  # inches: one column of a two-column paper
PAGE = 6.9  # inches: both columns


def _empty(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def draw_curve(runs: Sequence[Report], metric: str | None) -> Figure:
    """Score by layer, a panel a concept: one run in full, several runs as lines over relative depth."""
    concepts = style.by_concept(runs)
    lines = style.Lines(runs)
    columns = min(len(concepts), 3)
    rows = math.ceil(len(concepts) / columns)
    if len(concepts) == 1:
        drawn = _empty(COLUMN, 2.6)
    else:
        drawn = _empty(COLUMN if columns == 1 else PAGE, 1.75 * rows + 0.3)
    axes = drawn.subplots(rows, columns, squeeze=False, sharey=metric != "log_loss")
    for axis in axes.flat[len(concepts) :]:
        axis.set_axis_off()
    for index, (axis, (concept, members)) in enumerate(zip(axes.flat, concepts.items(), strict=False)):
        if len(members) == 1:
            _panel_of_one(axis, members[0], metric, full=len(concepts) == 1)
        else:
            _panel_of_many(axis, members, lines, metric)
        axis.set_title(short(concept, 40), loc="left", fontweight="bold", color=INK)
        if index % columns == 0:
            axis.set_ylabel(style.metric_name(metric or members[0].record["scores"]["scoring"]))
    _shared_legend(drawn, axes.flat[0], one=len(concepts) == 1)
    return drawn


def _panel_of_one(axis: Axes, run: Report, metric: str | None, *, full: bool) -> None:
    """One run: its curve with interval, null band, references, and the depth."""
    scores, layers, depth = run.record["scores"], run.record["layers"], run.depth
    scored = metric in (None, scores["scoring"])
    x = np.asarray(layers["numbers"], dtype=float)
    y = _floats(run.curve(metric))
    if scored:
        _nulls(axis, x, run)
    if scored and scores["interval"] is not None:
        band = _floats(scores["interval"])
        axis.fill_between(x, band[:, 0], band[:, 1], color=BLUE, alpha=0.18, lw=0, label="95 % interval")
    for colour, (name, reference) in zip(
        (ORANGE, GREEN, PURPLE, VERMILLION), run.record["references"].items(), strict=False
    ):
        values = _floats(reference["means"].get(metric or scores["scoring"], []))
        dashed: dict[str, Any] = {
            "color": colour,
            "lw": 0.9,
            "ls": (0, (4, 1.5)),
            "label": style.reference_name(name),
        }
        if len(values) == 1:
            axis.axhline(values[0], **dashed)
        elif len(values):
            at = np.asarray(reference["numbers"]) * layers["total"] / max(reference["total"], 1)
            axis.plot(at, values, **dashed)
    said = style.anchoring_score(run)
    if said is not None and metric in (None, "accuracy", "balanced_accuracy"):
        axis.axhline(said, color=INK, lw=0.9, ls=(0, (1, 1.2)), label="what the model says")
    axis.plot(x, y, color=BLUE, marker="o", ms=1.8, label="probe")
    unsure = [i for i, share in enumerate(scores["converged"] or []) if share is not None and share < 1]
    if unsure:
        axis.plot(x[unsure], y[unsure], "x", color=VERMILLION, ms=4, label="not converged", zorder=5)
    _mark_depth(axis, depth, full=full)
    axis.set_xlabel(f"layer (of {layers['total']})")
    axis.set_xlim(x.min() - 0.3, x.max() + 0.3)


def _nulls(axis: Axes, x: Any, run: Report) -> None:
    """Chance as a line, and the band that 95 % of permutations stay within."""
    scores = run.record["scores"]
    axis.axhline(scores["chance"], color=GREY, lw=0.6, ls=":", label="chance")
    if scores["null_band"] is None:
        return
    null = np.broadcast_to(_floats(scores["null_band"]), x.shape)
    label = "95 % of permutations"
    axis.fill_between(x, np.minimum(scores["chance"], null), null, color=PALE, alpha=0.8, lw=0, label=label)


def _mark_depth(axis: Axes, depth: Any, *, full: bool) -> None:
    if depth["number"] is None:
        note = style.VERDICTS.get(depth["verdict"], depth["verdict"])
        axis.annotate(
            note, (0.98, 0.05), xycoords="axes fraction", ha="right", color=GREY, style="italic", fontsize=6.5
        )
        return
    if depth.get("interval_numbers"):
        axis.axvspan(*depth["interval_numbers"], color=VERMILLION, alpha=0.12, lw=0)
    axis.axvline(depth["number"], color=VERMILLION, lw=1.0)
    words = style.depth_words(depth) if full else style.depth_words(depth, short=True)
    right = depth["number"] < 0.6 * depth["total"]
    axis.annotate(
        words,
        (depth["number"], 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(3 if right else -3, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        color=VERMILLION,
        fontsize=6.5,
    )


def _panel_of_many(axis: Axes, members: Sequence[Report], lines: style.Lines, metric: str | None) -> None:
    """Several runs of one concept over relative depth."""
    axis.axhline(members[0].record["scores"]["chance"], color=GREY, lw=0.6, ls=":")
    for run in members:
        line, place = lines.name(run), lines.place(run)
        colour = CYCLE[place % len(CYCLE)]
        dashes = ("-", "--", ":")[place // len(CYCLE) % 3]
        x, y = _floats(run.record["layers"]["fractions"]), _floats(run.curve(metric))
        axis.plot(x, y, color=colour, ls=dashes, label=short(line, 34))
        fraction = run.depth["fraction"]
        if fraction is not None and metric in (None, run.record["scores"]["scoring"]):
            at = float(np.interp(fraction, x, y))
            axis.plot([fraction], [at], "o", ms=4, mfc="white", mec=colour, mew=1.2, zorder=5)
    axis.set_xlabel("relative depth")
    axis.set_xlim(-0.02, 1.02)


def _shared_legend(drawn: Figure, axis: Axes, *, one: bool) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        drawn.legend(handles, labels, loc="outside lower center", ncols=2 if one else 4, columnspacing=1.2)


def draw_ladder(runs: Sequence[Report], _metric: str | None) -> Figure:
    """Concepts ordered by relative depth, each run a dot with its interval."""
    concepts, lines = style.by_concept(runs), style.Lines(runs)
    drawn = _empty(COLUMN, 0.55 + 0.2 * len(concepts) * max(1.0, 0.55 * len(lines)) + 0.12 * len(lines))
    axis = drawn.subplots()
    offsets = np.linspace(-0.28, 0.28, len(lines)) if len(lines) > 1 else [0.0]
    for row, (concept, members) in enumerate(concepts.items()):
        axis.axhline(row, color=PALE, lw=0.5, zorder=0)
        for run in members:
            which = lines.place(run)
            _rung(axis, run, row + offsets[which], CYCLE[which % len(CYCLE)])
        concepts[concept] = members
    axis.set_yticks(range(len(concepts)), [short(concept, 30) for concept in concepts])
    axis.set_ylim(len(concepts) - 0.4, -0.6)
    axis.set_xlim(-0.03, 1.16)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("relative depth of linear separability")
    if len(lines) > 1:
        for which, line in enumerate(lines.names):
            axis.plot([], [], "o-", color=CYCLE[which % len(CYCLE)], ms=3, label=short(line, 40))
        _shared_legend(drawn, axis, one=True)
    return drawn


def _rung(axis: Axes, run: Report, row: float, colour: str) -> None:
    depth = run.depth
    if depth["fraction"] is None:
        word = style.VERDICTS.get(depth["verdict"], depth["verdict"])
        axis.annotate(word, (1.16, row), ha="right", va="center", color=colour, style="italic", fontsize=6)
        return
    if depth.get("interval"):
        axis.plot(depth["interval"], [row, row], color=colour, lw=2.2, alpha=0.35, solid_capstyle="round")
    filled = "white" if depth["verdict"] in ("at_input", "unstable") else colour
    axis.plot([depth["fraction"]], [row], "o", ms=4, mfc=filled, mec=colour, mew=1.1)


def draw_heatmap(runs: Sequence[Report], _metric: str | None) -> Figure:
    """Relative depth of every concept on every model or condition."""
    import matplotlib

    concepts, lines = style.by_concept(runs), style.Lines(runs)
    values = np.full((len(concepts), len(lines)), np.nan)
    words = [["" for _ in lines.names] for _ in concepts]
    for row, members in enumerate(concepts.values()):
        for run in members:
            column = lines.place(run)
            fraction = run.depth["fraction"]
            values[row, column] = np.nan if fraction is None else fraction
            words[row][column] = depth_cell(run.depth)
    drawn = _empty(min(PAGE, 1.5 + 0.62 * len(lines)), 0.8 + 0.22 * len(concepts))
    axis = drawn.subplots()
    colours = matplotlib.colormaps["cividis"].with_extremes(bad="#f0f0f0")
    image = axis.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
    for row, column in np.ndindex(values.shape):
        dark = np.isfinite(values[row, column]) and values[row, column] < 0.55
        axis.text(
            column, row, words[row][column], ha="center", va="center", fontsize=6, color="w" if dark else INK
        )
    axis.set_xticks(range(len(lines)), [short(line, 26) for line in lines.names], rotation=30, ha="right")
    axis.set_yticks(range(len(concepts)), [short(concept, 30) for concept in concepts])
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    drawn.colorbar(image, ax=axis, label="relative depth", shrink=0.8, aspect=25).outline.set_visible(False)
    return drawn


def depth_cell(depth: Any) -> str:
    """A cell of a model × concept table."""
    if depth["fraction"] is None:
        return style.VERDICTS.get(depth["verdict"], str(depth["verdict"]))
    return f"{depth['fraction']:.2f}"


def draw_space(runs: Sequence[Report], _metric: str | None) -> Figure:
    """The examples of one run along its probes and across them, at four layers."""
    run = _only(runs, "space")
    space = run.views.get("space")
    if not space:
        raise InputError("the run was saved without points; measure again with 'concept-depth run'")
    numbers = run.record["layers"]["numbers"]
    at = run.depth["number"]
    middle = min(range(len(numbers)), key=lambda i: abs(numbers[i] - (numbers[-1] // 2 if at is None else at)))
    chosen = sorted({0, middle // 2, middle, len(numbers) - 1})
    drawn = _empty(PAGE, 2.0)
    axes = drawn.subplots(1, len(chosen), squeeze=False, sharex=True, sharey=True)[0]
    labels = np.asarray(space["label"])
    for axis, layer in zip(axes, chosen, strict=True):
        x = _floats(space["x"][layer])
        y = _floats(space["y"][layer]) if space["y"] else np.linspace(-1, 1, len(x))
        for label, name in enumerate(run.record["classes"]):
            colour, marker = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE)[label % 5], "osD^v"[label % 5]
            members = labels == label
            axis.scatter(
                x[members], y[members], s=5, marker=marker, color=colour, alpha=0.6, lw=0, label=short(name)
            )
        if not space["several"]:
            axis.axvline(0, color=GREY, lw=0.6, ls=":")
        axis.set_title(f"layer {numbers[layer]:g}", loc="left")
        axis.set_xlabel("along the probe")
    axes[0].set_ylabel("across")
    _shared_legend(drawn, axes[0], one=False)
    return drawn


def draw_cosine(runs: Sequence[Report], _metric: str | None) -> Figure:
    """Cosine between the probe directions of all pairs of layers of one run."""
    run = _only(runs, "cosine")
    cosine = run.record["geometry"]["cosine"]
    if cosine is None:
        raise InputError("the run has no probe directions of one width; measure again with 'concept-depth run'")
    numbers = run.record["layers"]["numbers"]
    drawn = _empty(COLUMN, 2.7)
    axis = drawn.subplots()
    extent = (numbers[0] - 0.5, numbers[-1] + 0.5, numbers[-1] + 0.5, numbers[0] - 0.5)
    image = axis.imshow(_floats(cosine), vmin=-1, vmax=1, cmap="PuOr", extent=extent, interpolation="nearest")
    axis.set_xlabel("layer")
    axis.set_ylabel("layer")
    axis.set_title(short(run.concept, 40), loc="left", fontweight="bold")
    drawn.colorbar(image, ax=axis, label="cosine of probe directions", shrink=0.85)
    return drawn


def _only(runs: Sequence[Report], kind: str) -> Report:
    if len(runs) > 1:
        raise InputError(
            f"a {kind} figure shows one run, but {len(runs)} were given; name the folder of one concept"
        )
    return runs[0]


def _floats(values: Any) -> Any:
    """A float array, None as NaN."""
    return np.asarray(values, dtype=object).astype(float) if values is not None else np.asarray([])
