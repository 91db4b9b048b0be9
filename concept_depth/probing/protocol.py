"""`score_layers`: the measurement itself. Activations → LayerScores, layer by layer, in bounded memory.

Splits by `splits.py`, permuted labels by `nulls.py`, fits by `fits.py`, scores by `metrics.py`; the protocol of
the paper, which shares none of them, is `paper.py`.

Shapes: L layers, N examples, D features, K classes, R repeats, S splits, P permutations.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth import processes
from concept_depth.activations import Activations
from concept_depth.errors import InputError, check_seed, is_whole
from concept_depth.probing import leaks, metrics, nulls
from concept_depth.probing.scores import LayerScores
from concept_depth.probing.splits import Splits, inner_pairs, make_splits

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = bool | Callable[[float, float], None]

INNER_FOLDS = 3
PROTOCOLS = (None, "paper")
LEAST_PERMUTATIONS = 19  # with fewer, 1 / (P + 1) is above 0.05 whatever is observed
_TOL_NAIVE = 1e-4  # of the naive split's fits, which only illustrate


def score_layers(
    acts: Activations,
    *,
    cv: Any = 5,
    repeats: int = 2,
    C: float | str = "nested",
    scoring: str = "balanced_accuracy",
    standardize: bool | str = True,
    permutations: int = 39,
    protocol: str | None = None,
    random_state: int = 0,
    progress: Progress = False,
    device: str = "auto",
) -> LayerScores:
    """Score a logistic probe on every layer, on examples whose groups it has not seen.

    Under `torchrun` or `accelerate launch` every process must call this: each scores its share of the layers, and
    all return the whole.

    Args:
        acts: activations with labels and groups; a layer at a time is held in memory, or on a CPU one for each core,
            which are fitted side by side, and fewer where that would take more than some 2 GiB.
        cv: number of folds, a scikit-learn splitter, (train, test) pairs, or None: the whole sample is fitted and
            scored, and its exact separability determined (for the rule `separable`).
        repeats: how often the folds are dealt anew.
        C: "nested" (chosen per layer and split, inside the training part, from λ = 1 / (C n)) or a number.
        scoring: the metric that depth is read from, one of accuracy, balanced_accuracy, f1, auroc, log_loss,
            v_information; all are computed.
        standardize: True: each feature by mean and deviation of the training part; "scale": one scalar; False.
        permutations: P label permutations through the same pipeline; 19 or more, or 0 for no test.
        protocol: None, or "paper": what the code of Jin et al. does; cv, repeats, C, standardize and permutations
            are then not asked.
        random_state: seed of splits and permutations.
        progress: True writes to standard error; a callable is called as (done, total).
        device: "auto" (a GPU where there is one) or a torch device.

    Returns:
        The scores. Formulas are in `metrics.py`.

    Raises:
        InputError: a setting is not allowed, examples or groups are too few, or a layer holds NaN or infinity.
    """
    if not isinstance(acts, Activations):
        raise InputError(
            f"score_layers takes Activations, not {type(acts).__name__}; give what collect returns, or "
            "Activations.from_arrays(matrices, labels)"
        )
    labels, groups = np.asarray(acts.labels, np.int64), np.asarray(acts.groups, np.int64)
    given: dict[str, Any] = {"repeats": repeats, "C": C, "standardize": standardize, "permutations": permutations}
    settings = {
        "cv": int(cv) if is_whole(cv) else None if cv is None else repr(cv)[:200],
        **check_values(**given, scoring=scoring, protocol=protocol, random_state=random_state),
        "scoring": scoring,
        "protocol": protocol,
    }
    splits = check_settings(
        labels=labels, groups=groups, cv=cv, scoring=scoring, protocol=protocol, random_state=random_state,
        classes=acts.classes, **given,
    )  # fmt: skip
    device = _device(device)
    if splits is None:
        from concept_depth.probing.paper import score_paper

        return score_paper(acts, scoring=scoring, settings=settings, progress=progress)
    started = time.monotonic()
    result = _Scoring(acts, splits, settings, device).run(progress)
    if progress is True:
        seconds = time.monotonic() - started
        print(f"{result.n_fits:,} fits in {seconds:.0f} s", file=sys.stderr)
    return result


def check_settings(
    *,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    cv: Any = 5,
    repeats: int = 2,
    C: float | str = "nested",
    scoring: str = "balanced_accuracy",
    standardize: bool | str = True,
    permutations: int = 39,
    protocol: str | None = None,
    random_state: int = 0,
    classes: tuple[str, ...] | None = None,
) -> Splits | None:
    """Check settings against labels and groups, as `score_layers` will, before any activation is there.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers; None: every example is a group of its own.
        cv: and all others: as in `score_layers`.
        classes: names of the classes, for messages.

    Returns:
        The splits, or None for `protocol="paper"`.

    Raises:
        InputError: a setting is not allowed, or examples or groups do not suffice for it.
    """
    plain = check_values(
        scoring=scoring, protocol=protocol, repeats=repeats, C=C, standardize=standardize,
        permutations=permutations, random_state=random_state,
    )  # fmt: skip
    y = np.asarray(labels, np.int64)
    g = np.arange(len(y)) if groups is None else np.asarray(groups, np.int64)
    if len(np.unique(y)) < 2:
        raise InputError("all examples are of one class; a probe needs examples of two or more")
    if protocol == "paper":
        from concept_depth.probing.paper import check_paper

        check_paper(y)
        return None
    seed = plain["random_state"]
    splits = make_splits(y, g, cv=cv, repeats=plain["repeats"], random_state=seed, classes=classes)
    if plain["C"] == "nested":
        _check_inner(y, g, splits, classes or tuple(str(k) for k in range(int(y.max()) + 1)))
    return splits


def _check_inner(labels: IntArray, groups: IntArray, splits: Splits, classes: tuple[str, ...]) -> None:
    """Refuse training parts in which no C can be chosen."""
    for train, _ in splits.pairs:
        for k, name in enumerate(classes):
            if len(np.unique(groups[train][labels[train] == k])) < INNER_FOLDS:
                raise InputError(
                    f"class {name!r} stands in fewer than {INNER_FOLDS} groups of a training part, too few to "
                    "choose C there; give more examples, or a fixed C (C=1.0)"
                )


def check_values(
    *,
    scoring: str,
    protocol: str | None,
    repeats: Any,
    C: Any,
    standardize: Any,
    permutations: Any,
    random_state: Any,
) -> dict[str, Any]:
    """The settings that ask nothing of the examples, as plain Python values, which can be recorded.

    Raises:
        InputError: one is not allowed.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol={protocol!r} is unknown; leave it out, or give protocol='paper'")
    if scoring not in metrics.METRICS:
        raise InputError(f"scoring={scoring!r} is no metric; give one of {', '.join(metrics.METRICS)}")
    if not isinstance(standardize, bool | np.bool_) and not (
        isinstance(standardize, str) and standardize == "scale"
    ):
        raise InputError(f"standardize={standardize!r} is not allowed; give True, False or 'scale'")
    nested = isinstance(C, str) and C == "nested"
    number = isinstance(C, Real) and not isinstance(C, bool)
    if not nested and not (number and np.isfinite(float(C)) and float(C) > 0):
        raise InputError(f"C={C!r} is not allowed; give 'nested' or a positive number")
    if not is_whole(permutations) or 0 < permutations < LEAST_PERMUTATIONS or permutations < 0:
        raise InputError(
            f"permutations={permutations!r} is not allowed: fewer than {LEAST_PERMUTATIONS} can never decide at the "
            f"5 % level; give {LEAST_PERMUTATIONS} or more (39 by default), or 0 for no test"
        )
    if not is_whole(repeats) or repeats < 1:
        raise InputError(f"repeats={repeats!r} is not allowed; give a whole number of 1 or more (2 by default)")
    check_seed(random_state)
    return {
        "repeats": int(repeats),
        "C": C if nested else float(C),
        "standardize": standardize if isinstance(standardize, str) else bool(standardize),
        "permutations": int(permutations),
        "random_state": int(random_state),
    }


class _Scoring:
    """One run of the protocol: what is the same for all layers, and the arrays that fill up."""

    def __init__(self, acts: Activations, splits: Splits, settings: dict[str, Any], device: str) -> None:
        from concept_depth.probing.plan import FitPlan

        self.acts, self.splits, self.settings, self.device = acts, splits, settings, device
        self.labels = np.asarray(acts.labels, np.int64)
        self.groups = np.asarray(acts.groups, np.int64)
        K, P, seed = len(acts.classes), int(settings["permutations"]), settings["random_state"]
        pairs = splits.pairs
        permuted = nulls.permuted_labels(self.labels, self.groups, P, pairs=pairs, random_state=seed)
        nested = settings["C"] == "nested"
        rng = np.random.default_rng([seed, 3])
        parts = [train for train, _ in splits.pairs] if nested else []
        inner = [inner_pairs(self.labels, self.groups, train, INNER_FOLDS, rng) for train in parts]
        self.plan = FitPlan(
            labelings=np.concatenate([self.labels[None], permuted]),
            n_classes=K,
            pairs=splits.pairs,
            inner=inner,
            C=None if nested else float(settings["C"]),
            standardize=settings["standardize"],
            scoring=settings["scoring"],
        )
        self.naive = FitPlan(
            self.labels[None],
            K,
            [leaks.naive_split(len(self.labels))],
            [],
            1.0,
            settings["standardize"],
            "accuracy",
            tol=_TOL_NAIVE,
        )
        L, S, R, N = len(acts.names), len(splits), len(splits.fold), len(self.labels)
        self.per_fold = {name: np.empty((L, S)) for name in metrics.METRICS}
        self.decision = np.full((L, R, N) if K == 2 else (L, R, N, K), np.nan, np.float32)
        self.null_curves, self.C_chosen = np.empty((P, L)), np.empty((L, S))
        self.converged, self.at_edge, self.naive_curve = np.empty(L), np.empty(L), np.empty(L)
        self.separable: dict[int, dict[str, Any]] = {}
        self.n_fits = 0

    def run(self, progress: Progress) -> LayerScores:
        """Score this process's share of the layers, and take the others from those who scored them."""
        from concept_depth.probing.fits import plan_masks

        mine = processes.share([1.0] * len(self.acts.names))
        with closing(self._fitted(mine)) as fitted:
            for done, n_fits in enumerate(fitted, start=1):
                self.n_fits += n_fits
                if callable(progress):
                    progress(done, len(mine))
                elif progress:
                    print(f"\rprobing layer {done} of {len(mine)}", end="", file=sys.stderr, flush=True)
        if progress is True:
            print(file=sys.stderr)
        plan_masks.cache_clear()  # else the masks and labels of finished runs stay in memory
        self._exchange(mine)
        return self._result()

    def _fitted(self, mine: list[int]) -> Generator[int, None, None]:
        """Fit layers, on a CPU several at a time, and yield the number of fits of each."""
        from concept_depth.probing.workers import side_by_side

        layers = ((index, self._read(index)) for index in mine)
        if self.device.startswith("cpu"):
            yield from side_by_side(self._layer, layers, count=len(mine), size=self._held)
        else:
            yield from map(self._layer, layers)

    def _held(self, layer: tuple[int, npt.NDArray[np.floating[Any]]]) -> int:
        """About how many numbers of float32 the fits of a layer hold at once, measured on small and large ones."""
        N, D = (int(length) for length in layer[1].shape)
        vectors = len(self.plan.labelings) * (self.plan.n_classes if self.plan.n_classes > 2 else 1)
        solved = vectors * (INNER_FOLDS if self.plan.inner else 1)  # at once, of one split
        return 16 * N * D + 2 * len(self.plan.pairs) * solved * D + solved * (16 * N + 24 * D)

    def _exchange(self, mine: list[int]) -> None:
        """Fill in what other processes scored."""
        by_layer: list[npt.NDArray[np.floating[Any]]] = [
            *self.per_fold.values(), self.decision, self.null_curves.T, self.C_chosen, self.converged,
            self.at_edge, self.naive_curve,
        ]  # fmt: skip
        parts = processes.from_all((mine, [array[mine] for array in by_layer], self.separable, self.n_fits))
        for theirs, arrays, _, _ in parts:
            for array, rows in zip(by_layer, arrays, strict=True):
                array[theirs] = rows
        self.separable = {index: found for _, _, separable, _ in parts for index, found in separable.items()}
        self.n_fits = sum(n_fits for _, _, _, n_fits in parts)

    def _read(self, index: int) -> npt.NDArray[np.floating[Any]]:
        name = self.acts.names[index]
        X_ND = np.array(self.acts[name])  # a copy: what reads it may fill the same memory with the next layer
        if not np.isfinite(X_ND).all():
            raise InputError(
                f"layer {name!r} holds NaN or infinity; leave it out, or extract in float32 (dtype='float32')"
            )
        return X_ND

    def _layer(self, layer: tuple[int, npt.NDArray[np.floating[Any]]]) -> int:
        """Fit and score one layer, write its rows, and return how many fits that took."""
        from concept_depth.probing.fits import fit_layer

        index, X_ND = layer
        fits, naive = fit_layer(X_ND, self.plan, self.naive, device=self.device)
        K = len(self.acts.classes)
        for s, ((_, test), decided) in enumerate(zip(self.splits.pairs, fits.decision, strict=True)):
            self.decision[index, self.splits.repeat[s], test] = decided
            for metric, values in self.per_fold.items():
                values[index, s] = metrics.score(metric, decided[None], self.labels[None, test], K)[0]
        self.null_curves[:, index] = fits.null.mean(1)
        self.C_chosen[index], self.at_edge[index] = fits.C_used, fits.edge.mean()
        self.converged[index] = fits.converged
        test = self.naive.pairs[0][1]
        scoring = self.settings["scoring"]
        self.naive_curve[index] = metrics.score(scoring, naive.decision[0][None], self.labels[None, test], K)[0]
        if self.splits.in_sample and K == 2:
            from concept_depth.probing.separability import separability

            self.separable[index] = separability(X_ND, self.labels).to_dict()
        return fits.n_fits + naive.n_fits

    def _result(self) -> LayerScores:
        scoring = self.settings["scoring"]
        best = np.min if scoring in metrics.LOWER_IS_BETTER else np.max
        curve = [float(value) if np.isfinite(value) else None for value in self.naive_curve]
        audit = leaks.audit_groups(self.labels, self.groups, self.splits)
        # Pairs of the caller may test some rows only, whose classes have other shares than those of all rows.
        tested = self.labels[np.concatenate([test for _, test in self.splits.pairs])]
        return LayerScores(
            names=self.acts.names,
            numbers=self.acts.numbers,
            total=self.acts.total,
            classes=self.acts.classes,
            labels=self.labels,
            groups=self.groups,
            per_fold=self.per_fold,
            decision=self.decision,
            fold=self.splits.fold,
            repeat=self.splits.repeat,
            scoring=scoring,
            chance=metrics.chance(scoring, tested, len(self.acts.classes)),
            null_curves=self.null_curves,
            null_max=best(self.null_curves, axis=1) if len(self.null_curves) else np.empty(0),
            converged=self.converged,
            C_chosen=self.C_chosen,
            at_edge=self.at_edge,
            n_fits=self.n_fits,
            settings={**self.settings, "splits": self.splits.kind},
            audit={**audit, "naive_curve": curve, "naive_C": 1.0},
            provenance=dict(self.acts.provenance),
            separable=tuple(found for _, found in sorted(self.separable.items())),
        )


def _device(device: Any) -> str:
    """Its name: "auto" is a GPU where torch sees one; a device that torch cannot use is refused."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={device!r} cannot be used here ({reason}); give 'auto' or 'cpu'") from error
