"""Rules, intervals and verdicts, on published curves and on scores made for the purpose."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import correlate1d, gaussian_filter1d
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from concept_depth import intervals
from concept_depth.activations import Activations
from concept_depth.depth import check_rule, converging_layer, find_depth, jumping_layer
from concept_depth.errors import InputError
from concept_depth.intervals import Reading
from concept_depth.probing import bootstrap, metrics
from concept_depth.probing.bootstrap import Resampler
from concept_depth.probing.protocol import score_layers
from concept_depth.probing.scores import LayerScores
from concept_depth.probing.splits import make_splits


def published_curves(shared_data):
    curves = json.loads((shared_data / "jin2024" / "curves.json").read_text())
    return {name: np.array(value["correct"]) / value["n_test"] for name, value in curves.items()}


def test_the_converging_layer_is_the_published_one_on_every_curve_that_can_be_recovered(shared_data):
    published = json.loads((shared_data / "jin2024" / "published.json").read_text())
    curves = published_curves(shared_data)
    assert len(curves) == 18  # Gemma-7B and LLaMA-7B on nine data sets
    for name, accuracy in curves.items():
        model, dataset = name.split("/")
        assert converging_layer(accuracy) == published[model]["converging_layer"][dataset], name


def test_the_printed_formula_names_one_of_the_last_two_blocks_on_every_curve(shared_data):
    for name, accuracy in published_curves(shared_data).items():
        assert len(accuracy) - converging_layer(accuracy, as_printed=True) in (0, 1), name


def test_the_jumping_layer_counts_from_one_and_is_mostly_missing(shared_data):
    jumps = {name: jumping_layer(accuracy) for name, accuracy in published_curves(shared_data).items()}
    # The figures count blocks from 0.
    found = {name: layer - 1 for name, layer in jumps.items() if layer is not None}
    assert found == {
        "Gemma-7B/Coinflip": 13,
        "Gemma-7B/Cities": 2,
        "Gemma-7B/Counterfact": 6,
        "Gemma-7B/STSA": 1,
        "LLaMA-7B/Coinflip": 2,
        "LLaMA-7B/Cities": 4,
        "LLaMA-7B/Counterfact": 6,
        "LLaMA-7B/STSA": 12,
    }


def test_converging_layers_of_bare_curves_follow_from_the_rule():
    assert converging_layer([0.5] * 10) == 3
    assert converging_layer([0.5, 0.9] + [0.9] * 8) == 3
    assert converging_layer([0.5, 0.5, 0.5, 0.9] + [0.9] * 6) == 5
    assert converging_layer([0.5] * 9 + [0.6]) == 10
    assert jumping_layer([0.5] * 10) is None
    assert jumping_layer([0.5, 0.5, 0.55]) == 3


@pytest.mark.parametrize("curve", [[], [0.5], [0.5, np.nan], [[0.5, 0.6]]])
def test_what_is_no_curve_is_refused(curve):
    with pytest.raises(InputError, match="two or more finite accuracies"):
        converging_layer(curve)


@pytest.mark.parametrize("rule", ["within:2", "within:x", "within:0", "jump:3", "highest", ""])
def test_unknown_rules_are_refused_with_the_known_ones(rule):
    with pytest.raises(InputError, match="within"):
        check_rule(rule)


def made(curve, *, n=200, scoring="balanced_accuracy", seed=0, null=None, numbers=None, shared=1.0, repeats=2):
    """Scores with a given curve: every example of a layer is right with the curve's probability.

    `shared` is the chance that an example has one luck for all layers: right at one, it is right at every better.
    """
    rng = np.random.default_rng(seed)
    labels, groups = np.tile([0, 1], n // 2), np.repeat(np.arange(n // 2), 2)
    common, own = rng.random((1, 1, n)), rng.random((len(curve), repeats, n))
    right = np.where(rng.random((1, 1, n)) < shared, common, own) < np.asarray(curve)[:, None, None]
    decision = np.where(right, 1.0, -1.0) * (2 * labels - 1)
    decision = (decision * rng.uniform(0.5, 2, size=n)).astype(np.float32)
    splits = make_splits(labels, groups, repeats=repeats, random_state=seed)
    per_fold = {name: np.empty((len(curve), len(splits))) for name in metrics.METRICS}
    for s, (_, test) in enumerate(splits.pairs):
        for name, values in per_fold.items():
            part = decision[:, splits.repeat[s], test]
            values[:, s] = metrics.score(name, part, np.broadcast_to(labels[test], part.shape), 2)
    null_curves = np.empty((0, len(curve))) if null is None else np.asarray(null)
    return LayerScores(
        names=tuple(f"layer.{i}" for i in range(len(curve))),
        numbers=tuple(range(len(curve))) if numbers is None else numbers,
        total=len(curve) - 1 if numbers is None else numbers[-1],
        classes=("no", "yes"),
        labels=labels,
        groups=groups,
        per_fold=per_fold,
        decision=decision,
        fold=splits.fold,
        repeat=splits.repeat,
        scoring=scoring,
        chance=metrics.chance(scoring, labels, 2),
        null_curves=null_curves,
        null_max=null_curves.max(1) if len(null_curves) else np.empty(0),
        converged=np.ones(len(curve)),
        C_chosen=np.ones((len(curve), len(splits))),
        at_edge=np.zeros(len(curve)),
        n_fits=0,
        settings={"random_state": seed, "cv": 5},
    )


STEP = [0.5] * 5 + [0.9] * 6


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1", "auroc", "log_loss", "v_information"])
def test_resampled_curves_are_metrics_of_resampled_examples(metric):
    scores = made([0.5, 0.7, 0.9], n=80, scoring=metric)
    resampler = Resampler(scores)
    weight = np.random.default_rng(0).integers(0, 3, size=(4, resampler.n_groups))
    curves = resampler.curves(weight, np.array([0, 1, 0, 1])) * resampler.sign
    for m, repeat in enumerate([0, 1, 0, 1]):
        for layer in range(3):
            values = []
            for fold in range(5):
                rows = np.flatnonzero(scores.fold[repeat] == fold)
                copies = np.repeat(rows, weight[m, scores.groups[rows]])  # the slow way: repeat the examples
                part = scores.decision[layer, repeat, copies][None]
                value = metrics.score(metric, part, scores.labels[copies][None], 2)[0]
                if metric == "v_information":  # what labels alone tell is that of the fold as it is
                    value += np.subtract(
                        *(metrics.entropy_bits(scores.labels[i][None], 2)[0] for i in (rows, copies))
                    )
                values.append(value)
            assert curves[m, layer] == pytest.approx(np.nanmean(values), abs=1e-6)


def test_the_cross_fitted_peak_is_not_the_raw_maximum_of_a_plateau():
    flat = made([0.8] * 40, n=200, shared=0.0)
    found = find_depth(flat)
    assert flat.curve.max() > 0.83  # the premise: the best of forty noisy layers
    assert found.peak == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("scoring", sorted(metrics.METRICS))
def test_halves_of_the_examples_do_not_lower_the_peak_of_equal_layers(scoring):
    scores = made([0.9] * 6, n=60, scoring=scoring)  # one luck for all layers: there is nothing to choose
    assert np.ptp(scores.curve) == 0  # the premise
    assert find_depth(scores, min_gain=0.0).peak == pytest.approx(scores.curve[0], abs=0.03)


def test_the_summit_is_found_on_slow_rises_and_after_jumps():
    x, rng = np.linspace(0, 1, 31), np.random.default_rng(0)
    slow, jump = 0.5 + 0.3 * (1 - np.exp(-3 * x)), np.where(x < 0.4, 0.5, 0.9 - 0.2 * (x - 0.4) / 0.6)
    lost = {}
    for name, curve in {"slow": slow, "jump": jump}.items():
        noisy = curve + rng.normal(scale=0.02, size=(400, 31))
        narrow = correlate1d(noisy, [0.25, 0.5, 0.25], axis=1, mode="nearest").argmax(1)
        wide = gaussian_filter1d(noisy, 3.1, axis=1, mode="nearest").argmax(1)
        chosen = {"ours": bootstrap._highest(noisy)[0], "narrow": narrow, "wide": wide}
        lost[name] = {way: curve.max() - curve[layers].mean() for way, layers in chosen.items()}
    assert lost["slow"]["ours"] < 0.6 * lost["slow"]["narrow"]
    assert lost["jump"]["ours"] < 0.3 * lost["jump"]["wide"]
    assert bootstrap._highest(np.full((1, 31), 0.7))[0] == 0
    assert bootstrap._highest(np.where(np.arange(31) == 12, 0.85, 0.7)[None])[0] == 12


def test_the_best_layer_so_far_is_the_first_of_the_highest():
    curves = np.random.default_rng(0).integers(0, 4, size=(50, 12)) / 4
    smooth = correlate1d(curves, [0.25, 0.5, 0.25], axis=1, mode="nearest")
    slowly = [[int(row[: layer + 1].argmax()) for layer in range(12)] for row in smooth]
    assert [list(row) for row in bootstrap._highest(curves)[1]] == slowly


def test_cross_fitted_peaks_are_those_of_plain_loops_over_halvings():
    resampler = Resampler(made(np.linspace(0.5, 0.8, 9), n=60, shared=0.3))
    readable = np.arange(9) != 4
    weight = np.random.default_rng(0).integers(0, 3, size=(4, resampler.n_groups))
    peak, so_far = resampler.crossfitted_peaks(weight, None, 3, np.random.default_rng(1), readable)
    rng, sides = np.random.default_rng(1), np.arange(resampler.n_groups, dtype=np.uint8) % 2
    for halving in range(3):
        half = rng.permuted(np.tile(sides, (4, 1)), axis=1)
        for m in range(4):
            a, b = (resampler.curves(weight[m] * side[None])[:, readable] for side in (half[m], 1 - half[m]))
            (top_a, upto_a), (top_b, upto_b) = bootstrap._highest(a), bootstrap._highest(b)
            assert peak[halving, m] == pytest.approx((b[0, top_a[0]] + a[0, top_b[0]]) / 2)
            slowly = [(b[0, i] + a[0, j]) / 2 for i, j in zip(upto_a[0], upto_b[0], strict=True)]
            assert so_far[halving, m] == pytest.approx(slowly)


def test_a_halving_without_a_class_has_the_mean_of_the_others():
    resampler = Resampler(rare(5, signal=1.0), "auroc")
    weight = np.ones((1, resampler.n_groups))
    weight[0, 2:5] = 0  # two examples of class 1, which fall on one side in half of the halvings
    rng, sides = np.random.default_rng(0), np.arange(resampler.n_groups, dtype=np.uint8) % 2
    halves = [rng.permuted(sides[None], axis=1)[0] for _ in range(8)]
    whole = [half[0] != half[1] for half in halves]
    assert 0 < sum(whole) < 8  # the premise
    for values in resampler.crossfitted_peaks(weight, None, 8, np.random.default_rng(0)):
        assert len(np.unique(values[whole])) > 1
        assert np.allclose(values[np.logical_not(whole)], values[whole].mean(0))


def test_the_interval_of_a_plateau_ends_where_its_layers_together_surely_reach_the_threshold():
    last, ends = 25, []
    for seed in range(12):
        low, high = find_depth(made([0.5] * 6 + [0.7] * 20, n=300, shared=0.0, seed=seed)).interval_numbers
        assert low <= 6 <= high
        ends.append(high)
    assert np.mean(np.array(ends) == last) <= 0.25  # by the first layer that alone surely does: most


def test_standard_errors_do_not_grow_with_few_halvings(monkeypatch):
    scores, found = made([0.5] * 6 + [0.7] * 8, n=200, shared=0.0), {}
    for each in (2, 16):
        monkeypatch.setattr(intervals, "HALVINGS_EACH", each)
        reading = Reading.of(scores, check_rule("within:0.9"))
        _, _, so_far = reading._replicates
        found[each] = reading._margin(reading.so_far, reading.so_far[-1], so_far, so_far[..., -1])[1]
        found[-each] = (so_far - 0.9 * so_far[..., -1:]).mean(0).std(0)
    assert np.allclose(found[16], found[-16])
    assert np.allclose(found[2], found[16], rtol=0.1)
    assert found[-2][8] > 1.2 * found[16][8]  # the premise: uncorrected they do


def test_the_depth_is_the_first_layer_to_reach_the_threshold_however_noisy_the_curve():
    rise = np.r_[[0.5] * 3, np.linspace(0.55, 0.7, 8), [0.7] * 8]
    lone = 0
    for seed in range(12):
        scores = made(rise, n=150, shared=0.3, seed=seed)
        found = find_depth(scores)
        reaches = scores.curve >= scores.chance + 0.9 * (found.peak - scores.chance) - 1e-12
        assert found.number == np.flatnonzero(reaches)[0]
        low, high = found.interval_numbers
        assert low <= found.number <= high
        lone += not reaches[found.number + 1]
    assert lone >= 3  # the premise: among them are layers that reach it and whose next does not


def test_each_verdict_has_its_case_and_a_sentence():
    low_null = np.full((39, 11), 0.55)
    cases = {
        "found": find_depth(made(STEP, null=low_null)),
        "at_input": find_depth(made([0.9] * 11, null=low_null)),
        "never": find_depth(made([0.5] * 11, null=low_null)),
        "undefined": find_depth(made([0.8, 0.82] + [0.84] * 9, null=low_null), rule="jump"),
        "unstable": find_depth(made(np.linspace(0.55, 0.72, 11), n=60, shared=0.2, null=low_null)),
    }
    for verdict, depth in cases.items():
        assert depth.verdict == verdict, depth
        assert depth.sentence.endswith(".")
        json.dumps(depth.to_dict(), allow_nan=False)
        assert (depth.number is None) == (verdict in ("never", "undefined"))
    assert cases["found"].number == 5
    assert cases["found"].p == 1 / 40
    assert cases["found"].null_threshold == 0.55
    assert str(cases["never"]) == "no layer of 10: never"


def test_a_concept_no_better_than_its_permutations_is_never_read_however_high():
    null = np.full((39, 11), 0.5)
    null[:2, 3] = 0.95  # two of 39 maxima reach higher: p = 3 / 40
    assert find_depth(made(STEP, null=null)).verdict == "never"
    null[1, 3] = 0.5
    assert find_depth(made(STEP, null=null)).verdict == "found"


def test_references_are_beaten_from_a_layer_on_and_decide_no_verdict():
    scores = made(STEP)
    weak, strong = made([0.7], seed=0), made([0.95], seed=0)
    depth = find_depth(scores, references={"weak": weak, "strong": strong})
    assert depth.above == {"weak": 5, "strong": None}
    assert depth.verdict == "found"
    with pytest.raises(InputError, match="other examples"):
        find_depth(scores, references={"short": made([0.7], n=100)})
    with pytest.raises(InputError, match="score both alike"):
        find_depth(scores, references={"other": made([0.7], scoring="auroc")})


def test_intervals_of_a_curve_do_not_collapse_at_a_hundred_percent():
    low, high = find_depth(made([0.5, 1.0, 1.0], n=100)).curve_interval[1]
    assert high == pytest.approx(1.0)
    assert 0.9 < low < 0.97  # Wilson's for 50 of 50 groups: 0.929


def test_layers_that_did_not_converge_are_not_read():
    scores = replace(made(STEP), converged=np.array([1.0] * 5 + [0.5] + [1.0] * 5))
    depth = find_depth(scores)
    assert depth.number == 6
    assert "Fits at layer 5 did not converge" in depth.sentence


def test_blocks_are_counted_from_one_for_the_rules_of_the_paper():
    scores = made([0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9])
    accuracy = scores.metric("accuracy").mean(1)
    assert find_depth(scores, rule="jump").number == jumping_layer(accuracy[1:])
    assert find_depth(scores, rule="converge").number == converging_layer(accuracy[1:])


def test_the_centre_of_gravity_lies_where_the_gains_are():
    depth = find_depth(made([0.5, 0.5, 0.7, 0.9, 0.9], n=2000), rule="centre")
    assert depth.fraction * 4 == pytest.approx(2.5, abs=0.1)


def test_the_centre_weighs_by_the_numbers_of_the_layers_that_are_read():
    curve = [0.5, 0.6, 0.6, 0.8, 0.9]
    scores = made(curve, n=2000, numbers=(0, 1, 2, 12, 30))

    def centre(layers):
        gain = np.diff(np.maximum.accumulate(scores.curve[layers]))
        return (gain @ np.array(scores.numbers)[layers][1:] / gain.sum()) / 30

    assert find_depth(scores, rule="centre").fraction == pytest.approx(centre([0, 1, 2, 3, 4]))
    scores = replace(scores, converged=np.array([1.0, 1.0, 1.0, 0.0, 1.0]))
    assert find_depth(scores, rule="centre").fraction == pytest.approx(centre([0, 1, 2, 4]))


@pytest.mark.parametrize("rule", ["centre", "jump", "converge"])
def test_a_rule_that_needs_several_layers_names_none_of_one(rule):
    depth = find_depth(made([0.9], numbers=(12,)), rule=rule)
    assert (depth.verdict, depth.number) == ("undefined", None)


def test_a_first_layer_that_already_qualifies_is_said_to_be_the_first_measured():
    assert "first layer that was measured" in find_depth(made([0.9] * 3, numbers=(12, 18, 24))).sentence
    assert "first layer that was measured" not in find_depth(made(STEP)).sentence


def test_shares_are_written_as_they_were_given():
    for share, told in (("0.9", "90%"), ("0.925", "92.5%"), ("0.004", "0.4%"), ("1", "100%")):
        assert f"the first layer with {told} of" in check_rule(f"within:{share}").meaning


def test_rises_are_told_where_they_are():
    assert find_depth(made(STEP)).rises == ((4, 5),)
    assert find_depth(made([0.5] * 6)).rises == ()
    (rise,) = find_depth(made([0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9], n=600)).rises
    assert rise == (1, 5)


def test_losses_are_read_downwards():
    depth = find_depth(made(STEP, n=400, scoring="v_information"))
    assert depth.number == 5
    loss = find_depth(made(STEP, n=400, scoring="log_loss"), min_gain=0.01)
    assert loss.number == 5
    assert (loss.curve_interval[:, 0] < loss.curve).all()
    assert (loss.curve_interval[:, 1] > loss.curve).all()


def test_the_same_scores_give_the_same_depth():
    scores = made(np.linspace(0.5, 0.9, 11))
    assert find_depth(scores).to_dict() == find_depth(scores).to_dict()


RULES = ["within:0.9", "peak", "onset", "centre", "jump", "converge"]


@pytest.mark.parametrize("rule", RULES)
def test_where_no_fit_converged_nothing_is_read_and_the_sentence_says_so(rule):
    scores = replace(made(STEP, null=np.full((39, 11), 0.55)), converged=np.zeros(11))
    depth = find_depth(scores, rule=rule, references={"weak": made([0.7])})
    assert (depth.verdict, depth.number, depth.p, depth.above) == ("undefined", None, None, {"weak": None})
    assert np.isnan([depth.peak, depth.gain]).all()
    assert depth.rises == ()
    assert depth.sentence.startswith("The fits of no layer converged")
    json.dumps(depth.to_dict(), allow_nan=False)


@pytest.mark.parametrize("rule", ["within:0.9", "peak", "centre", "onset"])
def test_peak_null_and_rises_do_not_know_layers_that_did_not_converge(rule):
    curve = [0.5] * 4 + [0.75, 0.75, 0.75, 0.95, 0.95, 0.95]
    null = np.full((39, 10), 0.55)
    null[:, 8] = 0.94  # of a layer that is not read
    whole = made(curve, n=400, null=null)
    fine = np.array([True] * 7 + [False] * 3)
    seen = find_depth(replace(whole, converged=fine.astype(float)), rule=rule)
    alone = find_depth(made(curve[:7], n=400, null=null[:, :7]), rule=rule)
    assert seen.peak == pytest.approx(alone.peak, abs=0.01)
    assert seen.peak < 0.8
    assert seen.p == alone.p == 1 / 40
    assert seen.null_threshold == 0.55
    assert seen.number == alone.number
    assert seen.verdict == alone.verdict == "found"
    assert max(end for _, end in seen.rises) <= 6
    assert find_depth(whole).rises[-1][1] == 7  # the premise


def test_a_layer_that_did_not_converge_beats_no_reference():
    scores = replace(made(STEP), converged=np.array([1.0] * 5 + [0.5] + [1.0] * 5))
    assert find_depth(scores, references={"weak": made([0.7])}).above == {"weak": 6}


def rare(positives, *, n=60, layers=5, signal=20.0):
    """Scores of a probe that is always right (of strong signals), `positives` of `n` examples being of class 1."""
    labels = (np.arange(n) < positives).astype(np.int64)
    X = np.random.default_rng(0).normal(size=(layers, n, 3))
    X[:, :, 0] += signal * labels
    return score_layers(Activations.from_arrays(list(X), labels), C=1.0, permutations=0)


def test_resamples_that_lack_a_class_have_no_score_and_widen_no_interval():
    scores = rare(5)
    resampler = Resampler(scores)
    without = np.ones((1, resampler.n_groups))
    without[0, :5] = 0
    assert np.isnan(resampler.curves(without)).all()
    for peaks in resampler.crossfitted_peaks(without, None, 2, np.random.default_rng(0)):
        assert np.isnan(peaks).all()
    depth = find_depth(scores)
    assert (depth.peak, depth.verdict, depth.interval) == (1.0, "at_input", (0.0, 0.0))
    assert depth.curve_interval[0, 0] > 0.9


def test_a_class_of_one_tested_group_leaves_the_raw_peak():
    labels = np.array([0] * 60 + [1] * 21)
    X = np.random.default_rng(0).normal(size=(3, 81, 3))
    X[:, :, 0] += 20 * labels[None]
    pairs = [(np.r_[:40, 60:80], np.r_[40:60, 80])]  # one example of class 1 to test
    scores = score_layers(Activations.from_arrays(list(X), labels), cv=pairs, C=1.0, permutations=0)
    assert find_depth(scores).peak == 1.0


def test_replicates_drawn_in_pieces_are_the_same(monkeypatch):
    resampler, found = Resampler(made(STEP, n=80)), []
    for chunk in (1 << 20, 700):
        monkeypatch.setattr(bootstrap, "_CHUNK", chunk)
        rng = np.random.default_rng(0)
        drawn = resampler.draw(50, rng)
        found.append((*drawn, resampler.curves(*drawn), *resampler.crossfitted_peaks(*drawn, 2, rng)))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_memory_of_the_bootstrap_is_little_for_each_group():
    resampler = Resampler(made([0.6, 0.8], n=8000, repeats=1))
    tracemalloc.start()
    drawn = resampler.draw(1000, np.random.default_rng(0))
    resampler.crossfitted_peaks(*drawn, 1, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert resampler.n_groups == 4000
    assert peak < 60e6  # 15 kB a group; with whole arrays of float64 it was above 100 MB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_gain": None}, "min_gain=None is not allowed"),
        ({"min_gain": "x"}, "min_gain='x' is not allowed"),
        ({"min_gain": float("nan")}, "min_gain=nan is not allowed"),
        ({"references": [1]}, "references must map names to scores"),
        ({"references": {"a": 5}}, "references must map names to scores"),
    ],
)
def test_what_find_depth_cannot_use_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        find_depth(made(STEP, n=40), **arguments)


def test_a_rule_of_permuted_labels_needs_them():
    with pytest.raises(InputError, match="needs permuted labels; score with permutations=39"):
        find_depth(made(STEP), rule="onset")


def test_repeats_that_test_some_examples_only_are_read_together():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    X = [rng.normal(size=(300, 4)) + 3 * (layer >= 3) * labels[:, None] for layer in range(6)]
    splits = ShuffleSplit(20, test_size=0.1, random_state=1)
    scores = score_layers(Activations.from_arrays(X, labels), cv=splits, C=0.1, permutations=0)
    folds = np.bincount(scores.repeat)
    assert len(set(folds)) > 1  # the premise: repeats of several and of one split
    resampler = Resampler(scores)
    assert resampler.curves(np.ones((1, resampler.n_groups)))[0] == pytest.approx(scores.curve)
    depth = find_depth(scores)
    assert (depth.number, depth.interval_numbers, depth.verdict) == (3, (3, 3), "found")


def test_many_small_test_parts_without_a_class_are_left_out_one_by_one():
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 5 == 0).astype(np.int64)
    X = [rng.normal(size=(60, 4)) + 2 * (layer >= 3) * labels[:, None] for layer in range(6)]
    splits = StratifiedShuffleSplit(40, test_size=0.2, random_state=0)
    scores = score_layers(Activations.from_arrays(X, labels), cv=splits, C=0.1, permutations=0)
    resampler = Resampler(scores)
    weight, repeat = resampler.draw(200, np.random.default_rng(1))
    assert np.isfinite(resampler.curves(weight, repeat)).all()
    assert find_depth(scores).peak < scores.curve.max()


def in_sample(*widths, n=60, signal=0.0):
    """Scores on the whole sample of layers of noise in these widths, with a signal in the first feature."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    X = [rng.normal(size=(n, width)) for width in widths]
    for layer in X:
        layer[:, 0] += signal * labels
    return score_layers(Activations.from_arrays(X, labels), cv=None, C=1.0, permutations=0)


def test_a_layer_that_separates_in_too_many_dimensions_is_named_but_says_nothing():
    assert find_depth(in_sample(2, 2), rule="separable").verdict == "never"
    depth = find_depth(in_sample(2, 80), rule="separable")
    assert depth.verdict == "undefined"
    assert "at layer 1 a hyperplane separates them, but so many dimensions would" in depth.sentence
    depth = find_depth(in_sample(80, 2, signal=20.0), rule="separable")
    assert (depth.verdict, depth.number) == ("found", 1)
    assert "also at layer 0, where so many dimensions would separate any labels" in depth.sentence
    assert "permutations" not in depth.sentence
