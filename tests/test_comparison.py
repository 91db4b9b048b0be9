"""Comparisons: a planted difference is found, none is not, and what cannot be compared is refused."""

from dataclasses import replace

import numpy as np
import pytest

from concept_depth.activations import Activations
from concept_depth.comparison import compare
from concept_depth.depth import find_depth
from concept_depth.errors import InputError
from concept_depth.probing.protocol import score_layers


def planted(first, *, layers=7, n=160, seed=0, noise=1.0):
    """Activations in which the label can be read from layer `first` on."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    hidden = [
        rng.normal(size=(n, 6)) * noise
        + (4.0 * (2 * labels[:, None] - 1) * (np.arange(6) == 0) if i >= first else 0)
        for i in range(layers)
    ]
    return Activations.from_arrays(hidden, labels, groups=np.arange(n) // 2)


def scored(first, **kwargs):
    return score_layers(planted(first, **kwargs), C=0.1, permutations=0, random_state=0)


def test_a_planted_difference_is_found_and_its_sign_turns_with_the_order():
    early, late = scored(2), scored(5, seed=1)
    there, back = compare(early, late), compare(late, early)
    assert there.paired
    assert there.delta_depth == pytest.approx(0.5)
    assert there.delta_depth_interval[0] > 0
    assert there.p_depth <= 0.05
    assert back.delta_depth == pytest.approx(-0.5)
    assert "Δdepth +0.50" in str(there)


def test_a_measurement_does_not_differ_from_itself():
    same = compare(scored(3), scored(3))
    assert same.delta_depth == 0
    assert same.delta_peak == 0
    assert same.delta_depth_interval == (0, 0)
    assert same.p_depth == 1
    assert same.p_peak == 1


def test_a_depth_that_is_hardly_known_is_called_so():
    weak = [
        score_layers(planted(3, noise=5.0, seed=seed), C=0.1, permutations=0, random_state=0) for seed in range(6)
    ]
    wide = next(s for s in weak if find_depth(s).verdict == "unstable")
    same = compare(wide, wide)
    low, high = find_depth(wide).interval
    assert same.interval_a == same.interval_b == (low, high)
    assert same.delta_depth_interval == (0, 0)
    assert f"the second depth may lie anywhere from {low:.2f} to {high:.2f}" in str(same)
    assert "anywhere" not in str(compare(scored(3), scored(3)))


def test_other_examples_are_compared_apart():
    apart = compare(scored(2), scored(4, n=200))
    assert not apart.paired
    assert apart.delta_depth == pytest.approx(2 / 6)
    assert apart.p_depth < 0.05


def test_networks_of_other_depth_are_compared_by_fraction():
    comparison = compare(scored(3), scored(6, layers=13))
    assert comparison.paired
    assert comparison.delta_depth == pytest.approx(0)


@pytest.mark.parametrize("rule", ["jump", "converge"])
def test_the_rules_of_the_paper_are_resampled_on_accuracy_whatever_the_scoring(rule):
    a, b = (
        score_layers(planted(first, n=400, seed=seed), C=0.1, scoring="log_loss", permutations=0, repeats=1)
        for seed, first in enumerate((2, 5))
    )
    comparison = compare(a, b, rule=rule)
    low, high = comparison.delta_depth_interval
    assert comparison.delta_depth == pytest.approx(0.5)
    assert low <= 0.5 <= high
    assert comparison.p_depth <= 0.05


def test_a_concept_that_is_never_read_has_no_depth_to_compare():
    noise = score_layers(planted(99), C=0.1, permutations=19, random_state=0)
    assert find_depth(noise).verdict == "never"  # the premise
    for comparison in (compare(scored(2), noise), compare(noise, scored(2))):
        assert comparison.delta_depth is None
        assert comparison.delta_depth_interval is None
        assert comparison.p_depth is None
    assert compare(scored(2), noise).depth_b is None
    assert compare(scored(2), noise).p_peak <= 0.05


def test_layers_are_exchanged_only_where_their_depths_are_the_same():
    a = scored(3)
    comparison = compare(a, replace(a, total=12))
    assert comparison.paired
    assert comparison.delta_depth == pytest.approx(-0.25)
    assert comparison.delta_depth_interval == pytest.approx((-0.25, -0.25))
    assert comparison.p_depth <= 0.05


def test_scores_of_the_training_sample_are_compared_with_their_like_only():
    acts = planted(2)
    split, whole = (score_layers(acts, cv=cv, C=0.1, permutations=0) for cv in (5, None))
    with pytest.raises(InputError, match="the second is scored on the examples its probes were fitted to"):
        compare(split, whole)
    assert compare(whole, whole).delta_depth == 0


def test_what_cannot_be_compared_is_refused():
    a = scored(2)
    with pytest.raises(InputError, match="no layer of the second converged"):
        compare(a, replace(a, converged=np.zeros(7)))
    with pytest.raises(InputError, match="needs permuted labels"):
        compare(a, a, rule="onset")
    with pytest.raises(InputError, match="no seed"):
        compare(a, a, random_state=-1)
    with pytest.raises(InputError, match="no interval"):
        compare(a, a, rule="separable")
    other = score_layers(planted(2), C=0.1, permutations=0, scoring="auroc")
    with pytest.raises(InputError, match="score both alike"):
        compare(a, other)


def test_examples_of_other_classes_are_not_paired():
    a = scored(3)
    assert compare(a, a).paired
    assert not compare(a, replace(a, classes=("no", "yes"))).paired


def test_a_side_that_gains_too_little_has_no_depth():
    a = scored(3)
    assert compare(a, a, min_gain=0.4).depth_a == pytest.approx(0.5)
    assert compare(a, a, min_gain=0.6).depth_a is None


def test_peaks_are_told_as_the_metric_counts_them():
    a = score_layers(planted(3), C=0.1, permutations=0, scoring="log_loss")
    assert compare(a, a).peak_a == find_depth(a).peak > 0


def test_an_interval_of_exactly_a_third_is_not_called_wide():
    same = compare(scored(3), scored(3))
    assert "anywhere" not in replace(same, interval_a=(2 / 3, 1.0), interval_b=(1 / 3, 2 / 3)).sentence
    assert "anywhere" in replace(same, interval_a=(2 / 3 - 0.01, 1.0)).sentence
