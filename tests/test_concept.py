"""`Concept`: what fits together, what is refused, and what selecting, balancing and taking keep."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

import concept_depth as cd
from concept_depth.errors import InputError


def concept(n: int = 40, **fields) -> cd.Concept:
    given = {
        "name": "c",
        "inputs": [f"text {i}" for i in range(n)],
        "labels": np.arange(n) % 2,
        "classes": ("no", "yes"),
        "groups": np.arange(n) // 2,
    }
    return cd.Concept(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"labels": [0, 1]}, "has 4 inputs but 2 labels"),
        ({"groups": [0, 1]}, "has 4 inputs but 2 groups"),
        ({"spans": ((0, 1),)}, "has 4 inputs but 1 spans"),
        ({"labels": [0, 1, 2, 1]}, "labels outside 0 … 1"),
        ({"labels": [0, 0, 0, 0]}, "no example of class 'yes'"),
        ({"labels": ["no", "yes", "no", "yes"]}, "labels of kind <U3"),
        ({"labels": [0.5, 1.0, 0.0, 1.0]}, "labels of kind float64"),
        ({"classes": ("yes",)}, "two or more different classes"),
        ({"classes": ("yes", "yes")}, "two or more different classes"),
        ({"inputs": ["a", " ", "b", "c"]}, "the text of example 2 is empty"),
        ({"inputs": ["a", None, "b", "c"]}, "the text of example 2 is empty or no text"),
        ({"inputs": ["a", "b", "c \ud83d", "d"]}, "the text of example 3 holds half a character"),
        ({"groups": [[0, 0], [0, 1], [1, 0], [1, 1]]}, "groups have the shape (4, 2)"),
        ({"spans": ((0, 1), (0, 1), (0, 99), (0, 1))}, "span (0, 99) of example 3"),
        ({"spans": ((0, 1), (1, 1), (0, 1), (0, 1))}, "span (1, 1) of example 2"),
        ({"template": "no slot"}, "must hold {text} exactly once"),
        ({"template": "{text}{text}"}, "must hold {text} exactly once"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        concept(4, **fields)
    assert "\n" not in str(caught.value)


def test_a_concept_cannot_be_changed():
    with pytest.raises(AttributeError):
        concept().name = "other"


def test_prompts_are_texts_inside_the_template():
    assert concept(2, template="Is it so? {text} Well?").prompts() == [
        "Is it so? text 0 Well?",
        "Is it so? text 1 Well?",
    ]
    assert concept(2, template="{a} {text} {b}").template_parts == ("{a} ", " {b}")
    with pytest.raises(InputError, match="only texts have prompts"):
        concept(2, inputs=np.zeros((2, 3))).prompts()


def test_groups_may_be_names():
    assert concept(4, groups=["Lodz", "Baku", "Lodz", "Baku"]).groups.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_an_example_without_a_group_stands_alone(nothing):
    assert concept(5, groups=["b", nothing, "a", nothing, "b"]).groups.tolist() == [1, 2, 0, 3, 1]
    mixed = concept(4, groups=pd.Series([7, nothing, 7, "7"], dtype=object)).groups
    assert mixed.tolist() == [0, 1, 0, 0]


def test_groups_of_floats_are_numbered_but_for_nan():
    assert concept(4, groups=[10.0, 2.0, np.nan, 10.0]).groups.tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("dtype", [None, object, np.dtypes.StringDType()])
def test_texts_may_stand_in_an_array(dtype):
    texts = [f"text {i}" for i in range(40)]
    held = concept(inputs=np.asarray(texts, dtype=dtype))
    assert held.inputs == tuple(texts)
    assert held.is_text
    assert held.fingerprint == concept().fingerprint
    assert concept(inputs=pd.Series(texts)).inputs == tuple(texts)


def test_a_mask_selects_where_it_is_true():
    whole = concept()
    mask = np.arange(40) < 4
    assert whole.select(mask).inputs == whole.select(mask.tolist()).inputs == whole.inputs[:4]
    with pytest.raises(InputError, match=re.escape("a mask of shape (3,) does not fit the 40 examples")):
        whole.select([True, False, True])
    with pytest.raises(InputError, match="cannot be selected by float64"):
        whole.select([0.0, 1.0])


def test_selecting_keeps_rows_together():
    spans = tuple((0, 1 + i % 4) for i in range(40))
    picked = concept(spans=spans).select([5, 2, 9], name="d")
    assert picked.inputs == ("text 5", "text 2", "text 9")
    assert picked.groups.tolist() == [2, 1, 4]
    assert picked.spans == (spans[5], spans[2], spans[9])
    assert picked.name == "d"
    images = concept(4, inputs=np.arange(8.0).reshape(4, 2)).select([3, 0])
    np.testing.assert_array_equal(images.inputs, [[6, 7], [0, 1]])


def test_balancing_draws_each_class_as_often_and_keeps_order():
    labels = np.asarray([1] * 10 + [0] * 30)
    balanced = concept(labels=labels, groups=None).balanced()
    assert balanced.class_counts == {"no": 10, "yes": 10}
    places = [int(text.split()[1]) for text in balanced.inputs]
    assert places == sorted(places)
    assert concept(labels=labels, groups=None).balanced(random_state=1).inputs != balanced.inputs
    assert concept(labels=labels, groups=None).balanced().inputs == balanced.inputs


def test_balancing_keeps_pairs_where_there_are_pairs():
    """Twenty groups with one yes and four no each, and sixty lone no: every group keeps its yes and one no."""
    labels = np.asarray([1, 0, 0, 0, 0] * 20 + [0] * 60)
    groups = np.concatenate([np.repeat(np.arange(20), 5), np.arange(20, 80)]) * 7 - 50
    balanced = concept(160, labels=labels, groups=groups).balanced()
    assert balanced.class_counts == {"no": 20, "yes": 20}
    for group in np.unique(balanced.groups):
        assert sorted(balanced.labels[balanced.groups == group]) == [0, 1]


def test_taking_keeps_groups_whole():
    for n in (7, 20, 39):
        taken = concept().take(n)
        assert n - 1 <= len(taken) <= n
        assert set(np.unique(taken.groups, return_counts=True)[1]) == {2}
        assert taken.inputs == concept().take(n).inputs
    assert len(concept().take(400)) == 40
    with pytest.raises(InputError, match="give a whole number of 1 or more"):
        concept().take(0)
    with pytest.raises(InputError, match="leave a class empty"):
        concept().take(1)


def test_the_fingerprint_is_of_what_a_measurement_depends_on():
    base = concept()
    same = concept(name="other", source="elsewhere", licence="CC0", category="fact", details={"a": 1})
    assert base.fingerprint == same.fingerprint == concept(template="{text}").fingerprint
    changed = [
        concept(inputs=[f"texts {i}" for i in range(40)]),
        concept(labels=1 - np.arange(40) % 2),
        concept(classes=("no", "Yes")),
        concept(classes=("n\x1fo", "yes")),
        concept(classes=("n", "o\x1fyes")),
        concept(groups=np.arange(40)),
        concept(groups=None),
        concept(spans=tuple((0, 1) for _ in range(40))),
        concept(template="So {text}"),
        concept(inputs=np.zeros((40, 2), dtype=np.float32)),
        concept(inputs=np.zeros((40, 2), dtype=np.float64)),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in changed)}) == len(changed) + 1


def test_texts_cannot_run_into_each_other_in_the_fingerprint():
    assert (
        concept(2, inputs=["ab", "c"], groups=None).fingerprint
        != concept(2, inputs=["a", "bc"], groups=None).fingerprint
    )


def test_the_description_is_json():
    described = json.loads(json.dumps(concept(details={"groups": {"how": "column"}}).describe()))
    assert described["class_counts"] == {"no": 20, "yes": 20}
    assert described["details"]["groups"]["how"] == "column"
    assert repr(concept()) == "Concept('c': 40 examples; no 20, yes 20)"
