"""Trees against single plain passes: every site, position, mask form; and what happens where trees are wrong."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_architectures import tiny_model
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from transformers import AutoConfig, BloomConfig, GPTNeoConfig, Lfm2Config, MambaConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from concept_depth import Concept, collect, from_model
from concept_depth.extraction import plan as planning
from concept_depth.extraction import token_tree, tree_check
from concept_depth.extraction.batches import RowPicker, rotary_kind
from concept_depth.extraction.tree_check import Verdict
from concept_depth.extraction.tree_forward import TreePicker
from concept_depth.subjects.attention import additive
from concept_depth.subjects.subject import Encoded

# Relative to a vector's length; float32 rounds at 6e-8, and a few hundred sums follow one another.
RELATIVE = 2e-6

SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}
CONFIGS = {
    "llama": {**SIZES, **HEADS},
    "qwen2": {**SIZES, **HEADS},
    "qwen3": {**SIZES, **HEADS, "head_dim": 8},
    "gemma3_text": {
        **SIZES,
        **HEADS,
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma2": {**SIZES, **HEADS, "head_dim": 8, "sliding_window": 8},
    "mistral": {**SIZES, **HEADS, "sliding_window": 8},
    "phi3": {**SIZES, **HEADS, "pad_token_id": 0, "sliding_window": 8},
    "gpt_neox": {**SIZES, **HEADS},
    "gpt2": {"vocab_size": len(VOCABULARY), "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96},
}

PREFIX = "Is this statement true or false ? one two three four five six seven : {text}"


def tiny(kind, **changes):
    return causal_lm(AutoConfig.for_model(kind, **{**CONFIGS[kind], "initializer_range": 0.2, **changes}))


def many(n=60, **changes):
    """Sentences that share beginnings: an instruction in front of all, twins that differ at the end."""
    rng = np.random.default_rng(0)
    places = ["Paris", "Rome", "Lima", "Oslo"]
    lands = ["France", "Italy", "Peru", "Norway", "Japan"]
    texts = []
    for i in range(n):
        words = ["the", "city", "of", places[rng.integers(4)], "is", *(["not"] if i % 3 else []), "in"]
        texts.append(" ".join([*words, lands[rng.integers(5)], *["."] * int(rng.integers(0, 3))]))
    values = {"name": "many", "inputs": texts, "labels": np.arange(n) % 2, "classes": ("no", "yes")}
    return Concept(**{**values, "template": PREFIX, **changes})


def one_at_a_time(subject, concept):
    """The slow way: each text alone, through hooks of the test's own, all tokens kept: (L, N, D)."""
    parts = dict(subject.module.named_modules())
    found = []
    for example in subject.encode_concept(concept):
        seen: dict[str, torch.Tensor] = {}
        handles = []
        for layer in subject.layers:
            tap = subject.taps[layer.name]

            def keep(value, name=layer.name, scale=tap.scale, seen=seen):
                value = value[0] if isinstance(value, tuple) else value
                seen[name] = value[0].clone() * scale

            if tap.side == "input":
                handles.append(
                    parts[tap.path].register_forward_pre_hook(
                        lambda _m, args, kwargs, keep=keep: keep(args[0] if args else kwargs["hidden_states"]),
                        with_kwargs=True,
                    )
                )
            else:
                handles.append(parts[tap.path].register_forward_hook(lambda _m, _i, out, keep=keep: keep(out)))
        with torch.no_grad():
            subject.module(input_ids=torch.tensor([example.ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        found.append([seen[layer.name][list(example.rows)].double().mean(0).numpy() for layer in subject.layers])
    return np.swapaxes(np.asarray(found), 0, 1)


def assert_like_single(acts, expected):
    found = np.stack([acts[name] for name in acts.names]).astype(np.float64)
    difference = np.linalg.norm(found - expected, axis=2) / np.linalg.norm(expected, axis=2)
    assert difference.max() < RELATIVE


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_trees_give_what_single_passes_give(kind, attention):
    model = tiny(kind)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip("Gemma 2 caps its attention scores, which SDPA cannot")
    model.set_attn_implementation(attention)
    subject = from_model(model, word_tokenizer())
    concept = many()
    acts = collect(subject, concept)
    extraction = acts.provenance["extraction"]
    assert extraction["path"] == "tree", extraction
    # Premise: a window is shorter than the texts, and most tokens are shared.
    assert extraction["distinct_tokens"] < 0.5 * extraction["tokens"]
    assert min(len(example.ids) for example in subject.encode_concept(concept)) > 16
    assert_like_single(acts, one_at_a_time(subject, concept))


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_out", "mlp_out", "mlp_in"])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_every_site_is_right_on_trees(kind, site):
    subject = from_model(tiny(kind), word_tokenizer(), site=site)
    acts = collect(subject, many(24))
    assert acts.provenance["extraction"]["path"] == "tree"
    assert_like_single(acts, one_at_a_time(subject, many(24)))


@pytest.mark.parametrize("position", ["last", "first", "mean", "span", 3, -2])
def test_every_position_is_right_on_trees(position):
    subject = from_model(tiny("llama"), word_tokenizer(), position=position)
    concept = many(24)
    spans = [(text.index("city"), text.index("is")) for text in concept.inputs]
    concept = many(24, spans=spans)
    acts = collect(subject, concept, prefix_sharing=True)
    assert acts.provenance["extraction"]["path"] == "tree"
    assert_like_single(acts, one_at_a_time(subject, concept))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("sharing", [True, False])
def test_averages_are_the_same_whatever_dtype_the_caller_has_made_the_default(dtype, sharing):
    subject = from_model(tiny("llama"), word_tokenizer(), position="mean")
    expected = collect(subject, many(24), prefix_sharing=sharing).numpy()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = collect(subject, many(24), prefix_sharing=sharing)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.provenance["extraction"]["path"] == ("tree" if sharing else "plain")


@pytest.mark.parametrize("batch_tokens", [1, 24, 70, 5000])
def test_the_size_of_packs_does_not_matter(batch_tokens, monkeypatch):
    monkeypatch.setattr(planning, "SHARD_BYTES", 3000)
    subject = from_model(tiny("gemma3_text"), word_tokenizer())
    acts = collect(subject, many(40), batch_tokens=batch_tokens)
    assert acts.provenance["extraction"]["path"] == "tree"
    assert_like_single(acts, one_at_a_time(subject, many(40)))


def test_sdpa_is_served_by_blocks_and_put_back():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    model = tiny("llama")
    model.set_attn_implementation("sdpa")
    acts = collect(from_model(model, word_tokenizer()), many(200))
    assert acts.provenance["extraction"]["check"]["blocked"] is True
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("position", "layers"), [("last", None), ("last", [2]), ("mean", None)])
def test_the_last_mlp_sees_only_rows_that_are_read(position, layers):
    model = tiny("llama")
    subject = from_model(model, word_tokenizer(), position=position)
    seen = {}
    for number, block in enumerate(model.model.layers, start=1):
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _m, args, number=number: seen.setdefault(number, []).append(args[0].shape[1])
        )
    acts = collect(subject, many(40), layers=layers)
    expected = one_at_a_time(subject, many(40))
    assert_like_single(acts, expected if layers is None else expected[layers])
    last = 3 if layers is None else 2
    texts = acts.provenance["extraction"]["distinct_texts"]
    tokens = acts.provenance["extraction"]["distinct_tokens"]
    assert max(seen[1]) >= tokens
    assert min(seen[last]) <= texts < tokens
    assert (max(seen[last]) < tokens) == (position == "last")
    assert all(len(block.mlp._forward_pre_hooks) == 0 for block in model.model.layers)


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=len(VOCABULARY), hidden_size=32, n_layer=2, n_head=4),
        MambaConfig(vocab_size=len(VOCABULARY), hidden_size=32, state_size=4, num_hidden_layers=2),
    ],
    ids=["alibi", "recurrent"],
)
def test_a_network_that_honours_no_tree_falls_back_and_the_record_says_why(config):
    subject = from_model(causal_lm(config), word_tokenizer())
    acts = collect(subject, many(24))
    extraction = acts.provenance["extraction"]
    assert extraction["path"] != "tree"
    assert "network takes no" in extraction["reason"] or "differs from single passes" in extraction["reason"]
    assert_like_single(acts, one_at_a_time(subject, many(24)))


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": 16,
    "factor": 4.0,
}


def unlike_lengths():
    """Texts that begin alike, some longer than the 16 tokens beyond which LongRoPE turns all of them otherwise."""
    places = ["Paris", "Rome", "Oslo"]
    texts = [" ".join(["one", "two", "red"] * k + [place]) for k in (2, 3, 7, 9) for place in places]
    return many(12, inputs=texts, template=None)


@pytest.mark.parametrize("sharing", [True, False])
def test_a_long_text_changes_no_other_where_the_network_turns_its_positions_by_the_longest(sharing):
    subject = from_model(tiny("llama", rope_parameters=LONG_ROPE), word_tokenizer())
    acts = collect(subject, unlike_lengths(), prefix_sharing=sharing)
    assert_like_single(acts, one_at_a_time(subject, unlike_lengths()))
    assert acts.provenance["extraction"]["path"] == "plain"
    # Texts that all stay short may share their beginnings.
    short = unlike_lengths().select(np.arange(6))
    acts = collect(subject, short, prefix_sharing=sharing)
    assert_like_single(acts, one_at_a_time(subject, short))
    assert acts.provenance["extraction"]["path"] == ("tree" if sharing else "plain")


def test_lengths_are_of_one_kind_up_to_where_the_network_turns_positions_otherwise():
    long = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": LONG_ROPE}
    by_layer = from_model(tiny("gemma3_text", rope_parameters=long), word_tokenizer())
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    scaled = from_model(tiny("llama", rope_parameters=dynamic, max_position_embeddings=16), word_tokenizer())
    for subject in (by_layer, scaled):
        assert rotary_kind(subject, 16) == rotary_kind(subject, 1) != rotary_kind(subject, 17)
    # LongRoPE knows two kinds, dynamic scaling as many as lengths.
    assert rotary_kind(by_layer, 17) == rotary_kind(by_layer, 18)
    assert rotary_kind(scaled, 17) != rotary_kind(scaled, 18)
    assert rotary_kind(from_model(tiny("gpt2"), word_tokenizer()), 90) == ()


def test_short_texts_bear_witness_of_what_long_ones_do_to_them(monkeypatch):
    monkeypatch.setattr(planning, "refusal", lambda *_: None)
    monkeypatch.setattr(tree_check, "refusal", lambda *_: None)
    subject = from_model(tiny("llama", rope_parameters=LONG_ROPE), word_tokenizer())
    extraction = collect(subject, unlike_lengths(), prefix_sharing=True).provenance["extraction"]
    assert extraction["path"] == "plain"
    assert "differs from single passes" in extraction["reason"]


def test_the_shortest_text_alone_shows_what_batches_and_trees_do_alike():
    """Positions turned by the longest text of a pass, by a rule that no config tells of."""
    model = tiny("llama")
    turn = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: turn(x, position_ids * (1 + position_ids.max()))
    extraction = collect(from_model(model, word_tokenizer()), unlike_lengths(), prefix_sharing=True).provenance[
        "extraction"
    ]
    assert extraction["path"] == "plain"
    assert "differs from single passes" in extraction["reason"]


def test_a_wrong_mask_is_caught(monkeypatch):
    """The check must be able to fail: a tree in which nodes see their cousins."""
    true_mask = token_tree.ancestor_mask

    def causal_only(tree, **_):
        return true_mask(tree) | torch.ones(len(tree), len(tree), dtype=torch.bool).tril()

    monkeypatch.setattr(token_tree, "ancestor_mask", causal_only)
    model = tiny("llama")
    model.set_attn_implementation("eager")
    acts = collect(from_model(model, word_tokenizer()), many(24))
    assert acts.provenance["extraction"]["path"] != "tree"
    assert "differs from single passes" in acts.provenance["extraction"]["reason"]


HYBRID = Lfm2Config(
    vocab_size=len(VOCABULARY),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    initializer_range=0.2,
    pad_token_id=0,
    layer_types=["conv", "full_attention"] * 2,
)


def test_a_long_text_hides_no_wrong_branches():
    """A text beyond the budget is a pack without branches, on which every network is right."""
    lands = ["France", "Italy", "Japan", "Peru", "one", "two"]
    texts = [f"the city of {city} is in {land}" for city in ("Paris", "Rome") for land in lands]
    concept = many(13, inputs=[*texts, "one two " * 600], template="Is this true or false ? " * 4 + ": {text}")
    subject = from_model(causal_lm(HYBRID), word_tokenizer())
    acts = collect(subject, concept)
    assert acts.provenance["extraction"]["path"] != "tree"
    assert_like_single(acts, one_at_a_time(subject, concept))


@pytest.mark.parametrize("batch_tokens", [24, 37, 64])
def test_small_packs_hide_no_wrong_branches(batch_tokens):
    subject = from_model(causal_lm(HYBRID), word_tokenizer())
    acts = collect(subject, many(40), batch_tokens=batch_tokens, prefix_sharing=True)
    assert_like_single(acts, one_at_a_time(subject, many(40)))
    # Packs of 24 tokens hold one path each, on which the network is right.
    assert (acts.provenance["extraction"]["path"] == "tree") == (batch_tokens == 24)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("initial", [0.02, 0.05])
def test_rounding_to_sixteen_bits_hides_no_leak(dtype, initial):
    """A convolution over the rows of a tree, too small a part of the stream to exceed what rounding may do."""
    config = copy.deepcopy(HYBRID)
    config.initializer_range = initial
    config.layer_types = ["conv", "conv", "conv", "full_attention"]
    subject = from_model(causal_lm(config).to(dtype), word_tokenizer())
    extraction = collect(subject, many(24)).provenance["extraction"]
    check = extraction["check"]
    assert extraction["path"] != "tree"
    assert check["leak"] is None or check["leak"] > 10 * check["leak_tolerance"]
    # Premise: at least in one case the tree's error alone does not tell.
    if (dtype, initial) == (torch.bfloat16, 0.02):
        assert check["tree_error"] <= check["tolerance"]
        assert "other tokens in other examples" in extraction["reason"]


@pytest.mark.parametrize("kind", ["bert", "big_bird"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_sixteen_bits_hides_no_look_ahead(kind, dtype):
    """Without `is_decoder` these see what stands behind a token, which a tree would keep from them."""
    subject = from_model(tiny_model(kind).to(dtype), word_tokenizer())
    extraction = collect(subject, many(24)).provenance["extraction"]
    assert extraction["path"] == "plain"
    assert "a token changes the rows in front of it" in extraction["reason"]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_where_nothing_leaks_trees_are_used_in_sixteen_bits_too(kind, dtype):
    model = tiny_model(kind) if kind == "mixtral" else tiny(kind)
    acts = collect(from_model(model.to(dtype), word_tokenizer()), many(60))
    check = acts.provenance["extraction"]["check"]
    assert acts.provenance["extraction"]["path"] == "tree"
    assert Verdict.from_dict(check).to_dict() == check
    # In 32 bits the tree's error tells enough, and no pass more is made.
    assert (check["leak"] is None) == (dtype == torch.float32)
    assert check["leak"] is None or check["leak"] <= check["leak_tolerance"]


def test_tokens_of_others_change_and_the_shape_of_the_tree_stays():
    tree = token_tree.grow([(1, 2, 3), (1, 2, 4, 5), (1, 6)])
    changed = token_tree.other_tokens(tree, [1])
    mine = tree.path(int(tree.leaf[1]))
    np.testing.assert_array_equal(changed[mine], [1, 2, 4, 5])
    rest = np.setdiff1d(np.arange(len(tree)), mine)
    assert len(rest) == 2
    assert not (changed[rest] == tree.ids[rest]).any()
    assert set(changed) <= set(tree.ids)


@pytest.mark.parametrize("site", ["mlp_in", "resid_post"])
def test_windows_counted_in_rows_are_seen(site):
    config = GPTNeoConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=6,
        initializer_range=0.2,
    )
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["red", "blue", "one"], size=rng.integers(2, 9))) for _ in range(24)]
    concept = many(24, inputs=texts, template="Is {text} .")
    subject = from_model(causal_lm(config), word_tokenizer(), site=site)
    acts = collect(subject, concept, prefix_sharing=True)
    assert_like_single(acts, one_at_a_time(subject, concept))


def test_branches_near_an_end_and_far_from_their_row_are_witnesses():
    texts = ["a b c d", "a b c e f g", "a b c e f h", "a b x", "z"]
    words = {word: i for i, word in enumerate("abcdefghxz")}
    pack = [Encoded(ids, (len(ids) - 1,)) for ids in (tuple(words[w] for w in text.split()) for text in texts)]
    # "a b x" branches off one token before its end, six rows below "b".
    assert 3 in tree_check.witnesses(pack)
    assert tree_check.packs_to_check([[Encoded(tuple(range(50)), (49,))], pack]) == [0, 1]


def test_where_little_is_shared_the_plain_path_runs():
    concept = many(24, template=None, inputs=[f"{SENTENCES[i % 8]} {i}" for i in range(24)])
    subject = from_model(tiny("llama"), word_tokenizer())
    spread = concept.select(np.arange(8))
    assert collect(subject, spread).provenance["extraction"]["path"] == "plain"
    off = collect(subject, many(24), prefix_sharing=False).provenance["extraction"]
    assert (off["path"], off["reason"]) == ("plain", "prefix sharing is switched off")


# -- the store, killed and shared --------------------------------------------------------------------------------

# One interpreter loads the libraries, and forks a child for each run: loading them takes longer than the runs.
WORKER = """
import hashlib, os, signal, sys, time
sys.path.insert(0, {tests!r})
import numpy as np
import torch
torch.set_num_threads(1)
from test_tree_path import many, tiny, word_tokenizer
from concept_depth import collect, from_model, processes
from concept_depth.extraction import plan
plan.SHARD_BYTES = 3000


def run(cache, out, pause=0.0):
    subject = from_model(tiny("gemma3_text"), word_tokenizer())
    acts = collect(subject, many(120), cache_dir=cache, batch_tokens=40, progress=lambda *_: time.sleep(pause))
    with open(f"{{out}}.{{processes.rank()}}", "w") as file:
        file.write(hashlib.sha256(acts.numpy().tobytes()).hexdigest() + f" {{processes.size()}}")


def fork(*args):
    child = os.fork()
    if child:
        return child
    try:
        run(*args)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

KILL = """
def finished():
    return len([name for _, _, names in os.walk("killed") for name in names if name.startswith("shard-")])


assert wait(fork("undisturbed", "first")) == 0
rng = np.random.default_rng(0)
partial = 0
for goal in (0, 0, 1, 2, 3, 4, 4, 5, 6, 7):
    child = fork("killed", "killed-out", 0.02)
    while finished() < goal:
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    wait(child)
    partial += finished() < 8
assert partial > 3, "the kills came too late"
assert wait(fork("killed", "resumed")) == 0
"""

TOGETHER = """
children = [fork("shared", f"run{i}", 0.01 * i) for i in range(3)]
assert [wait(child) for child in children] == [0, 0, 0]
"""


def execute(tmp_path, *parts, launcher=()):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=os.path.dirname(__file__)) + "".join(parts))
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def files_of(cache):
    return {path.name: path.read_bytes() for path in sorted(cache.rglob("[!.]*")) if path.is_file()}


def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(tmp_path):
    execute(tmp_path, KILL)
    wanted = files_of(tmp_path / "undisturbed")
    assert len(wanted) > 8, "a run must have many shards for a kill to fall between them"
    assert files_of(tmp_path / "killed") == wanted
    assert (tmp_path / "resumed.0").read_text() == (tmp_path / "first.0").read_text()


def test_runs_that_share_a_cache_do_not_harm_each_other(tmp_path):
    execute(tmp_path, TOGETHER)
    assert len({(tmp_path / f"run{i}.0").read_text() for i in range(3)}) == 1


def test_two_processes_give_the_same_activations_as_one(tmp_path):
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    alone.mkdir()
    pair.mkdir()
    execute(alone, 'run("cache", "out")')
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    execute(pair, 'run("cache", "out")', launcher=launcher)
    digest, processes = (alone / "out.0").read_text().split()
    assert processes == "1"
    assert [(pair / f"out.{rank}").read_text() for rank in range(2)] == [f"{digest} 2"] * 2
    assert files_of(alone / "cache") == files_of(pair / "cache")


def test_what_a_pass_needs_is_made_on_the_device_of_the_network():
    meta = torch.device("meta")
    tree = token_tree.grow([(1, 2, 3), (1, 2, 4, 5)])
    mask = additive(token_tree.ancestor_mask(tree, window=2, chunk=3, device=meta), torch.float16)
    assert (mask.device, mask.dtype, mask.shape) == (meta, torch.float16, (5, 5))
    for of, hidden in (
        (lambda rows: TreePicker.of(tree, rows, meta), torch.empty(1, 5, 7, device=meta)),
        (lambda rows: RowPicker.of(rows, meta), torch.empty(2, 4, 7, device=meta)),
    ):
        for rows in ([(2,), (3,)], [(0, 1), (3,)]):
            picker = of(rows)
            assert {part.device for part in vars(picker).values() if part is not None} == {meta}
            assert picker(hidden).shape == (2, 7)
