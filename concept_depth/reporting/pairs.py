"""Runs compared two by two: conditions of one model and concept, or one folder of runs against another.

Reads the scores that stand beside each record; what is compared and how is decided in `concept_depth.comparison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError

if TYPE_CHECKING:
    from concept_depth.comparison import Comparison
    from concept_depth.reporting.record import Report

SCORES = "scores.safetensors"
MOST = 48  # comparisons made for a page unasked: each takes a second or two


def compare_runs(a: Report, b: Report, *, rule: str | None = None, random_state: int = 0) -> Comparison:
    """Compare run `b` against run `a`, by the rule and the least gain of `a` unless another rule is given.

    Raises:
        InputError: a run was not read from a folder with scores, or the two do not fit together.
    """
    from concept_depth.comparison import compare
    from concept_depth.probing.scores import LayerScores

    scores = []
    for run in (a, b):
        if run.folder is None:
            raise InputError(f"{run.label} was not read from a folder; compare runs that load_runs gave")
        scores.append(LayerScores.load(run.folder / SCORES))
    settings = a.record["extras"].get("settings") or {}
    gain = {"min_gain": float(settings["min_gain"])} if "min_gain" in settings else {}
    return compare(scores[0], scores[1], rule=rule or str(a.depth["rule"]), random_state=random_state, **gain)


def compare_conditions(runs: Sequence[Report]) -> list[dict[str, Any]]:
    """Every condition of a model and concept against its plain run, as `paired` entries of a page.

    Where there is no plain run, the first by name stands for it, and the entries name it. Runs without stored scores
    or of other metrics are left out, and so is everything where there would be more than `MOST` comparisons:
    'concept-depth compare' makes those that are wanted.
    """
    groups: dict[tuple[str, str], list[Report]] = {}
    for run in runs:
        if run.folder is not None and (run.folder / SCORES).is_file():
            groups.setdefault((run.model, run.concept), []).append(run)
    several_models = len({run.model for run in runs}) > 1
    wanted: list[tuple[Report, Report]] = []
    for members in groups.values():
        plain = min(members, key=lambda run: (run.condition != "", run.condition))
        wanted.extend((plain, run) for run in members if run.condition != plain.condition)
    if len(wanted) > MOST:
        return []
    entries = []
    for plain, run in wanted:
        if plain.record["scores"]["scoring"] != run.record["scores"]["scoring"]:
            continue
        model = f"{run.model}: " if several_models else ""
        against = f" against {plain.condition}" if plain.condition else ""
        entries.append(entry(run.concept, f"{model}{run.condition}{against}", compare_runs(plain, run)))
    return entries


def compare_folders(
    left: Sequence[Report], right: Sequence[Report], *, rule: str | None = None, random_state: int = 0
) -> list[tuple[str, Comparison]]:
    """The runs on the right against those on the left, concept by concept; single runs whatever their concepts.

    Where a side holds several runs of a concept, those of one model and condition go together.

    Returns:
        (name, comparison): the concept, with model and condition where the right side has several runs of it.

    Raises:
        InputError: the two sides have no concept in common, or it is not clear which runs go together.
    """
    several = Counter(run.concept for run in right)
    pairs = [
        (run.label if several[run.concept] > 1 else run.concept, other, run)
        for run in right
        if (other := _partner(run, left)) is not None
    ]
    if not pairs and len(left) == len(right) == 1:
        pairs = [(f"{left[0].concept} / {right[0].concept}", left[0], right[0])]
    if not pairs:
        names = " against ".join(", ".join(run.concept for run in side) for side in (left, right))
        raise InputError(f"the two have no concept in common: {names}; give runs of the same concepts")
    return [(name, compare_runs(a, b, rule=rule, random_state=random_state)) for name, a, b in pairs]


def _partner(run: Report, others: Sequence[Report]) -> Report | None:
    """The one of `others` that is of the concept of `run`, and as far as needed of its model and condition."""
    alike = [other for other in others if other.concept == run.concept]
    for attribute in ("model", "condition"):
        if len(alike) > 1:
            same = [other for other in alike if getattr(other, attribute) == getattr(run, attribute)]
            alike = same or alike
    if len(alike) > 1:
        places = " or ".join(str(other.folder or other.label) for other in alike)
        raise InputError(
            f"{run.label} could be compared with {places}; give folders in which one run of a model, concept and "
            "condition stands"
        )
    return alike[0] if alike else None


def entry(concept: str, condition: str, comparison: Comparison) -> dict[str, Any]:
    """A comparison as a page shows it."""
    return {"concept": concept, "condition": condition, **comparison.to_dict()}
