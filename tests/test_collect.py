"""`collect` against one text at a time through the model itself, and its invariances."""

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from transformers import GPT2Config

from concept_depth import Concept, InputError, collect, from_model
from concept_depth.extraction.batches import plan_batches
from concept_depth.subjects.subject import Encoded, Subject

# Batched products sum in another order: a few roundings of float32 on values near 1.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


def sentences(**changes):
    values = {
        "name": "tiny",
        "inputs": SENTENCES,
        "labels": [0, 1] * (len(SENTENCES) // 2),
        "classes": ("no", "yes"),
        "template": "Is this true : {text} ?",
    }
    return Concept(**(values | changes))


def one_at_a_time(model, tokenizer, prompts, row):
    """The residual stream of one unpadded text after the other, with hooks of its own: (L, N, D)."""
    blocks = model.model.layers
    layers_NL = []
    for prompt in prompts:
        seen = []
        handles = [
            blocks[0].register_forward_pre_hook(
                lambda _, args, kwargs, seen=seen: seen.append((args or (kwargs["hidden_states"],))[0]),
                with_kwargs=True,
            )
        ]
        handles += [
            block.register_forward_hook(
                lambda _m, _i, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            for block in blocks
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([tokenizer(prompt)["input_ids"]]))
        for handle in handles:
            handle.remove()
        layers_NL.append([row(hidden[0]).numpy() for hidden in seen])
    return np.swapaxes(np.asarray(layers_NL), 0, 1)


ROWS = {
    "last": lambda hidden: hidden[-1],
    "first": lambda hidden: hidden[1],
    "mean": lambda hidden: hidden[1:].mean(0),
    -2: lambda hidden: hidden[-2],
    1: lambda hidden: hidden[2],
}


@pytest.mark.parametrize("position", list(ROWS))
@pytest.mark.parametrize("batch_tokens", ["auto", 40, 1])
def test_batches_give_what_one_text_at_a_time_gives(position, batch_tokens):
    model, tokenizer = causal_lm(), word_tokenizer()
    concept = sentences()
    subject = from_model(model, tokenizer, position=position)
    acts = collect(subject, concept, batch_tokens=batch_tokens, prefix_sharing=False)
    expected = one_at_a_time(model, tokenizer, concept.prompts(), ROWS[position])
    assert acts.names == ("resid_post.0", "resid_post.1", "resid_post.2", "resid_post.3")
    assert (acts.numbers, acts.total) == ((0, 1, 2, 3), 3)
    np.testing.assert_allclose(acts.numpy(), expected, **TOLERANCE)
    # Premise: the layers differ, and so do the examples.
    assert np.abs(expected[1] - expected[0]).max() > 0.01
    assert np.abs(expected[3] - expected[3][0]).max() > 0.01 or position in ("first", 1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [True, False])
def test_the_tokenizers_own_padding_does_not_matter(side, pad):
    model = causal_lm()
    plain = collect(from_model(model, word_tokenizer()), sentences()).numpy()
    other = collect(from_model(model, word_tokenizer(side=side, pad=pad)), sentences()).numpy()
    np.testing.assert_array_equal(plain, other)


def test_the_order_of_examples_does_not_matter():
    subject = from_model(causal_lm(), word_tokenizer())
    concept = sentences()
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    straight = collect(subject, concept, batch_tokens=50)
    turned = collect(subject, concept.select(order), batch_tokens=50)
    np.testing.assert_array_equal(turned.numpy(), straight.numpy()[:, order])
    np.testing.assert_array_equal(turned.labels, straight.labels[order])


def test_identical_texts_are_computed_once():
    acts = collect(from_model(causal_lm(), word_tokenizer()), sentences())
    assert acts.provenance["extraction"]["texts"] == len(SENTENCES)
    assert acts.provenance["extraction"]["distinct_texts"] == len(set(SENTENCES)) < len(SENTENCES)
    np.testing.assert_array_equal(acts["resid_post.3"][1], acts["resid_post.3"][5])


def test_some_layers_equal_the_same_layers_of_all():
    subject = from_model(causal_lm(), word_tokenizer())
    every = collect(subject, sentences())
    some = collect(subject, sentences(), layers=[2, "resid_post.1"])
    assert some.names == ("resid_post.1", "resid_post.2")
    # The last wanted block computes its MLP for the rows that are read alone; products of other shapes round otherwise.
    np.testing.assert_allclose(some[2], every[2], rtol=0, atol=2e-6 * np.abs(every[2]).max())
    with pytest.raises(InputError, match="no layer 9"):
        collect(subject, sentences(), layers=[9])


def test_the_network_stops_behind_the_last_wanted_layer():
    model = causal_lm()
    subject = from_model(model, word_tokenizer())
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(model.model.layers)
    ]
    handles.append(model.lm_head.register_forward_hook(lambda *_: ran.append("head")))
    collect(subject, sentences(), layers=[1], prefix_sharing=False)
    assert set(ran) == {0}
    collect(subject, sentences(), prefix_sharing=False)
    assert "head" not in ran
    for handle in handles:
        handle.remove()


def test_plans_keep_the_budget_and_every_example():
    rng = np.random.default_rng(0)
    encoded = [Encoded(tuple(rng.integers(0, 9, size=n).tolist()), (0,)) for n in rng.integers(1, 30, size=200)]
    batches = plan_batches(encoded, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        assert len(batch) * max(len(encoded[i].ids) for i in batch) <= 100
    assert plan_batches([Encoded((1,) * 500, (0,))], 100) == [[0]]


def test_batches_hold_lengths_of_one_kind_and_are_never_square():
    encoded = [Encoded((1,) * length, (0,)) for length in (9, 8, 7, 6, 5)]
    assert plan_batches(encoded, 1000, lambda length: length > 7) == [[0, 1], [2, 3, 4]]
    assert plan_batches([Encoded((1, i), (0,)) for i in range(2)], 1000) == [[0], [1]]
    assert plan_batches([Encoded((1, i), (0,)) for i in range(3)], 1000) == [[0, 1, 2]]


def test_as_many_texts_as_the_network_has_positions_can_be_read():
    words = list(VOCABULARY)[-16:]
    texts = [" ".join([word, *words]) for word in words]
    model = causal_lm(GPT2Config(vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, n_positions=16))
    subject = from_model(model, word_tokenizer(), position="mean")
    concept = sentences(inputs=texts, labels=[0, 1] * 8, template=None)
    # Premise: the texts, cut to what the network has, differ and would make a square batch.
    encoded = subject.encode_concept(concept)
    assert {len(example.ids) for example in encoded} == {len({example.ids for example in encoded})} == {16}
    acts = collect(subject, concept, prefix_sharing=False)
    single = collect(subject, concept, prefix_sharing=False, batch_tokens=1)
    np.testing.assert_allclose(acts.numpy(), single.numpy(), **TOLERANCE)


def test_progress_is_told_in_tokens_up_to_the_end():
    told = []
    collect(
        from_model(causal_lm(), word_tokenizer()),
        sentences(),
        batch_tokens=40,
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_the_record_says_where_the_numbers_come_from():
    acts = collect(from_model(causal_lm(), word_tokenizer()), sentences())
    subject = acts.provenance["subject"]
    assert (subject["site"], subject["position"], subject["dtype"]) == ("resid_post", "last", "float32")
    assert acts.provenance["concept"]["fingerprint"] == sentences().fingerprint
    other = collect(from_model(causal_lm(seed=1), word_tokenizer()), sentences())
    assert other.provenance["subject"]["weights"] != subject["weights"]


def test_groups_follow_the_concept_and_are_single_without():
    subject = from_model(causal_lm(), word_tokenizer())
    np.testing.assert_array_equal(collect(subject, sentences()).groups, np.arange(8))
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(collect(subject, sentences(groups=groups)).groups, groups)


def test_half_precision_is_kept_and_read_as_float32():
    model = causal_lm().to(torch.bfloat16)
    acts = collect(from_model(model, word_tokenizer()), sentences())
    assert acts[1].dtype == np.float32
    single = one_at_a_time(model, word_tokenizer(), sentences().prompts(), lambda hidden: hidden[-1].float())
    # bfloat16 keeps 8 bits: some roundings of 2^-8 over three blocks.
    np.testing.assert_allclose(acts.numpy(), single, rtol=0.05, atol=0.05)


def test_averages_of_half_precision_fit_together_whatever_batch_they_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr("concept_depth.extraction.plan.SHARD_BYTES", 1)
    texts = ["one two three four five six seven", "Rome is in Japan now true", "Oslo", "blue"]
    concept = sentences(inputs=texts, labels=[0, 1, 0, 1], spans=((0, 7), (0, 7), (0, 4), (0, 4)), template=None)
    subject = from_model(causal_lm().to(torch.bfloat16), word_tokenizer(), position="span")
    # Premise: batches with one row for each text, and others.
    assert [len(example.rows) for example in subject.encode_concept(concept)] == [2, 2, 1, 1]
    options = {"batch_tokens": 16, "prefix_sharing": False}
    acts = collect(subject, concept, **options)
    np.testing.assert_array_equal(collect(subject, concept, cache_dir=tmp_path, **options).numpy(), acts.numpy())


def test_arrays_pass_through_any_network_layer_by_layer():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(27, 5),
    )
    images = np.random.default_rng(0).normal(size=(10, 1, 8, 8))
    concept = Concept(name="images", inputs=images, labels=[0, 1] * 5, classes=("a", "b"))
    acts = collect(Subject.from_module(network, layers=["input", "*"]), concept, batch_tokens=4)
    assert acts.names == ("input", "0", "1", "2", "3", "4")
    assert (acts.numbers[0], acts.total) == (0, 5)
    expected = torch.from_numpy(images).float()
    np.testing.assert_array_equal(acts["input"], expected.flatten(1).numpy())
    for name, layer in network.named_children():
        expected = layer(expected)
        np.testing.assert_allclose(acts[name], expected.flatten(1).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_tokens": 0}, "batch_tokens 0"),
        ({"batch_tokens": "many"}, "batch_tokens 'many'"),
        ({"prefix_sharing": "sometimes"}, "prefix_sharing 'sometimes'"),
        ({"layers": []}, "no layer was asked for"),
        ({"layers": 3}, r"give layers=\[3\]"),
        ({"layers": "resid_post.3"}, r"give layers=\['resid_post.3'\]"),
        ({"layers": [[3]]}, r"no layer \[3\]"),
    ],
)
def test_wrong_settings_are_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        collect(from_model(causal_lm(), word_tokenizer()), sentences(), **arguments)


def test_texts_and_arrays_go_to_the_networks_that_take_them():
    arrays = Concept(name="a", inputs=np.zeros((2, 3)), labels=[0, 1], classes=("a", "b"))
    with pytest.raises(InputError, match="reads texts"):
        collect(from_model(causal_lm(), word_tokenizer()), arrays)
    with pytest.raises(InputError, match="takes arrays"):
        collect(Subject.from_module(torch.nn.Linear(3, 2), layers="input"), sentences())


def test_texts_that_are_cut_to_the_same_are_refused():
    concept = sentences(inputs=["the city of Paris is", "the city of Rome is"] * 4, template=None)
    subject = from_model(causal_lm(), word_tokenizer(), max_length=2)
    with pytest.raises(InputError, match="all 8 texts are the same to the model"):
        collect(subject, concept)
