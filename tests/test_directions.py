"""Directions: what layers share is found, what they do not share is told from noise."""

import numpy as np
import pytest
import torch

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing.directions import direction_cosines


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
    assert cosines.cosine[1, 2] > 0.8 > 3 * cosines.floor
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
