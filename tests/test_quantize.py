"""Quantisation by real backends: close to the original, named in the origin, the original untouched."""

import copy
import sys

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, causal_lm, word_tokenizer

from concept_depth import Concept, InputError, Subject, collect, from_model, from_pretrained, quantize

# What the backends warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def concept():
    return Concept(name="tiny", inputs=SENTENCES, labels=[0, 1] * 4, classes=("no", "yes"))


def model():
    # Widths that the backends' block sizes divide.
    return causal_lm(hidden_size=64, intermediate_size=128)


def distance(a, b):
    # Behind one block; random weights, unlike trained ones, enlarge an error from block to block.
    return np.linalg.norm(a[1] - b[1]) / np.linalg.norm(b[1])


def plain_with_same_weights(quantised, original):
    """The original network with the numbers that the quantised layers stand for."""
    from bitsandbytes import functional

    network = copy.deepcopy(original)
    for name, part in quantised.module.named_modules():
        if hasattr(getattr(part, "weight", None), "quant_state"):
            weight = functional.dequantize_4bit(part.weight.data, part.weight.quant_state)
        elif getattr(getattr(part, "weight", None), "SCB", None) is not None:
            weight = part.weight.CB.float() * part.weight.SCB[:, None] / 127
        else:
            continue
        network.model.get_submodule(name).weight.data = weight.float()
    return network


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
def test_a_quantised_language_model_computes_with_rounded_weights(kind):
    functional = pytest.importorskip("bitsandbytes").functional
    # Four-bit weights are multiplied as the numbers they stand for; int8 rounds what it multiplies them with, too.
    # On processors with bfloat16 products bitsandbytes multiplies in these: three digits, a few products a block.
    rounding = 0.1 if kind == "int8" else 0.05 if functional.has_avx512bf16() else 1e-4
    network = model()
    subject = from_model(network, word_tokenizer())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantised = quantize(subject, kind)
    # Before the first pass, at which bitsandbytes may repack its weights for the processor.
    plain = plain_with_same_weights(quantised, network)
    acts = collect(quantised, concept(), prefix_sharing=False)
    rounded = collect(from_model(plain, word_tokenizer()), concept())
    assert distance(acts, rounded) < rounding
    # Premise: the weights were rounded, and nothing of the original was.
    assert distance(rounded, collect(subject, concept())) > 1e-3
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    assert acts.provenance["subject"]["quantization"].startswith("bitsandbytes")
    assert subject.describe()["quantization"] is None
    with pytest.raises(InputError, match="quantised already"):
        quantize(quantised, kind)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_model_can_be_quantised_while_it_loads(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    model().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    loaded = from_pretrained(str(tmp_path), quantization=kind, device="cpu")
    exact = collect(from_model(model(), word_tokenizer()), concept())
    assert 1e-4 < distance(collect(loaded, concept(), prefix_sharing=False), exact) < 0.6
    assert loaded.describe()["quantization_kind"] == kind


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_any_module_is_quantised_by_torchao(kind, root, monkeypatch):
    monkeypatch.syspath_prepend(root / ".venv" / "torchao")
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    inputs = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    arrays = Concept(name="a", inputs=inputs, labels=[0, 1] * 10, classes=("a", "b"))
    subject = Subject.from_module(network, layers="*")
    exact, acts = collect(subject, arrays), collect(quantize(subject, kind), arrays)
    assert 1e-4 < np.linalg.norm(acts["2"] - exact["2"]) / np.linalg.norm(exact["2"]) < 0.3
    assert acts.provenance["subject"]["quantization"].startswith("torchao")


@pytest.mark.parametrize(("package", "kind"), [("bitsandbytes", "int8"), ("torchao", "int4")])
def test_a_missing_backend_says_what_to_type(package, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    subject = from_model(model(), word_tokenizer())
    if package == "torchao":
        subject = Subject.from_module(torch.nn.Linear(64, 64), layers="input")
    with pytest.raises(InputError, match=f"pip install {package}"):
        quantize(subject, kind)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_describing_a_quantised_model_leaves_its_numbers_and_a_run_its_description(kind):
    pytest.importorskip("bitsandbytes")
    subject = quantize(from_model(model(), word_tokenizer()), kind)
    before = subject.describe()
    first = collect(subject, concept()).numpy()
    assert subject.describe() == before
    np.testing.assert_array_equal(collect(subject, concept()).numpy(), first)
    with torch.no_grad():
        subject.module.get_input_embeddings().weight[3, 0] += 1
    assert subject.describe()["weights"] != before["weights"]


def test_wrong_kinds_are_one_sentence():
    subject = Subject.from_module(torch.nn.ReLU(), layers="input")
    with pytest.raises(InputError, match="no quantisation 'int5'"):
        quantize(subject, "int5")
    with pytest.raises(InputError, match="no linear layer"):
        quantize(subject, "int8")
