"""`report.html`: one file that opens anywhere, asks nobody for anything, and can be sent, printed and trusted.

What the page says stands in it as HTML and SVG and needs no script; scripts add what moves. plotly.js (from the
installed plotly package) is inlined once, compressed; the browser unpacks it when the first chart comes into view.
A content security policy allows exactly the page's own scripts, by their hashes, and no request at all: hostile
text in a data set could do nothing even if it were not escaped, which it is (Jinja's autoescape; JSON without <).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from concept_depth import __version__, files
from concept_depth.reporting import drawings, style
from concept_depth.reporting.sections import sections_of_many, sections_of_one
from concept_depth.reporting.views import visible

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report

HOME = Path(__file__).parent
ROUNDING = 1e-12  # what sums of numbers about 1 leave where they cancel


def write_page(runs: Sequence[Report], path: Path, *, paired: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the page of one or many runs; gives its path. `paired` are comparisons between many runs."""
    files.write_text(path, render(runs, path.parent, paired=paired))
    return path


def render(runs: Sequence[Report], folder: Path | None = None, *, paired: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as text. `folder` is where it will stand, for links to the pages of single runs."""
    script = (HOME / "page.js").read_text(encoding="utf-8")
    plotly, packed = _plotly()
    hashes = " ".join(f"'sha256-{_hash(text)}'" for text in (script, plotly))
    single = len(runs) == 1
    lines = style.Lines(runs)
    context = {
        "title": _title(runs),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashes}",
        "css": Markup((HOME / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "plotly": Markup(packed),
        "data": embed(_payload(runs)),
        "version": __version__,
        "single": single,
        "runs": [_entry(run, lines, folder if not single else None) for run in style_order(runs)],
        "lines": [visible(line, 80) for line in lines.names],
        "ladder": drawings.ladder(runs),
        **(sections_of_one(runs[0]) if single else sections_of_many(runs, paired)),
    }
    text: str = _template().render(context)
    return text


def style_order(runs: Sequence[Report]) -> list[Report]:
    """Runs in the order of the page: concepts by depth."""
    return [run for members in style.by_concept(runs).values() for run in members]


def embed(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end the element or a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["num"] = number
    return environment.get_template("page.html.j2")


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js, and the same as base64 of gzip: a fifth of a page's limit instead of four fifths."""
    from plotly.offline import get_plotlyjs

    text = get_plotlyjs()
    return text, base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _title(runs: Sequence[Report]) -> str:
    if len(runs) == 1:
        return visible(runs[0].label, 120)
    concepts, models = (len({getattr(run, key) for run in runs}) for key in ("concept", "model"))
    first = visible(runs[0].model, 60) if models == 1 else f"{models} models"
    return f"{first} · {concepts} concept{'s' if concepts > 1 else ''}"


def _entry(run: Report, lines: style.Lines, folder: Path | None) -> dict[str, Any]:
    """What the verdict list and the table of results say of a run."""
    depth = run.depth
    link = None
    if folder is not None and run.folder is not None:
        link = quote(Path(os.path.relpath(run.folder / "report.html", folder)).as_posix())
    mark = None
    if depth["number"] in run.record["layers"]["numbers"]:
        mark = run.record["layers"]["numbers"].index(depth["number"])
    return {
        "concept": visible(run.concept, 80),
        "line": visible(lines.name(run), 80),
        "colour": lines.place(run) % len(style.CYCLE),
        "verdict": run.verdict,
        "verdict_words": style.VERDICTS.get(run.verdict, run.verdict),
        "sentence": style.verdict_sentence(run),
        "depth": depth,
        "words": style.depth_words(depth),
        "peak": depth.get("peak"),
        "spark": drawings.sparkline(run.curve(), mark=mark),
        "link": link,
    }


def _payload(runs: Sequence[Report]) -> dict[str, Any]:
    """What the scripts need, compact: numbers as a screen can show them, texts harmless."""
    single = len(runs) == 1
    lines = style.Lines(runs)
    return {
        "metrics": {m: style.metric_name(m) for run in runs for m in run.record["scores"]["means"]},
        "scoring": runs[0].record["scores"]["scoring"],
        "lines": [visible(line, 80) for line in lines.names],
        "concepts": [
            {
                "name": visible(concept, 80),
                "runs": [_curves(run, lines.place(run)) for run in members],
            }
            for concept, members in style.by_concept(runs).items()
        ],
        **(_single(runs[0]) if single else {}),
    }


def _curves(run: Report, line: int) -> dict[str, Any]:
    scores, layers = run.record["scores"], run.record["layers"]
    return {
        "line": line,
        "scoring": scores["scoring"],
        "numbers": layers["numbers"],
        "names": [visible(name, 60) for name in layers["names"]],
        "total": layers["total"],
        "means": _rounded(scores["means"]),
        "interval": _rounded(scores["interval"]),
        "null": _rounded(scores["null_band"]),
        "chance": scores["chance"],
        "converged": scores["converged"],
        "depth": {
            key: run.depth.get(key) for key in ("number", "fraction", "interval_numbers", "interval", "verdict")
        },
        "references": [
            {
                "name": visible(style.reference_name(name), 60),
                "numbers": reference["numbers"],
                "total": reference["total"],
                "means": _rounded(reference["means"]),
            }
            for name, reference in run.record["references"].items()
        ],
        "says": style.anchoring_score(run),
    }


def _single(run: Report) -> dict[str, Any]:
    """What only the page of one run shows."""
    return {
        "space": _space(run),
        "geometry": _rounded(run.record["geometry"]),
        "naive": _rounded(run.record["audit"].get("naive_curve")),
    }


def _space(run: Report) -> dict[str, Any] | None:
    space = run.views.get("space")
    if not space:
        return None
    return {**space, "classes": [visible(name, 60) for name in run.record["classes"]]}


def _rounded(value: Any, digits: int = 4) -> Any:
    """Four decimals: enough for every number that a chart shows."""
    if isinstance(value, Mapping):
        return {key: _rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item, digits) for item in value]
    return round(value, digits) + 0.0 if isinstance(value, float) else value  # −0.0 + 0.0 is 0.0


def number(value: Any, digits: int = 2) -> str:
    """A number for people; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10):
        return f"{int(value):,}"
    value = 0.0 if abs(value) < ROUNDING else value
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1g}".replace("-", "−", 1) if value < 0 else f"{value:.1g}"
    return f"{value:.{digits}f}".replace("-", "−")
