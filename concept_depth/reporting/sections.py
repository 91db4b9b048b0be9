"""What the sections of a page say, as plain data for its template: facts, tables, sentences.

Decides wording and rounding, measures nothing. The template escapes; `visible` has made texts harmless before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from concept_depth.reporting import drawings, style
from concept_depth.reporting.views import visible

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report


def sections_of_one(run: Report) -> dict[str, Any]:
    """Sections of the page of a single run."""
    return {
        "curve": drawings.curve(run),
        "judged": _judged([run]),
        "in_sample": run.in_sample,
        "facts": _facts(run),
        "layer_table": _layer_table(run),
        "has_space": bool(run.views.get("space")),
        "layers": run.record["layers"],
        "separability": _separability(run),
        "has_separation": run.record["geometry"].get("separation") is not None,
        "has_cosine": run.record["geometry"].get("cosine") is not None,
        "wrong": _wrong(run),
        "anchoring": _anchoring(run),
        "paired": paired_rows(run.record["paired"]),
        "audit": _audit(run),
        "tokens": _tokens(run.record["tokens"]),
        "warnings": _warnings(run),
        "origin": _origin(run),
        "command": run.run.get("command"),
    }


def _judged(runs: Sequence[Report]) -> str:
    """On which examples the probes of these runs were scored."""
    fitted = sum(run.in_sample for run in runs)
    if 0 < fitted < len(runs):
        return "on examples it has not seen, or, where cv is none, on those it was fitted on"
    return "on the examples it was fitted on" if fitted else "on examples it has not seen"


def sections_of_many(runs: Sequence[Report], paired: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Sections of the page of many runs."""
    lines = style.Lines(runs)
    return {
        "heat": _heat(runs) if len(lines) > 1 else None,
        "several_lines": len(lines) > 1,
        "judged": _judged(runs),
        "curves": [
            {"name": visible(concept, 80), "drawing": drawings.curve(members[0], width=340, height=200)}
            for concept, members in style.by_concept(runs).items()
        ],
        "paired": [
            *paired_rows(paired),
            *(row for run in runs for row in paired_rows(run.record["paired"], run.concept)),
        ],
        "origins": [{"label": visible(run.label, 120), "rows": _origin(run)} for run in runs],
        "commands": list(dict.fromkeys(str(run.run["command"]) for run in runs if run.run.get("command"))),
    }


def _facts(run: Report) -> list[dict[str, str]]:
    """The numbers that stand large under the verdict."""
    record, depth = run.record, run.depth
    scores = record["scores"]
    best = max((v for v in run.curve() if v is not None), default=None)
    low_high = depth.get("interval")
    found = depth["fraction"] is not None
    facts = [
        ("relative depth", f"{depth['fraction']:.2f}" if found else "–", _interval(low_high)),
        (
            "peak" if depth.get("peak") is not None else "best layer",
            _plain(depth.get("peak", best)),
            _peak_note(run),
        ),
        ("gain over chance", _signed(depth["gain"]), f"p {_p(depth['p'])}" if depth["p"] is not None else ""),
        ("examples", f"{record['n_examples']:,}", f"in {record['n_groups']:,} groups"),
        ("fits", f"{scores['n_fits']:,}", "logistic probes"),
    ]
    return [{"name": name, "value": value, "note": note} for name, value, note in facts]


def _peak_note(run: Report) -> str:
    return f"{style.metric_name(run.record['scores']['scoring'])}, chance {run.record['scores']['chance']:.2f}"


def _interval(pair: Any) -> str:
    return f"95 % interval {pair[0]:.2f}–{pair[1]:.2f}" if pair else ""


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("score", value.get("value"))
    return "–" if not isinstance(value, int | float) else f"{value:.2f}"


def _signed(value: Any) -> str:
    return "–" if value is None else f"{value:+z.2f}".replace("-", "−")


def _p(value: float) -> str:
    return f"= {value:.3f}".rstrip("0") if value >= 0.001 else "< 0.001"


def _layer_table(run: Report) -> dict[str, Any]:
    """The numbers of the chart, for those who read rather than look."""
    scores, layers = run.record["scores"], run.record["layers"]
    metrics = list(scores["means"])
    rows = []
    for i, name in enumerate(layers["names"]):
        interval = scores["interval"][i] if scores["interval"] else None
        null = scores["null_band"][i] if isinstance(scores["null_band"], list) else scores["null_band"]
        rows.append(
            {
                "number": layers["numbers"][i],
                "name": visible(name, 60),
                "interval": interval,
                "null": null,
                "values": [scores["means"][metric][i] for metric in metrics],
                "is_depth": name == run.depth["layer"],
            }
        )
    return {"metrics": [style.metric_name(m) for m in metrics], "rows": rows}


def _separability(run: Report) -> list[dict[str, Any]]:
    """Whether the sample itself is strictly separable, layer by layer, where that was decided."""
    rows = [row for row in run.record.get("separability") or [] if isinstance(row, Mapping)]
    shown = []
    for number, row in zip(run.record["layers"]["numbers"], rows, strict=False):
        separable = row.get("separable")
        shown.append(
            {
                "layer": number,
                "answer": "–" if separable is None else "separable" if separable else "not separable",
                "margin": row.get("margin") if separable else None,
                "n_directions": row.get("n_directions"),
                "chance": row.get("cover_probability"),
            }
        )
    return shown


def _wrong(run: Report) -> dict[str, Any] | None:
    wrong = run.views.get("wrong")
    if not wrong or not wrong["of"]:
        return None
    classes = [visible(name, 60) for name in run.record["classes"]]
    rows = [
        {
            "text": row["text"],
            "index": row["index"],
            "label": classes[row["label"]],
            "predicted": classes[row["predicted"]],
            "percent": f"{100 * row['probability']:.0f} %",
        }
        for row in wrong["rows"]
    ]
    return {**wrong, "rows": rows, "share": f"{100 * wrong['total'] / wrong['of']:.1f} %"}


def _anchoring(run: Report) -> dict[str, Any] | None:
    anchoring = run.record["anchoring"]
    says = style.anchoring_score(run)
    if not anchoring or says is None:
        return None
    calibrated = anchoring.get("calibrated")
    calibrated = calibrated if isinstance(calibrated, Mapping) else {}
    metric = "balanced_accuracy" if "balanced_accuracy" in anchoring else "accuracy"
    known = [v for v in run.record["scores"]["means"].get(metric, run.curve()) if v is not None]
    best = max(known, default=None)
    gap = None if best is None else best - says
    return {
        "says": f"{100 * says:.0f} %",
        "calibrated": f"{100 * calibrated[metric]:.0f} %" if calibrated.get(metric) is not None else None,
        "knows": None if best is None else f"{100 * best:.0f} %",
        "gap": None if gap is None else f"{100 * gap:+.0f}".replace("-", "−"),
        "rows": flatten({key: value for key, value in anchoring.items() if not _is_long(value)}),
    }


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 12


def paired_rows(paired: Any, concept: str = "") -> list[dict[str, Any]]:
    """Comparisons of conditions, as `comparison.Comparison.to_dict` gives them, for a table."""
    return [
        {
            "concept": visible(str(entry.get("concept", concept)), 80),
            "name": visible(str(entry.get("condition", "condition")), 100),
            "depth": _signed(entry.get("delta_depth")),
            "depth_interval": entry.get("delta_depth_interval"),
            "p_depth": entry.get("p_depth"),
            "peak": _signed(entry.get("delta_peak")),
            "peak_interval": entry.get("delta_peak_interval"),
            "p_peak": entry.get("p_peak"),
            "paired": entry.get("paired", True),
        }
        for entry in paired or []
    ]


def _audit(run: Report) -> dict[str, Any]:
    """The leak audit in sentences, with the rest as recorded."""
    audit = run.record["audit"]
    sentences = [_kept_together(run)]
    if audit.get("n_groups") is not None:
        several = audit.get("groups_with_several_classes")
        holding = f"; {several:,} of them hold more than one class" if several is not None else ""
        biggest = f", the largest of {audit['largest_group']:,}" if audit.get("largest_group") else ""
        sentences.append(
            f"{run.record['n_examples']:,} examples stand in {audit['n_groups']:,} groups{biggest}{holding}."
        )
    if audit.get("naive_leak") is not None:
        sentences.append(
            f"A split that ignores groups tests {100 * audit['naive_leak']:.0f} % of its examples on probes that "
            "have seen another member of their group."
        )
    said = {"n_groups", "largest_group", "groups_with_several_classes", "naive_leak", "leak"}
    rest = {key: value for key, value in audit.items() if key not in said and not isinstance(value, list)}
    return {"sentences": sentences, "rows": flatten(rest), "has_curve": bool(audit.get("naive_curve"))}


def _kept_together(run: Report) -> str:
    if run.in_sample:
        return "Nothing was split here: probes were judged on the examples they were fitted on."
    leak = run.record["audit"].get("leak")
    if leak:
        return (
            f"The splits used here do not keep groups together: {100 * leak:.0f} % of the test examples have "
            "a member of their group in training."
        )
    return "Examples of one group (a fact and its false twin) never stand on both sides of a split."


def _tokens(tokens: Any) -> list[dict[str, Any]]:
    """Examples as the network takes them, the tokens that are read marked.

    An example is a mapping (`tokens`, `rows`, `label`), or a line as `concept-depth tokens` prints it:
    `label (8 tokens): The| city|【.】`.
    """
    shown = []
    for example in tokens or []:
        if isinstance(example, str):
            label, _, line = example.partition(": ")
            parts = line.split("|")
            read = {i for i, part in enumerate(parts) if part.startswith("【") and part.endswith("】")}
            parts = [part[1:-1] if i in read else part for i, part in enumerate(parts)]
        else:
            label, parts, read = example.get("label", ""), example.get("tokens", []), set(example.get("rows", []))
        pieces = [{"text": visible(str(part), 40) or " ", "read": i in read} for i, part in enumerate(parts)]
        shown.append({"pieces": pieces, "label": visible(str(label), 60)})
    return shown


def _warnings(run: Report) -> list[str]:
    """What a reader must know before trusting the numbers."""
    scores, layers = run.record["scores"], run.record["layers"]
    found = []
    unsure = [
        n
        for n, share in zip(layers["numbers"], scores["converged"] or [], strict=False)
        if share is not None and share < 1
    ]
    if unsure:
        found.append(f"At {_layers(unsure)} not every fit converged; nothing should be read off there.")
    edge = [
        n
        for n, share in zip(layers["numbers"], scores["at_edge"] or [], strict=False)
        if share is not None and share > 0.5
    ]
    if edge:
        found.append(f"At {_layers(edge)} most folds chose a C at the edge of the grid.")
    return found


def _layers(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{number:g}" for number in numbers[:8])
    return f"layer{'s' if len(numbers) > 1 else ''} {shown}{' …' if len(numbers) > 8 else ''}"


def _origin(run: Report) -> list[dict[str, Any]]:
    """Everything a number depends on, as named tables."""
    record = run.record
    parts = [
        ("Concept", record["concept"]),
        ("Network", record["subject"]),
        ("Extraction", record["extraction"]),
        ("Probes", record["probe"]),
        ("Versions", record["versions"]),
        ("Run", run.run),
    ]
    return [{"name": name, "rows": flatten(part)} for name, part in parts if part]


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of dotted names and readable values; long values are shortened."""
    return list(_flat(value, prefix))


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{visible(str(key), 60)}"
        if isinstance(item, Mapping):
            if item:
                yield from _flat(item, f"{name}.")
        elif isinstance(item, list):
            yield name, visible(", ".join("–" if part is None else str(part) for part in item), 160)
        elif item is not None and item != "":
            yield name, visible(f"{item:.6g}" if isinstance(item, float) else str(item), 400)


def _heat(runs: Sequence[Report]) -> dict[str, Any]:
    """Concept × line, with the colour of each cell as a step of a scale of 0 … 20."""
    lines = style.Lines(runs)
    rows = []
    for concept, members in style.by_concept(runs).items():
        cells: list[dict[str, Any] | None] = [None] * len(lines)
        for run in members:
            fraction = run.depth["fraction"]
            cells[lines.place(run)] = {
                "text": style.VERDICTS.get(run.verdict, run.verdict) if fraction is None else f"{fraction:.2f}",
                "step": None if fraction is None else round(20 * min(max(fraction, 0.0), 1.0)),
                "tip": f"{visible(run.label, 120)}: {style.depth_words(run.depth)}",
                "verdict": run.verdict,
            }
        rows.append({"concept": visible(concept, 60), "cells": cells})
    return {"lines": [visible(line, 60) for line in lines.names], "rows": rows}
