"""Attention over a token tree: masks that every implementation takes, and blocks where SDPA can be served less.

A mask here is additive and four-dimensional: right under eager attention and under SDPA alike (a boolean one is
silently wrong under eager attention). While `attention_in_blocks` is open, a call of SDPA that is handed one of
the known masks computes only the pairs of its blocks; every other call, of this model or another, goes the usual
way. The model itself is not touched: the function is swapped in the library's registry and put back.

Shapes: T tokens, H heads, G key-value heads, C blocks, S queries and K keys of a block, E width of a head,
P = H / G heads that share keys, R = P · S query rows of a block, B = C · G.
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

# Up to so many keys of a block the written formula is a little faster on a CPU than SDPA, whose own blocks are
# longer; with more it soon is slower.
SHORT = 96


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
    _routes: dict[tuple[int, int], Routes] = field(default_factory=dict)

    def routes(self, heads: int, groups: int) -> Routes:
        """Where rows go for so many heads and key-value heads; made once for all layers."""
        if (heads, groups) not in self._routes:
            self._routes[heads, groups] = Routes.of(self, heads, groups)
        return self._routes[heads, groups]


@dataclass(frozen=True, eq=False)
class Routes:
    """Which rows of a network's tensors the blocks hold, so that each way takes one gather.

    The heads that share keys become rows of one block: no key is copied for each of them.

    Args:
        queries: (C · G · R,) rows of (T · H, E) queries.
        keys: (C · G · K,) rows of (T · G, E) keys and values.
        back: (T · H,) rows of (C · G · R, E) results.
        mask: (C, 1, R, K) additive.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    back: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, blocks: BlockMask, heads: int, groups: int) -> Routes:
        """For a mask, H heads and G key-value heads."""
        (C, _, S, _), P, device = blocks.mask.shape, heads // groups, blocks.keys.device
        head_GP = torch.arange(heads, device=device).view(groups, P)
        token_CS = torch.arange(C * S, device=device).view(C, S)
        # The last block may reach behind the last token; what stands there is read by nobody.
        query_CGPS = token_CS.clamp(max=blocks.tokens - 1)[:, None, None] * heads + head_GP[..., None]
        row_CGPS = torch.arange(C * S * heads, device=device).view(C, groups, P, S)
        return cls(
            queries=query_CGPS.flatten(),
            keys=(blocks.keys[:, None] * groups + torch.arange(groups, device=device)[:, None]).flatten(),
            back=row_CGPS.permute(0, 3, 1, 2).reshape(C * S, heads)[: blocks.tokens].flatten(),
            mask=blocks.mask.repeat(1, 1, P, 1),
        )


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
    (_, H, T, E), G = query.shape, key.shape[1]
    routes = known.routes(H, G)
    C, _, R, K = routes.mask.shape
    query_BRE = _rows(query).index_select(0, routes.queries).view(C * G, R, E)
    key_BKE, value_BKE = (_rows(x).index_select(0, routes.keys).view(C * G, K, -1) for x in (key, value))
    if K <= SHORT and query.device.type == "cpu" and query.dtype == torch.float32:
        score_BRK = torch.bmm(query_BRE, key_BKE.transpose(1, 2)).mul_(E**-0.5 if scaling is None else scaling)
        score_BRK.view(C, G, R, K).add_(routes.mask)
        out_BRE = torch.bmm(torch.softmax(score_BRK, -1), value_BKE)
    else:
        query_CGRE, key_CGKE, value_CGKE = (x.view(C, G, *x.shape[1:]) for x in (query_BRE, key_BKE, value_BKE))
        out_BRE = functional.scaled_dot_product_attention(
            query_CGRE, key_CGKE, value_CGKE, attn_mask=routes.mask, scale=scaling
        )
    return out_BRE.reshape(C * G * R, -1).index_select(0, routes.back).view(1, T, H, -1)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """(T · H, E), head by head of each token, of (1, H, T, E): mostly as it lies in memory."""
    return tensor[0].transpose(0, 1).flatten(0, 1)
