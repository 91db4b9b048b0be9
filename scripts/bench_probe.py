"""Measure the probing engine against scikit-learn's solvers, at equal objective, and print a Markdown table.

The bare grid: folds × values of C on every layer, ours in one call a layer, scikit-learn's one fit after the other
(a sample of them with --sample; every fit of a sample is timed, none is extrapolated from another shape). The
default path: `score_layers` with nested C, repeats and 39 permutations, against layers × 5 × 2 fits of
LogisticRegression(C=1, max_iter=10_000) on standardised features. Excess is how far an objective lies above the
best known, relatively: the lowest of all solvers and of our own float64 solution at tol=1e-11.

scikit-learn gets float64, in which newton-cholesky is at its best (in float32 its line search stalls), and as many
threads as serve it best, one or all, tried on ten iterations: on small matrices its two pools of threads can hinder
each other so much that one thread is ten times faster. --threads all leaves it those that it takes by itself. With
--equal each of its fits is timed at the first of the tolerances 1e-6, 1e-7, … that brings its objective within 1e-5
of the best known (1e-4 where C ≥ 100), without it at 1e-6. Before either is timed there is a pause, since the threads
of numpy and of torch go on turning for a while after their work and would hinder the other's.

    python scripts/bench_probe.py --shapes 1500x576 --layers 2 --sample 20
    python scripts/bench_probe.py --activations runs/cities/acts --sample 100 --default-path
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing.logistic import solve_logistic
from concept_depth.probing.protocol import score_layers

_PAUSE = 0.5  # seconds

Matrix = npt.NDArray[np.floating]


@dataclass
class Grid:
    """The problems of one layer: every fold with every C, and what is known of their minima."""

    X: Matrix
    y: npt.NDArray[np.int64]
    weight: Matrix  # (N, B)
    C: Matrix  # (B,)
    best: Matrix  # (B,)

    def objective(self, b: int, coef: Matrix, intercept: float) -> float:
        """The written objective of problem b, in float64."""
        margin = (2 * self.y - 1) * (self.X.astype(np.float64) @ coef + intercept)
        return float(0.5 * coef @ coef + self.C[b] * (self.weight[:, b] @ np.logaddexp(0, -margin)))


def synthetic(n: int, d: int, layers: int, seed: int = 0) -> Activations:
    """Well-conditioned layers: standard normal features, labels by a noisy linear rule."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(layers, n, d)).astype(np.float32)
    y = np.arange(n) % 2
    X += 0.5 * (2 * y - 1)[:, None] * rng.normal(size=(layers, 1, d)).astype(np.float32) / np.sqrt(d) * 4
    return Activations.from_arrays(list(X), y, groups=np.arange(n) // 2)


def grids(acts: Activations, layers: list[str], values: int, folds: int) -> Iterator[Grid]:
    """The grid of each layer, with the minima by our solver in float64 at a tight tolerance."""
    y = np.asarray(acts.labels)
    _, group = np.unique(acts.groups, return_inverse=True)
    part = np.random.default_rng(0).permutation(group.max() + 1)[group] % folds
    C = np.tile(np.logspace(-5, 4, values), folds)
    weight = np.repeat(np.stack([part != f for f in range(folds)], 1), values, axis=1).astype(np.float32)
    Y = np.repeat(y[:, None], len(C), 1)
    for name in layers:
        X = acts[name]
        best = solve_logistic(X.astype(np.float64), Y, C=C, sample_weight=weight, tol=1e-11, max_iter=20_000)
        yield Grid(X, y, weight, C, best.objective)


def time_ours(grid: Grid, tol: float, device: str) -> tuple[float, Matrix]:
    """Seconds for the whole grid, to the device and back, and the objectives."""
    Y = np.repeat(grid.y[:, None], len(grid.C), 1)
    time.sleep(_PAUSE)
    for _ in range(2):  # the first wakes the cores, as scikit-learn's first fits do for its others
        start = time.perf_counter()
        found = solve_logistic(grid.X, Y, C=grid.C, sample_weight=grid.weight, tol=tol, device=device)
        seconds = time.perf_counter() - start
    return seconds, np.array([grid.objective(b, found.coef[:, b], found.intercept[b]) for b in range(len(grid.C))])


def best_threads(X: Matrix, y: npt.NDArray[np.int64], solver: str) -> int:
    """One thread or all: with which scikit-learn takes less time for ten iterations."""
    seconds = {}
    for threads in (1, os.cpu_count() or 1):
        with threadpool_limits(threads):
            start = time.perf_counter()
            LogisticRegression(C=1.0, solver=solver, tol=1e-12, max_iter=10).fit(X, y)
            seconds[threads] = time.perf_counter() - start
    return min(seconds, key=lambda threads: seconds[threads])


def time_sklearn(
    grid: Grid, solver: str, chosen: npt.NDArray[np.int64], *, threads: str, equal: bool
) -> tuple[Matrix, Matrix]:
    """Seconds of each chosen fit, and its objective."""
    seconds, objective = np.empty(len(chosen)), np.empty(len(chosen))
    X = grid.X.astype(np.float64)
    time.sleep(_PAUSE)
    with threadpool_limits(best_threads(X, grid.y, solver) if threads == "best" else None):
        for k, b in enumerate(chosen):
            rows = grid.weight[:, b] > 0
            part, y = X[rows], grid.y[rows]
            for tol in 10.0 ** -np.arange(6, 13 if equal else 7):
                start = time.perf_counter()
                model = LogisticRegression(C=grid.C[b], solver=solver, tol=tol, max_iter=10_000).fit(part, y)
                seconds[k] = time.perf_counter() - start
                objective[k] = grid.objective(int(b), model.coef_[0], float(model.intercept_[0]))
                if objective[k] <= grid.best[b] * (1 + (1e-4 if grid.C[b] >= 100 else 1e-5)):
                    break
    return seconds, objective


def bench_grid(acts: Activations, title: str, args: argparse.Namespace) -> list[list[str]]:
    """Rows of the table for the bare grid."""
    names = _spread(list(acts.names), args.layers)
    rng = np.random.default_rng(1)
    ours: list[tuple[float, int]] = []
    excess: dict[str, list[tuple[float, float]]] = {}
    spent: dict[str, list[float]] = {solver: [] for solver in args.solvers}
    for grid in grids(acts, names, args.values, args.folds):
        per_layer = max(1, args.sample // len(names))
        # One of every C before a second of any: the cost depends on C most.
        order = np.argsort(rng.random(len(grid.C)) + np.repeat(np.arange(args.folds), args.values))
        chosen = order[:per_layer] if args.sample else np.arange(len(grid.C))
        theirs = {
            solver: time_sklearn(grid, solver, chosen, threads=args.threads, equal=args.equal)
            for solver in args.solvers
        }
        best = grid.best.copy()
        for _, objective in theirs.values():
            best[chosen] = np.minimum(best[chosen], objective)
        seconds, objective = time_ours(grid, args.tol, args.device)
        best = np.minimum(best, objective)
        ours.append((seconds, len(grid.C)))
        excess.setdefault("ours", []).extend(zip(grid.C, objective / best - 1, strict=True))
        for solver, (times, values) in theirs.items():
            spent[solver].extend(times)
            excess.setdefault(solver, []).extend(zip(grid.C[chosen], values / best[chosen] - 1, strict=True))
    fits = sum(count for _, count in ours)
    each = sum(seconds for seconds, _ in ours) / fits
    rows = [[title, "concept_depth", str(fits), f"{1e3 * each:.2f}", "1", *_worst(excess["ours"])]]
    for solver, times in spent.items():
        mean = float(np.mean(times))
        rows.append(
            [title, solver, str(len(times)), f"{1e3 * mean:.1f}", f"{mean / each:.0f}", *_worst(excess[solver])]
        )
    return rows


def bench_default(acts: Activations, title: str, layers: int, device: str) -> list[list[str]]:
    """Rows of the table for the default path: seconds for all the layers measured."""
    names = _spread(list(acts.names), layers)
    some = Activations.from_arrays({name: acts[name] for name in names}, acts.labels, groups=acts.groups)
    time.sleep(_PAUSE)
    start = time.perf_counter()
    scores = score_layers(some, random_state=0, device=device)
    ours = time.perf_counter() - start
    time.sleep(_PAUSE)
    seconds, fits = 0.0, 0
    part = np.arange(len(acts.labels)) % 5
    threads = best_threads(StandardScaler().fit_transform(acts[names[-1]]), np.asarray(acts.labels), "lbfgs")
    with threadpool_limits(threads):
        for name in names:
            for fold in range(5):
                X, y = acts[name][part != fold], np.asarray(acts.labels)[part != fold]
                start = time.perf_counter()
                LogisticRegression(C=1, max_iter=10_000).fit(StandardScaler().fit_transform(X), y)
                seconds += 2 * (time.perf_counter() - start)  # the second repeat costs what the first does
                fits += 2
    label = f"{title}, default path, {len(names)} layers"
    whole = f"lbfgs, C=1 ({seconds:.1f} s against {ours:.1f} s in all)"
    each = f"{1e3 * ours / scores.n_fits:.2f}"
    return [
        [label, "concept_depth, whole protocol", str(scores.n_fits), each, "1", "", ""],
        [label, whole, str(fits), f"{1e3 * seconds / fits:.1f}", f"{seconds / ours:.2f} in all", "", ""],
    ]


def shape(text: str) -> str:
    """A shape as it is typed, n x d."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; give rows x features, 1500x576 for instance")
    return text


def _spread(names: list[str], count: int) -> list[str]:
    """`count` of the names, evenly spread; 0 is all."""
    if not count or count >= len(names):
        return names
    return [names[round(k)] for k in np.linspace(0, len(names) - 1, count)]


def _worst(pairs: list[tuple[float, float]]) -> list[str]:
    """The largest excess below C = 100, and from there."""
    return [f"{max((e for C, e in pairs if bool(C >= 100) == high), default=0.0):.1e}" for high in (False, True)]


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="*", type=shape, default=["1500x576", "6000x2048", "1500x4096"], help="n x d, synthetic"
    )
    parser.add_argument(
        "--activations", type=Path, help="what Activations.save wrote: real layers, in place of --shapes"
    )
    parser.add_argument("--layers", type=int, default=2, help="layers measured, evenly spread; 0 is all")
    parser.add_argument("--solvers", nargs="*", default=["newton-cholesky", "lbfgs"])
    parser.add_argument("--sample", type=int, default=20, help="scikit-learn fits timed per solver; 0 is all")
    parser.add_argument("--values", type=int, default=10, help="values of C, from 1e-5 to 1e4")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument(
        "--device", default="cpu", help="where ours computes: cpu, cuda, … (scikit-learn: always the CPU)"
    )
    parser.add_argument(
        "--threads", choices=("best", "all"), default="best", help="scikit-learn's, for the grid (default: best)"
    )
    parser.add_argument("--equal", action="store_true", help="tighten scikit-learn's tol until objectives agree")
    parser.add_argument("--default-path", action="store_true", help="also time score_layers as it comes")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    given = [args.activations.name] if args.activations else args.shapes
    print(f"{os.cpu_count()} cores\n")
    print("| data | solver | fits timed | ms a fit | ours is faster by | excess, C < 100 | excess, C ≥ 100 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for what in given:
        if args.activations:
            acts = Activations.load(args.activations)
        else:
            n, d = (int(part) for part in what.split("x"))
            acts = synthetic(n, d, max(1, args.layers))
        _warm_up(args.device)
        rows = bench_grid(acts, what, args) if args.solvers else []
        rows += bench_default(acts, what, args.layers, args.device) if args.default_path else []
        for row in rows:
            print("| " + " | ".join(row) + " |", flush=True)


def _warm_up(device: str) -> None:
    """Load the libraries and start their threads."""
    X, y = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32), np.arange(200) % 2
    solve_logistic(X, np.repeat(y[:, None], 20, 1), C=np.logspace(-3, 3, 20), device=device)
    LogisticRegression().fit(X, y)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"bench_probe: {error}", file=sys.stderr)
        raise SystemExit(2) from None
