"""Two curves compared: how far apart are the depths, and how far the peaks?

*Paired*, where both were scored on the same examples, groups and folds (two templates, noises, precisions, or
two models): every bootstrap replicate draws the same groups and repeat for both. Otherwise the two are resampled
apart. The test of no difference exchanges the two conditions within random groups (a sign flip a group): groups
are what is independent, so McNemar's test over examples would not be valid for twins.

Shapes: L layers, M replicates, N examples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.depth import check_min_gain
from concept_depth.errors import InputError, check_seed
from concept_depth.intervals import MIN_GAIN, WIDEST, Reading, check_has, readable_layers
from concept_depth.probing.bootstrap import Resampler
from concept_depth.probing.scores import LayerScores
from concept_depth.rules import Rule, check_rule, interpolated

FloatArray = npt.NDArray[np.float64]

REPLICATES = 1000
FLIPS = 199
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """How `b` differs from `a`. Differences are b − a; depths are fractions of each network.

    Attributes:
        paired: whether both are of the same examples, groups and folds.
        rule: by which depth was read.
        depth_a: depth of a, or None where the rule names no layer or the verdict is `never`.
        depth_b: depth of b, likewise.
        interval_a: 95 % interval of the depth of a by itself, as `find_depth` gives it; None where it gives none.
        interval_b: of b, likewise.
        delta_depth: difference of the two; None where either is None.
        delta_depth_interval: its 95 % interval over resampled groups.
        p_depth: p-value of no difference in depth (sign flips over groups; unpaired: from the bootstrap).
        peak_a: cross-fitted peak of a, as the metric counts.
        peak_b: cross-fitted peak of b, likewise.
        delta_peak: difference of the two, oriented so that more is better.
        delta_peak_interval: its 95 % interval.
        p_peak: p-value of no difference in peak.
        n_groups: groups that were resampled (the smaller number, where unpaired).
    """

    paired: bool
    rule: str
    depth_a: float | None
    depth_b: float | None
    interval_a: tuple[float, float] | None
    interval_b: tuple[float, float] | None
    delta_depth: float | None
    delta_depth_interval: tuple[float, float] | None
    p_depth: float | None
    peak_a: float
    peak_b: float
    delta_peak: float
    delta_peak_interval: tuple[float, float]
    p_peak: float
    n_groups: int

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if self.delta_depth is None or self.delta_depth_interval is None:
            depth = "no difference in depth can be given (no layer is named on one side or both)"
        else:
            low, high = self.delta_depth_interval
            depth = f"Δdepth {self.delta_depth:+.2f} (95% {low:+.2f} to {high:+.2f}, p = {self.p_depth:.3f})"
        for which, interval in (("first", self.interval_a), ("second", self.interval_b)):
            # What resampling moves alike on both sides says nothing of how well either depth is known.
            if interval is not None and interval[1] - interval[0] > WIDEST:
                depth += f", but the {which} depth may lie anywhere from {interval[0]:.2f} to {interval[1]:.2f}"
        low, high = self.delta_peak_interval
        peak = f"Δpeak {self.delta_peak:+.3f} (95% {low:+.3f} to {high:+.3f}, p = {self.p_peak:.3f})"
        return f"{depth}; {peak}; {'paired' if self.paired else 'unpaired'}, {self.n_groups} groups"

    def __str__(self) -> str:
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**asdict(self), "sentence": self.sentence}


def compare(
    a: LayerScores,
    b: LayerScores,
    *,
    rule: str = "within:0.9",
    min_gain: float = MIN_GAIN,
    random_state: int = 0,
) -> Comparison:
    """Compare two measurements: b against a.

    Args:
        a: scores of the first condition or model.
        b: scores of the second.
        rule: how depth is read.
        min_gain: gain over the best constant prediction below which a side has no depth.
        random_state: seed of bootstrap and flips.

    Returns:
        The differences b − a with intervals and p-values.

    Raises:
        InputError: the two are scored by different metrics, one of them on its training sample, no layer of one
            converged, the rule cannot be resampled, or a value is out of its range.
    """
    check_min_gain(min_gain)
    check_seed(random_state)
    for scores in (a, b):
        if not isinstance(scores, LayerScores):
            raise InputError(f"{type(scores).__name__} is no LayerScores; give what score_layers returns, twice")
    chosen = check_rule(rule)
    if chosen.name == "separable":
        raise InputError("the rule 'separable' has no interval; compare by 'within:0.9', 'onset' or 'peak'")
    if a.scoring != b.scoring:
        raise InputError(f"the two are scored by {a.scoring} and {b.scoring}; score both alike to compare them")
    fitted = [scores.in_sample for scores in (a, b)]
    if fitted[0] != fitted[1]:
        raise InputError(
            f"the {'first' if fitted[0] else 'second'} is scored on the examples its probes were fitted to (cv=None), "
            "the other is not; score both alike to compare them"
        )
    for scores, which in ((a, "first"), (b, "second")):
        check_has(scores, chosen)
        if not readable_layers(scores).any():
            raise InputError(
                f"the fits of no layer of the {which} converged; score it again with a stronger penalty (C=0.01)"
            )
    paired = is_paired(a, b)
    rng = np.random.default_rng(random_state)
    sides = [_Side(scores, chosen, min_gain) for scores in (a, b)]
    draws = [sides[0].resampler.draw(REPLICATES, rng)]
    draws.append(draws[0] if paired else sides[1].resampler.draw(REPLICATES, rng))
    # One seed for both sides: the same halves choose and score the peak.
    seed = int(rng.integers(2**31))
    drawn = [side.read(*draw, seed=seed) for side, draw in zip(sides, draws, strict=True)]
    depths, peaks = [side.depth() for side in sides], [side.reading.peak for side in sides]
    delta = None if None in depths else float(np.subtract(depths[1], depths[0]))  # type: ignore[arg-type]
    spread_depth, spread_peak = drawn[1][0] - drawn[0][0], drawn[1][1] - drawn[0][1]
    delta_peak = peaks[1] - peaks[0]
    # The test exchanges layer by layer, which takes layers of the same relative depths.
    if paired and np.array_equal(a.fractions, b.fractions):
        p_depth, p_peak = _flip_test(a, b, chosen, seed)
    else:
        p_depth, p_peak = _bootstrap_p(spread_depth), _bootstrap_p(spread_peak)
    known_depth, known_peak = (spread[np.isfinite(spread)] for spread in (spread_depth, spread_peak))
    return Comparison(
        paired=paired,
        rule=rule,
        depth_a=depths[0],
        depth_b=depths[1],
        interval_a=sides[0].interval(),
        interval_b=sides[1].interval(),
        delta_depth=delta,
        delta_depth_interval=None if delta is None or not len(known_depth) else _interval(known_depth),
        p_depth=None if delta is None else p_depth,
        peak_a=peaks[0] * sides[0].resampler.sign,
        peak_b=peaks[1] * sides[1].resampler.sign,
        delta_peak=delta_peak,
        delta_peak_interval=_interval(known_peak),
        p_peak=p_peak,
        n_groups=min(side.resampler.n_groups for side in sides),
    )


def is_paired(a: LayerScores, b: LayerScores) -> bool:
    """Whether two scores go together row by row: the same classes, labels, groups and folds, in the same order."""
    return a.classes == b.classes and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("labels", "groups", "fold")
    )


class _Side:
    """One of the two, with its resampler and how its rule is read."""

    def __init__(self, scores: LayerScores, rule: Rule, min_gain: float = MIN_GAIN) -> None:
        self.min_gain = min_gain
        self.resampler = Resampler(scores)
        # Without the peak of the sample itself, which `read` does not ask for and which costs most.
        sign = self.resampler.sign
        self.plain = Reading(
            scores, rule, sign, scores.curve * sign, scores.chance * sign, float("nan"), np.empty(0)
        )
        metric = self.plain.rule_metric
        self.of_rule = self.resampler if metric is None else Resampler(scores, metric)
        self.fractions = scores.fractions

    @cached_property
    def reading(self) -> Reading:
        """The sample itself, read as `find_depth` reads it."""
        return Reading.of(self.plain.scores, self.plain.rule)

    def depth(self) -> float | None:
        """Depth as a fraction; None where `find_depth` names no layer."""
        position = self.reading.position() if self.reading.is_read(self.min_gain) else None
        return None if position is None else float(self._fraction(np.array([position]))[0])

    def interval(self) -> tuple[float, float] | None:
        """The interval of `find_depth` as fractions; None where it gives none."""
        known = self.depth() is not None and not self.reading.in_sample
        ends = self.reading.interval() if known else None
        total = max(self.plain.scores.total, 1)
        return None if ends is None else (ends[0] / total, ends[1] / total)

    def read(
        self, weight: npt.NDArray[Any], repeat: npt.NDArray[np.int64] | None, *, seed: int
    ) -> tuple[FloatArray, FloatArray]:
        """Depths (M,) as fractions, NaN where the rule names no layer, and peaks (M,) of weightings."""
        rng, readable = np.random.default_rng(seed), self.plain.readable
        curves = self.of_rule.curves(weight, repeat)
        peaks = self.resampler.crossfitted_peaks(weight, repeat, 2, rng, readable)[0].mean(0)
        return self._fraction(self.plain.fall(curves, peaks)), peaks

    def _fraction(self, position_M: FloatArray) -> FloatArray:
        return interpolated(position_M, np.arange(len(self.fractions)), self.fractions)


def _flip_test(a: LayerScores, b: LayerScores, rule: Rule, seed: int) -> tuple[float, float]:
    """P-values of the depth and peak differences when conditions are exchanged within random groups."""
    rng = np.random.default_rng(seed)
    _, group_of = np.unique(a.groups, return_inverse=True)

    def differences(swap_N: npt.NDArray[np.bool_]) -> tuple[float, float]:
        sides = [_Side(_mixed(x, y, swap_N), rule) for x, y in ((a, b), (b, a))]
        whole = np.ones((1, sides[0].resampler.n_groups))
        (depth_a, peak_a), (depth_b, peak_b) = (side.read(whole, None, seed=seed) for side in sides)
        # Where the rule names no layer on one side, the difference counts as extreme: that is the safe side.
        depth = abs(float(depth_b[0] - depth_a[0]))
        return (np.inf if np.isnan(depth) else depth), abs(float(peak_b[0] - peak_a[0]))

    observed = differences(np.zeros(len(group_of), bool))
    flips = rng.random((FLIPS, int(group_of.max()) + 1)) < 0.5
    flipped = np.array([differences(flip[group_of]) for flip in flips])
    # The observed arrangement is one of those that were possible, hence the ones.
    depth_p, peak_p = (1 + (flipped >= np.array(observed) - 1e-12).sum(0)) / (FLIPS + 1)
    return float(depth_p), float(peak_p)


def _mixed(a: LayerScores, b: LayerScores, swap_N: npt.NDArray[np.bool_]) -> LayerScores:
    """`a` with the decisions of `b` on the swapped examples, to be resampled: its stored scores are still of `a`.

    Layers count where the fits of both converged.
    """
    where = swap_N[:, None] if a.decision.ndim == 4 else swap_N
    both = readable_layers(a) & readable_layers(b)
    return replace(a, decision=np.where(where, b.decision, a.decision), converged=both.astype(np.float64))


def _interval(values_M: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values_M, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _bootstrap_p(differences_M: FloatArray) -> float:
    """Two-sided p-value from a bootstrap distribution: twice its smaller tail beyond zero."""
    known = differences_M[np.isfinite(differences_M)]
    if not len(known):
        return 1.0
    below, above = (known <= 0).sum(), (known >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1)))
