"""What makes a network the one it is: weights, config, structure and adapters, each as a hash of its content.

By these stored activations are found again (`extraction.plan.content_key`), so none depends on where a network is,
how it came there or what it has run; what no hash can tell, code that the caller hung into it, is named.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from concept_depth import files

# Entries of a config that change no hidden state: names, versions, what is handed back, tokens that end a text.
_NO_NUMBER = re.compile(
    r"_?name_or_path|transformers_version|(torch_)?dtype|architectures|(bos|eos)_token_id|use_cache|return_dict"
    r"|output_(hidden_states|attentions|router_logits)|id2label|label2id|problem_type|task_specific_params"
)
# Their hooks and classes act on what lies in weights, config and structure; their versions are in the record.
_LIBRARIES = ("torch", "transformers", "transformers_modules", "peft", "accelerate", "bitsandbytes", "torchao")
_ADAPTER_FACTS = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")
# Width of the rows in which the words of a tensor are added up, and how many of them at a time.
_WORDS = 4096
_STEP = 64

# Network → the sums of its weights when they were last hashed, and their hash.
_KNOWN: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()


def weights_hash(module: nn.Module) -> str:
    """A hash of every byte of the weights, paid once for as long as they stay the same.

    That they do is told by sums of them (`_sums`), at a fraction of the price. Version counters would be cheaper still,
    but an edit through `.data` does not move them.
    """
    sums = _digest(_state(module, packed=False), _sums)
    known = _KNOWN.get(module)
    if known is None or known[0] != sums:
        whole = _digest(_state(module, packed=True), _all_bytes, dict(module.named_modules()))
        known = _KNOWN[module] = (sums, whole)
    return known[1]


def remember(module: nn.Module, weights: str) -> None:
    """Let the hash of the files that a network was just read from stand for its weights until they change."""
    _KNOWN[module] = (_digest(_state(module, packed=False), _sums), weights)


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of every byte of named tensors."""
    return _digest(tensors, _all_bytes)


def _state(module: nn.Module, *, packed: bool) -> dict[str, Any]:
    """What `state_dict` gives, but that would round four-bit weights again which bitsandbytes has packed for a CPU.

    Args:
        module: the network.
        packed: with four-bit weights as they are; else with what tells only whether they are still the same object.
            (Their first pass packs them anew, which is no change; nobody edits them in place.)
    """
    state: dict[str, Any] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        weight: Any = part._parameters.get("weight")
        four_bit = getattr(weight, "quant_state", None)
        if four_bit is None:
            part._save_to_state_dict(state, prefix, keep_vars=False)
            continue
        nested = getattr(four_bit, "state2", None)
        whole = [weight.detach(), vars(four_bit), {} if nested is None else vars(nested)]
        state[f"{prefix}weight"] = whole if packed else torch.tensor(id(weight))
        state[f"{prefix}bias"] = part._parameters.get("bias")
    return state


def _digest(
    state: Mapping[str, Any],
    reduced: Callable[[torch.Tensor], bytes],
    parts: Mapping[str, nn.Module] | None = None,
) -> str:
    """A hash of names, shapes, kinds and what `reduced` makes of tensors; of those kept elsewhere only with `parts`."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        for tensor in _plain(value):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            held = _offloaded(parts or {}, name) if tensor.device.type == "meta" else tensor
            if held is not None and held.numel():
                digest.update(reduced(held.contiguous().reshape(-1)))
    return digest.hexdigest()


def _plain(value: Any) -> Iterator[torch.Tensor]:
    """The tensors that hold an entry of a state: itself, or the several that a quantised or packed one is made of."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _plain(item)
    elif isinstance(value, torch.Tensor):
        flatten: Any = getattr(value, "__tensor_flatten__", None)
        if flatten is not None:
            yield from _plain([getattr(value, name) for name in flatten()[0]])
        else:
            yield (value.dequantize() if value.is_quantized else value).detach()


def _offloaded(parts: Mapping[str, nn.Module], name: str) -> torch.Tensor | None:
    """A weight that accelerate keeps on disk or in memory, from the store of its part or of one above it."""
    steps = name.split(".")
    for cut in reversed(range(len(steps))):
        hook: Any = getattr(parts.get(".".join(steps[:cut])), "_hf_hook", None)
        for one in (hook, *getattr(hook, "hooks", ())):
            stored: Mapping[str, torch.Tensor] | None = getattr(one, "weights_map", None)
            if stored is None:
                continue
            try:
                return stored[".".join(steps[cut:])].detach()
            except KeyError:
                continue
    return None


def _all_bytes(flat: torch.Tensor) -> bytes:
    return hashlib.sha256(flat.view(torch.uint8).cpu().numpy().data).digest()


def _sums(flat: torch.Tensor) -> bytes:
    """Sums of a tensor's words along rows and columns, and the rest as it is.

    Sums of whole numbers, so the same on every device and in any order of adding; a change shows unless it leaves
    every row's and every column's sum alone.
    """
    raw = flat.view(torch.uint8)
    rows = raw.numel() // (8 * _WORDS)
    rest = raw[rows * 8 * _WORDS :].cpu().numpy().tobytes()
    if not rows:
        return rest
    whole = raw[: rows * 8 * _WORDS]
    if whole.storage_offset() % 8:  # a piece of a larger tensor, which no words begin at
        whole = whole.clone()
    # A float64 is two words: as one, an even number of changed signs would add to nothing.
    words = whole.view(torch.int32 if flat.element_size() == 8 else torch.int64).reshape(rows, -1)
    # Sums of columns are slow where there are many rows, so they are taken in two steps.
    parts = rows // _STEP
    head, tail = words[: parts * _STEP], words[parts * _STEP :]
    columns = head.view(parts, _STEP, words.shape[1]).sum(1).sum(0) + tail.sum(0)
    return torch.cat([columns, words.sum(1)]).cpu().numpy().tobytes() + rest


def config_hash(config: Any) -> str | None:
    """A hash of what in a config decides numbers: positions, windows, multipliers, activations, …; None without one."""
    if config is None:
        return None
    return files.content_key(_numbers(config.to_dict() if hasattr(config, "to_dict") else vars(config)))


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _numbers(item) for key, item in value.items() if not _NO_NUMBER.fullmatch(str(key))}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def structure_hash(module: nn.Module, *, settings: bool) -> str:
    """A hash of a network's parts: names, classes, the code of classes that belong to no library.

    Args:
        module: the network.
        settings: also numbers and words that parts hold as attributes, which a network without a config computes with
            (those of transformers' models follow from the config, or are marks of what they have run).
    """
    parts = [
        [name, type(part).__qualname__, [part.extra_repr(), _settings(vars(part))] if settings else None]
        for name, part in module.named_modules()
    ]
    classes = {kind for part in module.modules() for kind in type(part).__mro__ if not _of_library(kind)}
    code = sorted(files.content_key(kind.__qualname__, _class_code(kind)) for kind in classes - {object})
    return files.content_key(parts, code)


def _settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in attributes.items()
        if name != "training" and not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _class_code(kind: type) -> list[Any]:
    found = []
    for name, function in sorted(vars(kind).items()):
        code = getattr(inspect.unwrap(function), "__code__", None) if inspect.isfunction(function) else None
        if code is not None:
            defaults = [value for value in function.__defaults__ or () if _is_plain(value)]
            found.append([name, _code(code), defaults, _settings(function.__kwdefaults__ or {})])
    return found


def _code(code: CodeType) -> list[Any]:
    """What a function does, without where it stands."""
    constants = [_code(value) if isinstance(value, CodeType) else str(_numbers(value)) for value in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def adapter_state(module: nn.Module) -> dict[str, Any] | None:
    """Which adapters of PEFT act in a network and how strongly, which its weights do not say; None without any."""
    states = [
        # In models of transformers `active_adapters` is a method, which says nothing of a part.
        [name, *(_numbers(getattr(part, fact, None)) for fact in _ADAPTER_FACTS)]
        for name, part in module.named_modules()
        if isinstance(getattr(part, "active_adapters", None), list)
    ]
    if not states:
        return None
    active = sorted({str(adapter) for state in states for adapter in state[1]})
    return {"active": active, "disabled": any(state[2] for state in states), "state": files.content_key(states)}


def own_code(module: nn.Module) -> str | None:
    """The name of a part whose forward pass is changed by a hook or function of the caller's; None for none."""
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "every module"
    for name, part in module.named_modules():
        found = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        # accelerate, too, replaces `forward`, to move weights and inputs.
        if "forward" in vars(part) and not hasattr(part, "_hf_hook"):
            found.append(vars(part)["forward"])
        # A class of the caller's own stands in the key with its code; one of a library is known by its name alone.
        if _of_library(type(part)) and hasattr(type(part), "forward"):
            found.append(type(part).forward)
        if not all(map(_of_library, found)):
            return name or type(module).__name__
    return None


def autocast() -> dict[str, str]:
    """The precision that the caller lets matrix products run in, whatever the weights have: by device, where on."""
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return {kind: str(torch.get_autocast_dtype(kind)).removeprefix("torch.") for kind in kinds}


def _of_library(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] in _LIBRARIES
