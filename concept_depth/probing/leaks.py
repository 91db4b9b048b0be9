"""What a naive split would have leaked: twins on both sides, and the curve that comes of it.

The naive split is the usual one, also that of Jin et al.: `train_test_split(test_size=0.4, random_state=42)` over
rows.

Shapes: N examples, L layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.probing.splits import Splits

IntArray = npt.NDArray[np.int64]

TEST_SIZE, SEED = 0.4, 42


def naive_split(n: int) -> tuple[IntArray, IntArray]:
    """(train, test) row numbers of scikit-learn's split of n rows with test_size=0.4 and random_state=42."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(n), test_size=TEST_SIZE, random_state=SEED)
    return np.asarray(train), np.asarray(test)


def twin_share(groups: IntArray, train: IntArray, test: IntArray) -> float:
    """Share of the test rows that have a member of their own group among the training rows."""
    return float(np.isin(groups[test], groups[train]).mean()) if len(test) else 0.0


def audit_groups(labels: IntArray, groups: IntArray, splits: Splits) -> dict[str, Any]:
    """The part of the leak audit that needs no fit.

    Returns:
        n_groups, largest_group, groups_with_several_classes, naive_leak (share of test examples whose twin the
        naive split puts into training), leak (the same for the splits in use; 0 for those of a number of folds).
    """
    distinct, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    low, high = np.full(len(distinct), labels.max()), np.full(len(distinct), labels.min())
    np.minimum.at(low, inverse, labels)
    np.maximum.at(high, inverse, labels)
    used = [twin_share(groups, train, test) for train, test in splits.pairs]
    return {
        "n_groups": len(distinct),
        "largest_group": int(sizes.max()),
        "groups_with_several_classes": int((low < high).sum()),
        "naive_split": f"train_test_split(test_size={TEST_SIZE}, random_state={SEED}), rows",
        "naive_leak": twin_share(groups, *naive_split(len(labels))) if len(labels) > 3 else 0.0,
        "leak": 0.0 if splits.in_sample else float(np.mean(used)),
    }
