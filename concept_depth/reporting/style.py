"""Words and colours that figures, pages and tables have in common, and the order in which runs are shown."""

from __future__ import annotations

from collections import Counter
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


class Lines:
    """What tells runs apart from others of their concept: the model, the condition, or both, else their place.

    Args:
        runs: all that are shown together. A line's place among the distinct names gives its colour.
    """

    def __init__(self, runs: Sequence[Report]) -> None:
        several_models = len({run.model for run in runs}) > 1
        several_conditions = len({run.condition for run in runs}) > 1
        labels = Counter(run.label for run in runs)
        seen: Counter[str] = Counter()
        self._name: dict[int, str] = {}
        for run in runs:
            parts = [run.model] if several_models or not several_conditions else []
            if several_conditions:
                parts.append(run.condition or "plain")
            if labels[run.label] > 1:
                seen[run.label] += 1
                parts.append(f"run {seen[run.label]}")
            self._name[id(run)] = ", ".join(parts)
        self.names = tuple(dict.fromkeys(self._name.values()))
        self._place = {name: place for place, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def name(self, run: Report) -> str:
        """The name of a run's line."""
        return self._name[id(run)]

    def place(self, run: Report) -> int:
        """The place of a run's line among the distinct names."""
        return self._place[self._name[id(run)]]


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
        words += f" [{low:g},\u00a0{high:g}]"  # an interval is not broken between its ends
    return words


def verdict_sentence(run: Report) -> str:
    """One sentence that says what was found, for people who read nothing else."""
    from concept_depth.reporting.views import visible

    name, depth = visible(run.concept, 80), run.depth
    if run.verdict == "never":
        return f"{name} is not linearly separable at any layer up to {depth['total']}."
    if depth["number"] is None:
        return f"{name} is readable, but its depth is undefined under the rule {depth['rule']}."
    if run.verdict == "unstable":
        low, high = depth.get("interval_numbers") or (depth["number"], depth["number"])
        return (
            f"{name} is linearly separable, but from which layer is open: {low:g} to {high:g} of {depth['total']}."
        )
    if run.verdict == "at_input":
        return f"{name} is linearly separable already at the input, layer {depth['number']:g} of {depth['total']}."
    return _found_sentence(run, name)


def _found_sentence(run: Report, name: str) -> str:
    """The layer, and how it stands to the references."""
    where, number = depth_words(run.depth), run.depth["number"]
    above = {key: above_number(run, reference["above"]) for key, reference in run.record["references"].items()}
    known = [layer for layer in above.values() if layer is not None]
    missing = [reference_name(key) for key, layer in above.items() if layer is None]
    if not above or run.in_sample:
        return f"{name} is linearly separable from {where}."
    if missing:
        return f"{name} is linearly separable from {where}, but never above the control {' or '.join(missing)}."
    if max(known) <= number:
        return f"{name} is linearly separable above every control from {where}."
    return f"{name} is linearly separable from {where}, above every control from layer {max(known):g}."


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
