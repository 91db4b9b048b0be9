"""Words and colours that figures, pages and tables have in common, and the order in which runs are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concept_depth.reporting.record import Report

# Okabe and Ito (2008), "Color Universal Design": told apart with every common kind of colour vision.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PALE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, "#4d4d4d")

METRICS: Mapping[str, str] = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1": "F1",
    "auroc": "AUROC",
    "log_loss": "log loss",
    "v_information": "V-information (bits)",
}

VERDICTS: Mapping[str, str] = {
    "found": "found",
    "at_input": "at the input",
    "never": "never",
    "undefined": "undefined",
    "unstable": "unstable",
}

REFERENCES: Mapping[str, str] = {
    "embedding": "embedding mean",
    "lexical": "lexical",
    "random": "random weights",
    "random_weights": "random weights",
}


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRICS.get(metric, metric.replace("_", " "))


def reference_name(name: str) -> str:
    """A reference in words."""
    return REFERENCES.get(name, name.replace("_", " "))


def line_name(run: Report, runs: Sequence[Report]) -> str:
    """What tells a run apart from others of its concept: the model, the condition, or both."""
    models = {other.model for other in runs}
    conditions = {other.condition for other in runs}
    parts = [run.model] if len(models) > 1 or len(conditions) == 1 else []
    if len(conditions) > 1:
        parts.append(run.condition or "plain")
    return ", ".join(parts)


def lines_of(runs: Sequence[Report]) -> list[str]:
    """The distinct line names, in the order of the runs: their index gives the colour."""
    return list(dict.fromkeys(line_name(run, runs) for run in runs))


def by_concept(runs: Sequence[Report]) -> dict[str, list[Report]]:
    """Runs by concept, the earliest depth first and concepts without a depth last."""
    concepts: dict[str, list[Report]] = {}
    for run in runs:
        concepts.setdefault(run.concept, []).append(run)
    return dict(sorted(concepts.items(), key=lambda item: (*_mean_depth(item[1]), item[0])))


def _mean_depth(runs: Sequence[Report]) -> tuple[bool, float]:
    fractions = [run.depth["fraction"] for run in runs if run.depth["fraction"] is not None]
    # A concept that half of the models never read stands below those that all of them read.
    return (2 * len(fractions) < len(runs), sum(fractions) / len(fractions) if fractions else 1.0)


def depth_words(depth: Mapping[str, Any], *, short: bool = False) -> str:
    """A depth for people: "layer 11 of 30" and its interval, or the verdict where there is none."""
    if depth["number"] is None:
        return VERDICTS.get(depth["verdict"], str(depth["verdict"]))
    words = f"{depth['number']:g}" if short else f"layer {depth['number']:g} of {depth['total']}"
    if depth.get("interval_numbers"):
        low, high = depth["interval_numbers"]
        words += f" [{low:g}, {high:g}]"
    return words


def verdict_sentence(run: Report) -> str:
    """One sentence that says what was found, for people who read nothing else."""
    from concept_depth.reporting.views import visible

    name, depth = visible(run.concept, 80), run.depth
    total, where = depth["total"], depth_words(depth)
    if run.verdict == "never":
        return f"{name} is not linearly separable at any of the layers up to {total}."
    if depth["number"] is None:
        return f"{name}: {depth['sentence']}"
    if run.verdict == "at_input":
        return f"{name} is linearly separable already at the input (layer {depth['number']:g} of {total})."
    sentence = f"{name} is linearly separable from {where}{above_words(run)}"
    if run.verdict == "unstable":
        return f"{sentence}; the interval is too wide to name a layer with confidence."
    return f"{sentence}."


def above_words(run: Report) -> str:
    """How the depth stands to the references, as the end of a sentence: ", above every control from layer 10"."""
    references = run.record["references"]
    if not references:
        return ""
    numbers = {name: above_number(run, reference["above"]) for name, reference in references.items()}
    missing = [reference_name(name) for name, number in numbers.items() if number is None]
    if missing:
        return f", but never above {' and '.join(missing)}"
    highest = max(number for number in numbers.values() if number is not None)
    if run.depth["number"] is not None and highest <= run.depth["number"]:
        return ", above every control there"
    return f", above every control from layer {highest:g}"


def above_number(run: Report, above: Any) -> float | None:
    """The number of the layer that first beats a reference, given by name or number."""
    layers = run.record["layers"]
    if above in layers["names"]:
        return float(layers["numbers"][layers["names"].index(above)])
    return float(above) if isinstance(above, int | float) else None


def anchoring_score(run: Report) -> float | None:
    """How often what the model says is right, if it was asked."""
    anchoring = run.record["anchoring"] or {}
    for key in ("balanced_accuracy", "accuracy"):
        if isinstance(anchoring.get(key), int | float):
            return float(anchoring[key])
    return None
