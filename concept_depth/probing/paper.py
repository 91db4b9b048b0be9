"""The protocol of Jin et al. (2024), exactly as their code runs it, so that their numbers can be met again.

`train_test_split(test_size=0.4, random_state=42)` over rows in their order, ungrouped and unstratified;
scikit-learn's `LogisticRegression()` with its defaults (C = 1, lbfgs, at most 100 iterations) on unscaled
activations; accuracy, F1 of class 1 (their second list) and AUROC. No permutations. Fits that did not converge
are marked, not left out.

Its flaws (twins on both sides, unconverged fits shown as depth) are why it is not the default.

Shapes: L layers, N examples.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing import leaks, metrics
from concept_depth.probing.scores import LayerScores
from concept_depth.probing.splits import Splits

IntArray = npt.NDArray[np.int64]

MAX_ITER = 100  # scikit-learn's default, written down since defaults may change


def check_paper(labels: IntArray) -> None:
    """Refuse what the protocol cannot split.

    Raises:
        InputError: a class is missing from the training or test part.
    """
    if len(labels) < 5:
        raise InputError(f"{len(labels)} examples are too few for protocol='paper'; give more")
    for part, rows in zip(("training", "test"), leaks.naive_split(len(labels)), strict=True):
        missing = set(labels.tolist()) - set(labels[rows].tolist())
        if missing:
            raise InputError(
                f"the {part} part of protocol='paper' lacks class {min(missing)}: its split is not stratified; "
                "give more examples, or leave protocol out"
            )


def score_paper(
    acts: Activations, *, scoring: str, settings: Mapping[str, Any], progress: Any = False
) -> LayerScores:
    """Score every layer as the paper's code does.

    Args:
        acts: activations, their examples in the order of the paper's lists.
        scoring: the metric that depth is read from; the paper's rules read accuracy in any case.
        settings: recorded.
        progress: as in `score_layers`.

    Returns:
        Scores with one repeat of one fold and no permutations.

    Raises:
        InputError: more than two classes, a class missing from a part, or a layer that is not finite.
    """
    labels, groups = np.asarray(acts.labels, np.int64), np.asarray(acts.groups, np.int64)
    if len(acts.classes) != 2:
        raise InputError(f"protocol='paper' is for two classes, there are {len(acts.classes)}; leave protocol out")
    check_paper(labels)
    train, test = leaks.naive_split(len(labels))
    L, N = len(acts.names), len(labels)
    per_fold = {name: np.empty((L, 1)) for name in metrics.METRICS}
    decision, converged = np.full((L, 1, N), np.nan, np.float32), np.empty(L)
    for index, name in enumerate(acts.names):
        decided, fine = _fit(np.asarray(acts[name]), labels, train, test, name)
        decision[index, 0, test], converged[index] = decided, fine
        for metric, values in per_fold.items():
            values[index] = metrics.score(metric, decided[None], labels[None, test], 2)
        if callable(progress):
            progress(index + 1, L)
    if progress is True:
        print(f"{L} fits, {int((converged < 1).sum())} of them not converged", file=sys.stderr)
    fold = np.full((1, N), -1, np.int16)
    fold[0, test] = 0
    splits = Splits(((train, test),), np.zeros(1, np.int64), fold, False, "paper")
    curve = per_fold[scoring][:, 0]
    return LayerScores(
        names=acts.names,
        numbers=acts.numbers,
        total=acts.total,
        classes=acts.classes,
        labels=labels,
        groups=groups,
        per_fold=per_fold,
        decision=decision,
        fold=fold,
        repeat=splits.repeat,
        scoring=scoring,
        chance=metrics.chance(scoring, labels[test], 2),
        null_curves=np.empty((0, L)),
        null_max=np.empty(0),
        converged=converged,
        C_chosen=np.ones((L, 1)),
        at_edge=np.zeros(L),
        n_fits=L,
        settings={
            **settings,
            "splits": "paper",
            "cv": "60/40",
            "repeats": 1,
            "standardize": False,
            "C": 1.0,
            "permutations": 0,
        },
        audit={**leaks.audit_groups(labels, groups, splits), "naive_curve": curve.tolist(), "naive_C": 1.0},
        provenance=dict(acts.provenance),
    )


def _fit(
    X_ND: npt.NDArray[np.floating], labels: IntArray, train: IntArray, test: IntArray, name: str
) -> tuple[npt.NDArray[np.float64], bool]:
    """Log-odds on the test part, and whether scikit-learn says that it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(X_ND).all():
        raise InputError(f"layer {name!r} holds NaN or infinity; leave that layer out, or extract in float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = LogisticRegression(max_iter=MAX_ITER).fit(X_ND[train], labels[train])
    return np.asarray(probe.decision_function(X_ND[test]), np.float64), not any(
        issubclass(item.category, ConvergenceWarning) for item in caught
    )
