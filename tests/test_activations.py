"""The waist: what goes in comes out, layers are read alone, bad input is one sentence."""

import numpy as np
import pandas
import pytest
import torch

from concept_depth.activations import Activations
from concept_depth.errors import InputError


def small(rng=None):
    rng = rng or np.random.default_rng(0)
    return Activations.from_arrays(
        {"a": rng.normal(size=(6, 3)), "b": rng.normal(size=(6, 5)).astype(np.float32)},
        ["x", "y"] * 3,
        groups=["g", "g", "h", "h", "i", "i"],
    )


def test_layers_are_found_by_name_and_number():
    acts = small()
    assert acts["b"].shape == (6, 5)
    assert np.array_equal(acts[1], acts["b"])
    assert acts.classes == ("x", "y")
    assert acts.labels.tolist() == [0, 1] * 3
    assert acts.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert acts.fractions.tolist() == [0.0, 1.0]
    with pytest.raises(KeyError, match="no layer 7"):
        acts[7]


def test_a_saved_file_gives_the_same_bytes_and_numbers_back(tmp_path):
    acts = small()
    acts.save(tmp_path / "one.safetensors")
    acts.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    again = Activations.load(tmp_path / "one.safetensors")
    assert list(again) == ["a", "b"]
    for name in acts:
        assert np.array_equal(acts[name], again[name])
        assert acts[name].dtype == again[name].dtype
    assert np.array_equal(acts.groups, again.groups)


def test_one_matrix_may_stand_at_several_layers(tmp_path):
    matrix = np.ones((4, 2))
    Activations.from_arrays([matrix, matrix], [0, 1, 0, 1]).save(tmp_path / "same.safetensors")
    assert np.array_equal(Activations.load(tmp_path / "same.safetensors")[1], matrix)


def test_bfloat16_comes_back_as_float32():
    acts = Activations.from_arrays([torch.ones(4, 2, dtype=torch.bfloat16)], [0, 1, 0, 1])
    assert acts[0].dtype == np.float32


@pytest.mark.parametrize(
    ("layers", "labels", "sentence"),
    [
        ([], [0, 1], "no layer"),
        ([np.ones((3, 2))], [0, 1], "3 rows but there are 2 labels"),
        ([np.ones(2)], [0, 1], "shape"),
        ([np.array([[1.0, np.nan], [1, 1]])], [0, 1], "NaN"),
        ([np.ones((2, 2))], [1, 1], "1 classes"),
        ([np.ones((2, 2))], [[0], [1]], r"labels have shape \(2, 1\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(layers, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        Activations.from_arrays(layers, labels)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"numbers": [0, 1, 1]}, "do not rise"),
        ({"numbers": [3, 2, 1]}, "do not rise"),
        ({"numbers": [-1, 0, 1]}, "do not rise from 0"),
        ({"total": 1}, "total=1 is less than the last layer's number 2"),
        ({"classes": ["a", "a"]}, "a name of its own"),
    ],
)
def test_numbers_and_names_that_would_make_a_depth_meaningless_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        Activations.from_arrays([np.eye(2)] * 3, [0, 1], **given)


def test_layers_whose_names_are_written_alike_are_refused():
    with pytest.raises(InputError, match="written alike"):
        Activations.from_arrays({0: np.eye(2), "0": np.eye(2)}, [0, 1])


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble])
def test_numbers_of_any_kind_of_float_are_taken(dtype, tmp_path):
    X = np.array([[1.5, 2], [3, 4]])
    acts = Activations.from_arrays([X.astype(dtype)], [0, 1])
    assert acts[0].dtype.isnative
    acts.save(tmp_path / "a.safetensors")
    assert np.array_equal(Activations.load(tmp_path / "a.safetensors")[0], X)


def test_missing_labels_of_pandas_are_counted():
    labels = pandas.Series([None, "a", "b"], dtype="string")
    with pytest.raises(InputError, match="1 of the labels are missing"):
        Activations.from_arrays([np.eye(3)], labels)


def test_groups_are_a_flat_list():
    with pytest.raises(InputError, match=r"groups have shape \(2, 1\)"):
        Activations.from_arrays([np.ones((2, 2))], [0, 1], groups=[[0], [1]])


def test_numbers_of_numpy_in_a_provenance_are_saved_as_plain_ones(tmp_path):
    given = {"rate": np.float32(0.5), "seeds": np.arange(2), "model": "mine"}
    Activations.from_arrays([np.eye(2)], [0, 1], provenance=given).save(tmp_path / "a.safetensors")
    loaded = Activations.load(tmp_path / "a.safetensors")
    assert loaded.provenance == {"rate": 0.5, "seeds": [0, 1], "model": "mine"}
    with pytest.raises(InputError, match="provenance must hold"):
        Activations.from_arrays([np.eye(2)], [0, 1], provenance={"model": object()})


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no such format")
    with pytest.raises(InputError, match="not a safetensors file"):
        Activations.load(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="there is no file"):
        Activations.load(tmp_path / "absent.safetensors")
