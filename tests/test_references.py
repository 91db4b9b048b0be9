"""What needs no trained network: embeddings, words, random weights."""

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer

from concept_depth import Concept, InputError, Subject, collect, collect_references, from_model
from concept_depth.extraction.references import random_twin


def concept(**changes):
    values = {"name": "tiny", "inputs": SENTENCES, "labels": [0, 1] * 4, "classes": ("no", "yes")}
    return Concept(**(values | changes))


def test_the_embedding_reference_is_the_mean_of_the_token_embeddings():
    model = causal_lm()
    references = collect_references(from_model(model, word_tokenizer()), concept())
    table = model.get_input_embeddings().weight.detach().numpy()
    for row, text in enumerate(SENTENCES):
        expected = np.mean([table[VOCABULARY[word]] for word in text.split()], axis=0)
        np.testing.assert_allclose(references["embedding"]["embedding"][row], expected, rtol=1e-5, atol=1e-6)
    assert (references["embedding"].numbers, references["embedding"].total) == ((0,), 0)


def test_references_stand_in_the_order_of_the_concept_with_its_groups():
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    references = collect_references(from_model(causal_lm(), word_tokenizer()), concept(groups=groups))
    assert list(references) == ["embedding", "lexical", "random"]
    for acts in references.values():
        np.testing.assert_array_equal(acts.labels, concept().labels)
        np.testing.assert_array_equal(acts.groups, groups)
        first = acts[acts.names[0]]
        assert np.isfinite(first).all()
        # The second and the sixth sentence are the same.
        np.testing.assert_array_equal(first[1], first[5])


def test_the_lexical_reference_tells_words_but_not_labels():
    subject = from_model(causal_lm(), word_tokenizer())
    one = collect_references(subject, concept(), names=["lexical"])["lexical"]["lexical"]
    other = collect_references(subject, concept(labels=[1, 0] * 4), names=["lexical"])["lexical"]["lexical"]
    np.testing.assert_array_equal(one, other)
    assert np.abs(one[0] - one[6]).max() > 0.1


def test_the_random_twin_has_the_same_layers_other_weights_and_leaves_the_seed():
    model = causal_lm()
    subject = from_model(model, word_tokenizer(), site="mlp_in")
    before = torch.get_rng_state()
    references = collect_references(subject, concept(), names=["random"])
    assert torch.equal(torch.get_rng_state(), before)
    trained = collect(subject, concept())
    assert references["random"].names == trained.names
    assert np.abs(references["random"][1] - trained[1]).max() > 1e-3
    again = collect_references(subject, concept(), names=["random"])
    np.testing.assert_array_equal(again["random"].numpy(), references["random"].numpy())
    assert references["random"].provenance["subject"]["weights"] == "random, seed 0"


def test_arrays_have_their_input_and_random_weights_as_references():
    inputs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    arrays = Concept(name="a", inputs=inputs, labels=[0, 1] * 3, classes=("a", "b"))
    subject = Subject.from_module(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), layers="*")
    references = collect_references(subject, arrays)
    assert list(references) == ["embedding", "random"]
    np.testing.assert_array_equal(references["embedding"]["embedding"], inputs)
    assert np.abs(references["random"]["0"] - collect(subject, arrays)["0"]).max() > 1e-3


def test_the_random_twin_keeps_no_trained_parameter():
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.token = torch.nn.Parameter(torch.randn(1, 8) + 3)
            self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            return self.block(torch.stack([x + self.token, x], dim=1))[:, 0]

    torch.manual_seed(0)
    module = Pooled().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    subject = Subject.from_module(module, layers="block")
    twin, again = random_twin(subject), random_twin(subject)
    for (name, trained), drawn, repeated in zip(
        module.named_parameters(), twin.module.parameters(), again.module.parameters(), strict=True
    ):
        assert not torch.equal(trained, drawn), name
        assert torch.equal(drawn, repeated), name
    # What no part can draw keeps its scale: eight draws of a normal distribution.
    assert abs(twin.module.token.mean() - module.token.mean()) < 4 * module.token.std() / 8**0.5


def test_unknown_references_are_one_sentence():
    with pytest.raises(InputError, match="no reference 'luck'"):
        collect_references(from_model(causal_lm(), word_tokenizer()), concept(), names=["luck"])
