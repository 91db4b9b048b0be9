"""What is computed in which order: packs of a token tree, or padded batches (behind one shared beginning), in shards.

Made before work starts.

The plan depends on content and on settings that it records, never on the number of processes; it is kept beside
the shards (`store`), so that a run which goes on computes the same units in the same way.

Shapes: U distinct examples, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from concept_depth import files
from concept_depth.concepts.concept import Concept
from concept_depth.errors import InputError
from concept_depth.extraction import store, token_tree
from concept_depth.extraction.batches import (
    plan_batches,
    rotary_kind,
    run_arrays,
    run_batch,
    to_cpu,
    token_budget,
)
from concept_depth.extraction.last_rows import last_mlp
from concept_depth.extraction.prefix import PrefixRunner, behind, check_prefix, shared_tokens
from concept_depth.extraction.store import Plan
from concept_depth.extraction.tree_check import Verdict, check_trees, packs_to_check
from concept_depth.extraction.tree_forward import TreeRunner, refusal, wanted_part
from concept_depth.subjects.attention import float_dtype, implementation
from concept_depth.subjects.identity import own_code
from concept_depth.subjects.modules import Pool
from concept_depth.subjects.sites import Listener, listen
from concept_depth.subjects.subject import Encoded, Layer, Subject

# A tree pays where it leaves out more than packing costs.
PAYS_BELOW = 0.8
# Tokens of a pack: larger ones save hardly any prefix and fall out of the caches.
TREE_TOKENS_CPU = 1024
TREE_TOKENS_GPU = 4096
SHARD_BYTES = 16 * 2**20

Rows = dict[str, torch.Tensor]
Unit = tuple[int, ...]


class Texts:
    """The work on texts: its plan, and how a unit of it is run.

    Args:
        subject: the network.
        layers: which of its layers.
        encoded: the U distinct examples.
        batch_tokens: tokens of a batch or pack, or "auto".
        prefix_sharing: "auto", True or False.
    """

    def __init__(
        self,
        subject: Subject,
        layers: Sequence[Layer],
        encoded: Sequence[Encoded],
        *,
        batch_tokens: int | str,
        prefix_sharing: bool | str,
    ) -> None:
        self.subject = subject
        self.layers = layers
        self.encoded = encoded
        self._batch_tokens = batch_tokens
        self._prefix_sharing = prefix_sharing
        self._mlp = last_mlp(subject, layers)
        self._averaged = any(len(example.rows) > 1 for example in encoded)
        # Rows that checking the tree has already computed.
        self._early: dict[Unit, Rows] = {}
        self._prefix: PrefixRunner | None = None

    def key(self, described: Mapping[str, Any]) -> str:
        """The content that decides the numbers; `described` is what the subject says of itself now."""
        examples = [[list(example.ids), list(example.rows)] for example in self.encoded]
        return content_key(described, self.layers, examples)

    def plan(self, about: dict[str, Any]) -> Plan:
        """Packs where a tree pays and is right, else batches behind one beginning, likewise, else padded batches."""
        parts = [wanted_part(example) for example in self.encoded]
        tokens, distinct = sum(len(example.ids) for example in self.encoded), token_tree.distinct_tokens(parts)
        budget = token_budget(self.subject, self._batch_tokens)
        settings: dict[str, Any] = {"path": "plain", "batch_tokens": budget, "distinct_tokens": distinct}
        units: list[list[int]] | None = None
        if self._prefix_sharing is False:
            settings["reason"] = "prefix sharing is switched off"
        elif self._prefix_sharing == "auto" and distinct >= PAYS_BELOW * tokens:
            settings["reason"] = f"little is shared: {distinct} of {tokens} tokens are distinct"
        else:
            units = self._packs(parts, settings) or self._behind_prefix(budget, settings)
        if units is None:
            units = plan_batches(self.encoded, budget, partial(rotary_kind, self.subject))
        width = getattr(getattr(self.subject.module, "config", None), "hidden_size", None)
        item = torch.finfo(float_dtype(self.subject.module)).bits // 8
        size = len(self.layers) * (width if isinstance(width, int) else 1024) * item
        shards = store.as_shards(units, size, SHARD_BYTES)
        costs = [sum(self._cost(unit, settings) for unit in shard) for shard in shards]
        return Plan(shards, costs, len(self.encoded), [layer.name for layer in self.layers], settings, about)

    def _packs(self, parts: list[tuple[int, ...]], settings: dict[str, Any]) -> list[list[int]] | None:
        """Packs of the tree; None where the network is not right on them. Says into `settings` what was found."""
        reason = refusal(self.subject, max(len(example.ids) for example in self.encoded))
        if reason is not None:
            settings["reason"] = reason
            return None
        budget = self._tree_tokens()
        blocked = implementation(self.subject) == "sdpa"
        packs = self._plan_packs(parts, budget, blocked)
        with listen(self.subject, self.layers) as ear:
            chosen = packs_to_check([[self.encoded[i] for i in pack] for pack in packs])
            tried = [[self.encoded[i] for i in packs[number]] for number in chosen]
            verdict, rows = check_trees(self.subject, ear, tried, mlp=self._mlp)
        settings["check"] = verdict.to_dict()
        settings["reason"] = verdict.reason
        if not verdict.right:
            return None
        if blocked and not verdict.blocked:
            # The network does not let its attention be served by blocks, so a pack costs its square.
            packs = self._plan_packs(parts, budget, blocked=False)
        else:
            self._early = {tuple(packs[number]): to_cpu(found) for number, found in zip(chosen, rows, strict=True)}
        settings |= {"path": "tree", "batch_tokens": budget}
        return packs

    def _behind_prefix(self, budget: int, settings: dict[str, Any]) -> list[list[int]] | None:
        """Batches behind the one beginning that all texts share; None where none is, or the network is not right.

        Says into `settings` what was found.
        """
        length, tokens = shared_tokens(self.encoded), sum(len(example.ids) for example in self.encoded)
        computed = tokens - length * (len(self.encoded) - 1)
        if not length or (self._prefix_sharing == "auto" and computed >= PAYS_BELOW * tokens):
            return None
        rest = [behind(example, length) for example in self.encoded]
        units = plan_batches(rest, budget, cached=length)
        # Some networks take several texts of one token for something else (one text of several, a single step).
        steps = [unit for unit in units[1:] if len(unit) > 1 and len(rest[unit[0]].ids) == 1]
        # The first batch holds the longest example.
        with listen(self.subject, self.layers) as ear:
            for unit in (*steps[:1], units[0]):
                settings["prefix"] = check_prefix(self.subject, ear, [self.encoded[i] for i in unit], length)
                if not settings["prefix"]["right"]:
                    return None
        settings |= {"path": "prefix", "reason": f"{settings['reason']}; the network goes on from its own cache"}
        return units

    def _tree_tokens(self) -> int:
        if self._batch_tokens == "auto":
            return TREE_TOKENS_CPU if self.subject.device.type == "cpu" else TREE_TOKENS_GPU
        return token_budget(self.subject, self._batch_tokens)

    def _plan_packs(self, parts: list[tuple[int, ...]], budget: int, blocked: bool) -> list[list[int]]:
        """Packs at the least cost.

        A pair of tokens costs 4 · hidden operations a layer, a token about 24 · hidden² in the linear layers; as
        measured, the pairs run at about two thirds of the speed: 1 / (4 · hidden).
        """
        width = getattr(getattr(self.subject.module, "config", None), "hidden_size", None) or 1024
        return token_tree.plan_packs(parts, budget=budget, pair_cost=0.0 if blocked else 1 / (4 * width))

    def _cost(self, unit: Sequence[int], settings: dict[str, Any]) -> int:
        if settings["path"] == "tree":
            return token_tree.distinct_tokens([wanted_part(self.encoded[i]) for i in unit])
        cached = settings["prefix"]["tokens"] if settings["path"] == "prefix" else 0
        return len(unit) * max(len(self.encoded[i].ids) - cached for i in unit)

    def run(self, ear: Listener, unit: Sequence[int], settings: dict[str, Any]) -> Rows:
        """The rows of one unit, on the CPU; averages are float32, and so is then whatever stands beside them."""
        rows = self._early.pop(tuple(unit), None) or self._run([self.encoded[i] for i in unit], ear, settings)
        return {name: value.float() for name, value in rows.items()} if self._averaged else rows

    def _run(self, batch: list[Encoded], ear: Listener, settings: dict[str, Any]) -> Rows:
        if settings["path"] == "plain":
            return to_cpu(run_batch(self.subject, ear, batch))
        if settings["path"] == "prefix":
            if self._prefix is None:
                self._prefix = PrefixRunner(self.subject, ear, batch[0].ids[: settings["prefix"]["tokens"]])
            return to_cpu(self._prefix.run(ear, batch))
        verdict = Verdict.from_dict(settings["check"])
        assert verdict.form is not None
        mlp = self._mlp if verdict.narrowed else None
        runner = TreeRunner(self.subject, verdict.form, verdict.blocked, mlp)
        return to_cpu(runner.run(ear, batch)[0])


class Arrays:
    """The work on inputs that are arrays: batches in their order."""

    def __init__(
        self, subject: Subject, layers: Sequence[Layer], concept: Concept, *, batch_tokens: int | str
    ) -> None:
        self.subject = subject
        self.layers = layers
        self.concept = concept
        self._budget = token_budget(subject, batch_tokens)

    def key(self, described: Mapping[str, Any]) -> str:
        """The content that decides the numbers; `described` is what the subject says of itself now."""
        return content_key(described, self.layers, self.concept.fingerprint)

    def plan(self, about: dict[str, Any]) -> Plan:
        """Batches of `batch_tokens` examples."""
        n = len(self.concept)
        units = [list(range(start, min(start + self._budget, n))) for start in range(0, n, self._budget)]
        shards = store.as_shards(units, len(self.layers) * 1024 * 4, SHARD_BYTES)
        costs = [sum(map(len, shard)) for shard in shards]
        settings = {"path": "arrays", "batch_tokens": self._budget}
        return Plan(shards, costs, n, [layer.name for layer in self.layers], settings, about)

    def run(self, ear: Listener, unit: Sequence[int], settings: dict[str, Any]) -> Rows:
        """The rows of one unit, on the CPU."""
        inputs = self.concept.inputs[unit[0] : unit[-1] + 1]
        return to_cpu(run_arrays(self.subject, ear, inputs, len(unit)))


def content_key(described: Mapping[str, Any], layers: Sequence[Layer], examples: Any) -> str:
    """What decides the numbers: the network as it is described now, the layers, and the inputs.

    No name or path stands in it where a hash says what it names, and nothing that a run leaves behind.
    """
    kept = {fact: value for fact, value in described.items() if fact != "name"}
    if kept.get("weights"):
        kept.pop("model", None)
    for fact, label in (("adapter", "name"), ("pool", "layers")):
        if fact in kept:
            kept[fact] = {name: value for name, value in kept[fact].items() if name != label}
    return files.content_key(store.FORMAT_VERSION, kept, [layer.name for layer in layers], examples)


def check_cacheable(subject: Subject) -> None:
    """Refuse a cache where code of the caller makes the numbers: no key can tell what it does.

    Raises:
        InputError: hooks or functions of the caller.
    """
    named = own_code(subject.module)
    if named is not None:
        raise InputError(
            f"{subject.name} runs a hook or forward function of your own on {named}, which no cache can tell from "
            "another; take it away, or collect without cache_dir"
        )
    pooled = isinstance(subject.pool, Pool) and subject.pool.function is None
    prepared = str(getattr(subject.prepare, "__module__", "")).startswith("concept_depth.")
    if not subject.takes_text and not (pooled and prepared):
        raise InputError(
            f"{subject.name} is read through a function of your own (encode or pool), which no cache can tell from "
            "another; collect without cache_dir"
        )
