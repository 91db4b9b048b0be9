"""What is no input at all gets one sentence, whichever part of the API it is given to."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

import concept_depth as cd
from concept_depth.application import apply_probe
from concept_depth.concepts.noise import perturb
from concept_depth.depth import converging_layer, jumping_layer
from concept_depth.extraction.cache import list_cache
from concept_depth.extraction.store import open_store
from concept_depth.files import check_writable, write_text
from concept_depth.reporting.record import load_runs

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

OPENED = {
    "a model": cd.from_pretrained,
    "a .gguf file": lambda name: cd.from_pretrained(f"{name}.gguf"),
    "a concept": cd.load_concept,
    "examples": lambda name: cd.load_concept(f"{name}.csv"),
    "a report": cd.Report.load,
    "runs": lambda name: load_runs([name]),
    "activations": cd.Activations.load,
    "scores": cd.LayerScores.load,
    "a probe": cd.LogisticProbe.load,
    "a probe to apply": lambda name: apply_probe(name, ["a text"]),
    "a plan": lambda name: cd.run_sweep(name, out="out"),
    "a cache": list_cache,
    "an entry of a cache": lambda name: open_store(name, "key", lambda: None),
    "a folder to write to": lambda name: check_writable(Path(name)),
    "a file to write": lambda name: write_text(Path(name), "text"),
}


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nobody-of-this-name/x"], ids=["long", "nul", "home"])
@pytest.mark.parametrize("what", OPENED)
def test_names_that_no_file_can_have_get_one_sentence(what, name, tmp_path, monkeypatch):
    if "write" in what and name.startswith("~"):
        pytest.skip("where results go, only a shell opens homes: to Python ~ is a folder like any other")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cd.InputError) as raised:
        OPENED[what](name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_input_gets_one_sentence(what):
    with pytest.raises(cd.InputError) as raised:
        REFUSED[what]()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) > 15
