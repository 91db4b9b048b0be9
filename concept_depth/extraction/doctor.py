"""`doctor`: is what we extract from this model, here, what the model computes? And `tokens`: what it reads.

Each check has a measured error, a tolerance by precision, and a verdict. The texts are made of the model's own
vocabulary, some longer than every attention window in its config.

Shapes: L layers, B examples, T tokens, D hidden.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.extraction import token_tree
from concept_depth.extraction.batches import RowPicker, plan_batches, rotary_kind, run_batch
from concept_depth.extraction.prefix import check_prefix, shared_tokens
from concept_depth.extraction.tree_check import check_trees, relative_error, run_single
from concept_depth.extraction.tree_forward import wanted_part, windows
from concept_depth.subjects.attention import float_dtype
from concept_depth.subjects.huggingface import own_limit
from concept_depth.subjects.sites import Listener, evaluation_mode, listen
from concept_depth.subjects.subject import Encoded, Subject, token_batch

# What batching may change, as a share of a vector's length: float32 rounds at 6e-8, and a deep network adds up
# some hundred roundings; sixteen-bit floats round at 5e-4 and 4e-3.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}
# LLM.int8 picks outlier columns for each batch, and other kernels choose scales by batch: not the same sums.
TOLERANCE_QUANTIZED = 2e-1
# A massive activation: one value that outweighs its neighbours by so much (Sun et al. 2024, arXiv:2402.17762, who
# call those massive that exceed 100 and 1000 times the median).
MASSIVE = 1000.0
LONGEST = 1200


@dataclass(frozen=True)
class Check:
    """One question put to the model.

    Args:
        name: the question.
        verdict: "pass", "fail", "note" (worth knowing, not wrong) or "skipped".
        sentence: what was found.
        error: measured, where there is a measure.
        tolerance: what it was held against.
    """

    name: str
    verdict: str
    sentence: str
    error: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found.

    Args:
        subject: `Subject.describe()`.
        device: where the model lies.
        checks: in the order in which they were made.
    """

    subject: dict[str, Any]
    device: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.verdict != "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        checks = [asdict(check) for check in self.checks]
        return {"healthy": self.healthy, "device": self.device, "subject": self.subject, "checks": checks}

    def __str__(self) -> str:
        name, dtype, kind = (self.subject.get(key) for key in ("name", "dtype", "quantization"))
        lines = [f"{name} in {dtype}{f', {kind}' if kind else ''}, on {self.device}"]
        for check in self.checks:
            measured = "" if check.error is None else f" (error {check.error:.1e}"
            if check.error is not None:
                measured += ")" if check.tolerance is None else f", allowed {check.tolerance:.1e})"
            lines.append(f"  {check.verdict:<8}{check.name}: {check.sentence}{measured}")
        lines.append("healthy" if self.healthy else "NOT healthy: do not trust what is extracted here")
        return "\n".join(lines)


def doctor(subject: Subject) -> Diagnosis:
    """Test a model where it is: its own weights, precision, device and libraries.

    Args:
        subject: a language model.

    Returns:
        A check each for: rows finite; batched equals single; padded equals unpadded; trees equal plain passes,
        and where they do not, whether the network goes on rightly from its own cache; hooks equal the model's own
        hidden states, and what their last entry is; massive activations.

    Raises:
        InputError: the subject reads no text.
    """
    if not subject.takes_text:
        raise InputError(f"{subject.name} takes arrays; the doctor sees language models only")
    quantized = subject.describe().get("quantization") is not None
    tolerance = TOLERANCE_QUANTIZED if quantized else TOLERANCE.get(float_dtype(subject.module), 1e-5)
    examples = sample(subject)
    with listen(subject) as ear:
        single = run_single(subject, ear, examples)
        checks = [
            _finite(single),
            _compare("batched equals single", _batched(subject, ear, examples), single, tolerance),
            _padded(subject, ear, examples, single, tolerance),
            _trees(subject, ear, examples),
        ]
        if checks[-1].verdict != "pass":
            checks.append(_prefix(subject, ear, examples))
    checks += [_hidden_states(subject, single, examples, tolerance), _massive(single)]
    return Diagnosis(subject.describe(), str(subject.device), tuple(checks))


def sample(subject: Subject) -> list[Encoded]:
    """Eight token sequences of unlike length in pairs that share most of their beginning, read at their end.

    The longest exceed every window in the config, as far as the model's own limit and patience allow.
    """
    config: Any = getattr(subject.module, "config", None)
    vocabulary = getattr(config, "vocab_size", None)
    if not isinstance(vocabulary, int):
        embedding = getattr(subject.module, "get_input_embeddings", lambda: None)()
        vocabulary = 100 if embedding is None else int(embedding.weight.shape[0])
    limit = _limit(subject)
    beyond = max([size + 24 for size in windows(subject).values() if size + 24 <= limit], default=48)
    rng = np.random.default_rng(0)
    special = set(getattr(subject.tokenizer, "all_special_ids", None) or ())
    allowed = [token for token in range(vocabulary) if token not in special] or list(range(vocabulary))

    def draw(count: int) -> tuple[int, ...]:
        return tuple(int(allowed[i]) for i in rng.integers(0, len(allowed), count))

    common = draw(min(beyond, max(limit - 12, limit // 2)))
    examples = []
    for shared in (min(6, len(common)), min(17, len(common)), min(40, len(common)), len(common)):
        for tail in (3, 7):
            # Where the limit is near, one place is left for padding.
            ids = (common[:shared] + draw(tail))[: limit - 1]
            examples.append(Encoded(ids, (len(ids) - 1,)))
    return examples


def _limit(subject: Subject) -> int:
    """The most tokens that are tried."""
    limit = own_limit(subject.module, subject.tokenizer)
    return LONGEST if limit is None else min(limit, LONGEST)


def _compare(
    name: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float
) -> Check:
    error = relative_error(found, expected)
    right = error <= tolerance
    said = "the same but for rounding" if right else "they differ by more than rounding"
    return Check(name, "pass" if right else "fail", said, _number(error), tolerance)


def _finite(single: dict[str, torch.Tensor]) -> Check:
    name = "all values are finite"
    broken = [layer for layer, rows in single.items() if not torch.isfinite(rows).all()]
    if broken:
        sentence = f"NaN or infinity from layer {broken[0]} on ({len(broken)} layers); load with dtype float32"
        return Check(name, "fail", sentence)
    return Check(name, "pass", f"no NaN or infinity in {len(single)} layers")


def _batched(subject: Subject, ear: Listener, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """All in one batch, as far as `collect` would put them into one."""
    everything = 2 * len(examples) * max(len(example.ids) for example in examples)
    parts = plan_batches(examples, everything, partial(rotary_kind, subject))
    rows = [run_batch(subject, ear, [examples[i] for i in part]) for part in parts]
    back = np.argsort([i for part in parts for i in part])
    return {name: torch.cat([part[name] for part in rows])[back] for name in rows[0]}


def _padded(
    subject: Subject, ear: Listener, examples: Sequence[Encoded], single: dict[str, torch.Tensor], tolerance: float
) -> Check:
    """Each example alone, with as much padding again: only padding differs from a single pass.

    With less where the model ends, or where more tokens turn the positions of all.
    """
    parts = []
    for example in examples[:4]:
        length = len(example.ids)
        most = max(length, min(2 * length, _limit(subject)))
        most = next(n for n in range(most, 0, -1) if rotary_kind(subject, n) == rotary_kind(subject, length))
        longer = Encoded(example.ids + (subject.pad_id,) * (most - length), example.rows)
        ids, mask = token_batch([longer], subject.pad_id)
        mask[:, len(example.ids) :] = 0
        picker = RowPicker.of([example.rows], subject.device)
        parts.append(ear(**subject.arguments(ids, mask), pick=picker))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    expected = {name: rows[:4] for name, rows in single.items()}
    return _compare("padded equals unpadded", found, expected, tolerance)


def _trees(subject: Subject, ear: Listener, examples: Sequence[Encoded]) -> Check:
    name = "trees equal plain passes"
    verdict, _ = check_trees(subject, ear, [examples])
    if verdict.right:
        distinct = token_tree.distinct_tokens([wanted_part(example) for example in examples])
        said = f"{verdict.reason}; {sum(len(e.ids) for e in examples)} tokens computed as {distinct}"
        return Check(name, "pass", said, verdict.tree_error, verdict.tolerance)
    return Check(name, "note", f"{verdict.reason}; no trees are used", verdict.tree_error, verdict.tolerance)


def _prefix(subject: Subject, ear: Listener, examples: Sequence[Encoded]) -> Check:
    name = "one beginning, kept in the cache, equals single passes"
    longest = sorted(examples, key=lambda example: -len(example.ids))
    found = check_prefix(subject, ear, longest, shared_tokens(longest))
    said = found["reason"] if found["right"] else f"{found['reason']}; plain batches are used"
    return Check(name, "pass" if found["right"] else "note", said, found.get("error"), found.get("tolerance"))


def _hidden_states(
    subject: Subject, single: dict[str, torch.Tensor], examples: Sequence[Encoded], tolerance: float
) -> Check:
    """Compare with `output_hidden_states`; entry i enters block i + 1, the last is usually behind the norm.

    Recurrent networks begin with what leaves block 1, and give what leaves the last block before and behind the norm.
    """
    name = "hooks equal the model's own hidden states"
    if not all(layer.startswith("resid_post.") for layer in single):
        return Check(name, "skipped", "asked at the site resid_post only")
    example = examples[-1]
    arguments = subject.arguments(*token_batch([example], subject.pad_id))
    try:
        with torch.inference_mode(), evaluation_mode(subject.module), hooks_as_they_were(subject.module):
            output = subject.module(**{**arguments, "output_hidden_states": True})
        states = [state[0, list(example.rows)] for state in output.hidden_states]
    except (TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        return Check(name, "skipped", f"the model gives no hidden states of its own ({type(error).__name__})")
    heard = [rows[len(examples) - 1 :] for rows in single.values()]
    if len(states) != len(heard) or any(a.shape != b.shape for a, b in zip(states, heard, strict=True)):
        return Check(name, "skipped", f"the model gives {len(states)} hidden states of other shapes")
    errors = _errors(heard, states)
    worst, without = max(errors[:-1]), ""
    if errors[0] > tolerance and (shifted := max(_errors(heard[1:], states[:-1]))) <= tolerance:
        worst, without = shifted, "; they begin with what leaves block 1, not what enters it"
    same = errors[-1] <= tolerance
    last = "the residual stream" if same else "behind the final norm, not the residual stream"
    said = f"all but the last agree; its last entry is {last}{without}" if worst <= tolerance else "they differ"
    return Check(name, "pass" if worst <= tolerance else "fail", said, _number(worst), tolerance)


def _errors(heard: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> list[float]:
    pairs = zip(heard, states, strict=True)
    return [relative_error({"": rows}, {"": state.to(rows.device)}) for rows, state in pairs]


@contextmanager
def hooks_as_they_were(module: nn.Module) -> Iterator[None]:
    """Take away the hooks that transformers leaves in a model at the first request for its hidden states."""
    kinds = [name for name in vars(module) if name.startswith("_forward_") and "hooks" in name]
    before = [(part, [set(getattr(part, kind)) for kind in kinds]) for part in module.modules()]
    marked = {part for part in module.modules() if "_output_capturing_hooks_installed" in vars(part)}
    try:
        yield
    finally:
        for part, known in before:
            for kind, keys in zip(kinds, known, strict=True):
                hooks = getattr(part, kind)
                for key in set(hooks) - keys:
                    del hooks[key]
            if part not in marked:
                vars(part).pop("_output_capturing_hooks_installed", None)


def _massive(single: dict[str, torch.Tensor]) -> Check:
    name = "massive activations"
    worst, where = 0.0, ""
    for layer, rows in single.items():
        size = rows.float().abs()
        ratio = (size.amax(dim=1) / size.median(dim=1).values.clamp_min(1e-30)).max().item()
        if ratio > worst:
            worst, where = ratio, f"{layer}, column {int(size.amax(dim=0).argmax())}"
    if worst > MASSIVE:
        said = f"one value is {worst:.0f} times the median of its vector ({where}); keep standardize=True"
        return Check(name, "note", said)
    return Check(name, "pass", f"the largest value is {worst:.0f} times the median of its vector ({where})")


def tokens(subject: Subject, concept: Any, n: int = 5) -> list[str]:
    """The first examples as the model sees them, token by token, with what is probed marked.

    Args:
        subject: a language model.
        concept: whose examples.
        n: how many.

    Returns:
        A line for each example: tokens between bars, those probed in 【 】.

    Raises:
        InputError: the subject reads no text, or `n` is not positive.
    """
    if n < 1:
        raise InputError(f"cannot show {n} examples; give a number of 1 or more")
    few = concept.select(_first_of_each_class(concept, n), classes=concept.classes)
    lines = []
    for label, example in zip(few.labels, subject.encode_concept(few), strict=True):
        probed = set(example.rows)
        pieces = [_piece(subject, token) for token in example.ids]
        shown = [f"【{piece}】" if i in probed else piece for i, piece in enumerate(pieces)]
        cut = f", {example.truncated} cut" if example.truncated else ""
        lines.append(f"{few.classes[label]} ({len(example.ids)} tokens{cut}): {'|'.join(shown)}")
    return lines


def _first_of_each_class(concept: Any, n: int) -> list[int]:
    """The first `n` examples, and the first of every class (a concept needs one of each)."""
    firsts = {int(label): index for index, label in reversed(list(enumerate(concept.labels)))}
    rest = [index for index in range(len(concept)) if index not in firsts.values()]
    return sorted([*firsts.values(), *rest[: max(0, n - len(firsts))]])


def _piece(subject: Subject, token: int) -> str:
    text: str = subject.tokenizer.decode([token])
    # A control character (Cc) moves the cursor of a terminal, one of format (Cf) can turn its line around.
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char
        for char in text.replace("\n", "⏎")
    )


def _number(value: float) -> float | None:
    return value if value < float("inf") else None
