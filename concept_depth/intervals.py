"""What a rule reads off a `LayerScores`, and how surely: peaks, bands, intervals, references.

Intervals resample groups jointly for all layers; each replicate reads one of the repeats. For rules that name the
first layer to reach something, the interval inverts a test: a layer can be the depth if its band reaches the
threshold and the best of the layers before it does not surely do so. For other rules it holds the middle 95 % of the
replicates' depths.

Nothing is read off a layer whose fits did not converge: neither peak, nor null, nor interval, nor rise knows it.

Shapes: L layers, B replicates, G groups, P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError
from concept_depth.probing.bootstrap import Resampler
from concept_depth.probing.nulls import p_value, threshold
from concept_depth.probing.scores import LayerScores
from concept_depth.rules import NO_NULLS, NO_WHOLE_SAMPLE, ROUNDING, Rule, excess, interpolated, positions

FloatArray = npt.NDArray[np.float64]

REPLICATES = 1000
HALVINGS = 16  # of the sample itself, for its cross-fitted peak
HALVINGS_EACH = 2  # of a replicate
Z = 1.959964  # normal quantile of a two-sided 95 % interval
Z_FIRST = 1.644854  # one-sided: only the true depth itself can be missed from this side
Z_LAST = 2.241403  # one-sided and for two layers: each layer shortly before the true depth can err on this side
LEVEL = 0.05
MIN_GAIN = 0.05  # over the best constant prediction, below which a concept counts as not read
WIDEST = 1 / 3 + 1e-9  # share of the network's depth beyond which an interval says too little


def readable_layers(scores: LayerScores) -> npt.NDArray[np.bool_]:
    """(L,) layers whose fits converged; nothing is read off the others. The paper's protocol is exempt."""
    if scores.settings.get("protocol") == "paper":
        return np.ones(len(scores.names), bool)
    return np.asarray(scores.converged >= 1 - 1e-9)


def check_has(scores: LayerScores, rule: Rule) -> None:
    """Raise an InputError where `scores` lacks what the rule is read off."""
    if rule.name == "separable" and not scores.separable:
        raise InputError(NO_WHOLE_SAMPLE)
    if rule.name == "onset" and not len(scores.null_max):
        raise InputError(NO_NULLS)


@dataclass(frozen=True, eq=False)
class Reading:
    """A `LayerScores` as one rule sees it, oriented so that larger is better.

    Attributes:
        scores: what is read.
        rule: by which rule.
        sign: −1 where small values of the scoring metric are good.
        curve: (L,) scoring metric.
        chance: what the best constant prediction scores on it.
        peak: cross-fitted; NaN where no layer's fits converged.
        so_far: (L',) cross-fitted peak among the layers up to each, of those whose fits converged.
    """

    scores: LayerScores
    rule: Rule
    sign: float
    curve: FloatArray = field(repr=False)
    chance: float
    peak: float
    so_far: FloatArray = field(repr=False)

    @classmethod
    def of(cls, scores: LayerScores, rule: Rule) -> Reading:
        """Read `scores` by `rule`."""
        check_has(scores, rule)
        resampler = Resampler(scores)
        whole = np.ones((1, resampler.n_groups))
        rng = _rng(scores, 4)
        peak, so_far = resampler.crossfitted_peaks(whole, None, HALVINGS, rng, readable_layers(scores))
        sign = resampler.sign
        curve, chance = scores.curve * sign, scores.chance * sign
        return cls(scores, rule, sign, curve, chance, float(peak.mean()), so_far[:, 0].mean(0))

    @property
    def best(self) -> float:
        """The raw maximum over layers, which the permutation maxima are compared with; NaN without any layer."""
        return float(self.curve[self.readable].max()) if self.readable.any() else float("nan")

    @cached_property
    def null_max(self) -> FloatArray:
        """(P,) permutation maxima over the same layers, oriented; empty without any layer."""
        if self.readable.all():
            return self.scores.null_max * self.sign
        if not self.readable.any():
            return np.empty(0)
        return np.asarray((self.scores.null_curves[:, self.readable] * self.sign).max(1))

    @property
    def p(self) -> float | None:
        """Permutation p-value of the maximum over layers; None without permutations."""
        return p_value(self.best, self.null_max)

    @property
    def gain(self) -> float:
        """Cross-fitted peak minus chance."""
        return self.peak - self.chance

    def is_read(self, min_gain: float = MIN_GAIN) -> bool:
        """Whether any layer reads the concept, so that a rule may name one; else the verdict is `never`.

        Whether a sample is separable is no matter of scores, so neither their nulls nor their gain decide it.
        """
        if self.rule.name == "separable":
            return True
        return (self.p is None or self.p <= LEVEL + 1e-9) and self.gain >= min_gain

    @property
    def in_sample(self) -> bool:
        """Whether probes were scored on what they were fitted to."""
        return self.scores.in_sample

    @cached_property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(L,) see `readable_layers`."""
        return readable_layers(self.scores)

    @property
    def rule_metric(self) -> str | None:
        """The rules of Jin et al. are defined on accuracy."""
        return "accuracy" if self.rule.name in ("jump", "converge") else None

    @property
    def _bar(self) -> float:
        bar = threshold(self.null_max) if len(self.null_max) else None
        return self.chance if bar is None else max(bar, self.chance)

    def fall(self, curve_ML: FloatArray, peak_M: FloatArray) -> FloatArray:
        """(M,) positions of the rule on curves."""
        layers = np.flatnonzero(self.readable)
        # Jin et al. compare each block with the one before, so none may be missing.
        if not len(layers) or (self.rule_metric is not None and not self.readable.all()):
            return np.full(len(curve_ML), np.nan)
        numbers = np.asarray(self.scores.numbers)
        known = np.isfinite(curve_ML[:, layers]).all(1)
        curves = curve_ML[known][:, layers]
        out = np.full(len(curve_ML), np.nan)
        found = positions(self.rule, curves, peak_M[known], self.chance, self._bar, numbers[layers])
        # Between two layers a position means a number between theirs, whatever was left out between them.
        out[known] = interpolated(
            interpolated(found, np.arange(len(layers)), numbers[layers]), numbers, np.arange(len(numbers))
        )
        return out

    def position(self) -> float | None:
        """The rule's position among the layers; None where it names none."""
        if self.rule.name == "separable":
            return self._separable()
        curve = self.curve if self.rule_metric is None else self.scores.metric("accuracy").mean(1)
        found = float(self.fall(curve[None], np.array([self.peak]))[0])
        return None if np.isnan(found) else found

    def _separable(self) -> float | None:
        """First exactly separable layer, unless random labels would as likely be separable there (Cover)."""
        for position, layer in enumerate(self.scores.separable):
            if layer["cover_probability"] <= 0.5 and layer["separable"]:
                return float(position)
        return None

    @property
    def crowded(self) -> list[int]:
        """Layers that are separable in so many dimensions that any labels would probably be (Cover)."""
        layers = enumerate(self.scores.separable)
        return [at for at, layer in layers if layer["separable"] and layer["cover_probability"] > 0.5]

    def unsayable(self) -> str | None:
        """Why exact separability of this sample says nothing, or None: random labels would be separable too."""
        if not self.crowded:
            return None
        found = [self.scores.separable[at] for at in self.crowded]
        needed = [layer["n_directions"] for layer in found if layer["n_directions"] is not None]
        fewest = (
            f"; the fewest leading principal directions that separate them are {min(needed)}" if needed else ""
        )
        where = (
            ""
            if len(found) == len(self.scores.names)
            else f"at {self.named(self.crowded)} a hyperplane separates them, but "
        )
        told = f"so many dimensions would probably separate any labels of {found[0]['n']} examples (Cover)"
        return f"{where}{told}{fewest}"

    def named(self, positions: Sequence[int]) -> str:
        """Layers in words: "layer 3", "layers 3, 4"."""
        numbers = ", ".join(str(self.scores.numbers[at]) for at in positions)
        return f"{'layer' if len(positions) == 1 else 'layers'} {numbers}"

    @cached_property
    def _replicates(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Curves (B, L) of resampled groups; of E halvings each their peaks (E, B) and up to layers (E, B, L')."""
        resampler, rng = Resampler(self.scores), _rng(self.scores, 5)
        weight, repeat = resampler.draw(REPLICATES, rng)
        curves = resampler.curves(weight, repeat)
        return curves, *resampler.crossfitted_peaks(weight, repeat, HALVINGS_EACH, rng, self.readable)

    def interval(self) -> tuple[float, float] | None:
        """95 % interval in layer numbers; None where the rule has none."""
        if self.rule.name == "separable":
            return None
        curves, peaks, _ = self._replicates
        numbers = np.asarray(self.scores.numbers, np.float64)
        if (ends := self._inverted()) is not None:
            return float(numbers[ends[0]]), float(numbers[ends[1]])
        if self.rule_metric is not None:
            resampler, rng = Resampler(self.scores, self.rule_metric), _rng(self.scores, 5)
            curves = resampler.curves(*resampler.draw(REPLICATES, rng))
        found = self.fall(curves, peaks.mean(0))
        found = found[np.isfinite(found)]
        if not len(found):
            return None
        low_position, high_position = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2], method="inverted_cdf")
        order = np.arange(len(numbers))
        return float(np.interp(low_position, order, numbers)), float(np.interp(high_position, order, numbers))

    def _inverted(self) -> tuple[int, int] | None:
        """First layer that may have reached the threshold, and the one up to which some layer surely has.

        "Some layer up to l has reached it" is tested on the best of them, cross-fitted. Where the curve lies flat
        just above the threshold no layer alone surely has, but the best of them all has by definition. None for
        rules without a threshold.
        """
        layers = np.flatnonzero(self.readable)
        curves, peaks, so_far = self._replicates
        alone = self._margin(self.curve[layers], self.peak, curves[:, layers], peaks)
        best = self._margin(self.so_far, self.so_far[-1], so_far, so_far[..., -1])
        if alone is None or best is None:
            return None
        low = int((alone[0] + Z_FIRST * alone[1] >= -ROUNDING).argmax())  # the first of all, where none may
        surely = np.flatnonzero(best[0] - Z_LAST * best[1] >= -ROUNDING)
        high = int(surely[0]) if len(surely) else len(layers) - 1
        depth = int((alone[0] >= -ROUNDING).argmax())  # is always inside
        return int(layers[low]), int(layers[max(low, depth, high)])

    def _margin(
        self, curve_L: FloatArray, peak: float, drawn_BL: FloatArray, peak_EB: FloatArray
    ) -> tuple[FloatArray, FloatArray] | None:
        """(L,) by how much each layer exceeds the threshold, and the standard errors of that.

        The sample's peaks are means of more halvings than a replicate's, so the share of the replicates' variance
        that comes of their few halvings is taken out. `drawn_BL` may be (E, B, L), one for each halving.
        """
        over = excess(self.rule, curve_L, np.array(peak), self.chance, self._bar)
        drawn_EBL = excess(self.rule, drawn_BL, peak_EB, self.chance, self._bar)
        if over is None or drawn_EBL is None:
            return None
        drawn_EBL = drawn_EBL[:, np.isfinite(drawn_EBL).all((0, 2))]
        if not drawn_EBL.shape[1]:
            return over, np.zeros(len(over))
        of_halvings = drawn_EBL.var(0, ddof=1).mean(0) * (1 / len(drawn_EBL) - 1 / HALVINGS)
        return over, np.sqrt(np.maximum(drawn_EBL.mean(0).var(0) - of_halvings, 0.0))

    def curve_interval(self) -> FloatArray:
        """(L, 2) pointwise 95 % interval of the scores, in their own orientation.

        Shares (accuracy, balanced accuracy, F1, AUROC) get Wilson's interval with the effective number of examples
        that the group bootstrap's variance implies (the number of groups where it implies none, as at 100 %);
        losses and bits get the bootstrap's normal interval.
        """
        deviation = _spread(self._replicates[0])
        if self.scores.scoring in ("log_loss", "v_information"):
            ends = np.stack([self.curve - Z * deviation, self.curve + Z * deviation], 1) * self.sign
            return np.sort(ends, axis=1)
        share = np.clip(self.curve, 0.0, 1.0)
        tested = int((self.scores.fold >= 0).any(0).sum())
        groups = min(tested, Resampler(self.scores).n_groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            implied = share * (1 - share) / deviation**2
        effective = np.where(np.isfinite(implied) & (implied > 0), np.clip(implied, 1.0, tested), groups)
        return wilson(share, effective)

    def null_band(self) -> FloatArray:
        """(L,) 95th percentile of each layer's permuted scores, in the scores' orientation; empty without any."""
        null = self.scores.null_curves
        return np.quantile(null * self.sign, 0.95, axis=0) * self.sign if len(null) else np.empty(0)

    def remark(self) -> str:
        """What a reader must know besides: unconverged layers, scores on the training sample."""
        if self.rule.name == "separable":
            return ""
        parts = []
        left_out = np.flatnonzero(~self.readable).tolist()
        if left_out:
            parts.append(f" Fits at {self.named(left_out)} did not converge; nothing was read off them.")
        if self.in_sample:
            parts.append(" Probes were scored on the examples they were fitted to.")
        if not len(self.scores.null_max) and self.scores.settings.get("protocol") != "paper":
            parts.append(" No permutations were run.")
        return "".join(parts)


def wilson(share: FloatArray, n: FloatArray) -> FloatArray:
    """(..., 2) Wilson's 95 % interval of shares out of n trials."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return np.stack([np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)], -1)


def known_rows(values_BL: FloatArray) -> FloatArray:
    """The replicates in which some fold held every class, so that they have scores."""
    return np.asarray(values_BL[np.isfinite(values_BL).all(1)])


def _spread(values_BL: FloatArray) -> FloatArray:
    """(L,) standard deviation over the replicates that have scores."""
    known = known_rows(values_BL)
    return np.asarray(known.std(0)) if len(known) else np.zeros(values_BL.shape[1])


def first_above(scores: LayerScores, other: LayerScores, name: str) -> int | None:
    """Number of the first layer that beats the best layer of `other`, paired and simultaneous over layers.

    With d_l the difference of scores, s_l its deviation over resampled groups and q the 95th percentile over
    replicates of max_l (d*_l − d_l) / s_l, layer l beats the reference when d_l > q s_l.

    Args:
        scores: what is compared.
        other: the reference; its best layer stands for it.
        name: its name, for messages.

    Raises:
        InputError: the two are not of the same examples, or not scored by the same metric.
    """
    if scores.scoring != other.scoring:
        raise InputError(
            f"reference {name!r} is scored by {other.scoring}, not by {scores.scoring}; score both alike"
        )
    mine, theirs = Resampler(scores), Resampler(other)
    same = np.array_equal(scores.labels, other.labels) and np.array_equal(scores.groups, other.groups)
    if not same or not np.array_equal(mine.group_ids, theirs.group_ids):
        raise InputError(
            f"reference {name!r} is of other examples; give scores of the same examples, labels and groups"
        )
    layers, reference = np.flatnonzero(readable_layers(scores)), np.flatnonzero(readable_layers(other))
    if not len(layers) or not len(reference):
        return None
    rng = _rng(scores, 6)
    best = int(reference[(other.curve * theirs.sign)[reference].argmax()])
    weight, repeat = mine.draw(REPLICATES, rng)
    other_repeat = None if repeat is None else repeat % theirs.n_repeats
    mine_BL, theirs_BL = mine.curves(weight, repeat), theirs.curves(weight, other_repeat)
    drawn = known_rows(np.asarray(mine_BL[:, layers] - theirs_BL[:, [best]]))
    difference = (scores.curve[layers] - other.curve[best]) * mine.sign
    deviation = np.maximum(drawn.std(0), 1e-9)
    bar = np.quantile(((drawn - difference) / deviation).max(1), 1 - LEVEL)
    beats = np.flatnonzero(difference > bar * deviation)
    return scores.numbers[layers[beats[0]]] if len(beats) else None


def rising_regions(scores: LayerScores) -> tuple[tuple[int, int], ...]:
    """Where along depth the curve surely rises: regions from one layer number to another.

    For every pair of layers l < m let d = s_m − s_l, with its deviation over resampled groups. The 95th
    percentile q of the largest standardised error over all pairs makes "d > q deviations" simultaneous. Shortest
    pairs that pass, those with no passing pair inside, are where a rise can be told; touching ones are joined
    (Dümbgen and Walther 2008).
    """
    resampler, rng = Resampler(scores), _rng(scores, 7)
    layers = np.flatnonzero(readable_layers(scores))
    curves = known_rows(resampler.curves(*resampler.draw(REPLICATES, rng))[:, layers])
    curve = scores.curve[layers] * resampler.sign
    low, high = np.triu_indices(len(curve), 1)
    if not len(low):
        return ()
    rise, drawn = curve[high] - curve[low], curves[:, high] - curves[:, low]
    deviation = np.maximum(drawn.std(0), 1e-9)
    bar = np.quantile(((drawn - rise) / deviation).max(1), 1 - LEVEL)
    passing = [
        (int(a), int(b)) for a, b in zip(low[rise > bar * deviation], high[rise > bar * deviation], strict=True)
    ]
    # From right to left, a pair is shortest for its left end if it ends before every pair found so far.
    shortest: list[tuple[int, int]] = []
    for a, b in sorted(passing, key=lambda pair: (-pair[0], pair[1])):
        if not shortest or b < shortest[-1][1]:
            shortest.append((a, b))
    regions: list[tuple[int, int]] = []
    for a, b in reversed(shortest):
        if regions and a <= regions[-1][1]:
            regions[-1] = (regions[-1][0], max(b, regions[-1][1]))
        else:
            regions.append((a, b))
    return tuple((scores.numbers[layers[a]], scores.numbers[layers[b]]) for a, b in regions)


def _rng(scores: LayerScores, purpose: int) -> np.random.Generator:
    return np.random.default_rng([int(scores.settings.get("random_state", 0)), purpose])
