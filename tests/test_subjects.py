"""Subjects of plain modules: names by pattern, wide layers reduced honestly, origins that tell weights apart."""

import numpy as np
import pytest
import torch
from tiny_models import causal_lm, word_tokenizer
from torch import nn

from concept_depth import Concept, InputError, Subject, collect, from_model
from concept_depth.subjects.modules import matching, project
from concept_depth.subjects.subject import Encoded, token_batch


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 40, 3, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(40 * 64, 10),
    )


def images(n=6):
    inputs = np.random.default_rng(0).normal(size=(n, 1, 8, 8)).astype(np.float32)
    return Concept(name="images", inputs=inputs, labels=[0, 1] * (n // 2), classes=("a", "b"))


def test_patterns_stay_inside_a_part_of_a_name_unless_doubled():
    assert matching(network(), ["*"]) == ["0", "1", "2"]
    assert matching(network(), ["0.*"]) == ["0.0", "0.1", "0.2", "0.3"]
    assert matching(network(), ["**"]) == ["0", "0.0", "0.1", "0.2", "0.3", "1", "2"]
    assert matching(network(), ["2", "0.?", "input"]) == ["input", "0.0", "0.1", "0.2", "0.3", "2"]
    with pytest.raises(InputError, match=r"no module of Sequential is named 'features\.\*'"):
        matching(network(), ["features.*"])


def test_a_module_named_input_is_not_hidden():
    module = nn.Sequential()
    module.add_module("input", nn.Identity())
    assert matching(module, ["input"]) == ["input"]


def test_wide_layers_are_projected_and_the_record_says_so():
    subject = Subject.from_module(network(), layers=["0.*", "2"])
    acts = collect(subject, images())
    assert acts["0.0"].shape == (6, 256)
    assert acts["0.2"].shape == (6, 1024)
    stated = acts.provenance["subject"]["pool"]["layers"]
    assert stated["0.0"] == "4×8×8: flattened"
    assert stated["0.2"] == "40×8×8: flattened, random projection of 2560 to 1024 (seed 0)"
    assert stated["2"] == "10: as it is"


@pytest.mark.parametrize(
    ("pool", "width"), [("flatten", 2560), ("mean", 40), (32, 32), (lambda tensor: tensor.amax((2, 3)), 40)]
)
def test_the_pool_is_as_asked(pool, width):
    acts = collect(Subject.from_module(network(), layers="0.2", pool=pool), images())
    assert acts["0.2"].shape == (6, width)


def test_a_projection_is_linear_seeded_and_keeps_inner_products_on_average():
    x, y = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)).split(1)
    y = y + x
    assert torch.allclose(project(2 * x + y, 64), 2 * project(x, 64) + project(y, 64), atol=1e-3)
    assert torch.equal(project(x, 64), project(x, 64))
    products = [float(project(x, 512, seed=seed) @ project(y, 512, seed=seed).T) for seed in range(40)]
    # Variance of a count sketch's product: about (|x|²|y|² + (x·y)²) / D; the mean of 40 has 1/40 of it.
    exact = float(x @ y.T)
    error = np.sqrt((float(x @ x.T) * float(y @ y.T) + exact**2) / 512 / 40)
    assert abs(np.mean(products) - exact) < 4 * error


def test_order_of_batches_and_their_size_do_not_matter():
    whole = collect(Subject.from_module(network(), layers="**"), images())
    parts = collect(Subject.from_module(network(), layers="**"), images(), batch_tokens=2)
    for name in whole.names:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-5, atol=1e-6)


def test_xor_corners_are_a_concept_like_any_other():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    concept = Concept(name="xor", inputs=corners, labels=[0, 1, 1, 0], classes=("same", "different"))
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        module[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    acts = collect(Subject.from_module(module, layers=["input", "*"]), concept)
    np.testing.assert_array_equal(acts["input"], corners)
    np.testing.assert_array_equal(acts["2"][:, 0], [0, 1, 1, 0])
    assert (acts.numbers, acts.total) == ((0, 1, 2, 3), 3)


def test_an_encoder_of_ones_own_makes_texts_into_tensors():
    module = nn.Sequential(nn.Embedding(300, 6), nn.Flatten(), nn.Linear(24, 3))
    texts = ["abcd", "efgh", "ijkl", "mnop"]
    concept = Concept(name="letters", inputs=texts, labels=[0, 1, 0, 1], classes=("a", "b"))
    encode = lambda batch: torch.tensor([[ord(letter) for letter in text] for text in batch])  # noqa: E731
    acts = collect(Subject.from_module(module, layers="*", encode=encode), concept)
    assert [acts[name].shape for name in acts.names] == [(4, 24), (4, 24), (4, 3)]
    with pytest.raises(InputError, match="takes arrays, not texts"):
        collect(Subject.from_module(module, layers="*"), concept)


def test_modules_that_take_no_part_are_one_sentence():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    concept = Concept(name="c", inputs=np.eye(3), labels=[0, 1, 0], classes=("a", "b"))
    with pytest.raises(InputError, match="idle takes no part"):
        collect(Subject.from_module(Idle(), layers="*"), concept)
    with pytest.raises(InputError, match="pool 'median'"):
        Subject.from_module(Idle(), layers="used", pool="median")


def test_a_module_that_runs_several_times_is_refused_whatever_else_is_heard():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.out(self.relu(self.b(self.relu(self.a(x)))))

    concept = Concept(name="c", inputs=np.eye(3), labels=[0, 1, 0], classes=("a", "b"))
    subject = Subject.from_module(Shared(), layers=["a", "relu", "out"])
    for layers in (["relu"], ["relu", "out"], None):
        with pytest.raises(InputError, match="layer relu runs several times"):
            collect(subject, concept, layers=layers)
    assert collect(subject, concept, layers=["a", "out"]).names == ("a", "out")


def test_training_changes_the_origin_of_a_subject_that_is_in_memory():
    model = causal_lm()
    subject = from_model(model, word_tokenizer())
    before = subject.describe()
    assert before == from_model(causal_lm(), word_tokenizer()).describe()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.001)
    assert subject.describe()["weights"] != before["weights"]
    module = network()
    first = Subject.from_module(module, layers="*").describe()["weights"]
    with torch.no_grad():
        module[2].bias.add_(1)
    assert Subject.from_module(module, layers="*").describe()["weights"] != first


def test_batches_are_padded_on_the_right_and_never_square():
    encoded = [Encoded((5, 6, 7), (2,)), Encoded((8,), (0,)), Encoded((9, 10), (1,))]
    ids, mask = token_batch(encoded, pad_id=0)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0], [9, 10, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert token_batch(encoded[1:2], pad_id=0)[0].shape == (1, 1)
