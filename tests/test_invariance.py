"""What must not matter does not: order of examples, which class is called 0, where the hidden space lies and points."""

import json

import numpy as np
import pytest
import torch

from concept_depth import load_concept
from concept_depth.activations import Activations
from concept_depth.concepts.groups import by_content
from concept_depth.depth import find_depth
from concept_depth.probing.scores import score_layers


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def grouped(kind, n=120, seed=0):
    """Labels, and groups whose numbers tell nothing of their order."""
    rng = np.random.default_rng(seed)
    labels, groups = {
        "twins": lambda: (np.tile([0, 1], n // 2), np.repeat(np.arange(n // 2), 2)),
        "single": lambda: ((rng.random(n) < 0.4).astype(int), np.arange(n)),
        "unlike": lambda: ((rng.random(n) < 0.4).astype(int), np.arange(n) % (n // 3 + 1)),
        "three classes": lambda: (rng.integers(0, 3, n), np.arange(n)),
    }[kind]()
    return labels, rng.permutation(10 * n)[groups]


def rising(labels, hidden=12, seed=1):
    """Layers in which the first class comes away from the others."""
    rng = np.random.default_rng(seed)
    direction = np.where(np.arange(hidden) < 3, 1.0, 0.0)
    return [
        rng.normal(size=(len(labels), hidden)) + height * (labels[:, None] > 0) * direction
        for height in (0.0, 0.4, 0.8, 1.2)
    ]


def measured(layers, labels, groups, **settings):
    scores = score_layers(Activations.from_arrays(layers, labels, groups=groups), **settings)
    depth = find_depth(scores)
    curve = [scores.metric(name).mean(axis=1) for name in ("balanced_accuracy", "auroc", "log_loss")]
    return np.stack(curve), (depth.number, depth.interval_numbers, depth.verdict, depth.p, round(depth.gain, 3))


@pytest.mark.parametrize("kind", ["twins", "single", "unlike", "three classes"])
def test_neither_the_order_of_examples_nor_the_names_of_classes_matter(kind):
    labels, groups = grouped(kind)
    layers = rising(labels)
    curve, found = measured(layers, labels, groups)
    order = np.random.default_rng(2).permutation(len(labels))
    shuffled, found_shuffled = measured([m[order] for m in layers], labels[order], groups[order])
    # Sums in another order can settle a near tie between two values of C the other way.
    np.testing.assert_allclose(shuffled, curve, atol=2e-3)
    swapped, found_swapped = measured(layers, labels.max() - labels, groups)
    np.testing.assert_allclose(swapped, curve, atol=2e-3)
    assert found == found_swapped
    # Only rows of one group may draw other permutations: of larger mixed groups, and p with them.
    assert found[:3] == found_shuffled[:3]
    assert kind == "unlike" or found == found_shuffled


@pytest.mark.parametrize("standardize", [True, "scale", False])
def test_where_the_hidden_space_lies_and_points_does_not_matter(standardize):
    labels, groups = grouped("twins")
    layers = rising(labels)
    curve, found = measured(layers, labels, groups, standardize=standardize, permutations=19)
    rng = np.random.default_rng(3)
    origin = 10 * rng.normal(size=layers[0].shape[1])
    moved, found_moved = measured(
        [m + origin for m in layers], labels, groups, standardize=standardize, permutations=19
    )
    np.testing.assert_allclose(moved, curve, atol=1e-4)
    assert found == found_moved
    if standardize is True:
        # Features with a scale of their own are no rotation's business; their units are nobody's.
        change = np.diag(rng.uniform(0.01, 100, size=len(origin)))
    else:
        change = np.linalg.qr(rng.normal(size=(len(origin), len(origin))))[0]
    turned, found_turned = measured(
        [m @ change for m in layers], labels, groups, standardize=standardize, permutations=19
    )
    np.testing.assert_allclose(turned, curve, atol=1e-4)
    assert found == found_turned


@pytest.mark.parametrize("column", [True, False])
def test_a_file_in_another_order_gives_the_same_groups_by_number(tmp_path, column):
    rows = [
        {"text": f"The {thing} number {i % 7} is {colour}.", "label": colour == "red"}
        | ({"key": f"{thing}{i}"} if column else {})
        for i, thing in enumerate(["cup", "hat", "pen", "map", "box", "jar", "net", "fan", "cat", "dog"] * 6)
        for colour in ("red", "blue")
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    named = []
    for name, chosen in (("given", rows), ("shuffled", [rows[i] for i in order])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
        named.append(load_concept(str(path), group="key" if column else None))
    given, shuffled = named
    assert len(np.unique(given.groups)) >= 20
    np.testing.assert_array_equal(given.groups[order], shuffled.groups)


def test_equal_texts_in_two_groups_are_told_apart_by_their_classes():
    texts, classes = ["a", "a", "b", "b"] * 20, ["yes", "no", "yes", "no"] * 20
    groups = np.tile([0, 1, 2, 3], 20)
    order = np.random.default_rng(0).permutation(len(groups))
    given = by_content(groups, texts, classes)
    shuffled = by_content(groups[order], [texts[i] for i in order], [classes[i] for i in order])
    np.testing.assert_array_equal(given[order], shuffled)
