"""From a found model to weights in memory: precision, device, quantisation, adapter; errors become sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.subjects.gguf import CONVERSION, converted_folder, converted_tokenizer
from concept_depth.subjects.identity import tensors_hash
from concept_depth.subjects.reasons import told_by
from concept_depth.subjects.source import Source, local_files_hash

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# Settings of transformers' `from_pretrained` that say where files are: the config and the tokenizer need them too.
WHERE = {"token", "subfolder", "cache_dir", "force_download", "local_files_only", "proxies"}
# Settings of transformers' `from_pretrained` with which the same files give the same weights.
SAME_WEIGHTS = {"device_map", "max_memory", "offload_folder", "low_cpu_mem_usage", "attn_implementation"}
SAME_WEIGHTS |= WHERE - {"subfolder"}


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer and where they came from."""

    model: Any
    tokenizer: Any
    origin: dict[str, Any]


def load(
    source: Source,
    *,
    dtype: str | torch.dtype,
    quantization: str | None,
    adapter: str | None,
    device: str,
    trust_remote_code: bool,
    model_kwargs: dict[str, Any],
) -> Loaded:
    """Load what `resolve` found.

    Raises:
        InputError: unreadable or incomplete files, a precision or device that does not exist.
    """
    where = _device(device)
    precision = _dtype(dtype, where)
    location = source.location
    origin: dict[str, Any] = {"model": location, "revision": source.revision, "weights": None}
    if source.gguf is not None:
        folder, digest = converted_folder(source.gguf)
        origin = {"model": source.gguf.title, "revision": None, "weights": digest}
        origin |= {"file_format": "gguf", "conversion": CONVERSION}
        location = str(folder)
    elif source.kind == "folder":
        origin = {"model": Path(location).name, "revision": None, "weights": local_files_hash(Path(location))}
    common: dict[str, Any] = {"revision": source.revision, "trust_remote_code": trust_remote_code}
    common |= {key: model_kwargs[key] for key in WHERE & model_kwargs.keys()}
    arguments: dict[str, Any] = {"dtype": precision, **common, **model_kwargs}
    if quantization is not None:
        from concept_depth.subjects.quantize import bitsandbytes_config

        arguments["quantization_config"] = bitsandbytes_config(quantization, precision)
    if "device_map" not in arguments:
        arguments |= _placement(
            str(Path(location, common.get("subfolder") or "")),
            precision,
            where,
            alone=device == "auto" and "LOCAL_RANK" not in os.environ,
        )
    with quiet():
        model, tokenizer = _read(source, location, common, arguments)
        if adapter is not None:
            model = _with_adapter(model, adapter)
            origin["adapter"] = {"name": Path(adapter).name, "weights": _adapter_hash(model)}
    if source.kind == "hub":
        commit = getattr(model.config, "_commit_hash", None)
        origin |= {"revision": commit or source.revision, "weights": f"{location}@{commit}" if commit else None}
    if model_kwargs.keys() - SAME_WEIGHTS:
        origin["weights"] = None  # perhaps of other files (subfolder, variant): what came into memory is hashed
    if quantization is not None:
        origin["quantization_kind"] = quantization
    return Loaded(model, tokenizer, origin)


def _read(source: Source, location: str, common: dict[str, Any], arguments: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(location, **common)
        if getattr(config, "is_encoder_decoder", False):
            raise InputError(
                f"{source.name} is an encoder-decoder model ({config.model_type}); "
                "only decoder-only language models can be read"
            )
        # Mismatches are then told by name, not in a warning to which an error refers; `_check_complete` refuses them.
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = AutoModelForCausalLM.from_pretrained(location, **{**arguments, **told})
        if source.gguf is None:
            tokenizer = AutoTokenizer.from_pretrained(location, **common)
        else:
            tokenizer = converted_tokenizer(Path(location))
        if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
            raise InputError(
                f"{source.name} holds no tokenizer (its vocabulary is empty); put one beside the model with "
                "tokenizer.save_pretrained"
            )
    except InputError:
        raise
    except Exception as error:  # all that is read here is the caller's, and its readers raise anything
        raise InputError(
            f"{source.name} cannot be loaded as a causal language model ({told_by(error)}); "
            "give a model that AutoModelForCausalLM can read, with its tokenizer"
        ) from error
    _check_complete(source.name, model, info)
    if not {"config", "num_hidden_layers", model.config.attribute_map.get("num_hidden_layers")} & arguments.keys():
        _check_depth(source.name, model, info)
    return model, tokenizer


def _check_complete(name: str, model: Any, info: dict[str, Any]) -> None:
    """Refuse a model whose blocks are not all in the file: transformers fills such gaps with random numbers."""
    for key, stored, wanted in sorted(info["mismatched_keys"])[:1]:
        raise InputError(
            f"{name} cannot be loaded as a causal language model (mismatch: {key} is {tuple(stored)} in its file and "
            f"{tuple(wanted)} by its config); give the config that belongs to its weights"
        )
    head = model.get_output_embeddings()
    head_names = {f"{path}." for path, part in model.named_modules() if part is head}
    missing = sorted(
        key
        for key in info["missing_keys"]
        if not any(key.startswith(prefix) for prefix in head_names if prefix != ".")
    )
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} of the model's tensors ({missing[0]}, …), which would be random; "
            "give a complete checkpoint of a causal language model"
        )


def _check_depth(name: str, model: Any, info: dict[str, Any]) -> None:
    """Refuse a config that names fewer blocks than the file holds: depth would be counted against too few."""
    base = f"{model.base_model_prefix}."
    extra = getattr(model.config, "num_nextn_predict_layers", None) or 0  # they predict further tokens
    for path, part in model.named_modules():
        if not isinstance(part, nn.ModuleList):
            continue
        # Some files name their tensors without the base model in front.
        names = re.compile(rf"(?:{re.escape(path)}|{re.escape(path.removeprefix(base))})\.(\d+)\.")
        for key in sorted(info["unexpected_keys"]):
            found = names.match(key)
            if found and int(found[1]) >= len(part) + extra:
                raise InputError(
                    f"{name} holds {key}, but its config names {len(part)}; correct num_hidden_layers in its config, "
                    f"or give num_hidden_layers={len(part)} to read no more"
                )


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise InputError("an adapter needs the package peft; type: pip install peft") from error
    loads: list[Any] = []  # what each loading of tensors lacked, and what it had no place for
    handle = model.register_load_state_dict_post_hook(lambda _module, keys: loads.append(keys))
    try:
        adapted = PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # the files are the caller's, and what PEFT makes of them can raise anything
        raise InputError(
            f"the adapter {adapter} cannot be put on this model ({told_by(error)}); give one made for it"
        ) from error
    finally:
        handle.remove()
    _check_fits(adapter, adapted, loads)
    return adapted


def _check_fits(adapter: str, model: Any, loads: list[Any]) -> None:
    """Refuse an adapter whose tensors are not those that the model has places for: PEFT leaves the rest random."""
    from peft import get_peft_model_state_dict

    if getattr(model.active_peft_config, "is_prompt_learning", False):
        return  # its vectors are loaded apart; `base_of` refuses it
    saved = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    # In the model's own names stands the adapter's, in those of a file not.
    name = f".{model.active_adapter}"
    missing = sorted({key for keys in loads for key in keys.missing_keys if key.replace(name, "") in saved})
    unexpected = sorted({key for keys in loads for key in keys.unexpected_keys})
    wrong = []
    if missing:
        wrong.append(f"lacks {len(missing)} of its tensors ({missing[0]}, …), which would be random")
    if unexpected:
        wrong.append(f"has {len(unexpected)} that the model has no place for ({unexpected[0]}, …)")
    if wrong:
        raise InputError(f"the adapter {adapter} {' and '.join(wrong)}; give one made for this model")


def _adapter_hash(model: Any) -> str:
    from peft import get_peft_model_state_dict

    return tensors_hash(get_peft_model_state_dict(model, save_embedding_layers=False))


def check_loading(*, dtype: str, device: str, quantization: str | None) -> None:
    """Raise an InputError where a model could not be loaded in this way, here, whichever it is."""
    precision = _dtype(dtype, _device(device))
    if quantization is not None:
        from concept_depth.subjects.quantize import bitsandbytes_config

        bitsandbytes_config(quantization, precision)


def _device(device: str) -> torch.device:
    if device == "auto":
        return default_device()
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"there is no device {device!r} here; give 'auto', 'cpu', or 'cuda' with a GPU"
        ) from error
    return chosen


def _dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise InputError(f"there is no dtype {dtype!r}; give 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[dtype]


def _placement(
    location: str, precision: torch.dtype | str, device: torch.device, *, alone: bool
) -> dict[str, Any]:
    """Where transformers is to put the weights: on `device`, or, where they outgrow it, on the next ones as well.

    With several processes on a machine each has its device for itself, so nothing is spread.
    """
    needed = _bytes_needed(Path(location), precision)
    if device.type == "cuda":
        # The files of a model on the Hub may not be here yet; accelerate then finds out, this device first.
        outgrows = needed is None or needed > 0.9 * torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu":
        outgrows = needed is not None and needed > 0.9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        outgrows = False
    if not (alone and outgrows):
        return {"device_map": {"": device}}
    return {"device_map": "sequential", "offload_folder": str(files.default_cache_dir() / "offload")}


def _bytes_needed(folder: Path, precision: torch.dtype | str) -> int | None:
    """Memory for the weights of a local folder in the wanted precision; None where there is no such folder."""
    if not (folder / "config.json").is_file():
        return None
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    config = files.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'} holds no config; give a folder that save_pretrained wrote")
    stored = DTYPES.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)
    return size if isinstance(precision, str) else size * precision.itemsize // stored.itemsize


def default_device() -> torch.device:
    """The GPU of this process where there is one (each process of a launcher has its own), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars, which would break into ours."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    try:
        logging.disable_progress_bar()
        yield
    finally:
        if before:
            logging.enable_progress_bar()
