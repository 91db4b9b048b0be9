"""Quantisation is Subject → Subject: real backends only, the original stays as it is.

Language models go through bitsandbytes (CPU and GPU), any other module through torchao (weights only).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.identity import remember, weights_hash
from concept_depth.subjects.subject import Subject

KINDS = ("int8", "int4", "nf4")
# bitsandbytes' two four-bit codes: evenly spaced floats, and quantiles of a normal distribution.
_FOUR_BIT = {"int4": "fp4", "nf4": "nf4"}


def check_kind(kind: str) -> None:
    """Raise an InputError where there is no such quantisation."""
    if kind not in KINDS:
        raise InputError(f"there is no quantisation {kind!r}; give {', '.join(map(repr, KINDS))}")


def bitsandbytes_config(kind: str, dtype: torch.dtype | str) -> Any:
    """What transformers needs to quantise a model while it loads.

    Args:
        kind: "int8" (LLM.int8), "int4" (fp4) or "nf4".
        dtype: in which products of four-bit weights are computed; "auto" is bfloat16.

    Raises:
        InputError: no such kind, or bitsandbytes is not installed.
    """
    check_kind(kind)
    _bitsandbytes()
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=_FOUR_BIT[kind], bnb_4bit_compute_dtype=compute
    )


def quantize(subject: Subject, kind: str) -> Subject:
    """A copy of a subject whose linear layers hold quantised weights.

    Args:
        subject: from `from_pretrained`, `from_model` or `Subject.from_module`; it stays as it is.
        kind: "int8", "int4" or "nf4". For language models bitsandbytes' LLM.int8, fp4 and nf4; for other modules
            torchao's weights-only int8 and int4 (in groups of 32).

    Returns:
        The new subject; `describe()` names the quantisation.

    Raises:
        InputError: no such kind, its package is not installed, or the network has no linear layer.
    """
    check_kind(kind)
    described = subject.describe()
    if described.get("quantization"):
        raise InputError(f"{subject.name} is quantised already ({described['quantization']}); load the original")
    whole = subject.module if subject.model is None else subject.model
    path = next(name for name, part in whole.named_modules() if part is subject.module)
    copied = copy.deepcopy(whole)
    module = copied.get_submodule(path)
    if not any(isinstance(part, nn.Linear) for part in module.modules()):
        raise InputError(f"{subject.name} has no linear layer, so there is nothing to quantise")
    backend = _with_torchao(module, kind) if subject.model is None else _with_bitsandbytes(module, kind)

    # The original may change later; the copy is made of what it was.
    before = {**(subject.origin() if callable(subject.origin) else subject.origin)}
    remember(module, str(before.get("weights")))

    def origin() -> Mapping[str, Any]:
        return {**before, "weights": weights_hash(module), "quantization": backend}

    return subject.changed(
        module=module,
        model=None if subject.model is None else copied,
        name=f"{subject.name}-{kind}",
        origin=origin,
    )


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise InputError("quantised language models need bitsandbytes; type: pip install bitsandbytes") from error
    # It says so at every product of a float32 model with int8 weights: thousands of lines, all the same.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_not_about_casting)
    return bitsandbytes


def _not_about_casting(record: logging.LogRecord) -> bool:
    return "inputs will be cast" not in record.getMessage()


def _with_bitsandbytes(module: nn.Module, kind: str) -> str:
    """Replace every linear layer inside `module` by its quantised kind."""
    library = _bitsandbytes()
    for path, part in list(module.named_modules()):
        if type(part) is not nn.Linear:
            continue
        sizes = (part.in_features, part.out_features, part.bias is not None)
        if kind == "int8":
            made = library.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
            made.weight = library.nn.Int8Params(part.weight.detach(), requires_grad=False, has_fp16_weights=False)
        else:
            code = _FOUR_BIT[kind]
            made = library.nn.Linear4bit(*sizes, compute_dtype=part.weight.dtype, quant_type=code)
            made.weight = library.nn.Params4bit(part.weight.detach(), requires_grad=False, quant_type=code)
        made.bias = part.bias
        parent, _, name = path.rpartition(".")
        # Moving to the device is what quantises.
        setattr(module.get_submodule(parent), name, made.to(part.weight.device))
    return f"bitsandbytes {library.__version__} {kind if kind == 'int8' else _FOUR_BIT[kind]}"


def _with_torchao(module: nn.Module, kind: str) -> str:
    try:
        import torchao
        from torchao import quantization as ao
    except ImportError as error:
        raise InputError("quantised modules need torchao; type: pip install torchao") from error
    if kind == "nf4":
        raise InputError("nf4 is for language models; give 'int8' or 'int4' for other networks")
    if kind == "int8":
        config = ao.Int8WeightOnlyConfig()
    else:
        from torchao.quantization.granularity import PerGroup

        config = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))  # type: ignore[attr-defined]
    ao.quantize_(module, config)
    return f"torchao {torchao.__version__} {kind}"
