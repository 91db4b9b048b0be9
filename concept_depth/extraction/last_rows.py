"""Behind the last attention only the rows that are read matter: the last block's MLP is given no others.

Every earlier block needs all rows, since later attention looks at them. An MLP treats each row for itself, so
leaving rows out changes none that stay; where a module of that name does more, the check of the tree sees it.

Shapes: T tokens of a tree, n of them read, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from concept_depth.subjects.subject import Layer, Subject

NAMES = ("mlp", "feed_forward", "ffn")


def last_mlp(subject: Subject, layers: Sequence[Layer]) -> nn.Module | None:
    """The MLP of the last block, where its output is the last layer wanted and nothing else inside is heard."""
    parts = dict(subject.module.named_modules())
    taps = [subject.taps[layer.name] for layer in layers]
    last = taps[-1]
    block = parts.get(last.path)
    if last.side != "output" or block is None or any(tap.path.startswith(f"{last.path}.") for tap in taps):
        return None
    found = [part for name, part in block.named_children() if name in NAMES]
    # Blocks that share weights are one module that runs often.
    shared = sum(parts.get(tap.path) is block and tap.side == "output" for tap in taps) > 1
    return found[0] if len(found) == 1 and not shared else None


@contextmanager
def only_rows(mlp: nn.Module | None, rows: torch.Tensor | None) -> Iterator[None]:
    """Let `mlp` see only these of a tree's rows; the others are 0 behind it. Without either, nothing is changed.

    Args:
        mlp: a module that is called once in a forward pass, with one (1, T, D) tensor.
        rows: (n,) nodes that are read.
    """
    if mlp is None or rows is None:
        yield
        return
    wanted = torch.unique(rows)
    length: list[int] = []

    def narrow(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        length.clear()
        if len(args) != 1 or kwargs or not isinstance(args[0], torch.Tensor) or args[0].ndim != 3:
            return None
        hidden_1TD = args[0]
        if hidden_1TD.shape[0] != 1 or hidden_1TD.shape[1] <= len(wanted):
            return None
        length.append(hidden_1TD.shape[1])
        return (hidden_1TD.index_select(1, wanted.to(hidden_1TD.device)),), kwargs

    def widen(_module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
        if not length or not isinstance(output, torch.Tensor):
            return None
        whole = output.new_zeros(1, length[0], output.shape[-1])
        whole[:, wanted.to(output.device)] = output.reshape(1, len(wanted), -1)
        return whole

    handles: list[Any] = []
    try:
        handles.append(mlp.register_forward_pre_hook(narrow, with_kwargs=True))
        handles.append(mlp.register_forward_hook(widen, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
