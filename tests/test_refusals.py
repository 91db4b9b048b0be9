"""What is no input at all gets one sentence, whichever part of the API it is given to."""

import numpy as np
import pytest
from torch import nn

import concept_depth as cd
from concept_depth.concepts.noise import perturb
from concept_depth.depth import converging_layer, jumping_layer

CONCEPT = cd.Concept(name="c", inputs=["a b", "c d", "e f", "g h"], labels=[0, 1, 0, 1], classes=("n", "p"))
MATRIX = np.arange(8.0).reshape(4, 2)
GOOD = {"name": "c", "inputs": ["a", "b"], "labels": [0, 1], "classes": ("n", "p")}

REFUSED = {
    "a list for a concept": lambda: cd.collect(None, ["a text"]),
    "an array for activations": lambda: cd.score_layers(MATRIX),
    "nothing for scores": lambda: cd.find_depth(None),
    "a number for scores": lambda: cd.compare(5, None),
    "words for accuracies": lambda: jumping_layer(["a", "b"]),
    "a word for accuracies": lambda: converging_layer("abc"),
    "missing labels": lambda: cd.Activations.from_arrays([MATRIX], [None, "a", "b", "a"]),
    "labels that are no numbers": lambda: cd.Activations.from_arrays([MATRIX], [0.0, float("nan"), 1.0, 1.0]),
    "labels of two kinds": lambda: cd.Activations.from_arrays([MATRIX], np.array([1, "a", 1, "a"], dtype=object)),
    "missing groups": lambda: cd.Activations.from_arrays([MATRIX], [0, 1, 0, 1], groups=[None, "1", "2", "3"]),
    "a layer without columns": lambda: cd.Activations.from_arrays([np.zeros((4, 0))], [0, 1, 0, 1]),
    "a ragged layer": lambda: cd.Activations.from_arrays([[[1, 2], [3]]], [0, 1]),
    "no layers": lambda: cd.Activations.from_arrays(None, [0, 1]),
    "no concept to perturb": lambda: perturb(None, "letters"),
    "no noise": lambda: perturb(CONCEPT, None),
    "no seed": lambda: perturb(CONCEPT, "letters", random_state=None),
    "part of an example": lambda: CONCEPT.take(2.5),
    "a word for a number": lambda: CONCEPT.take("a"),
    "an example that is not there": lambda: CONCEPT.select([9]),
    "a text for texts": lambda: cd.Concept(**{**GOOD, "inputs": "ab"}),
    "a mapping for texts": lambda: cd.Concept(**{**GOOD, "inputs": {"a": 1, "b": 2}}),
    "nothing for texts": lambda: cd.Concept(**{**GOOD, "inputs": None}),
    "a word for classes": lambda: cd.Concept(**{**GOOD, "classes": "np"}),
    "no layers of a module": lambda: cd.Subject.from_module(nn.Linear(2, 2), layers=[]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_input_gets_one_sentence(what):
    with pytest.raises(cd.InputError) as raised:
        REFUSED[what]()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) > 15
