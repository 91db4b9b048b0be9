"""The plain path: right-padded batches of like length, and the rows that are read from them.

Shapes: B examples of a batch, T tokens, R rows read, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from concept_depth.errors import InputError
from concept_depth.subjects.sites import Listener
from concept_depth.subjects.subject import Encoded, Subject, token_batch

# Tokens of a padded batch: enough that matrix products run at full speed, few enough for caches and memory.
AUTO_TOKENS_CPU = 1024
AUTO_TOKENS_GPU = 16384
AUTO_ARRAYS = 256
# Tokens in the caches of a batch, as a multiple of its tokens: a cached token takes less memory than a computed one.
CACHED_BUDGETS = 4


def token_budget(subject: Subject, batch_tokens: int | str) -> int:
    """Tokens of a padded batch (examples, for arrays).

    Raises:
        InputError: neither "auto" nor a positive whole number.
    """
    if batch_tokens == "auto":
        if not subject.takes_text:
            return AUTO_ARRAYS
        return AUTO_TOKENS_CPU if subject.device.type == "cpu" else AUTO_TOKENS_GPU
    check_batch_tokens(batch_tokens)
    assert isinstance(batch_tokens, int)
    return batch_tokens


def check_batch_tokens(batch_tokens: int | str) -> None:
    """Raise an InputError where `batch_tokens` is neither "auto" nor a positive whole number."""
    if batch_tokens == "auto":
        return
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int) or batch_tokens < 1:
        raise InputError(f"batch_tokens {batch_tokens!r} is no size; give a whole number of 1 or more, or 'auto'")


def rotary_kind(subject: Subject, length: int) -> tuple[int, ...]:
    """What the longest text of a pass decides for all of its texts; texts of unlike kind must not share a pass.

    LongRoPE turns every position of a pass otherwise as soon as one text is longer than the network was first
    trained on, and dynamic NTK scaling by as much as that text is longer.
    """
    config: Any = getattr(subject.module, "config", None)
    given = getattr(config, "rope_parameters", None) or {}
    most = getattr(config, "max_position_embeddings", None) or length
    kinds = []
    # One mapping, or one for each kind of attention.
    for rope in [part for part in given.values() if isinstance(part, dict)] or [given]:
        name = str(rope.get("rope_type"))
        if name == "longrope":
            kinds.append(int(length > (rope.get("original_max_position_embeddings") or most)))
        elif "dynamic" in name:
            kinds.append(max(0, length - most))
    return tuple(kinds)


def plan_batches(
    encoded: Sequence[Encoded],
    budget: int,
    kind: Callable[[int], Hashable] = lambda length: 0,
    cached: int = 0,
) -> list[list[int]]:
    """Indices in batches of like length whose padded size stays within `budget`, the longest first.

    A text longer than the budget is a batch of its own. The plan depends on the token ids alone, not on the order
    of the examples.

    Args:
        encoded: the examples.
        budget: most tokens of a padded batch.
        kind: of a length; a batch holds lengths of one kind only.
        cached: tokens in front of each example for which only a cache is kept.
    """
    order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i].ids), encoded[i].ids, encoded[i].rows))
    batches: list[list[int]] = []
    for index in order:
        # Sorted by falling length: the first of a batch is its longest.
        longest = len(encoded[batches[-1][0]].ids) if batches else 0
        alike = bool(batches) and kind(longest) == kind(len(encoded[index].ids))
        size = len(batches[-1]) + 1 if alike else 0
        if alike and size * longest <= budget and size * (cached + longest) <= CACHED_BUDGETS * budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    # A square batch would get a column more (`token_batch`), for which a network may have no position.
    square = [len(batch) == len(encoded[batch[0]].ids) > 1 for batch in batches]
    return [
        part
        for batch, split in zip(batches, square, strict=True)
        for part in ([batch[:-1], batch[-1:]] if split else [batch])
    ]


def run_batch(subject: Subject, ear: Listener, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The wanted (B, D) rows of one batch, for each layer, where the network computed them."""
    ids_BT, mask_BT = token_batch(batch, subject.pad_id)
    picker = RowPicker.of([example.rows for example in batch], subject.device)
    return ear(**subject.arguments(ids_BT, mask_BT), pick=picker)


@dataclass(frozen=True, eq=False)
class RowPicker:
    """Picks from (B, T, D) the rows of each example, averaged where it has several: (B, D)."""

    example: torch.Tensor
    token: torch.Tensor
    weights: torch.Tensor | None

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]], device: torch.device) -> RowPicker:
        """For the token positions `rows` of each example; on the device once for all layers."""
        example_R = torch.tensor([i for i, tokens in enumerate(rows) for _ in tokens])
        token_R = torch.tensor([token for tokens in rows for token in tokens])
        if len(token_R) == len(rows):
            return cls(example_R.to(device), token_R.to(device), None)
        # A product with a matrix of 1/count: one exact, reproducible sum for each example, whatever the device.
        weights_BR = torch.zeros(len(rows), len(token_R), dtype=torch.float32)
        share_R = torch.tensor([1 / len(tokens) for tokens in rows for _ in tokens], dtype=torch.float32)
        weights_BR[example_R, torch.arange(len(token_R))] = share_R
        return cls(example_R.to(device), token_R.to(device), weights_BR.to(device))

    def __call__(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """The (B, D) rows."""
        device = hidden_BTD.device
        picked_RD = hidden_BTD[self.example.to(device), self.token.to(device)]
        return picked_RD if self.weights is None else self.weights.to(device) @ picked_RD.float()


def run_arrays(subject: Subject, ear: Listener, inputs: object, count: int) -> dict[str, torch.Tensor]:
    """The (B, D) rows of each layer for a batch of `count` inputs of a network that takes arrays."""
    assert subject.prepare is not None
    assert subject.pool is not None
    rows = {name: subject.pool(name, value) for name, value in ear(subject.prepare(inputs)).items()}
    for name, value in rows.items():
        if value.ndim != 2 or len(value) != count:
            raise InputError(
                f"layer {name} gave {tuple(value.shape)} for {count} examples; "
                "give a pool that makes (examples, features) of it"
            )
    return rows


def to_cpu(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows of all layers on the CPU, in one transfer where they are alike and on one device."""
    values = list(rows.values())
    alike = len({(value.device, value.dtype, value.shape) for value in values}) == 1
    if alike and values[0].device.type != "cpu":
        return dict(zip(rows, torch.stack(values).cpu().unbind(0), strict=True))
    return {name: value.cpu() for name, value in rows.items()}
