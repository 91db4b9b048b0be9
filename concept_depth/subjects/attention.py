"""Attention over a token tree: masks that every implementation takes, and blocks where SDPA can be served less.

A mask here is additive and four-dimensional: right under eager attention and under SDPA alike (a boolean one is
silently wrong under eager attention). While `attention_in_blocks` is open, a call of SDPA that is handed one of
the known masks computes only the pairs of its blocks; every other call, of this model or another, goes the usual
way. The model itself is not touched: the function is swapped in the library's registry and put back.

Shapes: T tokens, H heads, G key-value heads, C blocks, S queries and K keys of a block, E width of a head,
P = H / G heads that share keys, R = P · S query rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from concept_depth.subjects.subject import Subject


@dataclass(frozen=True, eq=False)
class BlockMask:
    """The same mask as a dense one, cut into blocks.

    Args:
        keys: (C, K) tokens that the queries of each block may see.
        mask: (C, 1, S, K) additive.
        tokens: T, the number of tokens.
    """

    keys: torch.Tensor
    mask: torch.Tensor
    tokens: int
    _repeated: dict[int, torch.Tensor] = field(default_factory=dict)

    def for_groups_of(self, heads: int) -> torch.Tensor:
        """(C, 1, heads · S, K): the mask once for each of the heads that share keys; made once for all layers."""
        if heads not in self._repeated:
            self._repeated[heads] = self.mask.repeat(1, 1, heads, 1)
        return self._repeated[heads]


def implementation(subject: Subject) -> str | None:
    """Name of the attention implementation that a subject's network uses, None where it names none."""
    config: Any = getattr(subject.module, "config", None)
    name = getattr(config, "_attn_implementation", None)
    return name if isinstance(name, str) else None


def float_dtype(module: nn.Module) -> torch.dtype:
    """The dtype in which a network computes, as its first parameter of numbers tells."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `allowed`, the lowest finite number elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


@contextmanager
def attention_in_blocks(table: Mapping[int, BlockMask]) -> Iterator[list[int]]:
    """Serve SDPA calls whose mask lies at an address in `table` by blocks.

    Args:
        table: address of a dense mask (`data_ptr()`) → the same mask in blocks.

    Yields:
        A list that gets an entry for each call so served.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REGISTRY

    plain = REGISTRY["sdpa"]
    served: list[int] = []

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> Any:
        known = table.get(attention_mask.data_ptr()) if isinstance(attention_mask, torch.Tensor) else None
        unusual = dropout or any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "cache"))
        if known is None or unusual or not _fits(known, query, key):
            return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        served.append(known.tokens)
        return _attend(known, query, key, value, scaling), None

    REGISTRY["sdpa"] = attend
    try:
        yield served
    finally:
        del REGISTRY["sdpa"]
        if REGISTRY["sdpa"] is not plain:
            REGISTRY["sdpa"] = plain


def _fits(known: BlockMask, query: torch.Tensor, key: torch.Tensor) -> bool:
    return query.shape[0] == 1 and query.shape[2] == key.shape[2] == known.tokens


def _attend(
    known: BlockMask, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """(1, T, H, E) attention of (1, H, T, E) queries over (1, G, T, E) keys and values."""
    C, _, S, _ = known.mask.shape
    (_, H, T, E), G = query.shape, key.shape[1]
    P = H // G
    # The heads that share keys become rows of one block: no key is copied for each of them.
    query_GPTE = query[0].view(G, P, T, E)
    whole = T // S  # blocks that are full; the last one may not be
    query_CGPSE = query.new_empty(C, G, P, S, E)
    query_CGPSE[:whole] = query_GPTE[:, :, : whole * S].view(G, P, whole, S, E).permute(2, 0, 1, 3, 4)
    query_CGPSE[whole:] = 0
    query_CGPSE[whole:, :, :, : T - whole * S] = query_GPTE[:, :, whole * S :]
    query_CGRE = query_CGPSE.flatten(2, 3)
    key_CGKE = key[0].transpose(0, 1)[known.keys].transpose(1, 2)
    value_CGKE = value[0].transpose(0, 1)[known.keys].transpose(1, 2)
    mask = known.for_groups_of(P)
    out_CGRE = functional.scaled_dot_product_attention(
        query_CGRE, key_CGKE, value_CGKE, attn_mask=mask, scale=scaling
    )
    out = out_CGRE.reshape(C, G, P, S, -1).permute(0, 3, 1, 2, 4).reshape(1, C * S, H, -1)
    return out[:, :T]
