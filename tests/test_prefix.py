"""One shared beginning from the network's own cache, against single plain passes; and where it is not used."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_tree_path import assert_like_single, many, one_at_a_time, tiny
from tiny_models import VOCABULARY, causal_lm, word_tokenizer
from transformers import BloomConfig, FalconH1Config, Mamba2Config, MambaConfig, RwkvConfig

from concept_depth import collect, from_model
from concept_depth.extraction import plan as planning
from concept_depth.extraction import prefix
from concept_depth.extraction.batches import CACHED_BUDGETS, plan_batches
from concept_depth.extraction.doctor import doctor
from concept_depth.subjects.subject import Encoded

WORDS = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "initializer_range": 0.2}
CONFIGS = {
    "alibi": BloomConfig(**WORDS, n_layer=3, n_head=4),
    "recurrent": Mamba2Config(**WORDS, num_hidden_layers=3, num_heads=8, head_dim=8, state_size=8, n_groups=1),
    "hybrid": FalconH1Config(
        **WORDS,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_n_groups=1,
    ),
}


def subject_of(kind, **settings):
    return from_model(causal_lm(copy.deepcopy(CONFIGS[kind])), word_tokenizer(), **settings)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_a_beginning_computed_once_gives_what_single_passes_give(kind, monkeypatch):
    monkeypatch.setattr(planning, "SHARD_BYTES", 3000)
    subject = subject_of(kind)
    acts = collect(subject, many(60), batch_tokens=40)
    extraction = acts.provenance["extraction"]
    assert extraction["path"] == "prefix", extraction
    assert extraction["prefix"]["tokens"] >= 15
    assert extraction["prefix"]["error"] <= extraction["prefix"]["tolerance"]
    assert_like_single(acts, one_at_a_time(subject, many(60)))


def test_a_beginning_runs_once():
    subject = subject_of("hybrid")
    passes = []
    subject.module.embed_tokens.register_forward_hook(lambda _m, args, _o: passes.append(tuple(args[0].shape)))
    acts = collect(subject, many(60), batch_tokens=10_000)
    length = acts.provenance["extraction"]["prefix"]["tokens"]
    # Once to try it, once to use it.
    assert passes.count((1, length)) == 2
    texts = acts.provenance["extraction"]["distinct_texts"]
    assert [tokens for count, tokens in passes if count == texts] == [max(behind_each(subject, length))] * 2


def behind_each(subject, length):
    return [len(example.ids) - length for example in subject.encode_concept(many(60))]


@pytest.mark.parametrize("position", ["last", -2, "span", "first", "mean"])
def test_every_position_behind_the_beginning_is_right(position):
    concept = many(24)
    spans = [(text.index("in"), len(text)) for text in concept.inputs]
    concept = many(24, spans=spans)
    subject = subject_of("alibi", position=position)
    acts = collect(subject, concept, prefix_sharing=True)
    assert acts.provenance["extraction"]["path"] == "prefix"
    assert_like_single(acts, one_at_a_time(subject, concept))


def test_no_beginning_reaches_what_is_read():
    # Without a template an average starts at the first token.
    concept = many(
        24, template=None, inputs=[f"the city of {word}" for word in ("Paris Rome Lima Oslo " * 6).split()]
    )
    subject = subject_of("alibi", position="mean")
    acts = collect(subject, concept, prefix_sharing=True)
    assert acts.provenance["extraction"].get("prefix", {"tokens": 0})["tokens"] <= 1
    assert_like_single(acts, one_at_a_time(subject, concept))


@pytest.mark.parametrize("layers", [[1], [0, 2], None])
def test_some_layers_are_the_same(layers):
    subject = subject_of("hybrid")
    acts = collect(subject, many(24), layers=layers)
    expected = one_at_a_time(subject, many(24))
    assert acts.provenance["extraction"]["path"] == "prefix"
    assert_like_single(acts, expected if layers is None else expected[layers])


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_mid"])
def test_other_sites_are_right(site):
    subject = subject_of("alibi", site=site)
    acts = collect(subject, many(24))
    assert acts.provenance["extraction"]["path"] == "prefix"
    assert_like_single(acts, one_at_a_time(subject, many(24)))


def test_a_stored_run_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "SHARD_BYTES", 3000)
    subject = subject_of("recurrent")
    first = collect(subject, many(60), batch_tokens=40, cache_dir=tmp_path).numpy()
    shards = sorted(tmp_path.rglob("shard-*.safetensors"))
    assert len(shards) > 3
    shards[1].unlink()
    shards[-1].unlink()
    again = collect(subject, many(60), batch_tokens=40, cache_dir=tmp_path)
    assert again.provenance["extraction"]["path"] == "prefix"
    np.testing.assert_array_equal(again.numpy(), first)


def test_a_wrong_cache_is_caught(monkeypatch):
    """The check must be able to fail: a cache whose numbers are a little off."""
    copies = prefix.PrefixRunner._copies

    def off(self, count):
        cache = copies(self, count)
        cache.layers[0].keys = cache.layers[0].keys * 1.01
        return cache

    monkeypatch.setattr(prefix.PrefixRunner, "_copies", off)
    subject = subject_of("alibi")
    acts = collect(subject, many(24))
    extraction = acts.provenance["extraction"]
    assert extraction["path"] == "plain"
    assert "differs from single passes" in extraction["prefix"]["reason"]
    assert_like_single(acts, one_at_a_time(subject, many(24)))


def test_networks_that_cannot_go_on_read_plain_batches():
    config = MambaConfig(**WORDS, state_size=4, num_hidden_layers=2)
    subject = from_model(causal_lm(config), word_tokenizer())
    extraction = collect(subject, many(24)).provenance["extraction"]
    assert extraction["path"] == "plain"
    assert not extraction["prefix"]["right"]


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_goes_on_with_long_batches_only_reads_plain_ones():
    """RWKV mixes up texts that go on together by one token each; the longest batch does not tell."""
    config = RwkvConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        attention_hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
    )
    texts = [*list(VOCABULARY)[4:14], "the city of Rome is in Japan"]
    concept = many(11, inputs=texts)
    subject = from_model(causal_lm(config), word_tokenizer())
    acts = collect(subject, concept, batch_tokens=16)
    extraction = acts.provenance["extraction"]
    assert extraction["path"] == "plain"
    assert not extraction["prefix"]["right"]
    assert_like_single(acts, one_at_a_time(subject, concept))
    # One such text alone is right, and so are several in other networks.
    assert collect(subject, concept.select([9, 10]), batch_tokens=16).provenance["extraction"]["path"] == "prefix"
    alibi = collect(subject_of("alibi"), concept, batch_tokens=16)
    assert alibi.provenance["extraction"]["path"] == "prefix"
    assert_like_single(alibi, one_at_a_time(subject_of("alibi"), concept))


def test_without_a_common_beginning_plain_batches_run():
    texts = [f"{word} the city is in France" for word in ("Paris", "Rome", "Lima", "Oslo", "Peru", "Italy")]
    concept = many(6, inputs=texts, template=None)
    subject = from_model(causal_lm(copy.deepcopy(CONFIGS["alibi"])), word_tokenizer(bos=False))
    extraction = collect(subject, concept, prefix_sharing=True).provenance["extraction"]
    assert extraction["path"] == "plain"
    assert "prefix" not in extraction


def test_trees_come_first():
    extraction = collect(from_model(tiny("llama"), word_tokenizer()), many(24)).provenance["extraction"]
    assert extraction["path"] == "tree"
    assert "prefix" not in extraction


def test_the_shared_tokens_end_in_front_of_what_is_read():
    ids = [(1, 2, 3, 4), (1, 2, 3, 5, 6), (1, 2, 3)]
    assert prefix.shared_tokens([Encoded(i, (len(i) - 1,)) for i in ids]) == 2
    assert prefix.shared_tokens([Encoded(i, (len(i) - 1,)) for i in ids[:2]]) == 3
    assert prefix.shared_tokens([Encoded(i, (0, 1)) for i in ids]) == 0


def test_a_batch_holds_no_more_caches_than_its_budget_allows():
    examples = [Encoded((i, i + 1), (1,)) for i in range(100)]
    batches = plan_batches(examples, 100, cached=38)
    assert max(len(batch) * 40 for batch in batches) <= CACHED_BUDGETS * 100
    assert max(len(batch) for batch in batches) == 10
    assert sorted(index for batch in batches for index in batch) == list(range(100))


def test_a_pass_that_is_not_heard_runs_to_its_end():
    from concept_depth.subjects.sites import listen

    subject = subject_of("alibi")
    ids = torch.tensor([[5, 6, 7]])
    with listen(subject, subject.select([0])) as ear:
        with ear.deaf(), torch.inference_mode():
            output = subject.module(input_ids=ids)
        heard = ear(input_ids=ids)
    assert output.last_hidden_state.shape == (1, 3, 32)
    assert list(heard) == ["resid_post.0"]


def test_the_doctor_asks_for_the_cache_where_trees_are_wrong():
    checks = {check.name: check for check in doctor(subject_of("hybrid")).checks}
    assert checks["trees equal plain passes"].verdict == "note"
    assert checks["one beginning, kept in the cache, equals single passes"].verdict == "pass"
    checks = {check.name: check for check in doctor(from_model(tiny("llama"), word_tokenizer())).checks}
    assert "one beginning, kept in the cache, equals single passes" not in checks
