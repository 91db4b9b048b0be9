"""The rules that name a layer on a curve, without intervals or verdicts.

A rule sees curves oriented so that larger is better and answers with positions (0 … L − 1, NaN: none), for many
curves at once. `jumping_layer` and `converging_layer` are the rules of Jin et al. (2024, arXiv 2404.07066), on one
curve over blocks, counted from 1.

Shapes: L layers, M curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError

FloatArray = npt.NDArray[np.float64]

_JUMP = 1.1
_STILL = 0.03
ROUNDING = 1e-12  # ratios of counts that differ by less are equal


@dataclass(frozen=True)
class Rule:
    """A rule as asked for.

    Attributes:
        name: its first word.
        share: S of `within:S`.
        meaning: what it means that a layer is named.
        absence: what it means that none is.
    """

    name: str
    share: float = 1.0
    meaning: str = ""
    absence: str = ""


_MEANINGS = {
    "within": (
        "the first layer with {share:.10g}% of the peak's gain over chance",
        "no layer reaches that share of it",
    ),
    "peak": ("the best layer", "no layer is best"),
    "onset": ("the first layer above the maxima of permuted labels", "no layer is above them"),
    "jump": ("the first block with 1.1 times the accuracy of the block before", "no block jumps by a tenth"),
    "converge": ("the first block after the last change of 3 %", "there are too few blocks"),
    "centre": ("the centre of gravity of the gains over the first layer", "no layer gains on the first"),
    "separable": (
        "the first layer where these examples are strictly linearly separable",
        "no layer separates them",
    ),
}


NO_WHOLE_SAMPLE = "the rule 'separable' needs the whole sample (cv=None) and two classes"
NO_NULLS = "the rule 'onset' needs permuted labels; score with permutations=39, and without protocol='paper'"


def check_rule(rule: str) -> Rule:
    """The rule of that name.

    Raises:
        InputError: there is no such rule.
    """
    name, colon, argument = str(rule).partition(":")
    known = "within:S (0 < S ≤ 1), " + ", ".join(word for word in _MEANINGS if word != "within")
    if name not in _MEANINGS or (colon and name != "within"):
        raise InputError(f"rule {rule!r} is unknown; give one of {known}")
    share = 0.9
    if colon:
        try:
            share = float(argument)
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise InputError(f"rule {rule!r} needs a share between 0 and 1, as in within:0.9")
    meaning, absence = _MEANINGS[name]
    return Rule(name, share, meaning.format(share=100 * share), absence)


def first_true(mask_ML: npt.NDArray[np.bool_]) -> FloatArray:
    """(M,) position of the first true entry of each row, NaN where there is none."""
    return np.where(mask_ML.any(1), mask_ML.argmax(1), np.nan).astype(np.float64)


def interpolated(at_M: FloatArray, known: npt.NDArray[Any], values: npt.NDArray[Any]) -> FloatArray:
    """(M,) `numpy.interp`, but NaN stays NaN where there is one known point only."""
    return np.where(np.isnan(at_M), np.nan, np.interp(at_M, known, values))


def excess(rule: Rule, curve_ML: FloatArray, peak_M: FloatArray, chance: float, bar: float) -> FloatArray | None:
    """(..., L) by how much layers pass a rule that names the first to reach something; None for others.

    Args:
        rule: which.
        curve_ML: (..., L) curves.
        peak_M: (...) their peaks.
        chance: what the best constant prediction scores.
        bar: for `onset`.
    """
    if rule.name == "within":
        threshold_M = chance + rule.share * (peak_M - chance)
    elif rule.name == "onset":
        threshold_M = np.full_like(peak_M, bar)
    else:
        return None
    return np.asarray(curve_ML - threshold_M[..., None])


def positions(
    rule: Rule,
    curve_ML: FloatArray,
    peak_M: FloatArray,
    chance: float,
    bar: float,
    numbers: npt.NDArray[np.int64],
) -> FloatArray:
    """Where the rule falls on each curve.

    Args:
        rule: any but `separable`, which is no matter of scores.
        curve_ML: larger is better; accuracies for `jump` and `converge`.
        peak_M: height of each curve's peak.
        chance: what the best constant prediction scores.
        bar: for `onset`.
        numbers: (L,) of the layers, ascending: `centre` weighs by them, and for `jump` and `converge` the layers
            from 1 on are outputs of blocks.

    Returns:
        (M,) positions among the L layers, NaN for none.
    """
    over = excess(rule, curve_ML, peak_M, chance, bar)
    if over is not None:
        return first_true(over >= -ROUNDING)
    if rule.name == "peak":
        return first_true(curve_ML >= curve_ML.max(1, keepdims=True) - ROUNDING)
    if rule.name == "centre":
        return interpolated(_centre(curve_ML, numbers), numbers, np.arange(len(numbers)))
    at = np.flatnonzero(numbers >= 1)
    if len(at) < 2:
        return np.full(len(curve_ML), np.nan)
    named = jumping_layer if rule.name == "jump" else converging_layer
    found = [named(curve[at]) for curve in curve_ML]
    return np.array([np.nan if layer is None else at[layer - 1] for layer in found], dtype=np.float64)


def _centre(curve_ML: FloatArray, numbers: npt.NDArray[np.int64]) -> FloatArray:
    """Σ ℓ Δ_ℓ / Σ Δ_ℓ, Δ_ℓ the gain of layer ℓ over the best layer before it (Tenney et al. 2019, equation 3).

    Their scores are of probes that see all layers up to ℓ, which do not fall; the running maximum stands for that.
    """
    gain = np.diff(np.maximum.accumulate(curve_ML, axis=1), axis=1)
    total = gain.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = gain @ numbers[1:] / total
    return np.where(total > ROUNDING, centre, np.nan)


def jumping_layer(accuracy: npt.ArrayLike) -> int | None:
    """The jumping point of Jin et al.: the first block with at least 1.1 times the accuracy of the block before.

    Args:
        accuracy: accuracies of the blocks only, first block first.

    Returns:
        The block, counted from 1 (their published figures count from 0), or None where no block jumps.

    Raises:
        InputError: not a curve of two or more finite accuracies.
    """
    rate = _rates(accuracy)
    jumps = np.flatnonzero(rate >= _JUMP - ROUNDING)
    return int(jumps[0]) + 2 if len(jumps) else None


def converging_layer(accuracy: npt.ArrayLike, *, as_printed: bool = False) -> int:
    """The converging point of Jin et al.: the first block, 3 or later, after the last change of 3 % or more.

    With d blocks, rates β_i = α_i / α_(i−1) and i* the last 0-based block with |β_i − 1| ≥ 0.03 (0 if none), it is
    min(d, max(1, i*) + 2): the rule behind the values they published. The formula they print,
    max {i : |β_i − 1| < 0.03}, is another and names one of the last two blocks on every curve of theirs.

    Args:
        accuracy: accuracies of the blocks only, first block first.
        as_printed: compute the printed formula; its block, too, is counted from 1.

    Returns:
        The block, counted from 1.

    Raises:
        InputError: not a curve of two or more finite accuracies, or no block satisfies the printed formula.
    """
    rate = _rates(accuracy)
    changes = np.abs(rate - 1) >= _STILL - ROUNDING
    if as_printed:
        still = np.flatnonzero(~changes)
        if not len(still):
            raise InputError(
                "every block changes by 3 % or more, so the printed formula names none; leave as_printed out"
            )
        return int(still[-1]) + 2
    last = int(np.flatnonzero(changes)[-1]) + 1 if changes.any() else 0
    return min(len(rate) + 1, max(1, last) + 2)


def _rates(accuracy: npt.ArrayLike) -> FloatArray:
    """β_i = α_i / α_(i−1) for i = 1 … d − 1."""
    try:
        curve = np.asarray(accuracy, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a curve needs finite accuracies, one a block; got {accuracy!r}"[:200]) from error
    if curve.ndim != 1 or len(curve) < 2 or not np.isfinite(curve).all():
        raise InputError(f"a curve needs two or more finite accuracies, one a block; got shape {curve.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = curve[1:] / curve[:-1]
    return np.where(np.isnan(rate), 1.0, rate)
