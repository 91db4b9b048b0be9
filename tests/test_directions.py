"""Directions: what layers share is found, what they do not share is told from noise."""

import numpy as np
import pytest
import torch

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing.directions import direction_cosines
from concept_depth.probing.logistic import solve_logistic


def turned(seed=0, n=600, hidden=20):
    """Noise, then two layers that share a direction, then one that carries the class elsewhere."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    labels, groups = np.tile([0, 1], n // 2), np.repeat(np.arange(n // 2), 2)
    X = rng.normal(size=(4, n, hidden))
    for layer, axis in ((1, 0), (2, 0), (3, 1)):
        X[layer, :, axis] += 3 * labels
    return Activations.from_arrays(list(X), labels, groups=groups)


def test_layers_with_one_direction_are_alike_and_others_are_not():
    cosines = direction_cosines(turned(), halvings=4, permutations=3)
    assert cosines.cosine.shape == (4, 4)
    assert np.allclose(cosines.cosine, cosines.cosine.T)
    corrected = cosines.corrected()
    assert cosines.cosine[1, 2] > 0.8 > 2 * cosines.floor
    assert corrected[1, 2] == pytest.approx(1, abs=0.05)
    assert abs(cosines.cosine[1, 3]) < cosines.floor + 0.1
    assert abs(cosines.cosine[0, 1]) < cosines.floor + 0.1
    assert np.isnan(corrected[0, 1])
    assert cosines.to_dict()["numbers"] == [0, 1, 2, 3]


def test_directions_of_different_widths_are_refused():
    rng = np.random.default_rng(0)
    acts = Activations.from_arrays([rng.normal(size=(40, d)) for d in (2, 3)], [0, 1] * 20)
    with pytest.raises(InputError, match="widths"):
        direction_cosines(acts)


def rare(positives, n=40, seed=0):
    """A class of few examples, far away along one direction, in three layers."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) < positives).astype(np.int64)
    X = [rng.normal(size=(n, 4)) + np.array([6, 0, 0, 0]) * labels[:, None] for _ in range(3)]
    return Activations.from_arrays(X, labels)


def test_only_halves_that_hold_both_classes_give_directions():
    assert np.diag(direction_cosines(rare(2)).cosine).min() > 0.7
    with pytest.raises(InputError, match="too few groups for both halves"):
        direction_cosines(rare(1))


def test_the_floor_follows_the_seed_and_is_none_without_permutations():
    floors = {direction_cosines(rare(12), random_state=seed).floor for seed in (0, 5)}
    assert len(floors) == 2
    without = direction_cosines(rare(12), permutations=0)
    assert np.isnan(without.floor)
    assert np.isnan(without.corrected()).all()
    assert without.to_dict()["floor"] is None
    for name, wrong in [("random_state", -1), ("halvings", 0), ("halvings", 2.5), ("permutations", True)]:
        with pytest.raises(InputError, match=f"{name}={wrong}"):
            direction_cosines(rare(12), **{name: wrong})


def test_nothing_is_read_off_a_fit_that_did_not_converge(monkeypatch):
    def stopped(X, *args, **kwargs):
        found = solve_logistic(X, *args, **kwargs)
        found.converged[:] = next(fitted) != 1
        return found

    fitted = iter(range(3))
    monkeypatch.setattr("concept_depth.probing.directions.solve_logistic", stopped)
    cosine = direction_cosines(rare(12), permutations=0).cosine
    assert np.isnan(cosine[1]).all()
    assert np.isfinite(cosine[np.ix_([0, 2], [0, 2])]).all()
