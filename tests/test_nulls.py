"""Permutations respect groups; p-values and thresholds agree."""

import numpy as np
import pytest

from concept_depth.errors import InputError
from concept_depth.probing.nulls import p_value, permuted_labels, threshold


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
    assert threshold(null[:10]) is None  # 1 / 11 is more than 0.05 whatever is observed
