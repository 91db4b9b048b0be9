"""Is a network right on token trees? Found by measurement, not by name.

Recurrent layers, attention biases made from distances in the batch, positions counted from the mask, and whatever
else does not honour a tree's masks: each shows as a difference between a tree and plain passes, which are small
batches first, and single passes where those differ by more than rounding. Rounding shows too, so the measure is
what padding and batching do to the same examples in the same precision.

In sixteen bits rounding can hide what examples do to each other. There a pack runs once more, with other tokens in
most of its examples: the rows of the rest must not move, but by what the same change does to them in a batch. Nor may
a text's last token move rows before it, which a tree would keep it from.

Shapes: B examples, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from concept_depth.extraction import token_tree
from concept_depth.extraction.batches import plan_batches, rotary_kind, run_batch
from concept_depth.extraction.tree_forward import Form, TreeRunner, forms, refusal, wanted_part
from concept_depth.subjects.attention import float_dtype, implementation
from concept_depth.subjects.sites import Listener
from concept_depth.subjects.subject import Encoded, Subject

Rows = Mapping[str, torch.Tensor]

# What rounding alone may do, as a share of the vector's length, where batching happens to change nothing.
FLOOR = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
ALLOWED_TIMES_BATCHED = 4.0
# How far other tokens elsewhere in a tree may move a row: where nothing leaks, rows stay equal to the last bit, and
# leaks through convolutions and recurrences are 3e-4 and more.
LEAK_FLOOR = 1e-5
# Examples of a pack whose rows are watched while others change.
_WATCHED = 8
# Tokens of the batches that examples are compared with first.
_TOGETHER = 256
# Where batching itself changes more than this, it is no measure of rounding (quantised networks stay below it).
CEILING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.2, torch.bfloat16: 0.2}


@dataclass(frozen=True)
class Verdict:
    """Whether trees are right, and what was measured.

    Args:
        right: trees may be used.
        reason: one clause; what went wrong, where they may not.
        tree_error: largest relative difference between tree and plain passes, over layers and examples.
        batch_error: the same between right-padded batches and single passes; None where it was not needed.
        tolerance: the tree's error must not exceed it.
        form: how masks are handed over.
        blocked: attention is computed by blocks.
        narrowed: the last MLP is given only the rows that are read.
        leak: largest relative difference that other tokens in other examples make to a tree's rows; None where
            precision alone tells.
        leak_tolerance: it must not exceed this.
    """

    right: bool
    reason: str
    tree_error: float | None = None
    batch_error: float | None = None
    tolerance: float | None = None
    form: Form | None = None
    blocked: bool = False
    narrowed: bool = False
    leak: float | None = None
    leak_tolerance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        """What `to_dict` wrote."""
        form = value["form"]
        made = None if form is None else Form(tuple(form["kinds"]), form["window"], form["chunk"])
        return cls(**{**value, "form": made})


def relative_error(found: Rows, expected: Rows) -> float:
    """max over layers and examples of ‖found − expected‖ / ‖expected‖; infinite where anything is not finite."""
    errors = []
    for name, wanted_BD in expected.items():
        wanted_BD = wanted_BD.double()
        difference_B = (found[name].double() - wanted_BD).norm(dim=1)
        size_B = wanted_BD.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        errors.append((difference_B / size_B).max())
    # One transfer from a GPU, not one for each layer.
    worst = float(torch.stack([error.to(errors[0].device) for error in errors]).max())
    return worst if worst == worst else float("inf")


def run_single(subject: Subject, ear: Listener, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The rows of each example alone, without padding: the reference of everything."""
    parts = [run_batch(subject, ear, [example]) for example in examples]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def check_trees(
    subject: Subject, ear: Listener, packs: Sequence[Sequence[Encoded]], *, mlp: nn.Module | None = None
) -> tuple[Verdict, list[dict[str, torch.Tensor]]]:
    """Run packs as trees and compare some of their examples with plain passes.

    Args:
        subject: the network.
        ear: an open listener on it.
        packs: examples of each tree to try. For windows to show, one pack should hold the longest example, and one
            as many tokens as any: some networks count windows in the batch, not on the path.
        mlp: see `TreeRunner`.

    Returns:
        The verdict, and where trees are right the rows of each pack, so that they need no second pass.
    """
    longest = max(len(example.ids) for pack in packs for example in pack)
    reason = refusal(subject, longest)
    if reason is not None:
        return Verdict(False, reason), []
    sizes = [token_tree.distinct_tokens([wanted_part(example) for example in pack]) for pack in packs]
    # A plain pass takes as long as dozens of examples in a pack: all kinds of witnesses from the largest pack only.
    largest = sizes.index(max(sizes))
    chosen = [witnesses(pack) if number == largest else outermost(pack) for number, pack in enumerate(packs)]
    compared = [pack[i] for pack, picked in zip(packs, chosen, strict=True) for i in picked]
    floor = FLOOR[_precision(subject)]
    plain = _Plain(subject, ear, compared)
    if _precision(subject).itemsize < 4 and (ahead := plain.looks_ahead()) is not None:
        return Verdict(False, f"a token changes the rows in front of it by {ahead:.1e}"), []
    failed = []
    for form in forms(subject, longest):
        try:
            results, narrowed = _run(subject, ear, packs, form, mlp)
        except Exception as error:  # any network's own code may fail on a mask that it does not know
            failed.append(Verdict(False, f"{form}: {type(error).__name__}: {error}".splitlines()[0]))
            continue
        rows = [result for result, _ in results]
        blocked = any(by_blocks for _, by_blocks in results)
        found = {
            name: torch.cat([result[name][picked] for result, picked in zip(rows, chosen, strict=True)])
            for name in rows[0]
        }
        error_, tolerance, batch_error = plain.quick_error(found), floor, None
        if error_ > floor:
            error_ = relative_error(found, plain.single)
            tolerance, batch_error = allowed_error(subject, ear, compared, plain.single, error_, plain.batch_error)
            plain.batch_error = batch_error
        right = error_ <= tolerance
        said = str(form) if right else f"{form}: a tree differs from single passes by {error_:.1e}"
        verdict = Verdict(right, said, _finite(error_), _finite(batch_error), tolerance, form, blocked, narrowed)
        if right and _precision(subject).itemsize < 4:
            runner = TreeRunner(subject, form, implementation(subject) == "sdpa", mlp if narrowed else None)
            verdict = _without_leaks(verdict, runner, ear, *max(zip(packs, rows, strict=True), key=_count))
        if verdict.right:
            return verdict, rows
        failed.append(verdict)
    return min(failed, key=lambda verdict: verdict.tree_error or float("inf")), []


class _Plain:
    """What plain passes give for the examples that are compared, each way made when it is asked for.

    Attributes:
        batch_error: what batching does to them, where it was measured.
    """

    def __init__(self, subject: Subject, ear: Listener, examples: Sequence[Encoded]) -> None:
        self._subject, self._ear, self._examples = subject, ear, examples
        self.batch_error: float | None = None

    @cached_property
    def single(self) -> dict[str, torch.Tensor]:
        """The rows of each alone."""
        return run_single(self._subject, self._ear, self._examples)

    @cached_property
    def _batches(self) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
        """The rows of small batches, and of the shortest example alone.

        A pass over a few tokens takes as long as one over some hundreds. What all that share a pass do to each
        other (positions scaled by the longest, say) they may do in batches and trees alike, and to the shortest most.
        """
        shortest = min(range(len(self._examples)), key=lambda i: len(self._examples[i].ids))
        kind = partial(rotary_kind, self._subject)
        parts = plan_batches(self._examples, _TOGETHER, kind)
        if [shortest] not in parts:
            parts.append([shortest])
        return [(part, run_batch(self._subject, self._ear, [self._examples[i] for i in part])) for part in parts]

    def quick_error(self, found: Rows) -> float:
        """The relative error of `found` against small batches: above the single passes' by rounding at most."""
        return max(
            relative_error({name: rows[part] for name, rows in found.items()}, expected)
            for part, expected in self._batches
        )

    def looks_ahead(self) -> float | None:
        """By how much another last token moves the row before it, alone in its pass; None where only rounding shows."""
        example = max(self._examples, key=lambda example: len(example.ids))
        other = next((token for token in example.ids if token != example.ids[-1]), None)
        if other is None:
            return None
        own = replace(example, rows=(len(example.ids) - 2,))
        changed = replace(own, ids=(*own.ids[:-1], other))

        def difference(*batches: list[Encoded]) -> float:
            rows = [run_batch(self._subject, self._ear, batch) for batch in batches]
            return relative_error(*(_some(row, slice(1)) for row in rows))

        moved = difference([changed], [own])
        if moved <= LEAK_FLOOR:
            return None
        # Routed experts round by what else is in a pass: so they do when the other token stands in another text.
        rounding = difference([own, changed], [own, own])
        return moved if moved > ALLOWED_TIMES_BATCHED * rounding else None


def allowed_error(
    subject: Subject,
    ear: Listener,
    examples: Sequence[Encoded],
    single: Rows,
    error: float,
    batch_error: float | None = None,
) -> tuple[float, float | None]:
    """What rounding may do: a floor, or where `error` lies above it, a few times what batching does.

    Args:
        subject: the network.
        ear: an open listener on it.
        examples: those that were compared.
        single: their rows in single passes.
        error: what was measured.
        batch_error: what batching does to them, where it is known.

    Returns:
        The largest relative difference that is allowed, and what batching does, where it was needed.
    """
    known = _precision(subject)
    if error > FLOOR[known] and batch_error is None:
        batch_error = relative_error(run_batch(subject, ear, examples), single)
    allowed = 0.0 if batch_error is None else min(ALLOWED_TIMES_BATCHED * batch_error, CEILING[known])
    return max(allowed, FLOOR[known]), batch_error


def _without_leaks(
    verdict: Verdict, runner: TreeRunner, ear: Listener, pack: Sequence[Encoded], rows: Rows
) -> Verdict:
    """The verdict, turned to wrong where other tokens in some examples of a pack move the rows of others.

    Args:
        verdict: what is known by now.
        runner: runs the tree as it ran before.
        ear: an open listener.
        pack: examples.
        rows: what the tree gave for them.
    """
    order = _order(pack)
    # Each stands behind one that changes, where a leak along the rows is strongest.
    places = range(1, len(order), max(2, -(-len(order) // _WATCHED)))
    watched = [order[place] for place in places]
    if not watched:
        return verdict
    tree = token_tree.grow([wanted_part(example) for example in pack])
    ids_T = token_tree.other_tokens(tree, watched)
    moved, _ = runner.run(ear, pack, ids_T)
    leak, allowed = relative_error(_some(moved, watched), _some(rows, watched)), LEAK_FLOOR
    if leak > LEAK_FLOOR:
        # Routed experts and kernels for eight bits round by what else is in a pass: in a batch as in a tree.
        among = [order[place + step] for place in places for step in (-1, 0)]
        own = [replace(pack[i], ids=wanted_part(pack[i])) for i in among]
        other = [replace(pack[i], ids=tuple(ids_T[tree.path(int(tree.leaf[i]))].tolist())) for i in among]
        plain = [_some(run_batch(runner.subject, ear, batch), slice(1, None, 2)) for batch in (other, own)]
        allowed = min(ALLOWED_TIMES_BATCHED * relative_error(*plain), CEILING[_precision(runner.subject)])
        allowed = max(allowed, LEAK_FLOOR)
    measured = replace(verdict, leak=_finite(leak), leak_tolerance=allowed)
    if leak <= allowed:
        return measured
    said = f"{verdict.form}: other tokens in other examples change a tree's rows by {leak:.1e}"
    return replace(measured, right=False, reason=said)


def _some(rows: Rows, picked: Sequence[int] | slice) -> Rows:
    return {name: value[picked] for name, value in rows.items()}


def _count(packed: tuple[Sequence[Encoded], Rows]) -> int:
    return len(packed[0])


def _run(
    subject: Subject, ear: Listener, packs: Sequence[Sequence[Encoded]], form: Form, mlp: nn.Module | None
) -> tuple[list[tuple[dict[str, torch.Tensor], bool]], bool]:
    """What `TreeRunner.run` gives for each pack, and whether `mlp` could be given fewer rows."""
    blocked = implementation(subject) == "sdpa"
    if mlp is not None:
        try:
            runner = TreeRunner(subject, form, blocked, mlp)
            return [runner.run(ear, pack) for pack in packs], True
        except (RuntimeError, ValueError, TypeError, IndexError):
            # Some blocks reshape what their MLP returns to the number of rows that they expect.
            mlp = None
    runner = TreeRunner(subject, form, blocked)
    return [runner.run(ear, pack) for pack in packs], False


def _precision(subject: Subject) -> torch.dtype:
    """The dtype whose rounding is to be expected."""
    dtype = float_dtype(subject.module)
    return dtype if dtype in FLOOR else torch.bfloat16


def packs_to_check(packs: Sequence[Sequence[Encoded]]) -> list[int]:
    """Numbers of the packs with the most tokens and with the longest example, which often are one.

    Where both hold far fewer examples than another, that one too: a pack of one long example is a plain sequence,
    on which every network is right.
    """
    sizes = [token_tree.distinct_tokens([wanted_part(example) for example in pack]) for pack in packs]
    depths = [max(len(wanted_part(example)) for example in pack) for pack in packs]
    counts = [len(pack) for pack in packs]
    chosen = {values.index(max(values)) for values in (sizes, depths)}
    if 2 * max(counts[number] for number in chosen) < max(counts):
        chosen.add(counts.index(max(counts)))
    return sorted(chosen)


def outermost(pack: Sequence[Encoded]) -> list[int]:
    """The last example in the tree's order, and the longest, or if these are one, the first."""
    order = _order(pack)
    longest = max(range(len(pack)), key=lambda i: (len(pack[i].ids), -i))
    return sorted({order[-1], longest if longest != order[-1] else order[0]})


def witnesses(pack: Sequence[Encoded]) -> list[int]:
    """Examples to compare: few, as each may run alone, but such that what a network does to a tree shows in one.

    The outermost; the shortest, since it shows what longer ones do to all that share a pass with them; and two that
    branch off shortly before their end, far behind the row that they branch from: there a distance in rows is least
    like a distance on the path.
    """
    order = _order(pack)
    chosen = {*outermost(pack), min(range(len(pack)), key=lambda i: (len(pack[i].ids), i))}
    parts = [wanted_part(pack[i]) for i in order]
    tree = token_tree.grow(parts)
    branches = []  # (own tokens, rows between the first of them and its parent, example)
    for place, shared in enumerate(token_tree.shared_lengths(parts).tolist()):
        own = len(parts[place]) - shared
        first = int(tree.leaf[place]) - own + 1
        if shared and own and first - int(tree.parent[first]) > 1:
            branches.append((own, first - int(tree.parent[first]), order[place]))
    if branches:
        chosen |= {min(branches, key=lambda b: (b[0], -b[1]))[2], max(branches, key=lambda b: b[1] / b[0])[2]}
    return sorted(chosen)


def _order(pack: Sequence[Encoded]) -> list[int]:
    """The examples as a tree holds them."""
    return sorted(range(len(pack)), key=lambda i: wanted_part(pack[i]))


def _finite(value: float | None) -> float | None:
    return value if value is not None and value < float("inf") else None
