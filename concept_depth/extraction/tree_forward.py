"""Running a token tree through a network: masks, positions, and the rows of every example.

A network takes a tree in one of three forms, and which is right is found by measurement (`tree_check`): one mask
for all layers, a mask for each kind of attention, or one mask with a sliding window.

Shapes: T nodes of a tree, B examples on it, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn

from concept_depth.extraction import token_tree
from concept_depth.extraction.batches import rotary_kind
from concept_depth.extraction.last_rows import only_rows
from concept_depth.extraction.token_tree import IntArray, Tree
from concept_depth.subjects.attention import (
    BlockMask,
    additive,
    attention_in_blocks,
    float_dtype,
    implementation,
)
from concept_depth.subjects.sites import Listener
from concept_depth.subjects.subject import Encoded, Subject

# Queries of a block: enough rows for the matrix products, few enough that a block holds little but its own.
BLOCK_CPU = 32
BLOCK_GPU = 128

# Kinds of attention that a mask can express; others (recurrent, compressed, …) take no part in masks.
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


@dataclass(frozen=True)
class Form:
    """How a network is handed a tree's masks.

    Args:
        kinds: a mask for each of these kinds of attention, as a mapping; empty for one mask for all layers.
        window: sliding window of "sliding_attention", or of the one mask; None for none.
        chunk: chunk of "chunked_attention"; None for none.
    """

    kinds: tuple[str, ...] = ()
    window: int | None = None
    chunk: int | None = None

    def __str__(self) -> str:
        if self.kinds:
            return "a mask for each kind of attention"
        return "one mask" if self.window is None else "one mask with a sliding window"


def windows(subject: Subject) -> dict[str, int]:
    """The window and chunk lengths that a network's config names: kind of attention → tokens."""
    config: Any = getattr(subject.module, "config", None)
    found = {}
    if getattr(config, "use_sliding_window", True) is not False:
        sizes = [getattr(config, name, None) for name in ("sliding_window", "window_size")]
        known = [size for size in sizes if isinstance(size, int) and size > 0]
        if known:
            found[SLIDING] = min(known)
    chunk = getattr(config, "attention_chunk_size", None)
    if isinstance(chunk, int) and chunk > 0:
        found[CHUNKED] = chunk
    return found


def forms(subject: Subject, longest: int) -> list[Form]:
    """The forms worth trying, the likeliest first, for sequences of up to `longest` tokens."""
    config: Any = getattr(subject.module, "config", None)
    sizes = windows(subject)
    kinds = tuple(sorted({kind for kind in getattr(config, "layer_types", None) or () if isinstance(kind, str)}))
    by_kind = Form(kinds or (FULL,), sizes.get(SLIDING), sizes.get(CHUNKED))
    one = Form()
    if longest <= min(sizes.values(), default=longest):
        # No window is reached: all kinds of mask are the same.
        return [one, by_kind] if kinds else [one]
    windowed = [Form(window=sizes[SLIDING])] if SLIDING in sizes else []
    return [by_kind, *windowed, one] if kinds else [*windowed, one]


def refusal(subject: Subject, longest: int) -> str | None:
    """Why a network cannot be handed a tree of texts of up to `longest` tokens; None where it is worth trying."""
    named = signature(subject.module.forward).parameters
    for argument in ("attention_mask", "position_ids"):
        if argument not in named:
            return f"the network takes no {argument}"
    attention = implementation(subject)
    if attention is not None and attention not in ("sdpa", "eager"):
        return f"attention implementation {attention} takes no mask of a tree"
    if rotary_kind(subject, longest) != rotary_kind(subject, 1):
        return f"texts of up to {longest} tokens change the positions of all that share a pass with them"
    return None


@dataclass(frozen=True, eq=False)
class TreePicker:
    """Picks from (1, T, D) what each of B examples reads of a tree: a node, or the mean of several: (B, D)."""

    single: torch.Tensor | None
    weights: torch.Tensor | None

    @classmethod
    def of(cls, tree: Tree, rows: Sequence[Sequence[int]], device: torch.device) -> TreePicker:
        """For the token positions `rows` of each of the tree's sequences."""
        nodes = [tree.nodes_at(index, positions) for index, positions in enumerate(rows)]
        if all(len(found) == 1 for found in nodes):
            return cls(torch.from_numpy(np.concatenate(nodes)).to(device), None)
        weights_BT = torch.zeros(len(nodes), len(tree), dtype=torch.float32)
        for index, found in enumerate(nodes):
            weights_BT[index, torch.from_numpy(found)] = 1 / len(found)
        return cls(None, weights_BT.to(device))

    def __call__(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """The (B, D) rows."""
        hidden_TD = hidden_BTD[0]
        if self.single is not None:
            return hidden_TD.index_select(0, self.single.to(hidden_TD.device))
        assert self.weights is not None
        return self.weights.to(hidden_TD.device) @ hidden_TD.float()


@dataclass(frozen=True)
class TreeRunner:
    """Runs trees through a subject's network in one form.

    Args:
        subject: the network.
        form: how its masks are handed over.
        blocked: serve SDPA by blocks.
        mlp: the MLP that needs only the rows that are read (`last_rows`), or None.
    """

    subject: Subject
    form: Form
    blocked: bool
    mlp: nn.Module | None = None

    def run(
        self, ear: Listener, examples: Sequence[Encoded], ids_T: IntArray | None = None
    ) -> tuple[dict[str, torch.Tensor], bool]:
        """The (B, D) rows of every layer, and whether blocks were used.

        Args:
            ear: an open listener on the network.
            examples: what the tree is made of.
            ids_T: other tokens for its nodes, or None.
        """
        tree = token_tree.grow([wanted_part(example) for example in examples])
        if ids_T is not None:
            tree = replace(tree, ids=ids_T)
        device = self.subject.device
        ids = torch.from_numpy(tree.ids)[None].to(device)
        masks, table = self._masks(tree, device)
        arguments = self.subject.arguments(ids)
        arguments["attention_mask"] = masks if self.form.kinds else next(iter(masks.values()))
        arguments["position_ids"] = torch.from_numpy(tree.position)[None].to(device)
        picker = TreePicker.of(tree, [example.rows for example in examples], device)
        with only_rows(self.mlp, picker.single), attention_in_blocks(table) as served:
            return ear(**arguments, pick=picker), bool(served)

    def _masks(self, tree: Tree, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[int, BlockMask]]:
        """The dense additive masks by kind of attention, and for each its blocks."""
        dtype = float_dtype(self.subject.module)
        size = BLOCK_CPU if device.type == "cpu" else BLOCK_GPU
        blocks = token_tree.attention_blocks(tree, size=size) if self.blocked and len(tree) > size else None
        keys = None if blocks is None else torch.from_numpy(blocks.keys).to(device)
        made: dict[tuple[int | None, int | None], torch.Tensor] = {}
        masks: dict[str, torch.Tensor] = {}
        table: dict[int, BlockMask] = {}
        for kind in self.form.kinds or (SLIDING,):
            window = self.form.window if kind == SLIDING else None
            chunk = self.form.chunk if kind == CHUNKED else None
            if (window, chunk) not in made:
                allowed = token_tree.ancestor_mask(tree, window=window, chunk=chunk, device=device)
                dense = additive(allowed, dtype)[None, None]
                made[window, chunk] = dense
                if blocks is not None and keys is not None:
                    narrowed = token_tree.narrow(blocks, tree, window=window, chunk=chunk)
                    mask = additive(torch.from_numpy(narrowed).to(device), dtype)[:, None]
                    table[dense.data_ptr()] = BlockMask(keys, mask, len(tree))
            masks[kind] = made[window, chunk]
        return masks, table


def wanted_part(example: Encoded) -> tuple[int, ...]:
    """The tokens up to the last one read: what stands behind cannot reach it."""
    return example.ids[: max(example.rows) + 1]
