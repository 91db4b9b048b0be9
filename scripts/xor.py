"""Why hidden layers: XOR is not linearly separable at the input and is at the hidden layer.

A network of one linear layer with two neurons, no biases, ReLU and one output neuron, trained with squared error
on the four corners. Prints what each part can and cannot do, and draws three figures.

    python scripts/xor.py [--seed 0] [--seeds 100] [--out runs/xor]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import concept_depth as cd
from concept_depth.files import check_writable
from concept_depth.probing.separability import separability

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
XOR = np.array([0, 1, 1, 0])
SOLVED = 0.01  # mean squared error below which no corner is on the wrong side of one half


def train(seeds: range, steps: int = 3000, rate: float = 0.03) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Train one network a seed, all at once: weights (S, 2, 2) and (S, 2), and each one's final squared error."""
    start = [torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    weights = torch.stack(start).requires_grad_()
    x, y = torch.from_numpy(CORNERS), torch.from_numpy(XOR).double()
    optimizer = torch.optim.Adam([weights], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        # The networks share no weight, so the gradient of the sum is each one's own gradient.
        forward(weights, x).sub(y).square().mean(dim=1).sum().backward()
        optimizer.step()
    weights = weights.detach()
    error = forward(weights, x).sub(y).square().mean(dim=1)
    return weights[:, :4].reshape(-1, 2, 2), weights[:, 4:], error


def forward(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(S, 6) weights on (N, 2) points → (S, N) predictions."""
    hidden = torch.relu(torch.einsum("sij,nj->sni", weights[:, :4].reshape(-1, 2, 2), x))
    return torch.einsum("sni,si->sn", hidden, weights[:, 4:])


def linear_regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with an intercept: coefficients and intercept."""
    design = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    return solution[:-1], float(solution[-1])


class Network(nn.Module):
    """The trained network with its input and hidden layer as modules of their own, so that each can be probed."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        super().__init__()
        linear, output = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        linear.weight.data, output.weight.data = first.float(), second.float()[None]
        self.layers = nn.Sequential(nn.Identity(), nn.Sequential(linear, nn.ReLU()))
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers(x))


def through_the_tool(network: Network, seed: int) -> dict[str, Any]:
    """The same question put to the tool: 400 jittered corners, probes at input and hidden layer."""
    rng = np.random.default_rng(seed)
    corner = np.repeat(np.arange(4), 100)
    points = (CORNERS[corner] + rng.uniform(-0.15, 0.15, size=(400, 2))).astype(np.float32)
    concept = cd.Concept(name="xor", inputs=points, labels=XOR[corner], classes=("equal", "different"))
    subject = cd.Subject.from_module(network, layers="layers.*")
    acts = cd.collect(subject, concept, progress=False)
    scores = cd.score_layers(acts, random_state=seed)
    exact = cd.score_layers(acts, cv=None, permutations=0, random_state=seed)
    return {
        "within:0.9": cd.find_depth(scores),
        "separable": cd.find_depth(exact, rule="separable"),
        "curve": scores.curve,
    }


def draw(first: np.ndarray, second: np.ndarray, out: Path) -> None:
    """The plane under linear regression and under the network, and the hidden space with its separating line."""
    grid = np.stack(np.meshgrid(np.linspace(-0.4, 1.4, 181), np.linspace(-0.4, 1.4, 181)), axis=-1)
    hidden = np.maximum(CORNERS @ first.T, 0)
    flat, offset = linear_regression(CORNERS, XOR)
    line, level = linear_regression(hidden, XOR)
    hidden_grid = np.maximum(grid @ first.T, 0)
    edge = hidden.max() * 1.25
    space = np.stack(
        np.meshgrid(np.linspace(-0.2 * edge, edge, 181), np.linspace(-0.2 * edge, edge, 181)), axis=-1
    )
    panels = [
        ("plane_linear", "Linear regression: ½ everywhere", grid, grid @ flat + offset, CORNERS, "x", "y"),
        ("plane_network", "One hidden layer with ReLU", grid, hidden_grid @ second, CORNERS, "x", "y"),
        ("hidden_space", "Hidden space: one line suffices", space, space @ line + level, hidden, "h₁", "h₂"),
    ]
    for name, title, where, value, points, left, up in panels:
        figure = Figure(figsize=(3.3, 3.1), layout="constrained")
        axes = figure.add_subplot()
        image = axes.pcolormesh(
            where[..., 0], where[..., 1], value, cmap="RdBu_r", vmin=0, vmax=1, rasterized=True
        )
        if name != "plane_linear":
            axes.contour(where[..., 0], where[..., 1], value, levels=[0.5], colors="black", linewidths=1.2)
        for label, marker in ((0, "o"), (1, "s")):
            chosen = points[label == XOR]
            axes.plot(
                *chosen.T, marker, ms=8, mec="black", mfc="white" if label else "0.2", label=f"xor = {label}"
            )
        axes.set(xlabel=left, ylabel=up, aspect="equal")
        axes.set_title(title, fontsize=9)
        axes.legend(loc="upper right", fontsize=7)
        figure.colorbar(image, label="prediction", shrink=0.8)
        for ending in ("png", "pdf"):
            figure.savefig(out / f"{name}.{ending}", dpi=200)


def main() -> None:
    """Run the whole demonstration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="network to show (default 0)")
    parser.add_argument("--seeds", type=int, default=100, help="networks to train for the success rate")
    parser.add_argument("--out", type=Path, default=Path("runs/xor"), help="folder for the figures")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    try:
        check_writable(options.out)
    except cd.InputError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)

    flat, offset = linear_regression(CORNERS, XOR)
    print(f"(a) linear regression on the four points predicts {CORNERS @ flat + offset} for {XOR}")

    firsts, seconds, errors = train(range(options.seed, options.seed + options.seeds))
    solved = errors < SOLVED
    print(f"(b) {int(solved.sum())} of {options.seeds} seeds solve XOR (squared error below {SOLVED})")
    if not solved[0]:
        print(f"    seed {options.seed} fails: it ends with a squared error of {errors[0]:.3f}")
    if not solved.any():
        raise SystemExit("no seed trained; try more with --seeds")
    chosen = int(torch.nonzero(solved)[0])
    first, second = firsts[chosen], seconds[chosen]
    shown = f"seed {options.seed + chosen}"
    print(
        f"    {shown}: hidden weights {first.numpy().round(3).tolist()}, output {second.numpy().round(3).tolist()}"
    )
    # The output scales with w₂ and the hidden units with W₁, so only the products are determined.
    for row, weight in zip(first, second, strict=True):
        a, b = (row * weight).tolist()
        print(f"    neuron: {weight:.3f} · relu({row[0]:+.3f} x {row[1]:+.3f} y) = relu({a:+.3f} x {b:+.3f} y)")
    network = Network(first, second)
    with torch.no_grad():
        predicted = network(torch.from_numpy(CORNERS).float())[:, 0].numpy()
    print(f"    predictions {predicted.round(3)}")
    # On the corners relu(x − k y) is relu(x − y) for every k ≥ 1, so a neuron may overshoot and still be exact.
    ideal = np.abs(CORNERS @ [1, -1])
    print(
        f"    relu(x − y) + relu(y − x) there: {ideal}, so they agree within {np.abs(predicted - ideal).max():.1e}"
    )
    collapsed = (second @ first).numpy()
    print(
        f"    without the ReLU the same weights are one map, {collapsed[0]:+.3f} x {collapsed[1]:+.3f} y:", end=" "
    )
    print(f"predictions {(CORNERS @ collapsed).round(3)}")

    hidden = np.maximum(CORNERS @ first.numpy().T, 0)
    line, level = linear_regression(hidden, XOR)
    print(f"(c) linear regression on the hidden layer predicts {(hidden @ line + level).round(3)}")
    for name, points in (("input", CORNERS), ("hidden layer", hidden)):
        verdict = separability(points, XOR)
        print(f"    {name}: {'separable' if verdict.separable else 'not separable'}, certified")

    results = through_the_tool(network, options.seed)
    print(f"(d) the tool on 400 jittered corners: balanced accuracy {np.round(results.pop('curve'), 3)}")
    for rule, depth in results.items():
        print(f"    {rule}: {depth}")
    draw(first.numpy(), second.numpy(), options.out)
    print(f"figures: {options.out}")


if __name__ == "__main__":
    main()
