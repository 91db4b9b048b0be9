"""Splits keep groups together and classes even, follow their seed, and refuse bad input with one sentence."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, ShuffleSplit, StratifiedGroupKFold

from concept_depth.errors import InputError
from concept_depth.probing.splits import group_folds, inner_pairs, make_splits


def twins(n=200):
    return np.tile([0, 1], n // 2), np.repeat(np.arange(n // 2), 2)


def uneven(n=400, seed=0):
    """Groups of 1 to 8 examples, classes 3 to 1."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, 9, size=n))[:n]
    return (rng.random(n) < 0.25).astype(np.int64), groups


@pytest.mark.parametrize("sample", [twins, uneven, lambda: (np.tile([0, 1], 50), np.arange(100))])
def test_no_group_stands_on_both_sides_and_every_example_is_tested_once_a_repeat(sample):
    labels, groups = sample()
    splits = make_splits(labels, groups, cv=5, repeats=3)
    assert len(splits) == 15
    assert splits.fold.shape == (3, len(labels))
    for train, test in splits.pairs:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(labels)))
    for repeat in range(3):
        tested = np.concatenate([splits.pairs[s][1] for s in np.flatnonzero(splits.repeat == repeat)])
        assert sorted(tested) == list(range(len(labels)))
    for s, (_, test) in enumerate(splits.pairs):
        assert (splits.fold[splits.repeat[s], test] == s % 5).all()


def test_folds_are_as_even_as_whole_groups_allow():
    labels, groups = twins()
    fold = group_folds(labels, groups, 5, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [40] * 5
    assert np.bincount(fold[labels == 1]).tolist() == [20] * 5
    labels, groups = uneven()
    fold = group_folds(labels, groups, 5, np.random.default_rng(0))
    share = np.array([labels[fold == f].mean() for f in range(5)])
    largest = np.bincount(groups).max()
    assert np.ptp(np.bincount(fold)) <= largest
    # scikit-learn's own splitter of this kind is the yardstick.
    theirs = [labels[test].mean() for _, test in StratifiedGroupKFold(5).split(labels, labels, groups)]
    assert np.abs(share - labels.mean()).max() <= np.abs(np.array(theirs) - labels.mean()).max() + 0.02


def test_the_same_seed_gives_the_same_splits_and_another_seed_others():
    labels, groups = twins()
    same = [make_splits(labels, groups, random_state=3).fold for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], make_splits(labels, groups, random_state=4).fold)
    assert not np.array_equal(same[0][0], same[0][1])  # the repeats differ too


def test_inner_parts_divide_the_training_part_and_keep_groups_together():
    labels, groups = twins()
    train = np.arange(160)
    pairs = inner_pairs(labels, groups, train, 3, np.random.default_rng(0))
    assert sorted(np.concatenate([test for _, test in pairs])) == list(range(160))
    for part, test in pairs:
        assert not set(groups[part]) & set(groups[test])


def test_splitters_and_pairs_of_ones_own_are_taken_as_they_are():
    labels, groups = twins()
    theirs = list(GroupKFold(4).split(labels, labels, groups))
    for cv in (GroupKFold(4), theirs):
        splits = make_splits(labels, groups, cv=cv)
        assert splits.fold.shape == (1, 200)
        for (train, test), (train_, test_) in zip(splits.pairs, theirs, strict=True):
            assert np.array_equal(train, train_)
            assert np.array_equal(test, test_)
    overlapping = make_splits(labels, groups, cv=ShuffleSplit(6, random_state=0))
    for s, (_, test) in enumerate(overlapping.pairs):
        assert (overlapping.fold[overlapping.repeat[s], test] >= 0).all()
    whole = make_splits(labels, groups, cv=None)
    assert whole.in_sample
    assert np.array_equal(*whole.pairs[0])


@pytest.mark.parametrize(
    ("labels", "groups", "arguments", "message"),
    [
        ([0, 1, 0], [0, 1, 2], {}, "3 examples in 3 groups are too few"),
        ([0, 1] * 50, [0] * 100, {}, "100 examples in 1 groups are too few"),
        ([0, 1] * 50, [*range(60)] + [60] * 40, {}, "largest group holds 40 of 100"),
        ([1] * 3 + [0] * 97, range(100), {}, "class 'no' stands in 3 groups, too few for 5 folds"),
        ([0, 1] * 50, range(100), {"cv": 1}, "2 or more folds"),
        ([0, 1] * 50, range(100), {"repeats": 0}, "give 1 or more"),
        ([0, 1] * 50, range(100), {"cv": "five"}, "is no way to split"),
        ([0, 1] * 50, range(100), {"cv": []}, "no .train, test. pair"),
        ([0, 1] * 50, range(100), {"cv": [([0, 1], [1, 2])]}, "tests rows that it trains on"),
        ([0, 1] * 50, range(100), {"cv": [([0, 1], [400])]}, "outside 0 … 99"),
        (
            [0, 1] * 50,
            range(100),
            {"cv": [([0, 2, 4], [1, 6])]},
            "training part of split 1 has no example of class",
        ),
        ([0, 1] * 50, range(100), {"cv": [([0, 1], [])]}, "empty part"),
        ([0, 1] * 50, range(100), {"cv": [5, 6]}, "no .train, test. pair of row numbers"),
        ([0, 1] * 10, [0, 1] * 10, {"cv": GroupKFold(5)}, "GroupKFold cannot split"),
    ],
)
def test_what_cannot_be_split_is_refused_with_a_sentence(labels, groups, arguments, message):
    with pytest.raises(InputError, match=message):
        make_splits(np.array(labels), np.array(groups), classes=("yes", "no"), **arguments)
