"""Where a decoder is listened to, and that listening leaves no trace."""

import numpy as np
import pytest
import torch
from tiny_architectures import tiny_model
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from torch import nn
from transformers import GraniteConfig

from concept_depth import Concept, InputError, collect, from_model
from concept_depth.extraction.doctor import doctor
from concept_depth.subjects.anchoring import anchor
from concept_depth.subjects.sites import batch_first, check_site_and_position, find_blocks, listen
from concept_depth.subjects.subject import token_batch

SEQUENTIAL = ["llama", "gemma2", "gemma3_text", "granite", "olmo2", "gpt2", "bloom", "opt", "qwen3_moe", "mixtral"]
# A module that what both sublayers return runs through (here a dropout) is no place of either.
SEQUENTIAL += ["emu3"]
PARALLEL = ["gptj", "phi", "cohere", "falcon"]


def concept():
    return Concept(name="tiny", inputs=SENTENCES, labels=[0, 1] * 4, classes=("no", "yes"))


def layers_of(model, site, position="last"):
    acts = collect(
        from_model(model, word_tokenizer(), site=site, position=position), concept(), prefix_sharing=False
    )
    return acts


def close(a, b):
    # Both sides are sums of the same float32 numbers in another order, about a hundred roundings deep.
    return np.abs(a - b).max() <= 2e-5 * max(1.0, np.abs(b).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_what_is_added_makes_the_stream(name):
    model = tiny_model(name)
    stream = layers_of(model, "resid_post")
    pre, mid = layers_of(model, "resid_pre"), layers_of(model, "resid_mid")
    attention, mlp = layers_of(model, "attn_out"), layers_of(model, "mlp_out")
    total = stream.total
    assert pre.numbers == mid.numbers == attention.numbers == mlp.numbers == tuple(range(1, total + 1))
    for number in range(1, total + 1):
        np.testing.assert_array_equal(pre[number], stream[number - 1])
        assert close(pre[number] + attention[number], mid[number])
        assert close(mid[number] + mlp[number], stream[number])
        # Premise: both parts do something.
        assert np.abs(attention[number]).max() > 1e-3
        assert np.abs(mlp[number]).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("multiplier", [1.0, 0.22])
def test_what_is_added_is_found_beside_activations_so_large_that_their_rounding_exceeds_it(dtype, multiplier):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = GraniteConfig(
        vocab_size=len(VOCABULARY),
        num_key_value_heads=2,
        initializer_range=0.2,
        residual_multiplier=multiplier,
        **sizes,
    )
    model = causal_lm(config)
    model.model.embed_tokens.weight.data[1:4, 5] = 3000.0
    for site, part in [("attn_out", "self_attn"), ("mlp_out", "mlp")]:
        taps = from_model(model.to(dtype), word_tokenizer(), site=site).taps
        assert [tap.path for tap in taps.values()] == [f"layers.{i}.{part}" for i in range(3)]
        # A constant other than 1 is a mean over numbers that are each rounded to 1 in 256 or better.
        tolerance = 0.0 if multiplier == 1 else torch.finfo(dtype).eps
        assert [tap.scale for tap in taps.values()] == pytest.approx([multiplier] * 3, abs=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gpt2"])
@pytest.mark.parametrize("without", [["attn"], ["mlp"], ["attn", "mlp"]], ids=str)
def test_what_adds_nothing_is_still_a_place(name, without):
    model = tiny_model(name)
    block = model.transformer.h[1] if name == "gpt2" else model.model.layers[1]
    whole = (
        from_model(model, word_tokenizer(), site="attn_out").taps,
        from_model(model, word_tokenizer(), site="mlp_out").taps,
    )
    for part in without:
        module = {"attn": getattr(block, "self_attn", None) or getattr(block, "attn", None), "mlp": block.mlp}[
            part
        ]
        last = next(p for n, p in module.named_modules() if n in ("o_proj", "down_proj", "c_proj"))
        for parameter in last.parameters():
            parameter.data.zero_()
    stream, mid = layers_of(model, "resid_post"), layers_of(model, "resid_mid")
    attention, mlp = layers_of(model, "attn_out"), layers_of(model, "mlp_out")
    assert np.abs(attention[2]).max() == 0 if "attn" in without else np.abs(attention[2]).max() > 1e-3
    assert np.abs(mlp[2]).max() == 0 if "mlp" in without else np.abs(mlp[2]).max() > 1e-3
    for number in (1, 2, 3):
        assert close(stream[number - 1] + attention[number], mid[number])
        assert close(mid[number] + mlp[number], stream[number])
    # The same modules are heard as before.
    for taps, site in zip(whole, ("attn_out", "mlp_out"), strict=True):
        now = from_model(model, word_tokenizer(), site=site).taps
        assert [tap.path for tap in now.values()] == [tap.path for tap in taps.values()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_blocks_have_no_middle_but_an_mlp(name):
    model = tiny_model(name)
    with pytest.raises(InputError, match="has no site resid_mid: block 1"):
        from_model(model, word_tokenizer(), site="resid_mid")
    assert layers_of(model, "mlp_in").numbers[0] == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "path"), [("llama", "mlp"), ("gemma3_text", "mlp"), ("gpt2", "mlp"), ("opt", "fc1")]
)
def test_mlp_in_is_what_the_mlp_takes(name, path):
    model = tiny_model(name)
    subject = from_model(model, word_tokenizer(), site="mlp_in")
    acts = collect(subject, concept(), prefix_sharing=False)
    blocks = [subject.module.get_submodule(block) for block in find_blocks(subject.module)]
    for row, text in enumerate(SENTENCES):
        heard = []
        handles = [
            block.get_submodule(path).register_forward_pre_hook(
                lambda _m, args, heard=heard: heard.append(args[0])
            )
            for block in blocks
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([word_tokenizer()(text)["input_ids"]]))
        for handle in handles:
            handle.remove()
        for number, tensor in enumerate(heard, start=1):
            expected = tensor.reshape(-1, tensor.shape[-1])[-1].numpy()
            assert close(acts[number][row], expected)


@pytest.mark.filterwarnings("ignore")
def test_recurrent_blocks_have_neither():
    for site in ("resid_mid", "mlp_in"):
        with pytest.raises(InputError, match=f"has no site {site}"):
            from_model(tiny_model("mamba"), word_tokenizer(), site=site)


def test_the_models_own_hidden_states_agree_but_for_the_last():
    model = causal_lm()
    acts = collect(from_model(model, word_tokenizer()), concept(), prefix_sharing=False)
    with torch.no_grad():
        ids = torch.tensor([word_tokenizer()(SENTENCES[0])["input_ids"]])
        own = model(input_ids=ids, output_hidden_states=True).hidden_states
    for number in range(3):
        assert close(acts[number][0], own[number][0, -1].numpy())
    # transformers' last entry has passed the final norm, so it is not the stream.
    assert not close(acts[3][0], own[3][0, -1].numpy())
    assert close(model.model.norm(torch.from_numpy(acts[3][0])).detach().numpy(), own[3][0, -1].numpy())


def state_of(model):
    return (
        [(name, part.training) for name, part in model.named_modules()],
        [(name, len(part._forward_hooks), len(part._forward_pre_hooks)) for name, part in model.named_modules()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        torch.get_rng_state(),
    )


def assert_same_state(model, before):
    after = state_of(model)
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert all(torch.equal(after[2][name], tensor) for name, tensor in before[2].items())
    assert torch.equal(after[3], before[3])


def test_a_model_in_training_is_measured_in_evaluation_and_left_in_training():
    model = causal_lm(attention_dropout=0.5)
    still = collect(from_model(model.eval(), word_tokenizer()), concept()).numpy()
    model.train()
    model.model.norm.eval()
    before = state_of(model)
    np.testing.assert_array_equal(collect(from_model(model, word_tokenizer()), concept()).numpy(), still)
    assert_same_state(model, before)


@pytest.mark.parametrize("wish", ["output_hidden_states", "output_attentions"])
def test_a_config_that_asks_for_every_state_leaves_no_hooks(wish):
    model = causal_lm(attn_implementation="eager")
    setattr(model.config, wish, True)
    before = state_of(model)
    subject = from_model(model, word_tokenizer(), site="mlp_out")
    collect(subject, concept())
    anchor(subject, concept())
    doctor(from_model(model, word_tokenizer()))
    assert_same_state(model, before)
    assert getattr(model.config, wish)


@pytest.mark.filterwarnings("ignore")
def test_bigbird_keeps_its_sparse_attention():
    model = tiny_model("big_bird")
    parts = dict(model.named_modules())
    assert model.bert.attention_type == "block_sparse"
    state = torch.get_rng_state()
    collect(from_model(model, word_tokenizer()), concept(), prefix_sharing=False)
    assert model.bert.attention_type == model.bert.encoder.layer[0].attention.attention_type == "block_sparse"
    assert all(part is parts[name] for name, part in model.named_modules())
    # The other kind is made with random weights before it is given those of the first.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
@pytest.mark.parametrize("part", ["base", "blocks", "whole"])
def test_a_compiled_network_is_read_as_it_was_written(part, site):
    """Hooks would break its graph, which `fullgraph` forbids."""
    model = causal_lm()
    plain = layers_of(model, site).numpy()
    compiled = {"base": [model.model], "blocks": [*model.model.layers, model.model], "whole": [model]}[part]
    for module in compiled:
        module.compile(backend="eager", fullgraph=True)
    before = torch._dynamo.eval_frame._stance.stance
    subject = from_model(model, word_tokenizer(), site=site)
    np.testing.assert_array_equal(collect(subject, concept(), prefix_sharing=False).numpy(), plain)
    assert doctor(subject).healthy
    anchor(subject, concept())
    assert torch._dynamo.eval_frame._stance.stance == before
    assert all(module._compiled_call_impl is not None for module in compiled)


@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
def test_an_error_in_the_network_leaves_it_as_it_was(site):
    model = causal_lm().train()
    subject = from_model(model, word_tokenizer(), site=site)

    def fail(*_):
        raise RuntimeError("in the middle")

    handle = model.model.layers[1].register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        collect(subject, concept(), prefix_sharing=False)
    assert_same_state(model, before)
    handle.remove()


def test_the_callers_own_hooks_still_work():
    model, heard = causal_lm(), []
    handle = model.model.layers[0].register_forward_hook(lambda *_: heard.append(1))
    collect(from_model(model, word_tokenizer()), concept())
    assert heard
    handle.remove()


def test_blocks_are_found_by_structure_and_can_be_named():
    model = causal_lm()
    assert find_blocks(model.model) == ["layers.0", "layers.1", "layers.2"]
    named = from_model(model, word_tokenizer(), blocks="model.layers")
    assert named.total == 3
    with pytest.raises(InputError, match="no list of modules 'layerz'"):
        from_model(model, word_tokenizer(), blocks="layerz")


def test_other_lists_of_modules_are_not_taken_for_blocks():
    class Decoys(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = nn.ModuleList(nn.Linear(64, 64) for _ in range(9))
            self.embedding = nn.Embedding(50, 8)
            self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(5))
            self.stack = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4))

        def forward(self, input_ids):
            hidden = self.embedding(input_ids)
            for norm, block in zip(self.norms, self.stack, strict=False):
                hidden = hidden + norm(hidden)
                hidden = block(hidden)
            return self.norms[4](hidden)

    # The stream changes between these blocks, so they hand nothing on; in this one they do.
    with pytest.raises(InputError, match="no list of blocks"):
        find_blocks(Decoys())

    class Plain(Decoys):
        def forward(self, input_ids):
            hidden = self.embedding(input_ids)
            for block in self.stack:
                hidden = block(hidden)
            return self.norms[0](hidden)

    assert find_blocks(Plain()) == [f"stack.{i}" for i in range(4)]


def test_a_module_that_stands_in_two_lists_hides_no_blocks():
    model, shared = causal_lm(), nn.ReLU()
    model.model.first = nn.Sequential(nn.Linear(4, 4), shared)
    model.model.second = nn.Sequential(shared)
    model.model.third = model.model.first
    assert find_blocks(model.model) == ["layers.0", "layers.1", "layers.2"]
    model.model.also = model.model.layers
    acts = collect(from_model(model, word_tokenizer(), blocks="model.also"), concept())
    np.testing.assert_array_equal(acts.numpy(), layers_of(causal_lm(), "resid_post").numpy())


@pytest.mark.filterwarnings("ignore")
def test_blocks_that_run_several_times_are_refused():
    with pytest.raises(InputError, match="run several times"):
        from_model(tiny_model("hrm_text"), word_tokenizer())


def test_a_model_of_mixed_dtypes_is_told_so():
    model = causal_lm()
    model.model.layers[1].mlp.to(torch.bfloat16)
    with pytest.raises(InputError, match=r"dtype.*bfloat16, float32.*model\.float\(\)") as raised:
        from_model(model, word_tokenizer())
    assert "decoder-only" not in str(raised.value)


def test_streams_of_any_layout_become_batch_first():
    hidden = torch.randn(2, 3, 4)
    assert torch.equal(batch_first(hidden, (2, 3)), hidden)
    assert torch.equal(batch_first(hidden.transpose(0, 1), (2, 3)), hidden)
    assert torch.equal(batch_first(hidden.reshape(6, 4), (2, 3)), hidden)
    streams = torch.stack([hidden, 2 * hidden])
    expected = torch.cat([hidden, 2 * hidden], dim=-1)
    assert torch.equal(batch_first(streams, (2, 3)), expected) or torch.equal(
        batch_first(streams.permute(1, 2, 0, 3), (2, 3)), expected
    )
    with pytest.raises(InputError, match="has no axes"):
        batch_first(torch.zeros(5, 5, 4), (2, 3))


def test_a_listener_returns_whole_tensors_where_nothing_is_picked():
    subject = from_model(causal_lm(), word_tokenizer())
    ids, mask = token_batch(subject.encode(SENTENCES[:3]), subject.pad_id)
    with listen(subject, subject.select([0, 2])) as ear:
        heard = ear(**subject.arguments(ids, mask))
    assert list(heard) == ["resid_post.0", "resid_post.2"]
    assert heard["resid_post.2"].shape == (*ids.shape, 32)


@pytest.mark.parametrize(
    ("site", "position", "sentence"),
    [
        ("resid", "last", "no site 'resid'"),
        ("mlp_in", "end", "no position 'end'"),
        ("mlp_in", True, "no position"),
        ("mlp_in", 1.5, "no position 1.5"),
        ("mlp_in", None, "no position None"),
        ("mlp_in", [0], r"no position \[0\]"),
    ],
)
def test_wrong_sites_and_positions_are_one_sentence(site, position, sentence):
    with pytest.raises(InputError, match=sentence):
        check_site_and_position(site, position)
