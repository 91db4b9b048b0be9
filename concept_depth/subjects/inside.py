"""Sites inside a block, found by measurement: what is *added* to the stream, and where the MLP begins.

One forward pass over a few tokens is watched from every module. In each block a pair of additions is looked for,

    resid_mid  = resid_pre + a · (what some module returned)        attn_out = that term
    resid_post = resid_mid + b · (what a later module returned)     mlp_out  = that term

with resid_mid the input of some module in between and constants a, b (multipliers, 1 in most models). Norms behind
a sublayer, multipliers and additions hidden inside a sublayer thus need no table of names; a block that does not
add in this way (parallel, recurrent, post-norm) has no such site, and the caller is told so.

Shapes: B examples, T tokens, D hidden.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.sites import first_tensor, incoming, short_pass
from concept_depth.subjects.subject import Layer, Tap

# How mixers of tokens are called: as attributes of a block, and as classes.
_MIXER_NAME = re.compile(r"attn|attention|mixer|mamba|ssm|conv|temporal|time_mix|retention", re.IGNORECASE)
_MIXER_CLASS = re.compile(r"Attention|Attn|Mixer")
# How exactly an addition must be met, by precision of the stream: some hundred roundings.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}


@dataclass
class _Event:
    """What one module took and gave; `began` and `ended` order all of them."""

    path: str
    module: nn.Module
    began: int
    ended: int
    taken: torch.Tensor | None
    given: torch.Tensor | None


def inner_taps(
    module: nn.Module, blocks: Sequence[str], site: str, name: str
) -> tuple[tuple[Layer, ...], dict[str, Tap]]:
    """Layers and taps of resid_mid, attn_out, mlp_out or mlp_in, numbered 1 … d.

    Raises:
        InputError: a block has no such site.
    """
    events = _watch(module, blocks)
    taps: dict[str, Tap] = {}
    for number, block in enumerate(blocks, start=1):
        tap = _mlp_in(block, events[block]) if site == "mlp_in" else _added(block, events[block], site)
        if tap is None:
            kind = (
                "no MLP of its own"
                if site == "mlp_in"
                else "no attention and MLP that are added one after the other"
            )
            raise InputError(
                f"{name} has no site {site}: block {number} ({type(module.get_submodule(block)).__name__}) has "
                f"{kind}; use resid_post"
            )
        taps[f"{site}.{number}"] = tap
    return tuple(Layer(path, number) for number, path in enumerate(taps, start=1)), taps


def _watch(module: nn.Module, blocks: Sequence[str]) -> dict[str, list[_Event]]:
    """What every module inside each block (and the block itself) takes and gives in one pass over a few tokens."""
    events: dict[str, list[_Event]] = {block: [] for block in blocks}
    clock = iter(range(10**9))
    handles: list[Any] = []

    def watch(path: str, part: nn.Module, into: list[_Event]) -> None:
        started: list[tuple[int, torch.Tensor | None]] = []

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken = incoming(args, kwargs)
            # Clones: some networks add to their stream in place.
            started.append((next(clock), None if taken is None else taken.clone()))

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            given = first_tensor(output)
            began, taken = started.pop()
            into.append(_Event(path, part, began, next(clock), taken, None if given is None else given.clone()))

        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(after))

    try:
        for block in blocks:
            for path, part in module.get_submodule(block).named_modules():
                watch(f"{block}.{path}".rstrip("."), part, events[block])
        short_pass(module)
    finally:
        for handle in handles:
            handle.remove()
    return events


def _added(block: str, events: Sequence[_Event], site: str) -> Tap | None:
    """The tap of resid_mid, attn_out or mlp_out, or None where no pair of additions is found."""
    whole = next((event for event in events if event.path == block), None)
    if whole is None or whole.taken is None or whole.given is None or not _alike(whole.taken, whole.given):
        return None
    before, after = whole.taken, whole.given
    # What runs several times (a dropout that both sublayers share) has no one tensor that a tap could hear.
    runs = Counter(event.path for event in events)
    inner = [event for event in events if event.path != block and runs[event.path] == 1]
    # Some networks flatten their batch on the way: the same numbers in rows.
    middles = [
        (event, event.taken.reshape(before.shape))
        for event in inner
        if event.taken is not None and _alike(event.taken, before)
    ]
    # What still is the stream of the beginning is a middle only where nothing else is: an attention adds nothing.
    for middle, taken in sorted(middles, key=lambda pair: (torch.equal(pair[1], before), pair[0].began)):
        first = _term(taken, before, (event for event in inner if event.ended < middle.began))
        if first is None:
            continue
        second = _term(
            after.reshape(before.shape), taken, (event for event in inner if event.began >= middle.began)
        )
        if second is None:
            continue
        if site == "resid_mid":
            return Tap(middle.path, "input")
        return first if site == "attn_out" else second
    return None


def _term(total: torch.Tensor, start: torch.Tensor, events: Iterable[_Event]) -> Tap | None:
    """The tap whose tensor, times a constant, is total − start; the outermost and latest of several, or None.

    Each element counts by how well it can be known: where the stream is huge (massive activations), its rounding
    can exceed what is added, and such an element says nothing.
    """
    tolerance = _TOLERANCE.get(total.dtype, 1e-4)
    limits = torch.finfo(total.dtype)
    ends = [total.double().flatten(), start.double().flatten()]
    added = ends[0] - ends[1]
    error = tolerance * added.abs() + limits.eps * torch.maximum(ends[0].abs(), ends[1].abs()) + limits.tiny
    added = added / error
    # As much as rounding explains, and at most half of what is to be explained: else any tensor would do.
    slack = min(added.numel() ** 0.5, float(added.norm()) / 2)
    found: list[tuple[int, int, Tap]] = []
    for event in events:
        if event.given is None or not _alike(event.given, total):
            continue
        given = event.given.double().flatten() / error
        if given.norm() == 0:
            # Where nothing is added (a sublayer that was ablated), by what returns nothing.
            if torch.equal(*ends):
                found.append((event.path.count("."), -event.ended, Tap(event.path, "output")))
            continue
        # Most networks add what they computed as it is, so a constant must be needed to be believed.
        for scale in (1.0, float(added @ given / (given @ given))):
            if (added - scale * given).norm() < slack:
                found.append((event.path.count("."), -event.ended, Tap(event.path, "output", scale)))
                break
    return min(found, key=lambda item: item[:2])[2] if found else None


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.ndim > 0 and a.shape[-1] == b.shape[-1] and a.numel() == b.numel()


def _mlp_in(block: str, events: Sequence[_Event]) -> Tap | None:
    """The input of the MLP: the first part of the block with weight matrices that runs behind the attention.

    Where the attention runs second or beside it (parallel blocks), the first such part that is no attention.
    """
    depth = block.count(".") + 1
    parts = [event for event in events if event.path.count(".") == depth and event.path.startswith(f"{block}.")]
    heavy = [event for event in sorted(parts, key=lambda event: event.began) if _has_matrix(event.module)]
    mixers = [event for event in heavy if _is_attention(event)]
    others = [event for event in heavy if not _is_attention(event) and event.taken is not None]
    if not mixers or not others:
        return None
    behind = [event for event in others if event.began > mixers[0].ended]
    return Tap((behind or others)[0].path, "input")


def _is_attention(event: _Event) -> bool:
    name, kind = event.path.rpartition(".")[2], type(event.module).__name__
    return bool(_MIXER_NAME.search(name) or _MIXER_CLASS.search(kind))


def _has_matrix(module: nn.Module) -> bool:
    # Quantised weights can be stored flat, so a linear layer counts whatever the shape of its numbers.
    return any(
        isinstance(part, nn.Linear) or any(p.ndim >= 2 for p in part.parameters(recurse=False))
        for part in module.modules()
    )
