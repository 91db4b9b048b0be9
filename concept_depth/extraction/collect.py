"""`collect`: Concept × Subject → Activations, on the plain path (right-padded batches).

The steps: encode, keep one of each identical input, plan batches from content, run them, and put the wanted rows
of every layer into a sink. Nothing here knows how a layer is found or how a text becomes tokens.

Shapes: L layers, N examples, U distinct inputs, B examples of a batch, T tokens, R rows read, D hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from concept_depth.activations import Activations, as_numpy
from concept_depth.concepts.concept import Concept
from concept_depth.errors import InputError
from concept_depth.subjects.sites import Listener, listen
from concept_depth.subjects.subject import Encoded, Layer, Subject, token_batch

Progress = Callable[[float, float], None]

# Tokens of a padded batch: enough that matrix products run at full speed, few enough for caches and memory.
AUTO_TOKENS_CPU = 2048
AUTO_TOKENS_GPU = 16384
AUTO_ARRAYS = 256


class Sink(Protocol):
    """Where rows go: a matrix in memory, or shards on disk."""

    def put(self, indices: Sequence[int], rows: dict[str, torch.Tensor]) -> None:
        """Take the (len(indices), D) rows of each layer, on the CPU."""


class MemorySink:
    """Keeps all rows in memory, as one (U, D) tensor a layer."""

    def __init__(self, layers: Sequence[Layer], count: int) -> None:
        self._count = count
        self._matrices: dict[str, torch.Tensor] = {}
        self._names = [layer.name for layer in layers]

    def put(self, indices: Sequence[int], rows: dict[str, torch.Tensor]) -> None:
        """Take the (len(indices), D) rows of each layer, on the CPU."""
        where = torch.as_tensor(indices)
        for name, rows_BD in rows.items():
            if name not in self._matrices:
                self._matrices[name] = torch.empty(self._count, rows_BD.shape[1], dtype=rows_BD.dtype)
            self._matrices[name][where] = rows_BD

    def matrix(self, name: str) -> npt.NDArray[np.floating[Any]]:
        """The (U, D) matrix of a layer."""
        return as_numpy(self._matrices[name])


def collect(
    subject: Subject,
    concept: Concept,
    *,
    layers: Sequence[str | int] | None = None,
    batch_tokens: int | str = "auto",
    prefix_sharing: bool | str = "auto",
    cache_dir: str | None = None,
    progress: bool | Progress = True,
) -> Activations:
    """What a network holds at each layer for each example of a concept.

    Args:
        subject: the network and where to listen.
        concept: the labelled inputs.
        layers: names or numbers of some layers; all by default.
        batch_tokens: tokens in a forward pass with their padding (examples, for arrays); "auto" chooses.
        prefix_sharing: compute shared beginnings once: "auto", True or False.
        cache_dir: folder in which activations are kept and found again; None keeps none.
        progress: a bar on standard error, none, or a function called with (done, total).

    Returns:
        Activations in the order of the concept, in the precision that the network produced (averages in float32).

    Raises:
        InputError: the concept does not fit the network, or a setting is none that exists.
    """
    wanted = subject.select(layers)
    budget = token_budget(subject, batch_tokens)
    if prefix_sharing not in ("auto", True, False):
        raise InputError(f"prefix_sharing {prefix_sharing!r} is none that exists; give 'auto', True or False")
    extraction: dict[str, Any] = {"path": "plain", "batch_tokens": budget}
    with reporter(progress, f"{subject.name} on {concept.name}") as report:
        if subject.takes_text:
            encoded = subject.encode_concept(concept)
            distinct, places = unique(encoded)
            extraction |= counts(encoded, distinct)
            sink = MemorySink(wanted, len(distinct))
            run_plain(subject, wanted, distinct, budget, sink, report)
        else:
            places = np.arange(len(concept))
            sink = MemorySink(wanted, len(concept))
            run_arrays(subject, wanted, concept, budget, sink, report)
    matrices = {layer.name: sink.matrix(layer.name) for layer in wanted}
    return as_activations(subject, concept, wanted, lambda name: matrices[name][places], extraction)


def as_activations(
    subject: Subject,
    concept: Concept,
    layers: Sequence[Layer],
    read: Callable[[str], npt.NDArray[np.floating[Any]]],
    extraction: dict[str, Any],
) -> Activations:
    """Activations with their origin; `read` gives the (N, D) matrix of a layer."""
    groups = np.arange(len(concept)) if concept.groups is None else concept.groups
    return Activations(
        names=tuple(layer.name for layer in layers),
        numbers=tuple(layer.number for layer in layers),
        total=subject.total,
        read=read,
        labels=concept.labels,
        classes=concept.classes,
        groups=groups.astype(np.int64),
        provenance={"concept": concept.describe(), "subject": subject.describe(), "extraction": extraction},
    )


def token_budget(subject: Subject, batch_tokens: int | str) -> int:
    """Tokens of a padded batch (examples, for arrays).

    Raises:
        InputError: neither "auto" nor a positive whole number.
    """
    if batch_tokens == "auto":
        if not subject.takes_text:
            return AUTO_ARRAYS
        return AUTO_TOKENS_CPU if subject.device.type == "cpu" else AUTO_TOKENS_GPU
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int) or batch_tokens < 1:
        raise InputError(f"batch_tokens {batch_tokens!r} is no size; give a whole number of 1 or more, or 'auto'")
    return batch_tokens


def unique(encoded: Sequence[Encoded]) -> tuple[list[Encoded], npt.NDArray[np.int64]]:
    """The U distinct examples in order of first appearance, and for each of the N its place among them."""
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    distinct: list[Encoded] = []
    places = np.empty(len(encoded), dtype=np.int64)
    for index, example in enumerate(encoded):
        key = (example.ids, example.rows)
        if key not in seen:
            seen[key] = len(distinct)
            distinct.append(example)
        places[index] = seen[key]
    return distinct, places


def counts(encoded: Sequence[Encoded], distinct: Sequence[Encoded]) -> dict[str, int]:
    """How many texts and tokens there are, how many are computed, how many were cut: for the record."""
    return {
        "texts": len(encoded),
        "distinct_texts": len(distinct),
        "tokens": sum(len(example.ids) for example in encoded),
        "truncated_texts": sum(example.truncated > 0 for example in encoded),
        "truncated_tokens": sum(example.truncated for example in encoded),
    }


def plan_batches(encoded: Sequence[Encoded], budget: int) -> list[list[int]]:
    """Indices in batches of like length whose padded size stays within `budget`, the longest first.

    A text longer than the budget is a batch of its own. The plan depends on the token ids alone, not on the order
    of the examples.
    """
    order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i].ids), encoded[i].ids, encoded[i].rows))
    batches: list[list[int]] = []
    for index in order:
        # Sorted by falling length: the first of a batch is its longest.
        if batches and (len(batches[-1]) + 1) * len(encoded[batches[-1][0]].ids) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def run_plain(
    subject: Subject,
    layers: Sequence[Layer],
    encoded: Sequence[Encoded],
    budget: int,
    sink: Sink,
    report: Progress,
) -> None:
    """Run `encoded` in right-padded batches and put the rows of every layer into `sink`."""
    total = sum(len(example.ids) for example in encoded)
    done = 0
    with listen(subject, layers) as ear:
        for indices in plan_batches(encoded, budget):
            batch = [encoded[i] for i in indices]
            sink.put(indices, run_batch(subject, ear, batch))
            done += sum(len(example.ids) for example in batch)
            report(done, total)


def run_batch(subject: Subject, ear: Listener, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The wanted (B, D) rows of one batch, for each layer, on the CPU."""
    ids_BT, mask_BT = token_batch(batch, subject.pad_id)
    picker = RowPicker([example.rows for example in batch])
    return to_cpu(ear(**subject.arguments(ids_BT, mask_BT), pick=picker))


@dataclass(frozen=True)
class RowPicker:
    """Picks from (B, T, D) the rows of each example, averaged where it has several: (B, D)."""

    rows: Sequence[tuple[int, ...]]

    def __call__(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """The (B, D) rows."""
        example_R = torch.tensor([i for i, rows in enumerate(self.rows) for _ in rows], device=hidden_BTD.device)
        token_R = torch.tensor([t for rows in self.rows for t in rows], device=hidden_BTD.device)
        picked_RD = hidden_BTD[example_R, token_R]
        if len(token_R) == len(self.rows):
            return picked_RD
        # A product with a matrix of 1/count: one exact, reproducible sum for each example, whatever the device.
        weights_BR = torch.zeros(len(self.rows), len(token_R), device=hidden_BTD.device)
        share_R = torch.tensor([1 / len(rows) for rows in self.rows for _ in rows], device=hidden_BTD.device)
        weights_BR[example_R, torch.arange(len(token_R), device=hidden_BTD.device)] = share_R
        return weights_BR @ picked_RD.float()


def to_cpu(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows of all layers on the CPU, in one transfer where they are alike and on one device."""
    values = list(rows.values())
    alike = len({(value.device, value.dtype, value.shape) for value in values}) == 1
    if alike and values[0].device.type != "cpu":
        return dict(zip(rows, torch.stack(values).cpu().unbind(0), strict=True))
    return {name: value.cpu() for name, value in rows.items()}


def run_arrays(
    subject: Subject, layers: Sequence[Layer], concept: Concept, budget: int, sink: Sink, report: Progress
) -> None:
    """Run a network that takes arrays over the inputs, `budget` examples at a time."""
    assert subject.prepare is not None
    assert subject.pool is not None
    n = len(concept)
    with listen(subject, layers) as ear:
        for start in range(0, n, budget):
            indices = range(start, min(start + budget, n))
            heard = ear(subject.prepare(concept.inputs[start : start + budget]))
            rows = {name: subject.pool(name, value) for name, value in heard.items()}
            for name, value in rows.items():
                if value.ndim != 2 or len(value) != len(indices):
                    raise InputError(
                        f"layer {name} gave {tuple(value.shape)} for {len(indices)} examples; "
                        "give a pool that makes (examples, features) of it"
                    )
            sink.put(indices, to_cpu(rows))
            report(indices[-1] + 1, n)


@contextmanager
def reporter(progress: bool | Progress, title: str) -> Iterator[Progress]:
    """What is called with (done, total): the caller's function, a bar on standard error, or nothing."""
    if callable(progress):
        yield progress
        return
    if not progress or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
