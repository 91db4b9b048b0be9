"""One beginning that all texts share, computed once and kept in the network's own cache.

For networks that are wrong on token trees (recurrent layers, ALiBi, positions counted from the mask, …): the shared
beginning runs once, and every batch goes on from copies of the cache that it left. Whether a network goes on rightly
is found by measurement, as with trees.

Shapes: B examples, P tokens of the beginning, T tokens behind it, D hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from concept_depth.extraction.batches import RowPicker, rotary_kind
from concept_depth.extraction.tree_check import allowed_error, relative_error, run_single, witnesses
from concept_depth.subjects.sites import Listener
from concept_depth.subjects.subject import Encoded, Subject, token_batch

# What networks of transformers call their cache, as argument and in what they return.
CACHES = ("past_key_values", "cache_params", "state")


def shared_tokens(encoded: Sequence[Encoded]) -> int:
    """P: how many tokens all texts share in front of the first one that is read of any."""
    first, last = min(example.ids for example in encoded), max(example.ids for example in encoded)
    alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(alike, min(min(example.rows) for example in encoded))


def behind(example: Encoded, length: int) -> Encoded:
    """An example without its first `length` tokens."""
    return replace(example, ids=example.ids[length:], rows=tuple(row - length for row in example.rows))


class PrefixRunner:
    """Runs batches that go on behind one beginning; it computes the beginning at once.

    Args:
        subject: the network.
        ear: an open listener on it.
        ids: the P tokens of the beginning.

    Raises:
        LookupError: the network gives no cache.
    """

    def __init__(self, subject: Subject, ear: Listener, ids: Sequence[int]) -> None:
        self._subject, self._length = subject, len(ids)
        ids_BP = torch.tensor([list(ids)])
        with ear.deaf(), torch.inference_mode():
            output = subject.module(**self._arguments(ids_BP, torch.ones_like(ids_BP)))
        kept = {name: cache for name in CACHES if (cache := getattr(output, name, None)) is not None}
        if not kept:
            raise LookupError("the network gives no cache")
        self._name, self._cache = next(iter(kept.items()))

    def run(self, ear: Listener, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The wanted (B, D) rows of whole examples, for each layer, where the network computed them."""
        rest = [behind(example, self._length) for example in batch]
        ids_BT, mask_BT = token_batch(rest, self._subject.pad_id)
        mask = torch.cat([torch.ones(len(batch), self._length, dtype=mask_BT.dtype), mask_BT], dim=1)
        given = {**self._arguments(ids_BT, mask), self._name: self._copies(len(batch))}
        picker = RowPicker.of([example.rows for example in rest], self._subject.device)
        return ear(**given, pick=picker)

    def _arguments(self, ids_BT: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        return {**self._subject.arguments(ids_BT, mask), "use_cache": True}

    def _copies(self, count: int) -> Any:
        """The cache for `count` texts; a network writes into the one that it is given."""
        if isinstance(self._cache, list):
            return [part.repeat_interleave(count, dim=0) for part in self._cache]
        cache = copy.deepcopy(self._cache)
        cache.reorder_cache(torch.zeros(count, dtype=torch.long, device=self._subject.device))
        return cache


def check_prefix(subject: Subject, ear: Listener, batch: Sequence[Encoded], length: int) -> dict[str, Any]:
    """Go on behind a beginning with one batch and compare some of its examples with single passes.

    Args:
        subject: the network.
        ear: an open listener on it.
        batch: whole examples; the longest of all should be among them.
        length: P.

    Returns:
        JSON-serialisable: `tokens` (P), `right`, `reason`, and as far as measured `error` and `tolerance`, largest
        relative differences over layers and examples.
    """
    found: dict[str, Any] = {"tokens": length, "right": False}
    longest = max(len(example.ids) for example in batch)
    if rotary_kind(subject, longest) != rotary_kind(subject, length):
        return {**found, "reason": f"texts of up to {longest} tokens change the positions of their beginning"}
    picked = witnesses(batch)
    single = run_single(subject, ear, [batch[i] for i in picked])
    try:
        rows = PrefixRunner(subject, ear, batch[0].ids[:length]).run(ear, batch)
    except Exception as error:  # any network's own code may fail on a cache that it does not know
        return {**found, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    error_ = relative_error({name: value[picked] for name, value in rows.items()}, single)
    tolerance, _ = allowed_error(subject, ear, [batch[i] for i in picked], single, error_)
    right = error_ <= tolerance
    said = (
        "goes on from its own cache" if right else f"behind a cache it differs from single passes by {error_:.1e}"
    )
    return {
        **found,
        "right": right,
        "reason": said,
        "error": error_ if error_ < float("inf") else None,
        "tolerance": tolerance,
    }
