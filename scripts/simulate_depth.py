"""How good are depth, interval and verdict? Simulated layers with real groups, real folds and real fits.

Layers carry a class difference whose height along depth is planted (steep, gradual, slow, humped, weak), in noise
that is correlated from layer to layer as in a residual stream; groups are twins (two examples of opposite classes
that share half their noise), singletons, or families of one to six. Every data set goes through `score_layers` and
`find_depth`.

What is estimated is the rule applied to the *expected* curve of probes trained on this many examples, so the truth
of a setting is the rule applied to the mean curve of its data sets. Reported: bias of the depth in layers with its
standard error; the same of the point where the straight line between two layers crosses the threshold, since a
depth is a whole layer, and rounding up both it and the truth moves their difference by up to half a layer either
way; share of the 95 % intervals that hold the truth, their median width in layers; and for pure noise the share of
`never`.

    python scripts/simulate_depth.py                        # small: some minutes
    python scripts/simulate_depth.py --datasets 200 --examples 1000 --layers 25 --out simulation.json
    python scripts/simulate_depth.py --neighbours runs/first   # how alike neighbouring layers really are
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

SHAPES = ("steep", "gradual", "slow", "humped", "weak")
GROUPINGS = ("twins", "singletons", "families")
SHARE = 0.9


def heights(shape: str, layers: int) -> np.ndarray:
    """(L,) accuracy that the best possible probe has at each layer."""
    x = np.arange(layers) / (layers - 1)
    curves = {
        "steep": np.where(x < 0.45, 0.5, 0.92),
        "gradual": 0.5 + 0.4 * np.clip((x - 0.2) / 0.45, 0, 1),
        "slow": 0.5 + 0.4 * (1 - np.exp(-3 * x)),
        "humped": 0.5 + 0.4 * np.exp(-(((x - 0.5) / 0.18) ** 2)),
        "weak": 0.5 + 0.12 * expit((x - 0.4) * 20),
        "noise": np.full(layers, 0.5),
    }
    return curves[shape]


def grouped(grouping: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups of n examples."""
    labels = np.tile([0, 1], n // 2)
    if grouping == "twins":
        return labels, np.repeat(np.arange(n // 2), 2)
    if grouping == "singletons":
        return labels, np.arange(n)
    return rng.permutation(labels), np.repeat(np.arange(n), rng.integers(1, 7, size=n))[:n]


def dataset(shape: str, grouping: str, args: argparse.Namespace, seed: list[int]) -> Any:
    """One set of activations."""
    from concept_depth.activations import Activations

    rng = np.random.default_rng(seed)
    labels, groups = grouped(grouping, args.examples, rng)
    hidden = args.hidden if shape != "noise" or not args.wide else args.wide

    def fresh() -> np.ndarray:
        own = rng.normal(size=(len(labels), hidden))
        shared = rng.normal(size=(groups.max() + 1, hidden))[groups]
        return own if grouping == "singletons" else (own + shared) / np.sqrt(2)

    noise, layers = fresh(), []
    for accuracy in heights(shape, args.layers):
        # Φ(h / 2) is the accuracy of the best hyperplane between two unit normals h apart.
        signal = np.zeros(hidden)
        signal[0] = 2 * norm.ppf(accuracy)
        layers.append((noise + (labels[:, None] - 0.5) * signal).astype(np.float32))
        noise = args.correlation * noise + np.sqrt(1 - args.correlation**2) * fresh()
    return Activations.from_arrays(layers, labels, groups=groups)


def crossing(curve: np.ndarray, peak: float) -> float:
    """Where the line through a curve first reaches its share of the peak's gain, NaN where it does not."""
    over = curve - (0.5 + SHARE * (peak - 0.5))
    if not (over >= 0).any():
        return float("nan")
    at = int((over >= 0).argmax())
    return float(at if at == 0 else at - over[at] / (over[at] - over[at - 1]))


def coverage(shape: str, grouping: str, args: argparse.Namespace) -> dict[str, Any]:
    """Bias, coverage and width of one setting."""
    from concept_depth.depth import find_depth
    from concept_depth.probing.scores import score_layers

    C = args.C if args.C == "nested" else float(args.C)
    curves, depths, crossings, ends, verdicts = [], [], [], [], []
    for index in range(args.datasets):
        acts = dataset(shape, grouping, args, [args.seed, SHAPES.index(shape), GROUPINGS.index(grouping), index])
        scores = score_layers(acts, permutations=0, C=C, random_state=index)
        depth = find_depth(scores, rule=f"within:{SHARE}", min_gain=0.0)
        curves.append(scores.curve)
        depths.append(np.nan if depth.number is None else depth.number)
        crossings.append(crossing(scores.curve, depth.peak))
        ends.append(depth.interval_numbers or (np.nan, np.nan))
        verdicts.append(depth.verdict)
    mean = np.mean(curves, axis=0)
    threshold = 0.5 + SHARE * (mean.max() - 0.5)
    truth = int((mean >= threshold).argmax())
    low, high = np.array(ends).T
    return {
        "shape": shape,
        "groups": grouping,
        "truth": truth,
        # How surely the truth is known: by how much the layer before misses the threshold, in standard errors.
        "clear": float(
            (threshold - mean[truth - 1]) / (np.std(curves, axis=0)[truth - 1] / np.sqrt(args.datasets))
        ),
        "bias": float(np.nanmean(depths) - truth),
        "bias_error": float(np.nanstd(depths) / np.sqrt(np.isfinite(depths).sum())),
        "crossing_bias": float(np.nanmean(crossings) - crossing(mean, mean.max())),
        "crossing_error": float(np.nanstd(crossings) / np.sqrt(np.isfinite(crossings).sum())),
        "median": float(np.nanmedian(depths)),
        "deviation": float(np.nanstd(depths)),
        "coverage": float(np.mean((low <= truth) & (truth <= high))),
        "width": float(np.nanmedian(high - low)),
        "unstable": float(np.mean(np.array(verdicts) == "unstable")),
    }


def noise(grouping: str, args: argparse.Namespace) -> dict[str, Any]:
    """Share of pure-noise concepts that come out `never`, by the whole default protocol but for fewer repeats."""
    from concept_depth.depth import find_depth
    from concept_depth.probing.scores import score_layers

    found = []
    for index in range(args.noise):
        acts = dataset("noise", grouping, args, [args.seed, 99, GROUPINGS.index(grouping), index])
        C = args.C if args.C == "nested" else float(args.C)
        found.append(find_depth(score_layers(acts, repeats=1, C=C, random_state=index)))
    return {
        "groups": grouping,
        "hidden": args.wide or args.hidden,
        "never": float(np.mean([depth.verdict == "never" for depth in found])),
        "p_below_0.05": float(np.mean([(depth.p or 1) <= 0.05 for depth in found])),
    }


def alike(scores: Any) -> float:
    """Median correlation, over neighbouring layers that read the concept, of which examples they get right."""
    right = (scores.predicted[:, 0] == scores.labels)[:, scores.fold[0] >= 0].astype(float)
    curve = right.mean(1)
    reads = curve >= curve.min() + 0.3 * (curve.max() - curve.min())
    pairs = [
        i for i in range(1, len(right) - 1) if reads[i : i + 2].all() and np.ptp(right[i : i + 2], axis=1).all()
    ]
    return float(np.median([np.corrcoef(right[i : i + 2])[0, 1] for i in pairs])) if pairs else float("nan")


def neighbours(folders: list[Path], args: argparse.Namespace) -> None:
    """Print how alike neighbouring layers are in the stored scores of real runs, and in simulated ones."""
    from concept_depth.probing.scores import LayerScores, score_layers

    paths = sorted(path for folder in folders for path in folder.rglob("scores.safetensors"))
    if not paths:
        raise SystemExit(
            f"no scores below {', '.join(map(str, folders))}; give folders that 'concept-depth run' wrote"
        )
    for path in paths:
        print(f"{path.parent.name:24}{alike(LayerScores.load(path)):5.2f}")
    for correlation in (0.7, 0.9, 0.95, 0.98):
        args.correlation = correlation
        found = [
            alike(score_layers(dataset(shape, "singletons", args, [args.seed, 98, i]), permutations=0, repeats=1))
            for i, shape in enumerate(("gradual", "slow", "weak"))
        ]
        print(
            f"--correlation {correlation:<10}{', '.join(f'{value:.2f}' for value in found)}  (gradual, slow, weak)"
        )


def main() -> None:
    """Run the simulation and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=20, help="data sets a setting")
    parser.add_argument("--noise", type=int, default=10, help="pure-noise data sets a setting")
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--wide", type=int, default=0, help="hidden units of the pure-noise sets (0: as --hidden)")
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--correlation", type=float, default=0.7, help="of the noise of neighbouring layers")
    parser.add_argument("--C", default="nested", help="as in score_layers")
    parser.add_argument("--shapes", nargs="*", default=SHAPES, choices=SHAPES)
    parser.add_argument("--groups", nargs="*", default=GROUPINGS[:2], choices=GROUPINGS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--neighbours", type=Path, nargs="+", metavar="DIR", help="only compare with these runs")
    args = parser.parse_args()
    if args.neighbours:
        neighbours(args.neighbours, args)
        return
    started, rows, nulls = time.monotonic(), [], []
    print(
        f"{'shape':9}{'groups':12}{'truth':>6}{'bias':>7}{'± s.e.':>8}{'crossing':>10}{'± s.e.':>8}{'covered':>9}"
        f"{'width':>7}{'unstable':>10}"
    )
    for shape in args.shapes:
        for grouping in args.groups:
            row = coverage(shape, grouping, args)
            rows.append(row)
            print(
                f"{shape:9}{grouping:12}{row['truth']:6d}{row['bias']:+7.2f}{row['bias_error']:8.2f}"
                f"{row['crossing_bias']:+10.2f}{row['crossing_error']:8.2f}{row['coverage']:9.2f}"
                f"{row['width']:7.1f}{row['unstable']:10.2f}",
                flush=True,
            )
    for grouping in args.groups if args.noise else ():
        nulls.append(noise(grouping, args))
        print(f"noise    {grouping:12}hidden {nulls[-1]['hidden']}: never {nulls[-1]['never']:.2f}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    if args.out:
        settings = {key: value for key, value in vars(args).items() if key not in ("out", "neighbours")}
        args.out.write_text(json.dumps({"settings": settings, "coverage": rows, "noise": nulls}, indent=1) + "\n")


if __name__ == "__main__":
    main()
