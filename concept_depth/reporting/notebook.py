"""How results show themselves in a notebook: a sentence, a drawing, a small table, in the notebook's own colours.

`LayerScores` and `Depth` stand below reporting and must not import it, so `enable` tells IPython how to show them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from concept_depth.reporting import style

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report

_FRAME = Markup('<div style="font:14px/1.5 system-ui,sans-serif;max-width:46em">{}</div>')
_LINE = "#0072B2"
_MARK = "#D55E00"


def enable() -> bool:
    """Let a running IPython show depths and scores as HTML; gives whether there is one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return False
    html = shell.display_formatter.formatters["text/html"]
    html.for_type_by_name("concept_depth.depth", "Depth", depth_html)
    html.for_type_by_name("concept_depth.probing.scores", "LayerScores", scores_html)
    return True


def report_html(run: Report) -> str:
    """A run: its sentence and its curve."""
    scores = run.record["scores"]
    parts = Markup("<p><b>{}</b></p>").format(style.verdict_sentence(run))
    parts += _curve(run.record["layers"]["numbers"], run.curve(), scores["interval"], run.depth["number"])
    parts += _caption(f"{style.metric_name(scores['scoring'])} by layer; chance {scores['chance']:.2f}")
    return str(_FRAME.format(parts))


def scores_html(scores: Any) -> str:
    """A `LayerScores`: its curve, and a table of every metric at the best layer."""
    curve = np.asarray(scores.curve, dtype=float)
    best = int(np.nanargmin(curve) if scores.lower_is_better else np.nanargmax(curve))
    rows = Markup("").join(
        Markup("<tr><td>{}</td><td>{:.3f}</td></tr>").format(
            style.metric_name(name), float(np.nanmean(values[best]))
        )
        for name, values in scores.per_fold.items()
        if np.isfinite(values[best]).any()
    )
    parts = _curve(scores.numbers, curve.tolist(), None, None)
    words = (
        f"{style.metric_name(scores.scoring)} by layer, {len(scores.labels)} examples in {scores.n_groups} groups"
    )
    parts += _caption(words)
    parts += Markup("<table><tr><th>at layer {}</th><th></th></tr>{}</table>").format(scores.numbers[best], rows)
    return str(_FRAME.format(parts))


def depth_html(depth: Any) -> str:
    """A `Depth`: its line, its sentence, its curve with the depth marked."""
    parts = Markup("<p><b>{}</b><br>{}</p>").format(str(depth), depth.sentence)
    numbers = list(range(len(depth.curve)))
    mark = None if depth.fraction is None else depth.fraction * max(depth.total, 1)
    # A depth knows its total but not every layer's number; evenly spread they are right for whole networks.
    scale = max(depth.total, 1) / max(len(numbers) - 1, 1)
    places = [number * scale for number in numbers]
    parts += _curve(places, np.asarray(depth.curve).tolist(), np.asarray(depth.curve_interval).tolist(), mark)
    return str(_FRAME.format(parts))


def _caption(words: str) -> Markup:
    return Markup('<p style="opacity:.7;font-size:12px;margin:2px 0">{}</p>').format(words)


def _curve(numbers: Any, values: Any, interval: Any, mark: float | None) -> Markup:
    """A small SVG that needs no style sheet and works on light and dark."""
    width, height, left, bottom = 520, 170, 40, 150
    places = [float(number) for number in numbers]
    shown = [(n, float(v)) for n, v in zip(places, values, strict=True) if v is not None and np.isfinite(v)]
    if not shown:
        return Markup("")
    band = [
        (n, float(pair[0]), float(pair[1]))
        for n, pair in zip(places, interval or [], strict=False)
        if None not in pair and np.isfinite(pair).all()
    ]
    everything = [v for _, v in shown] + [v for _, *pair in band for v in pair]
    low, high = min(everything), max(everything)
    span, rise = max(places[-1] - places[0], 1e-9), max(high - low, 1e-9)

    def at(number: float, value: float) -> str:
        x = left + (width - left - 8) * (number - places[0]) / span
        return f"{x:.1f},{bottom - (bottom - 10) * (value - low) / rise:.1f}"

    parts = Markup('<svg width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img">').format(width, height)
    if band:
        outline = [at(n, b) for n, _, b in band] + [at(n, a) for n, a, _ in reversed(band)]
        parts += Markup('<polygon points="{}" fill="{}" opacity=".18"/>').format(" ".join(outline), _LINE)
    if mark is not None:
        x = at(mark, low).split(",")[0]
        parts += Markup('<line x1="{0}" x2="{0}" y1="8" y2="{1}" stroke="{2}"/>').format(x, bottom, _MARK)
    points = " ".join(at(n, v) for n, v in shown)
    parts += Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(points, _LINE)
    label = Markup('<text x="{}" y="{:.0f}" font-size="11" fill="currentColor" text-anchor="{}">{:.4g}</text>')
    parts += label.format(left - 5, 14, "end", high) + label.format(left - 5, bottom, "end", low)
    parts += label.format(left, bottom + 15, "middle", places[0])
    parts += label.format(width - 8, bottom + 15, "end", places[-1])
    return parts + Markup("</svg>")
