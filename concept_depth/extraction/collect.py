"""`collect`: Concept × Subject → Activations.

The steps: encode, keep one of each identical input, plan packs or batches in shards from content (`plan`), run the
shards that are still missing, and read a layer when it is asked for. Shards go to the cache, to memory, or, where
they would fill it, to a temporary folder.

Shapes: L layers, N examples, U distinct inputs, D hidden.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from concept_depth import processes
from concept_depth.activations import Activations, as_numpy
from concept_depth.concepts.concept import Concept
from concept_depth.errors import InputError
from concept_depth.extraction.plan import SHARD_BYTES, Arrays, Texts, check_cacheable
from concept_depth.extraction.store import Plan, Store, open_store
from concept_depth.subjects.sites import listen
from concept_depth.subjects.subject import Encoded, Layer, Subject

Progress = Callable[[float, float], None]
Matrix = npt.NDArray[np.floating[Any]]

# Activations up to this size stay in memory when no cache is wanted; larger ones go to a temporary folder.
MEMORY_BYTES = 128 * 2**20


class MemoryStore:
    """Keeps shards in memory; the same interface as `store.Store`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._matrices: dict[str, torch.Tensor] = {}

    def missing(self) -> list[int]:
        """Every shard: nothing is kept from run to run."""
        return list(range(len(self.plan.shards)))

    def write(self, shard: int, rows: Mapping[str, torch.Tensor]) -> None:
        """Take a shard: for each layer the (n, D) rows of its units, one after the other."""
        examples = torch.tensor([index for unit in self.plan.shards[shard] for index in unit])
        for name, rows_nD in rows.items():
            if name not in self._matrices:
                self._matrices[name] = torch.empty(self.plan.count, rows_nD.shape[1], dtype=rows_nD.dtype)
            self._matrices[name][examples] = rows_nD

    def read(self, layer: str) -> Matrix:
        """The (U, D) matrix of one layer."""
        return as_numpy(self._matrices[layer])


def collect(
    subject: Subject,
    concept: Concept,
    *,
    layers: Sequence[str | int] | None = None,
    batch_tokens: int | str = "auto",
    prefix_sharing: bool | str = "auto",
    cache_dir: str | Path | None = None,
    progress: bool | Progress = True,
) -> Activations:
    """What a network holds at each layer for each example of a concept.

    Args:
        subject: the network and where to listen.
        concept: the labelled inputs.
        layers: names or numbers of some layers; all by default.
        batch_tokens: tokens in a forward pass with their padding (examples, for arrays); "auto" chooses.
        prefix_sharing: compute shared beginnings once: "auto" where it pays and is right, True where it is right,
            False never. Whether it is right is measured on the network itself; what was found is in
            `provenance["extraction"]`.
        cache_dir: folder in which activations are kept and found again; None keeps none.
        progress: a bar on standard error, none, or a function called with (done, total).

    Returns:
        Activations in the order of the concept, in the precision that the network produced (averages in float32).

    Raises:
        InputError: the concept does not fit the network, a setting is none that exists, or a cache is wanted for a
            network in which code of the caller's runs (a hook, `encode`, `pool`): no key could tell what it does.
    """
    if not isinstance(subject, Subject) or not isinstance(concept, Concept):
        raise InputError(
            f"collect takes a subject and a concept, not {type(subject).__name__} and {type(concept).__name__}; give "
            "what from_pretrained and load_concept return, or cd.Concept(name=…, inputs=…, labels=…, classes=…)"
        )
    wanted = subject.select(layers)
    if prefix_sharing not in ("auto", True, False):
        raise InputError(f"prefix_sharing {prefix_sharing!r} is none that exists; give 'auto', True or False")
    extraction: dict[str, Any] = {}
    work: Texts | Arrays
    if subject.takes_text:
        encoded = subject.encode_concept(concept)
        distinct, places = unique(encoded)
        extraction |= counts(encoded, distinct)
        if len(distinct) == 1 < len(encoded) and extraction["truncated_texts"]:
            raise InputError(
                f"{concept.name}: cut to max_length, all {len(encoded)} texts are the same to the model; give a "
                "larger max_length"
            )
        work = Texts(subject, wanted, distinct, batch_tokens=batch_tokens, prefix_sharing=prefix_sharing)
    else:
        work = Arrays(subject, wanted, concept, batch_tokens=batch_tokens)
        places = np.arange(len(concept))
    described = subject.describe()
    keep_freed_memory()
    with reporter(progress, f"{subject.name} on {concept.name}") as report:
        store = open_for(work, described, concept, cache_dir)
        run_missing(work, store, report)
    extraction |= store.plan.settings
    if not subject.takes_text:
        described = subject.describe()  # now it says what was done to each layer
    return as_activations(described, concept, wanted, lambda name: store.read(name)[places], extraction)


def open_for(
    work: Texts | Arrays, described: Mapping[str, Any], concept: Concept, cache_dir: str | Path | None
) -> Store | MemoryStore:
    """Where the shards of a work go, with its plan; the main process names and plans, the others follow."""
    about = {
        "concept": concept.name,
        "model": work.subject.name,
        "site": described.get("site"),
        "position": described.get("position"),
        "examples": len(concept),
    }
    if cache_dir is None:
        plan = processes.from_main(work.plan(about) if processes.is_main() else None)
        assert plan is not None
        if processes.size() == 1 and len(plan.shards) * SHARD_BYTES <= MEMORY_BYTES:
            return MemoryStore(plan)
        folder = processes.from_main(tempfile.mkdtemp(prefix="concept-depth-") if processes.is_main() else "")
        store = open_store(folder, "activations", lambda: plan)
        if processes.is_main():
            weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store
    check_cacheable(work.subject)
    key = processes.from_main(work.key(described) if processes.is_main() else "")
    if not processes.is_main():
        processes.barrier()
    store = open_store(cache_dir, key, lambda: work.plan(about))
    if processes.is_main():
        processes.barrier()
    return store


def run_missing(work: Texts | Arrays, store: Store | MemoryStore, report: Progress) -> None:
    """Compute this process's part of the shards that are not there yet, and wait for the others."""
    plan = store.plan
    missing = processes.from_main(store.missing() if processes.is_main() else [])
    mine = [missing[i] for i in processes.share([plan.costs[shard] for shard in missing])]
    total = sum(plan.costs[shard] for shard in mine)
    done = 0.0
    if mine:
        with listen(work.subject, work.layers) as ear:
            for shard in mine:
                parts = []
                for unit in plan.shards[shard]:
                    parts.append(work.run(ear, unit, plan.settings))
                    done += plan.costs[shard] / len(plan.shards[shard])
                    report(min(done, total), total)
                store.write(shard, {name: torch.cat([part[name] for part in parts]) for name in plan.layers})
                del parts
    if not mine:
        report(1.0, 1.0)
    processes.barrier()


def keep_freed_memory() -> None:
    """Let the C library keep what one layer frees for the next one, up to 62 MB.

    glibc gives back memory at the top of its heap beyond twice the largest block that it has seen freed, of which
    it takes no notice above 32 MB. The buffers of a pack are some MB, so that they went back and forth at every
    layer, and clearing their pages took a tenth of the time. Other allocators take this for any block.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def as_activations(
    described: Mapping[str, Any],
    concept: Concept,
    layers: Sequence[Layer],
    read: Callable[[str], Matrix],
    extraction: dict[str, Any],
) -> Activations:
    """Activations with their origin, the subject as `described`; `read` gives the (N, D) matrix of a layer."""
    groups = np.arange(len(concept)) if concept.groups is None else concept.groups
    return Activations(
        names=tuple(layer.name for layer in layers),
        numbers=tuple(layer.number for layer in layers),
        total=described["total"],
        read=read,
        labels=concept.labels,
        classes=concept.classes,
        groups=groups.astype(np.int64),
        provenance={"concept": concept.describe(), "subject": dict(described), "extraction": extraction},
    )


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


@contextmanager
def reporter(progress: bool | Progress, title: str) -> Iterator[Progress]:
    """What is called with (done, total): the caller's function, a bar on standard error, or nothing."""
    if callable(progress):
        yield progress
        return
    if not progress or not processes.is_main() or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
