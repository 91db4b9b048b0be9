"""The doctor: healthy networks pass, each illness is found, and nothing is changed by looking."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_tree_path import LONG_ROPE
from tiny_architectures import tiny_model
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from transformers import BloomConfig, Gemma3TextConfig, GPT2Config

from concept_depth import Concept, InputError, from_model
from concept_depth.extraction import doctor as doctoring
from concept_depth.extraction.doctor import doctor, tokens
from concept_depth.extraction.tree_forward import windows
from concept_depth.subjects.subject import Subject, Tap


def verdicts(diagnosis):
    return {check.name: check.verdict for check in diagnosis.checks}


def gemma():
    return causal_lm(
        Gemma3TextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            max_position_embeddings=96,
        )
    )


@pytest.mark.parametrize("make", [causal_lm, gemma])
def test_a_healthy_model_passes_every_check(make):
    diagnosis = doctor(from_model(make(), word_tokenizer()))
    assert set(verdicts(diagnosis).values()) == {"pass"}, str(diagnosis)
    assert diagnosis.healthy
    assert "behind the final norm" in str(diagnosis)
    for check in diagnosis.checks:
        assert check.error is None or check.error <= check.tolerance


def test_the_texts_exceed_every_window_and_share_beginnings():
    subject = from_model(gemma(), word_tokenizer())
    examples = doctoring.sample(subject)
    assert windows(subject) == {"sliding_attention": 16}
    assert max(len(example.ids) for example in examples) > 16
    assert examples[0].ids[:6] == examples[-1].ids[:6]
    assert len({len(example.ids) for example in examples}) > 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_mamba", "rwkv"])
def test_hidden_states_may_leave_out_what_enters_the_first_block(kind):
    diagnosis = doctor(from_model(tiny_model(kind), word_tokenizer()))
    check = next(check for check in diagnosis.checks if check.name.startswith("hooks equal"))
    assert check.verdict == "pass", str(check)
    assert "begin with what leaves block 1" in check.sentence
    assert "behind the final norm" in check.sentence


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [3, 5, 8, 9, 11, 12, 16, 24, 32])
def test_a_model_of_few_positions_is_asked_for_no_more(limit):
    config = GPT2Config(vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, n_positions=limit)
    diagnosis = doctor(from_model(causal_lm(config), word_tokenizer()))
    assert diagnosis.healthy, str(diagnosis)
    # One position is left, for the padding that a check puts behind a text.
    lengths = {len(example.ids) for example in doctoring.sample(from_model(causal_lm(config), word_tokenizer()))}
    assert max(lengths) < limit


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("most", [16, 40])
@pytest.mark.parametrize(
    "rope", [{"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, {**LONG_ROPE, "factor": 1.0}]
)
def test_neither_padding_nor_company_turns_positions_otherwise(most, rope):
    model = causal_lm(max_position_embeddings=most, rope_parameters=dict(rope))
    diagnosis = doctor(from_model(model, word_tokenizer()))
    assert diagnosis.healthy, str(diagnosis)


def test_hooks_that_hear_something_else_fail():
    subject = from_model(causal_lm(), word_tokenizer())
    heard = {name: Tap(tap.path, "input") for name, tap in subject.taps.items()}
    check = next(c for c in doctor(subject.changed(taps=heard)).checks if c.name.startswith("hooks equal"))
    assert (check.verdict, check.sentence) == ("fail", "they differ")


def test_a_model_whose_padding_leaks_fails(monkeypatch):
    """A model in which every token sees the mean of its text, what stands behind it included."""
    model = causal_lm()
    original = model.model.layers[1].forward

    def leaky(hidden_states, *args, **kwargs):
        return original(hidden_states + hidden_states.mean(dim=1, keepdim=True), *args, **kwargs)

    monkeypatch.setattr(model.model.layers[1], "forward", leaky)
    found = verdicts(doctor(from_model(model, word_tokenizer())))
    assert found["padded equals unpadded"] == "fail"
    assert found["batched equals single"] == "fail"
    assert found["trees equal plain passes"] == "note"


def test_values_that_are_not_finite_are_named_with_their_layer():
    model = causal_lm()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    diagnosis = doctor(from_model(model, word_tokenizer()))
    assert not diagnosis.healthy
    assert "from layer resid_post.2 on" in str(diagnosis)
    json.dumps(diagnosis.to_dict(), allow_nan=False)


def test_massive_activations_are_a_note():
    model = causal_lm()
    model.model.embed_tokens.weight.data[:, 5] = 1e4
    diagnosis = doctor(from_model(model, word_tokenizer()))
    assert verdicts(diagnosis)["massive activations"] == "note"
    assert "column 5" in str(diagnosis)


def test_a_model_that_honours_no_tree_is_still_healthy():
    model = causal_lm(BloomConfig(vocab_size=len(VOCABULARY), hidden_size=32, n_layer=2, n_head=4))
    diagnosis = doctor(from_model(model, word_tokenizer()))
    assert verdicts(diagnosis)["trees equal plain passes"] == "note"
    assert diagnosis.healthy


def test_looking_changes_nothing():
    model = causal_lm().train()
    tokenizer = word_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    doctor(from_model(model, tokenizer))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_networks_of_arrays_are_refused():
    subject = Subject.from_module(torch.nn.Sequential(torch.nn.Linear(2, 3)))
    with pytest.raises(InputError, match="language models only"):
        doctor(subject)


@pytest.mark.parametrize(("position", "marked"), [("last", ["."]), ("first", ["Is"]), ("mean", None)])
def test_tokens_are_shown_with_the_probed_one_marked(position, marked):
    concept = Concept(
        name="tiny",
        inputs=[text + " ." for text in SENTENCES],
        labels=np.arange(len(SENTENCES)) % 2,
        classes=("no", "yes"),
        template="Is {text}",
    )
    subject = from_model(causal_lm(), word_tokenizer(), position=position)
    lines = tokens(subject, concept, n=3)
    assert len(lines) == 3
    assert lines[0].startswith("no (")
    for line in lines:
        shown = [piece[1:-1] for piece in line.split(": ", 1)[1].split("|") if piece.startswith("【")]
        assert shown == marked if marked else len(shown) > 1
        assert "【<s>】" not in line


def test_tokens_that_move_the_cursor_are_made_visible():
    tokenizer = word_tokenizer()
    tokenizer.decode = lambda ids: "a\r\x1b[2J\a\u202e\n\t b"
    concept = Concept(name="tiny", inputs=SENTENCES, labels=np.arange(8) % 2, classes=("no", "yes"))
    (line, *_) = tokens(from_model(causal_lm(), tokenizer), concept)
    assert r"a\r\x1b[2J\x07\u202e⏎\t b" in line
    assert line.isprintable()
