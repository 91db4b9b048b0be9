"""Hugging Face as one way to make a Subject: names become models, models become Subjects.

Only here (and in `gguf`, `quantize`, `anchoring`) is transformers known.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.identity import (
    adapter_state,
    autocast,
    config_hash,
    remember,
    structure_hash,
    weights_hash,
)
from concept_depth.subjects.inside import inner_taps
from concept_depth.subjects.loading import load
from concept_depth.subjects.sites import check_site_and_position, find_blocks, stream_taps
from concept_depth.subjects.source import Source, resolve
from concept_depth.subjects.subject import Layer, Subject, Tap
from concept_depth.subjects.text import TokenReader

__all__ = ["Source", "base_of", "from_model", "from_pretrained", "resolve"]


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    quantization: str | None = None,
    adapter: str | None = None,
    device: str = "auto",
    site: str = "resid_post",
    position: str | int = "last",
    chat_template: bool = False,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    blocks: str | None = None,
    **model_kwargs: Any,
) -> Subject:
    """Load a causal language model and choose where to listen to it.

    Args:
        name: bundled name, Hub id, folder, or .gguf file.
        revision: branch, tag or commit on the Hub.
        dtype: "auto" is float32 on a CPU and the checkpoint's own on a GPU; or "float32", "bfloat16", "float16".
        quantization: "int8", "int4" or "nf4" (bitsandbytes); None for none.
        adapter: folder or Hub id of a PEFT adapter to put on the model.
        device: "auto", "cpu", "cuda", "cuda:1", …; "auto" spreads a model that outgrows one device.
        site: resid_post, resid_pre, resid_mid, attn_out, mlp_out or mlp_in.
        position: "last", "first", "mean", "span", or a whole number (-1 is the last token).
        chat_template: read each prompt as a user's turn in the model's chat markup.
        max_length: most tokens of a prompt; the model's own limit by default.
        trust_remote_code: run code that comes with the model.
        blocks: name of the list of blocks, where the structure does not tell.
        model_kwargs: passed on to transformers' `from_pretrained`.

    Returns:
        The subject; its base model alone will run, never its LM head.

    Raises:
        InputError: no such model, unreadable files, a setting that does not exist, no decoder-only model.
    """
    check_site_and_position(site, position)
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    found = {
        key: model_kwargs[key] for key in ("subfolder", "token", "cache_dir") if model_kwargs.get(key) is not None
    }
    source = resolve(name, revision=revision, **found)
    loaded = load(
        source,
        dtype=dtype,
        quantization=quantization,
        adapter=adapter,
        device=device,
        trust_remote_code=trust_remote_code,
        model_kwargs=model_kwargs,
    )
    return _subject(
        loaded.model,
        loaded.tokenizer,
        name=name,
        site=site,
        position=position,
        chat_template=chat_template,
        max_length=max_length,
        blocks=blocks,
        origin=loaded.origin,
    )


def from_model(
    model: nn.Module,
    tokenizer: Any,
    *,
    site: str = "resid_post",
    position: str | int = "last",
    chat_template: bool = False,
    max_length: int | None = None,
    blocks: str | None = None,
    name: str | None = None,
) -> Subject:
    """Listen to a causal language model that is in memory: fine-tuned, with an adapter, one's own.

    Args:
        model: a model of transformers (or PEFT); it is left as it is.
        tokenizer: its tokenizer; it is left as it is.
        site: as in `from_pretrained`.
        position: as in `from_pretrained`.
        chat_template: as in `from_pretrained`.
        max_length: as in `from_pretrained`.
        blocks: as in `from_pretrained`.
        name: short name; by default the model's own.

    Raises:
        InputError: a setting that does not exist, or no decoder-only model.
    """
    check_site_and_position(site, position)
    given = str(getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__)
    return _subject(
        model,
        tokenizer,
        name=name or Path(given).name,
        site=site,
        position=position,
        chat_template=chat_template,
        max_length=max_length,
        blocks=blocks,
        origin=None,
    )


def _subject(
    model: nn.Module,
    tokenizer: Any,
    *,
    name: str,
    site: str,
    position: str | int,
    chat_template: bool,
    max_length: int | None,
    blocks: str | None,
    origin: dict[str, Any] | None,
) -> Subject:
    _check_reading(tokenizer, max_length)
    module = base_of(model)
    found = find_blocks(module, blocks=_inside(model, module, blocks))
    layers, taps = _layers(module, found, site, name)
    limits = [int(limit) for limit in (max_length, own_limit(module, tokenizer)) if limit is not None]

    pad = getattr(tokenizer, "pad_token_id", None)
    return Subject(
        module=module,
        name=name,
        layers=layers,
        total=len(found),
        taps=taps,
        reader=TokenReader(
            tokenizer,
            position if isinstance(position, str) else int(position),
            min(limits, default=None),
            chat_template,
            _known_tokens(module),
        ),
        origin=_described(
            module, origin or {"model": name}, {"site": site, "blocks": found[0].rpartition(".")[0]}
        ),
        model=model,
        tokenizer=tokenizer,
        # Padding is masked and behind every token that is read, so any id of the vocabulary will do.
        pad_id=pad if isinstance(pad, int) and 0 <= pad < vocabulary_size(module) else 0,
    )


def check_max_length(max_length: Any) -> None:
    """Raise an InputError where `max_length` is neither None nor a positive whole number."""
    whole = isinstance(max_length, Integral) and not isinstance(max_length, bool)
    if max_length is not None and not (whole and max_length >= 1):
        raise InputError(f"max_length {max_length!r} is no length; give a whole number of 1 or more")


def _check_reading(tokenizer: Any, max_length: Any) -> None:
    check_max_length(max_length)
    if not callable(tokenizer):
        raise InputError(f"{tokenizer!r} is no tokenizer; give the one that AutoTokenizer.from_pretrained makes")


def _described(module: nn.Module, origin: dict[str, Any], places: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """What `describe` asks: the origin, with the weights, config and adapters as they are at that time."""
    of_files = origin.get("weights")
    if of_files is not None:
        remember(module, of_files)

    def described() -> dict[str, Any]:
        weights = weights_hash(module)
        changed = {} if of_files in (None, weights) else {"changed_since_loading": True}
        return {**origin, "weights": weights, **changed, **architecture(module), **places}

    return described


def _layers(
    module: nn.Module, blocks: list[str], site: str, name: str
) -> tuple[tuple[Layer, ...], dict[str, Tap]]:
    if site in ("resid_post", "resid_pre"):
        return stream_taps(blocks, site)
    return inner_taps(module, blocks, site, name)


def base_of(model: Any) -> nn.Module:
    """The part of a causal language model that makes hidden states from token ids: no head, no vision tower.

    Raises:
        InputError: the model is an encoder-decoder, or is none of transformers; its adapter is no part of the layers.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            f"the adapter {model.active_peft_config.peft_type.value} puts learned vectors in front of the text, which "
            "the layers alone do not see; give an adapter that changes weights (LoRA), or model.get_base_model()"
        )
    if any(getattr(config, "alora_invocation_tokens", None) for config in _active_configs(model)):
        raise InputError(
            "the adapter (activated LoRA) acts only behind its invocation tokens, which PEFT looks for outside the "
            "layers; give an adapter that always acts (LoRA), or model.get_base_model()"
        )
    if hasattr(model, "get_base_model"):  # PEFT: its layers sit inside the model that it wraps
        model = model.get_base_model()
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "base_model"):
        raise InputError(f"{type(model).__name__} is no model of transformers; use Subject.from_module")
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{type(model).__name__} is an encoder-decoder model; only decoder-only language models can be read"
        )
    base: nn.Module = model.base_model
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else base
    return (
        decoder
        if isinstance(decoder, nn.Module) and "input_ids" in signature(decoder.forward).parameters
        else base
    )


def _active_configs(model: Any) -> list[Any]:
    """Of the adapters that PEFT puts to use in a model."""
    # Models of transformers have methods of these names.
    names, configs = getattr(model, "active_adapters", None), getattr(model, "peft_config", None)
    return [configs[name] for name in names] if isinstance(names, list) and isinstance(configs, dict) else []


def _inside(model: nn.Module, module: nn.Module, blocks: str | None) -> str | None:
    """The name that a list of blocks, named in the whole model, has in its base model."""
    if blocks is None:
        return None
    wanted = dict(model.named_modules(remove_duplicate=False)).get(blocks)
    return next((name for name, part in module.named_modules() if part is wanted and wanted is not None), blocks)


def own_limit(module: nn.Module, tokenizer: Any) -> int | None:
    """The most tokens that the model was made for, as its config, its table of positions and its tokenizer say."""
    config: Any = getattr(module, "config", None)
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
    limits = [getattr(config, key, None) for key in keys]
    limits.append(getattr(tokenizer, "model_max_length", None))
    # RoBERTa and its kin count positions from behind that of padding, so their table holds fewer than its rows.
    limits += [
        part.num_embeddings - part.padding_idx - 1
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and name.endswith("position_embeddings") and part.padding_idx is not None
    ]
    # Tokenizers without a limit name a huge number; configs without one a negative.
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9]
    return min(known, default=None)


def _known_tokens(module: nn.Module) -> int | None:
    """How many token ids a network can look up; None where its embedding is no plain table."""
    finder: Any = getattr(module, "get_input_embeddings", None)
    embedding = None if finder is None else finder()
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def vocabulary_size(module: nn.Module) -> int:
    """Rows of the input embedding; 1 where it has none."""
    finder: Any = getattr(module, "get_input_embeddings", None)
    embedding = None if finder is None else finder()
    weight = getattr(embedding, "weight", None)
    return 1 if weight is None else int(weight.shape[0])


def architecture(module: nn.Module) -> dict[str, Any]:
    """What a model is, for `describe`: class, config, size, dtype, quantisation, adapters, versions of libraries."""
    import transformers

    config: Any = getattr(module, "config", None)
    quantized = getattr(config, "quantization_config", None)
    method = (
        quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
    )
    adapters = adapter_state(module)
    return {
        **({} if adapters is None else {"adapters": adapters}),
        **({"autocast": precision} if (precision := autocast()) else {}),
        "architecture": type(module).__name__,
        "config": config_hash(config),
        "structure": structure_hash(module, settings=False),
        "model_type": getattr(config, "model_type", None),
        "hidden_size": getattr(config, "hidden_size", None),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "dtype": str(next((p.dtype for p in module.parameters() if p.is_floating_point()), None)).removeprefix(
            "torch."
        ),
        "quantization": None if method is None else str(getattr(method, "value", method)),
        "attention": getattr(config, "_attn_implementation", None),
        "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
    }
