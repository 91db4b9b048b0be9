"""What a cache is keyed by: what decides the numbers tells entries apart, and nothing else does."""

import json
import os
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, causal_lm, word_tokenizer
from torch import nn

from concept_depth import Concept, InputError, Subject, collect, from_model, from_pretrained, processes
from concept_depth.extraction.cache import list_cache
from concept_depth.extraction.collect import open_for
from concept_depth.extraction.store import Plan
from concept_depth.subjects import identity


def concept():
    return Concept(name="tiny", inputs=SENTENCES, labels=[0, 1] * 4, classes=("no", "yes"))


def points(seed=0):
    inputs = np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32)
    return Concept(name="points", inputs=inputs, labels=[0, 1] * 20, classes=("no", "yes"))


def last(subject, about, **options):
    acts = collect(subject, about, **options)
    return acts[acts.names[-1]]


def assert_told_apart(cache, *subjects, about=None):
    """The cache gives for each subject what a run without it gives; and their numbers differ, which is the premise.

    A subject may come from a function, which is called when its turn is: it may change what the one before was made of.
    """
    seen = []
    for make in subjects:
        subject = make if isinstance(make, Subject) else make()
        truth = last(subject, about or concept())
        np.testing.assert_array_equal(last(subject, about or concept(), cache_dir=cache), truth)
        assert all(np.abs(truth - other).max() > 1e-3 for other in seen)
        seen.append(truth)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPT_DEPTH_CACHE", str(tmp_path / "home"))
    causal_lm().save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hashed(monkeypatch):
    """How many tensors were hashed byte by byte."""
    counted = []
    whole = identity._all_bytes
    monkeypatch.setattr(identity, "_all_bytes", lambda flat: (counted.append(flat.numel()), whole(flat))[1])
    return counted


# -- config ------------------------------------------------------------------------------------------------------


def test_a_config_that_decides_numbers_is_another_entry_and_stands_in_the_record(tmp_path):
    def turning(theta):
        model = causal_lm(rope_parameters={"rope_type": "default", "rope_theta": theta})
        return from_model(model, word_tokenizer(), name="m")

    near, far = turning(10000.0), turning(10.0)
    assert_told_apart(tmp_path, near, far)
    assert near.describe()["weights"] == far.describe()["weights"]
    assert near.describe()["config"] != far.describe()["config"]


def test_settings_and_edits_of_a_folders_config_are_other_entries(tmp_path, folder):
    def edited():
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
        return from_pretrained(str(folder), device="cpu")

    assert_told_apart(
        tmp_path / "cache",
        lambda: from_pretrained(str(folder), device="cpu"),
        lambda: from_pretrained(str(folder), device="cpu", hidden_act="relu"),
        edited,
    )


def test_what_a_config_says_of_names_and_output_is_no_other_entry(tmp_path):
    for changes in ({}, {"output_hidden_states": True, "use_cache": False, "eos_token_id": 5, "dtype": "float32"}):
        model = causal_lm(**changes)
        model.config._name_or_path = f"somewhere/{len(changes)}"
        collect(from_model(model, word_tokenizer()), concept(), cache_dir=tmp_path)
    assert len(list_cache(tmp_path)) == 1


def test_a_folder_by_two_paths_and_at_two_batch_sizes_is_one_entry(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    collect(from_pretrained(str(folder), device="cpu"), concept(), cache_dir=tmp_path / "cache")
    by_another = from_pretrained(os.path.join("..", "model"), device="cpu")
    collect(by_another, concept(), cache_dir=tmp_path / "cache", batch_tokens=20)
    os.rename(folder, tmp_path / "moved")
    collect(from_pretrained(str(tmp_path / "moved"), device="cpu"), concept(), cache_dir=tmp_path / "cache")
    assert len(list_cache(tmp_path / "cache")) == 1


def test_parts_that_the_caller_replaced_are_another_entry(tmp_path):
    def without_gate():
        model = causal_lm()
        model.model.layers[0].mlp.act_fn = nn.Identity()
        return from_model(model, word_tokenizer())

    assert_told_apart(tmp_path, from_model(causal_lm(), word_tokenizer()), without_gate)


# -- adapters ----------------------------------------------------------------------------------------------------


def adapted(alpha=16):
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        settings = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj"], init_lora_weights=False)
        model = peft.get_peft_model(causal_lm(), settings)
        model.add_adapter("other", settings)
    return model


@pytest.mark.filterwarnings("ignore")
def test_which_adapter_acts_and_how_strongly_is_another_entry(tmp_path):
    model = adapted()
    subject = from_model(model, word_tokenizer())

    def other():
        model.set_adapter("other")
        return subject

    assert_told_apart(tmp_path, subject, other, from_model(adapted(alpha=64), word_tokenizer()))
    assert subject.describe()["adapters"]["active"] == ["other"]
    with model.disable_adapter():
        truth = last(subject, concept())
        np.testing.assert_array_equal(last(subject, concept(), cache_dir=tmp_path), truth)
        assert subject.describe()["adapters"]["disabled"]
    assert np.abs(truth - last(subject, concept(), cache_dir=tmp_path)).max() > 1e-3
    assert "adapters" not in from_model(causal_lm(), word_tokenizer()).describe()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_by_another_path_is_the_same_entry(tmp_path, folder):
    model = adapted()
    for place in ("a", "b"):
        model.save_pretrained(tmp_path / place)
        subject = from_pretrained(str(folder), adapter=str(tmp_path / place), device="cpu")
        collect(subject, concept(), cache_dir=tmp_path / "cache")
    assert len(list_cache(tmp_path / "cache")) == 1


# -- weights -----------------------------------------------------------------------------------------------------


def test_a_head_that_is_cut_out_is_another_entry(tmp_path):
    # Widths that are powers of two: values at even distances would all lie in one column.
    model = causal_lm(
        hidden_size=1024,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=64,
        num_hidden_layers=1,
    )
    subject = from_model(model, word_tokenizer())

    def cut():
        model.model.layers[0].self_attn.o_proj.weight.data[:, 128:256] = 0
        return subject

    assert_told_apart(tmp_path, subject, cut)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "edit",
    [
        lambda weight: weight[5, 7].neg_(),
        lambda weight: weight[:, :2].neg_(),
        lambda weight: weight.copy_(weight.neg()),
        lambda weight: weight.copy_(weight.flip(1)),
        lambda weight: weight.copy_(weight.roll(1, 0)),
        lambda weight: weight[-1, -1].zero_(),
    ],
)
def test_edits_through_data_change_the_hash_and_undoing_them_brings_it_back(dtype, edit):
    network = nn.Linear(256, 256).to(dtype)
    before, kept = identity.weights_hash(network), network.weight.detach().clone()
    edit(network.weight.data)
    assert identity.weights_hash(network) != before
    network.weight.data.copy_(kept)
    assert identity.weights_hash(network) == before


@pytest.mark.parametrize("rows", [1, 63, 64, 130])
def test_sums_in_steps_are_the_sums_of_all_rows_and_columns(rows):
    weights = torch.randn(rows * 8192 + 5, generator=torch.Generator().manual_seed(0))
    words = weights[: rows * 8192].numpy().view(np.int64).reshape(rows, 4096)
    expected = np.concatenate([words.sum(0), words.sum(1)]).tobytes() + weights[-5:].numpy().tobytes()
    assert identity._sums(weights) == expected


def test_weights_are_hashed_once(tmp_path, hashed):
    subject = from_model(causal_lm(), word_tokenizer())
    collect(subject, concept(), cache_dir=tmp_path)
    once = len(hashed)
    assert once == len(subject.module.state_dict())
    collect(subject, concept(), cache_dir=tmp_path)
    from_model(subject.model, word_tokenizer()).describe()
    assert len(hashed) == once


def test_weights_from_files_are_not_hashed_until_they_change(tmp_path, folder, hashed):
    subject = from_pretrained(str(folder), device="cpu")
    before = subject.describe()
    assert_told_apart(tmp_path / "cache", subject)
    assert not hashed
    assert subject.describe() == before
    subject.module.layers[1].mlp.up_proj.weight.data[0] = 0
    assert_told_apart(tmp_path / "cache", subject)
    assert subject.describe()["weights"] != before["weights"]
    assert subject.describe()["changed_since_loading"]
    assert len(list_cache(tmp_path / "cache")) == 2


@pytest.mark.filterwarnings("ignore")
def test_weights_that_lie_on_the_disk_are_hashed_too(tmp_path):
    def spread(seed):
        model = causal_lm(seed=seed)
        accelerate.disk_offload(model, str(tmp_path / f"weights{seed}"), execution_device=torch.device("cpu"))
        return from_model(model, word_tokenizer(), name="m")

    # Premise: there are none in memory.
    assert spread(0).module.layers[0].mlp.up_proj.weight.device.type == "meta"
    assert_told_apart(tmp_path / "cache", spread(0), spread(1))
    whole = from_model(causal_lm(), word_tokenizer())
    assert spread(0).describe()["weights"] == whole.describe()["weights"]


# -- plain modules -----------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale


class Shifted(nn.Module):
    def forward(self, x):
        return x + 1


SAME_NAME = type("Shifted", (nn.Module,), {"forward": lambda self, x: x - 1})


def network(middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), middle, nn.Linear(16, 4))


def test_networks_of_other_parts_settings_or_code_are_other_entries(tmp_path):
    parts = [nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.5), Scaled(2.0), Scaled(3.0), Shifted(), SAME_NAME()]
    subjects = [Subject.from_module(network(part)) for part in parts]
    assert_told_apart(tmp_path, *subjects, about=points())
    assert len({subject.describe()["weights"] for subject in subjects}) == 1
    pooled = [Subject.from_module(network(nn.ReLU()), layers="0", pool=pool) for pool in (3, 4)]
    assert_told_apart(tmp_path / "pooled", pooled[0], about=points())
    assert_told_apart(tmp_path / "pooled", pooled[1], about=points())


def test_a_run_leaves_nothing_in_the_key(tmp_path):
    subject = Subject.from_module(network(nn.ReLU()))
    for _ in range(3):
        collect(subject, points(), cache_dir=tmp_path)
    collect(Subject.from_module(network(nn.ReLU()), name="again"), points(), cache_dir=tmp_path)
    assert len(list_cache(tmp_path)) == 1


def test_the_main_process_names_the_entry_for_all(tmp_path, monkeypatch):
    class Work:
        subject = Subject.from_module(network(nn.ReLU()))

        def plan(self, about):
            return Plan([[[0]]], [1], 1, ["0"], {}, about)

    monkeypatch.setattr(processes, "is_main", lambda: False)
    monkeypatch.setattr(processes, "from_main", lambda _: "of-the-main-process")
    store = open_for(Work(), Work.subject.describe(), points(), tmp_path)
    assert Path(store.folder).name == "of-the-main-process"


# -- the caller's code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"encode": lambda x: torch.tensor(x) / 10}, {"pool": lambda x: x[:, :2]}])
def test_functions_of_the_caller_are_refused_a_cache(tmp_path, given):
    subject = Subject.from_module(network(nn.ReLU()), **given)
    with pytest.raises(InputError, match="function of your own"):
        collect(subject, points(), cache_dir=tmp_path)
    assert len(collect(subject, points())) == 3


def test_the_precision_of_autocast_is_another_entry_and_stands_in_the_record(tmp_path):
    subject = from_model(causal_lm(), word_tokenizer())
    with torch.autocast("cpu", torch.bfloat16):
        low = collect(subject, concept(), cache_dir=tmp_path)
    assert low.provenance["subject"]["autocast"] == {"cpu": "bfloat16"}
    plain = last(subject, concept(), cache_dir=tmp_path)
    np.testing.assert_array_equal(plain, last(subject, concept()))
    assert np.abs(plain - low[low.names[-1]]).max() > 1e-4


def test_steering_is_refused_a_cache_and_measured_without(tmp_path, monkeypatch):
    model = causal_lm()
    subject = from_model(model, word_tokenizer())
    plain = last(subject, concept(), cache_dir=tmp_path)
    block = model.model.layers[0]
    handle = block.register_forward_hook(lambda _m, _i, output: output + 1)
    with pytest.raises(InputError, match=r"of your own on layers\.0"):
        collect(subject, concept(), cache_dir=tmp_path)
    assert np.abs(last(subject, concept()) - plain).max() > 1e-3
    handle.remove()
    block.forward = lambda *args, **kwargs: type(block).forward(block, *args, **kwargs) + 1
    with pytest.raises(InputError, match=r"of your own on layers\.0"):
        collect(subject, concept(), cache_dir=tmp_path)
    del block.forward
    with monkeypatch.context() as patched:
        whole = type(block).forward
        patched.setattr(type(block), "forward", lambda *args, **kwargs: whole(*args, **kwargs) + 1)
        with pytest.raises(InputError, match=r"of your own on layers\.0"):
            collect(subject, concept(), cache_dir=tmp_path)
    np.testing.assert_array_equal(last(subject, concept(), cache_dir=tmp_path), plain)


def test_hooks_of_libraries_are_no_code_of_the_caller(tmp_path):
    model = causal_lm()
    model.enable_input_require_grads()
    subject = from_model(model, word_tokenizer())
    assert any(part._forward_hooks for part in subject.module.modules())
    assert len(collect(subject, concept(), cache_dir=tmp_path)) == 4
