"""`find_depth`: the layer that a rule names on a curve of scores, with interval, nulls, references and a verdict.

`jumping_layer` and `converging_layer` are the rules of Jin et al. (2024) on bare curves. The rules themselves are
in `rules.py`, resampling in `probing/bootstrap.py`.

Shapes: L layers, B bootstrap replicates, P permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError
from concept_depth.intervals import MIN_GAIN, WIDEST, Reading, first_above, rising_regions
from concept_depth.probing import nulls
from concept_depth.probing.scores import LayerScores
from concept_depth.rules import check_rule, converging_layer, jumping_layer

__all__ = ["Depth", "check_rule", "converging_layer", "find_depth", "jumping_layer"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Depth:
    """At which layer, how surely, and why not.

    Attributes:
        layer: name of the layer, or None.
        number: its number, or None.
        fraction: number / total, or None; for the rule `centre` a centre between layers.
        interval: 95 % interval of the fraction, or None.
        interval_numbers: the same in layer numbers.
        verdict: found, at_input, never, undefined or unstable.
        sentence: the verdict in words.
        rule: the rule as given.
        p: permutation p-value of the maximum over layers; None without permutations.
        gain: cross-fitted peak minus chance (for log-loss chance minus peak); NaN where no layer's fits converged.
        above: reference → number of the first layer that beats it, or None; None throughout in sample (`cv=None`).
        total: what the numbers are counted against.
        peak: height of the peak, its layer chosen and scored on different groups; NaN likewise.
        curve: (L,) the scores the rule read.
        curve_interval: (L, 2) pointwise 95 % interval of each score.
        null_band: (L,) 95th percentile of each layer's permuted scores (5th for log-loss); empty without.
        null_threshold: what the maximum over layers had to exceed; None without permutations.
        rises: regions (from, to) of layer numbers in which the curve surely rises (`rising_regions`).
    """

    layer: str | None
    number: int | None
    fraction: float | None
    interval: tuple[float, float] | None
    interval_numbers: tuple[float, float] | None
    verdict: str
    sentence: str
    rule: str
    p: float | None
    gain: float
    above: Mapping[str, int | None]
    total: int
    peak: float
    curve: FloatArray = field(repr=False)
    curve_interval: FloatArray = field(repr=False)
    null_band: FloatArray = field(repr=False)
    null_threshold: float | None = None
    rises: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        if self.number is None or self.fraction is None:
            return f"no layer of {self.total}: {self.verdict}"
        interval = "" if self.interval is None else f", 95% {self.interval[0]:.2f}–{self.interval[1]:.2f}"
        return f"layer {self.number} of {self.total} ({self.fraction:.2f}{interval}): {self.verdict}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; None stands for what is not there."""
        return {
            "layer": self.layer,
            "number": self.number,
            "total": self.total,
            "fraction": self.fraction,
            "interval": None if self.interval is None else list(self.interval),
            "interval_numbers": None if self.interval_numbers is None else list(self.interval_numbers),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "rule": self.rule,
            "p": self.p,
            "gain": _finite(self.gain),
            "peak": _finite(self.peak),
            "above": dict(self.above),
            "curve": [_finite(value) for value in self.curve],
            "curve_interval": [[_finite(low), _finite(high)] for low, high in self.curve_interval],
            "null_band": [_finite(value) for value in self.null_band],
            "null_threshold": self.null_threshold,
            "rises": [list(region) for region in self.rises],
        }


def find_depth(
    scores: LayerScores,
    *,
    rule: str = "within:0.9",
    references: Mapping[str, LayerScores] | None = None,
    min_gain: float = MIN_GAIN,
) -> Depth:
    """The layer at which a concept becomes readable, by a rule, with an interval and a verdict.

    Args:
        scores: from `score_layers`.
        rule: `within:S` (first layer that reaches chance + S · (peak − chance)), `peak`, `onset` (first layer
            above the permutation maxima), `jump` and `converge` (Jin et al., on the accuracy of the blocks),
            `centre` (centre of gravity of the gains, Tenney et al. 2019), `separable` (needs `score_layers(...,
            cv=None)`).
        references: name → scores of something the concept may be read from without the network, on the same
            examples; they decide no verdict but fill `above`.
        min_gain: gain over the best constant prediction below which the verdict is `never`.

    Returns:
        The depth. The same scores give the same interval: its random draws are seeded by the scores'
        `random_state`.

    Raises:
        InputError: there is no such rule, or references or scores do not fit it (`onset` needs permutations).
    """
    parsed = check_rule(rule)
    if not isinstance(scores, LayerScores):
        raise InputError(f"{type(scores).__name__} is no LayerScores; give what score_layers returns")
    check_min_gain(min_gain)
    _check(references)
    reading = Reading.of(scores, parsed)
    bar = nulls.threshold(reading.null_max) if len(reading.null_max) else None
    position = reading.position() if reading.is_read(min_gain) else None
    span = reading.interval() if position is not None and not reading.in_sample else None
    verdict, sentence = _verdict(scores, reading, position, span, min_gain)
    number = None if position is None else float(np.interp(position, np.arange(len(scores.names)), scores.numbers))
    total = max(scores.total, 1)
    ends = None if span is None else (float(span[0]), float(span[1]))
    nearest = None if number is None else int(np.argmin(np.abs(np.asarray(scores.numbers) - number)))
    return Depth(
        layer=None if nearest is None else scores.names[nearest],
        number=None if nearest is None else scores.numbers[nearest],
        fraction=None if number is None else number / total,
        interval=None if ends is None else (ends[0] / total, ends[1] / total),
        interval_numbers=ends,
        verdict=verdict,
        sentence=sentence,
        rule=rule,
        p=reading.p,
        gain=reading.gain,
        above=_above(scores, references or {}, reading),
        total=scores.total,
        peak=reading.peak * reading.sign,
        curve=reading.curve * reading.sign,
        curve_interval=reading.curve_interval(),
        null_band=reading.null_band(),
        null_threshold=None if bar is None else bar * reading.sign,
        rises=() if reading.in_sample else rising_regions(scores),
    )


def _above(scores: LayerScores, references: Mapping[str, LayerScores], reading: Reading) -> dict[str, int | None]:
    """The first layer that beats each reference; none in sample, where the widest features win."""
    return {
        name: None if reading.in_sample else first_above(scores, other, name) for name, other in references.items()
    }


def check_min_gain(min_gain: object) -> None:
    """Raise an InputError where `min_gain` is none that `find_depth` takes."""
    if isinstance(min_gain, bool) or not isinstance(min_gain, Real) or not 0 <= float(min_gain) < 1:
        raise InputError(f"min_gain={min_gain!r} is not allowed; give a number from 0 to 1, 0.05 by default")


def _check(references: object) -> None:
    if references is None:
        return
    if not isinstance(references, Mapping) or not all(isinstance(x, LayerScores) for x in references.values()):
        raise InputError(
            "references must map names to scores; give for example references={'embeddings': score_layers(...)}"
        )


def _verdict(
    scores: LayerScores,
    reading: Reading,
    position: float | None,
    span: tuple[float, float] | None,
    min_gain: float,
) -> tuple[str, str]:
    """The verdict and its sentence."""
    rule, p, gain = reading.rule, reading.p, reading.gain
    if rule.name != "separable" and not reading.readable.any():
        return "undefined", (
            "The fits of no layer converged, so nothing was read off them: give a stronger penalty (C=0.01), or "
            "features of like size (standardize=True)."
        )
    height = f"{scores.scoring.replace('_', ' ')} peaks at {reading.peak * reading.sign:.2f}"
    against = f"{height}, where chance is {scores.chance:.2f}"
    tail = reading.remark()
    if rule.name == "separable":
        if position is None and (crowded := reading.unsayable()) is not None:
            return "undefined", f"Not to be said: {crowded}."
        if position is None:
            return "never", "No layer separates these examples strictly by a hyperplane."
        height = "every example stands on its class's side of a hyperplane"
        if passed := [at for at in reading.crowded if at < position]:
            height += f" (also at {reading.named(passed)}, where so many dimensions would separate any labels)"
        p, gain = None, np.inf
    if p is not None and p > 0.05 + 1e-9:
        return "never", f"No layer reads this concept better than permuted labels: {against} (p = {p:.3g}).{tail}"
    if gain < min_gain:
        return "never", f"No layer reads this concept: {against}, a gain of less than {min_gain:g}.{tail}"
    if position is None:
        return "undefined", f"The concept is readable ({height}), but {rule.absence}.{tail}"
    number = float(np.interp(position, np.arange(len(scores.names)), scores.numbers))
    where = f"layer {number:g}" if number == round(number) else f"layer {number:.1f}"
    if span is not None and (span[1] - span[0]) / max(scores.total, 1) > WIDEST:
        return "unstable", (
            f"The rule names {where}, but anything from layer {span[0]:g} to {span[1]:g} is compatible with these "
            f"examples, more than a third of the network.{tail}"
        )
    if number == 0:
        return "at_input", f"Layer 0, what enters the first block, already qualifies: {rule.meaning}.{tail}"
    first = "" if position else " It is the first layer that was measured."
    return "found", f"From {where} of {scores.total}: {rule.meaning}; {height}.{first}{tail}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
