"""Tiny real networks with random weights, and tokenizers made on the spot; nothing is downloaded."""

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging

WORDS = "the city of is in a not true false large small Paris France Rome Italy Japan Lima Peru Oslo Norway"
WORDS += " statement : . ? ! Is this red blue green one two three four five six seven eight nine ten"
VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS.split()])}


def word_tokenizer(*, bos=True, eos=False, pad=True, side="right"):
    """One token a word, with or without begin, end and pad tokens."""
    backend = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces = (["<s>"] if bos else []) + ["$A"] + (["</s>"] if eos else [])
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | (
        {"pad_token": "<pad>"} if pad else {}
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=side, **special)


def causal_lm(config=None, *, seed=0, **changes):
    """A random causal language model: three Llama blocks by default. The global seed stays as it was."""
    if config is None:
        config = LlamaConfig(
            **{
                "vocab_size": len(VOCABULARY),
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "initializer_range": 0.2,
                **changes,
            }
        )
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            # The usual initialisation leaves norms and biases at 1 and 0, which hides mistakes.
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.data += 0.1 * torch.randn_like(parameter)
    finally:
        logging.set_verbosity(before)
    return model.eval()


def turn_weights(folder):
    """Give a stored model other weights of the same shapes, in place."""
    tensors = load_file(folder / "model.safetensors")
    turned = {name: tensor.flip(0).contiguous() for name, tensor in tensors.items()}
    save_file(turned, folder / "model.safetensors", metadata={"format": "pt"})


SENTENCES = [
    "the city of Paris is in France .",
    "Rome is in Japan",
    "the large city of Lima is not in Peru ! Is this true ?",
    "Oslo",
    "one two three four five six seven eight nine ten one two three four five",
    "Rome is in Japan",
    "the small city of Oslo is in Norway .",
    "blue",
]
