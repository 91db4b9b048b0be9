"""Alain & Bengio (2016): linear classifier probes after every operation of a convolutional network on real digits.

1. A network (convolution, ReLU, pooling, twice; then fully connected) is trained on one part of the digits, and a
   10-class linear probe is fitted to every operation on digits that the network never saw, for the trained and for
   the untrained network: with training, error falls with depth.
2. A deep network with a dead segment: a connection from the input to the middle lets training ignore the first
   half, and the probes show which layers learnt nothing.

    python scripts/alain_bengio.py [--data digits|mnist|NAME] [--data-dir DIR] [--seed 0] [--out runs/alain_bengio]

`digits` (default) is scikit-learn's bundled set of 1,797 real digits of 8 × 8 pixels; `mnist` is the Hub's
(network needed); NAME is a concept of images, as `mnist_binary` with its file below DIR.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import concept_depth as cd
from concept_depth.cli.tables import text_table
from concept_depth.cli.wording import as_typed
from concept_depth.files import check_writable


def read_digits(source: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, H, W) between 0 and 1, and labels (N,)."""
    if source == "digits":
        from sklearn.datasets import load_digits

        data = load_digits()
        images, labels = data.images / 16.0, data.target
    elif source == "mnist":
        from datasets import load_dataset

        data = load_dataset("ylecun/mnist", split="train[:12000]")
        images = np.stack([np.asarray(image) for image in data["image"]]) / 255.0
        labels = np.asarray(data["label"])
    else:
        concept = cd.load_concept(source, data_dir=data_dir)
        if concept.is_text:
            raise cd.InputError(f"{source} holds texts; give digits, mnist or a concept of images")
        images, labels = np.asarray(concept.inputs), concept.labels
        side = round((images[0].size) ** 0.5)
        images = images.reshape(-1, side, side) / max(images.max(), 1.0)
    return images[:, None].astype(np.float32), labels.astype(np.int64)


def convolutional(side: int) -> nn.Sequential:
    """Convolution, ReLU, pooling, twice; then fully connected; ten outputs."""
    flat = 32 * (side // 4) ** 2
    operations = {
        "conv1": nn.Conv2d(1, 16, 3, padding=1),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(16, 32, 3, padding=1),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(flat, 64),
        "relu3": nn.ReLU(),
        "logits": nn.Linear(64, 10),
    }
    network = nn.Sequential()
    for name, operation in operations.items():
        network.add_module(name, operation)
    return network


class WithDeadSegment(nn.Module):
    """A deep fully connected network whose input is added again in the middle: the first half can be ignored."""

    def __init__(self, inputs: int, width: int = 64, depth: int = 24) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.skip = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.acts = nn.ModuleList(nn.LeakyReLU(0.1) for _ in range(depth))
        self.logits = nn.Linear(width, 10)
        # Small weights let the signal, and with it the gradient, fade on its way through the first half.
        for layer in self.layers[: depth // 2]:
            nn.init.normal_(layer.weight, std=0.3 / width**0.5)
        for layer in self.layers[depth // 2 :]:
            nn.init.kaiming_normal_(layer.weight, a=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.flatten(x)
        hidden = flat
        for index, (layer, act) in enumerate(zip(self.layers, self.acts, strict=True)):
            if index == len(self.layers) // 2:
                hidden = hidden + self.skip(flat)
            hidden = act(layer(hidden))
        return self.logits(hidden)


def train(network: nn.Module, images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int) -> None:
    """Adam on cross-entropy, in batches of 64, each shifted by up to a pixel so that few digits teach more."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            down, right = torch.randint(0, 3, (2,), generator=generator).tolist()
            padded = nn.functional.pad(x[batch], (1, 1, 1, 1))
            shifted = padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(shifted), y[batch]).backward()
            optimizer.step()


def probe_errors(
    network: nn.Module, concept: cd.Concept, layers: list[str], seed: int
) -> tuple[list[str], np.ndarray]:
    """Names of the layers and the (L, folds) error of a ten-class linear probe at each."""
    subject = cd.Subject.from_module(network, layers=layers)
    acts = cd.collect(subject, concept, progress=False)
    scores = cd.score_layers(acts, C=1.0, scoring="accuracy", repeats=1, permutations=0, random_state=seed)
    return list(scores.names), 1 - scores.metric("accuracy")


def moved(before: dict[str, torch.Tensor], network: nn.Module, name: str) -> float:
    """How far training has moved a weight, relative to its size at the start."""
    start = before[name]
    return float((network.state_dict()[name] - start).norm() / start.norm())


def draw(curves: dict[str, np.ndarray], names: list[str], title: str, path: Path) -> None:
    """Error (mean and range over folds) after every operation."""
    figure = Figure(figsize=(max(3.3, 0.28 * len(names) + 1), 2.8), layout="constrained")
    axes = figure.add_subplot()
    for (label, error), colour in zip(curves.items(), ("#0072B2", "#D55E00"), strict=False):
        axes.plot(range(len(names)), error.mean(axis=1), "o-", ms=4, color=colour, label=label)
        axes.fill_between(range(len(names)), error.min(axis=1), error.max(axis=1), color=colour, alpha=0.2, lw=0)
    axes.set(title=title, ylabel="error of a linear probe", ylim=(0, None))
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.legend(fontsize=8)
    for ending in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=200)


def experiment_cnn(images: np.ndarray, labels: np.ndarray, half: int, seed: int, out: Path) -> None:
    """Probes after every operation of the trained and the untrained network."""
    concept = concept_of(images[half:], labels[half:])
    curves: dict[str, np.ndarray] = {}
    for state in ("untrained", "trained"):
        torch.manual_seed(seed)
        network = convolutional(images.shape[-1])
        if state == "trained":
            train(network, images[:half], labels[:half], epochs=60, seed=seed)
        names, curves[state] = probe_errors(network, concept, ["input", "*"], seed)
    print(text_table(["layer", *curves], _rows(names, curves)))
    draw(curves, names, "Error of linear probes, operation by operation", out / "cnn")


def experiment_dead(images: np.ndarray, labels: np.ndarray, half: int, seed: int, out: Path) -> None:
    """Probes on a network whose first half a skip connection makes idle."""
    concept = concept_of(images[half:], labels[half:])
    curves: dict[str, np.ndarray] = {}
    for state in ("untrained", "trained"):
        torch.manual_seed(seed)
        network = WithDeadSegment(int(np.prod(images.shape[1:])))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if state == "trained":
            train(network, images[:half], labels[:half], epochs=30, seed=seed)
        names, curves[state] = probe_errors(network, concept, ["input", "acts.*"], seed)
    shifts = ["", *(f"{moved(before, network, f'layers.{i}.weight'):.3f}" for i in range(len(network.layers)))]
    rows = [[*row, shift] for row, shift in zip(_rows(names, curves), shifts, strict=True)]
    print(text_table(["layer", *curves, "weights moved by"], rows))
    draw(curves, names, "A dead segment: the first half does not train", out / "dead_segment")


def concept_of(images: np.ndarray, labels: np.ndarray) -> cd.Concept:
    """Ten classes of digits."""
    return cd.Concept(
        name="digits", inputs=images, labels=labels, classes=tuple(str(digit) for digit in range(10))
    )


def _rows(names: list[str], curves: dict[str, np.ndarray]) -> list[list[str]]:
    return [
        [name, *(f"{100 * error[index].mean():5.1f} %" for error in curves.values())]
        for index, name in enumerate(names)
    ]


def main() -> None:
    """Run both experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, mnist or a concept of images (default digits)")
    parser.add_argument("--data-dir", help="folder with the raw files of a known set, as mnist_binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/alain_bengio"), help="folder for the figures")
    options = parser.parse_args()
    try:
        check_writable(options.out)
        images, labels = read_digits(options.data, options.data_dir)
    except cd.InputError as error:
        print(f"alain_bengio: {as_typed(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    options.out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(options.seed).permutation(len(labels))
    images, labels = images[order], labels[order]
    half = len(labels) // 2
    print(f"{half} digits train the network, {len(labels) - half} others the probes (5-fold cross-validation)\n")
    experiment_cnn(images, labels, half, options.seed, options.out)
    print()
    experiment_dead(images, labels, half, options.seed, options.out)
    print(f"\nfigures: {options.out}")


if __name__ == "__main__":
    main()
