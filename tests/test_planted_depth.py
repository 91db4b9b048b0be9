"""Activations with a known depth: it is found; pure noise is never."""

import argparse
import importlib.util

import numpy as np
import pytest
import torch

from concept_depth.activations import Activations
from concept_depth.depth import find_depth
from concept_depth.probing.scores import score_layers


def planted(heights, *, n=240, hidden=24, twins=True, seed=0):
    """Layers whose classes lie `heights[l]` deviations apart; twins share half of their noise."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], n // 2)
    groups = np.repeat(np.arange(n // 2), 2) if twins else np.arange(n)
    layers = []
    for height in heights:
        own, shared = rng.normal(size=(n, hidden)), rng.normal(size=(n, hidden))[groups]
        noise = own * 0.7 + shared * 0.7 if twins else own
        direction = np.zeros(hidden)
        direction[:2] = 1 / np.sqrt(2)
        layers.append((noise + height * (labels[:, None] - 0.5) * direction).astype(np.float32))
    return Activations.from_arrays(layers, labels, groups=groups)


@pytest.mark.parametrize("depth", [1, 4, 7])
def test_a_steep_rise_is_found_where_it_was_planted(depth):
    scores = score_layers(planted([0.0] * depth + [4.0] * (9 - depth)), permutations=19)
    found = find_depth(scores)
    assert (found.number, found.verdict) == (depth, "found")
    assert found.interval_numbers == (depth, depth)
    assert found.layer == str(depth)
    assert str(found) == f"layer {depth} of 8 ({depth / 8:.2f}, 95% {depth / 8:.2f}–{depth / 8:.2f}): found"


def test_a_concept_that_is_there_from_the_start_is_at_input():
    found = find_depth(score_layers(planted([4.0] * 6), permutations=19))
    assert (found.number, found.verdict) == (0, "at_input")


@pytest.mark.parametrize("hidden", [24, 400])
@pytest.mark.parametrize("twins", [True, False])
def test_noise_is_never_read(hidden, twins):
    # One noise in twenty passes a test of level 0.05 (seed 0 is one); scripts/simulate_depth.py counts them.
    acts = planted([0.0] * 5, hidden=hidden, twins=twins, seed=1)
    found = find_depth(score_layers(acts, permutations=19, repeats=1))
    assert found.verdict == "never"
    assert found.number is None
    assert str(found) == "no layer of 4: never"


def simulation(root):
    spec = importlib.util.spec_from_file_location("simulate_depth", root / "scripts" / "simulate_depth.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("shape", "grouping"), [("gradual", "twins"), ("humped", "singletons"), ("slow", "families")]
)
def test_intervals_hold_the_depth_of_the_expected_curve(root, shape, grouping):
    # A small draw of scripts/simulate_depth.py, whose large one is where bias and coverage are measured.
    torch.set_num_threads(1)
    args = argparse.Namespace(
        datasets=8, examples=300, hidden=8, wide=0, layers=9, correlation=0.7, C="0.1", seed=0
    )
    row = simulation(root).coverage(shape, grouping, args)
    assert row["coverage"] >= 7 / 8  # of intervals that cover 95 %, 7 or 8 of 8 do with probability 0.94
    assert abs(row["bias"]) <= 1
