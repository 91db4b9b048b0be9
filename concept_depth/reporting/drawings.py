"""Small drawings that stand in a page itself as SVG: seen at once, without scripts, on paper, by screen readers.

Everything that comes from data is escaped here (`markupsafe`); colours come from the page's style sheet, so that
the drawings follow light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from concept_depth.reporting import style
from concept_depth.reporting.views import short, visible

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report

WIDTH = 720
NAME_WIDTH, RIGHT = 190, 84


def ladder(runs: Sequence[Report]) -> Markup:
    """Concepts ordered by depth: a dot and its interval a run; `never` and the like in words at the right."""
    concepts, lines = style.by_concept(runs), style.Lines(runs)
    pitch = 15 if len(lines) > 1 else 30
    left, right = NAME_WIDTH, WIDTH - RIGHT
    parts: list[Markup] = []
    y = 30.0
    for concept, members in concepts.items():
        height = max(30.0, pitch * len(members) + 10.0)
        parts.append(
            Markup('<text class="name" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                left - 14, y + height / 2 + 4, short(concept, 25)
            )
        )
        parts.append(Markup('<line class="rule" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDTH, y, y))
        first = y + height / 2 - pitch * (len(members) - 1) / 2
        for i, run in enumerate(members):
            which = lines.place(run)
            parts.append(_rung(run, first + i * pitch, which, left, right, named=len(lines) > 1))
        y += height
    axis = [
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="26" y2="{1:.1f}"/>').format(x, y)
        + Markup('<text class="tick" x="{:.1f}" y="17" text-anchor="middle">{}</text>').format(x, word)
        for x, word in ((left + (right - left) * k / 4, f"{k / 4:g}") for k in range(5))
    ]
    label = f"Depth ladder of {len(concepts)} concepts; the table below holds the same numbers."
    return _svg(label, WIDTH, y + 4, [*axis, *parts], "ladder")


def _rung(run: Report, y: float, which: int, left: float, right: float, *, named: bool) -> Markup:
    depth = run.depth
    words = f"{visible(run.label, 90)}: {style.depth_words(depth)}, {style.VERDICTS.get(run.verdict, run.verdict)}"
    head = Markup('<g class="rung s{}" data-tip="{}">').format(which % len(style.CYCLE), words)
    if depth["fraction"] is None:
        word = style.VERDICTS.get(run.verdict, run.verdict)
        return head + Markup('<text class="word" x="{}" y="{:.1f}">{}</text></g>').format(right + 14, y + 4, word)

    def at(fraction: float) -> float:
        return left + (right - left) * min(max(fraction, 0.0), 1.0)

    body = Markup()
    if depth.get("interval"):
        low, high = (at(fraction) for fraction in depth["interval"])
        body += Markup('<line class="bar" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            low, high, y, y
        )
    hollow = " hollow" if run.verdict in ("at_input", "unstable") else ""
    body += Markup('<circle class="dot{}" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(
        hollow, at(depth["fraction"]), y
    )
    value = style.depth_words(depth, short=True)
    if not named:
        body += Markup('<text class="value" x="{}" y="{:.1f}">{}</text>').format(right + 14, y + 4, value)
    # A wide, invisible bar makes the small marks easy to point at.
    hit = Markup('<rect class="hit" x="{}" y="{:.1f}" width="{}" height="14"/>').format(left, y - 7, right - left)
    return head + body + hit + Markup("</g>")


def curve(run: Report, *, width: int = WIDTH, height: int = 300) -> Markup:
    """The curve with interval, null and depth: what stands where the interactive chart will be drawn."""
    scores, numbers = run.record["scores"], run.record["layers"]["numbers"]
    values = run.curve()
    known = [v for v in [*values, *_flat(scores["interval"]), scores["chance"]] if v is not None]
    low, high = min(known) - 0.03, max(known) + 0.03
    left, right, top, bottom = 46.0, width - 12.0, 12.0, height - 30.0
    span = max(numbers[-1] - numbers[0], 1)

    def x(number: Any) -> float:
        return left + (right - left) * float(number - numbers[0]) / float(span)

    def y(value: Any) -> float:
        return bottom - (bottom - top) * float(value - low) / float(high - low)

    parts: list[Markup] = []
    for tick in _ticks(low, high):
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                left, right, y(tick), y(tick)
            )
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(
                left - 7, y(tick) + 4, tick
            )
        )
    step = max(1, round(len(numbers) / 8))
    for number in numbers[::step]:
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{:g}</text>').format(
                x(number), height - 10.0, number
            )
        )
    if scores["interval"] is not None:
        band = [(n, v) for n, v in zip(numbers, scores["interval"], strict=True) if None not in v]
        outline = [(x(n), y(v[1])) for n, v in band] + [(x(n), y(v[0])) for n, v in reversed(band)]
        parts.append(Markup('<polygon class="band s0" points="{}"/>').format(_points(outline)))
    if run.depth["number"] is not None:
        at = x(run.depth["number"])
        parts.append(
            Markup('<line class="depth" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(at, at, top, bottom)
        )
    line = [(x(n), y(v)) for n, v in zip(numbers, values, strict=True) if v is not None]
    parts.append(Markup('<polyline class="line s0" points="{}"/>').format(_points(line)))
    metric, where = style.metric_name(scores["scoring"]), style.depth_words(run.depth)
    label = f"{visible(run.concept, 60)}: {metric} by layer; {where}."
    return _svg(label, width, height, parts, "curve")


def sparkline(
    values: Sequence[float | None], *, mark: int | None = None, width: int = 120, height: int = 26
) -> Markup:
    """A curve the size of a word."""
    known = [v for v in values if v is not None]
    if not known:
        return Markup()
    low, high = min(known), max(known)

    def place(i: int, value: float) -> tuple[float, float]:
        across = 3 + (width - 6) * i / max(len(values) - 1, 1)
        return across, height - 4 - (height - 8) * (value - low) / max(high - low, 1e-9)

    points = [place(i, v) for i, v in enumerate(values) if v is not None]
    parts = [Markup('<polyline class="line s0" points="{}"/>').format(_points(points))]
    marked = None if mark is None or mark >= len(values) else values[mark]
    if mark is not None and marked is not None:
        across, up = place(mark, marked)
        parts.append(Markup('<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(across, up))
    return _svg(f"from {known[0]:.2f} to {known[-1]:.2f}", width, height, parts, "spark")


def _svg(label: str, width: float, height: float, parts: Iterable[Markup], kind: str) -> Markup:
    head = Markup('<svg class="drawing {}" role="img" viewBox="0 0 {:g} {:g}" aria-label="{}"><title>{}</title>')
    return head.format(kind, width, round(height, 1), label, label) + Markup("").join(parts) + Markup("</svg>")


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _flat(rows: Any) -> list[float | None]:
    return [value for row in rows or [] for value in row]


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 1e9) if (high - low) / s <= 6)
    first = int(low // step) + 1
    return [round((first + k) * step, 6) for k in range(int((high - first * step) // step) + 1)]
