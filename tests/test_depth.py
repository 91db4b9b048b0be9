"""Rules, intervals and verdicts, on published curves and on scores made for the purpose."""

import json

import numpy as np
import pytest

from concept_depth.depth import check_rule, converging_layer, jumping_layer
from concept_depth.errors import InputError


def published_curves(shared_data):
    curves = json.loads((shared_data / "jin2024" / "curves.json").read_text())
    return {name: np.array(value["correct"]) / value["n_test"] for name, value in curves.items()}


def test_the_converging_layer_is_the_published_one_on_every_curve_that_can_be_recovered(shared_data):
    published = json.loads((shared_data / "jin2024" / "published.json").read_text())
    curves = published_curves(shared_data)
    assert len(curves) == 18  # Gemma-7B and LLaMA-7B on nine data sets
    for name, accuracy in curves.items():
        model, dataset = name.split("/")
        assert converging_layer(accuracy) == published[model]["converging_layer"][dataset], name


def test_the_printed_formula_names_one_of_the_last_two_blocks_on_every_curve(shared_data):
    for name, accuracy in published_curves(shared_data).items():
        assert len(accuracy) - converging_layer(accuracy, as_printed=True) in (0, 1), name


def test_the_jumping_layer_counts_from_one_and_is_mostly_missing(shared_data):
    jumps = {name: jumping_layer(accuracy) for name, accuracy in published_curves(shared_data).items()}
    # The figures count blocks from 0.
    found = {name: layer - 1 for name, layer in jumps.items() if layer is not None}
    assert found == {
        "Gemma-7B/Coinflip": 13,
        "Gemma-7B/Cities": 2,
        "Gemma-7B/Counterfact": 6,
        "Gemma-7B/STSA": 1,
        "LLaMA-7B/Coinflip": 2,
        "LLaMA-7B/Cities": 4,
        "LLaMA-7B/Counterfact": 6,
        "LLaMA-7B/STSA": 12,
    }


def test_converging_layers_of_bare_curves_follow_from_the_rule():
    assert converging_layer([0.5] * 10) == 3
    assert converging_layer([0.5, 0.9] + [0.9] * 8) == 3
    assert converging_layer([0.5, 0.5, 0.5, 0.9] + [0.9] * 6) == 5
    assert converging_layer([0.5] * 9 + [0.6]) == 10
    assert jumping_layer([0.5] * 10) is None
    assert jumping_layer([0.5, 0.5, 0.55]) == 3


@pytest.mark.parametrize("curve", [[], [0.5], [0.5, np.nan], [[0.5, 0.6]]])
def test_what_is_no_curve_is_refused(curve):
    with pytest.raises(InputError, match="two or more finite accuracies"):
        converging_layer(curve)


@pytest.mark.parametrize("rule", ["within:2", "within:x", "within:0", "jump:3", "highest", ""])
def test_unknown_rules_are_refused_with_the_known_ones(rule):
    with pytest.raises(InputError, match="within"):
        check_rule(rule)
