"""Permutations respect groups and splits; p-values and thresholds agree."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing.nulls import p_value, permuted_labels, threshold
from concept_depth.probing.protocol import score_layers
from concept_depth.probing.splits import make_splits


def test_labels_of_twins_change_places_inside_their_group_only():
    labels, groups = np.tile([0, 1], 40), np.repeat(np.arange(40), 2)
    drawn = permuted_labels(labels, groups, 50)
    assert drawn.shape == (50, 80)
    assert (drawn.reshape(50, 40, 2).sum(2) == 1).all()
    assert (drawn != labels).any(1).all()  # never the identity
    swapped = (drawn.reshape(50, 40, 2)[:, :, 0] == 1).mean()
    assert 0.45 < swapped < 0.55  # 2,000 fair coins: four deviations


def test_groups_of_one_class_move_as_a_whole_among_groups_of_their_size():
    sizes = np.repeat([1, 3], [40, 20])
    groups = np.repeat(np.arange(60), sizes)
    of_group = np.tile([0, 1], 30)
    drawn = permuted_labels(of_group[groups], groups, 30)
    for labels in drawn:
        per_group = [set(labels[groups == g]) for g in range(60)]
        assert all(len(found) == 1 for found in per_group)
        value = np.array([found.pop() for found in per_group])
        assert value[:40].sum() == of_group[:40].sum()
        assert value[40:].sum() == of_group[40:].sum()


def test_mixed_and_single_class_groups_are_each_permuted_in_their_way():
    labels = np.array([0, 1] * 10 + [0] * 10 + [1] * 10)
    groups = np.array([g for g in range(10) for _ in range(2)] + list(range(10, 30)))
    for drawn in permuted_labels(labels, groups, 20):
        assert (drawn[:20].reshape(10, 2).sum(1) == 1).all()
        assert drawn[20:].sum() == 10


def test_groups_of_rare_sizes_swap_labels_with_their_neighbours():
    sizes = [1] * 12 + [2] * 3 + [3, 4, 5, 6]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = (np.arange(len(sizes)) % 2)[groups]
    drawn = permuted_labels(labels, groups, 40)
    of_group = np.stack([drawn[:, groups == g][:, 0] for g in range(len(sizes))], 1)
    assert (of_group[:, 12:] != of_group[0, 12:]).any(0).all()  # every rare size changes at times


def test_three_classes_keep_their_counts():
    labels = np.tile([0, 1, 2], 20)
    for drawn in permuted_labels(labels, np.arange(60), 10):
        assert np.bincount(drawn).tolist() == [20, 20, 20]


def test_labels_that_cannot_be_permuted_are_refused():
    with pytest.raises(InputError, match="cannot be permuted"):
        permuted_labels(np.zeros(10, np.int64), np.arange(10), 1)
    assert permuted_labels(np.array([0, 1]), np.arange(2), 0).shape == (0, 2)


def test_the_threshold_is_where_the_p_value_turns():
    null = np.random.default_rng(0).normal(size=39)
    bar = threshold(null)
    assert bar == np.sort(null)[-2]
    assert p_value(bar + 1e-6, null) == 2 / 40
    assert p_value(bar, null) == 3 / 40
    assert p_value(0.0, np.empty(0)) is None
    assert p_value(9.0, np.full(39, np.nan)) == 1.0
    assert threshold(null[:10]) is None  # 1 / 11 is more than 0.05 whatever is observed


def parts_of(pairs, n):
    """(2 S, N) rows of every training and test part."""
    parts = np.zeros((2 * len(pairs), n), np.int64)
    for row, part in enumerate(part for pair in pairs for part in pair):
        parts[row, part] = 1
    return parts


def families(n=90, seed=0):
    """Groups of one to six examples, each of one class."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, 7, size=n))
    return rng.permutation(np.arange(n) % 2)[groups], groups


def test_labels_of_single_examples_are_exchanged_inside_cells_so_that_every_part_keeps_its_class_counts():
    labels, groups = np.arange(400) % 2, np.arange(400)
    splits = make_splits(labels, groups)
    drawn = permuted_labels(labels, groups, 30, pairs=splits.pairs)
    cell = splits.fold[0] * 5 + splits.fold[1]
    for permuted in drawn:
        assert np.array_equal(np.bincount(cell, permuted), np.bincount(cell, labels))
    assert 0.4 < (drawn != labels).mean() < 0.5  # in a cell of 16, one in 16 stays by itself and half by chance


@pytest.mark.parametrize(("n", "share", "repeats"), [(60, 0.5, 2), (60, 0.1, 2), (100, 0.5, 3)])
def test_where_cells_are_too_small_swaps_bring_every_part_to_its_class_counts(n, share, repeats):
    labels, groups = (np.arange(n) < share * n).astype(np.int64), np.arange(n)
    pairs = make_splits(labels, groups, repeats=repeats).pairs
    drawn, parts = permuted_labels(labels, groups, 20, pairs=pairs), parts_of(pairs, n)
    off = parts @ (drawn - labels).T
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() < 0.02
    # They come out no nearer to the real labels than chance would have them.
    assert (drawn != labels).mean() == pytest.approx(2 * share * (1 - share), abs=0.05)


@pytest.mark.parametrize("shape", ["one class each", "labels at random"])
def test_parts_keep_their_classes_with_groups_of_unlike_size(shape):
    labels, groups = families()
    if shape == "labels at random":
        labels = np.random.default_rng(1).integers(2, size=len(groups))
    pairs = make_splits(labels, groups).pairs
    parts = parts_of(pairs, len(labels))
    drawn = permuted_labels(labels, groups, 20, pairs=pairs)
    freely = permuted_labels(labels, groups, 20)
    off, off_freely = (np.square(parts @ (permuted - labels).T).mean() for permuted in (drawn, freely))
    assert off_freely > 5  # the premise
    assert off < 1
    mixed = np.array([len(set(labels[groups == g])) > 1 for g in groups])
    for permuted in drawn:
        assert np.array_equal(
            np.bincount(groups[mixed], permuted[mixed]), np.bincount(groups[mixed], labels[mixed])
        )
        assert all(len(set(permuted[groups == g])) == 1 for g in np.unique(groups[~mixed]))


def test_no_part_loses_a_class_however_rare():
    labels, groups = (np.arange(60) < 6).astype(np.int64), np.arange(60)
    pairs = make_splits(labels, groups).pairs
    drawn = permuted_labels(labels, groups, 39, pairs=pairs)
    assert (parts_of(pairs, 60) @ drawn.T).min() > 0
    freely = permuted_labels(labels, groups, 39)
    assert (parts_of(pairs, 60) @ freely.T).min() == 0  # the premise


def test_rows_of_no_pair_keep_their_labels_and_give_none_away():
    labels = np.array([0, 1] * 40 + [1] * 200)
    pairs = [(np.arange(50), np.arange(50, 80))]
    for permuted in permuted_labels(labels, np.arange(280), 10, pairs=pairs):
        assert (permuted[80:] == 1).all()
        assert permuted[:50].sum() == 25
        assert permuted[50:80].sum() == 15


def test_twins_parted_by_a_splitter_of_rows_change_labels_without_emptying_a_class():
    labels, groups = np.arange(200) % 2, np.arange(200) // 2
    pairs = list(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels))
    drawn = permuted_labels(labels, groups, 20, pairs=pairs)
    assert (drawn.reshape(20, 100, 2).sum(2) == 1).all()
    assert np.abs(parts_of(pairs, 200) @ (drawn - labels).T).max() <= 1
    assert 0.3 < (drawn != labels).mean() < 0.6


def test_whole_samples_are_permuted_freely():
    labels, rows = np.arange(100) % 2, np.arange(100)
    drawn = permuted_labels(labels, rows, 10, pairs=[(rows, rows)])
    assert (drawn.sum(1) == 50).all()
    assert np.array_equal(drawn, permuted_labels(labels, rows, 10))


@pytest.mark.parametrize("sample", ["single examples", "families"])
def test_noise_seldom_beats_its_permutations(sample):
    """Of V-information, which suffers most from classes that are rare in training and frequent in test.

    Permuted without regard to folds, 24 of 24 pure-noise layers have p <= 0.25 in both cases.
    """
    p = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        labels, groups = (np.arange(80) % 2, np.arange(80)) if sample == "single examples" else families(60, seed)
        acts = Activations.from_arrays([rng.normal(size=(len(labels), 4))], labels, groups=groups)
        scores = score_layers(acts, C=0.01, scoring="v_information", permutations=19, random_state=seed)
        p.append(p_value(scores.curve.max(), scores.null_max))
    # Six of 24 are expected; twelve or more have a chance of 1 in 100.
    assert sum(value <= 0.25 for value in p) < 12
    assert sum(value > 0.5 for value in p) > 4  # nor is it hard to beat
