"""`Concept`: inputs with labels and groups. No network is known here.

Shapes: N examples.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.errors import InputError

IntArray = npt.NDArray[np.int64]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, eq=False, kw_only=True)
class Concept:
    """Labelled examples of one concept.

    Args:
        name: short name, used in tables and file names.
        inputs: N texts (also as an array), or an array with examples on its first axis (for networks that read no
            text).
        labels: N class indices 0 … K−1 into `classes`.
        classes: names of the K ≥ 2 classes; with two, class 1 is the positive one.
        groups: N group numbers or names, or None where nothing is known of them (`concepts.groups` can derive
            them); examples of one group never stand on both sides of a split. An example whose group is None or
            NaN stands alone.
        spans: per example (start, end) in characters of the input text, for `position="span"`; or None.
        category: kind of concept (fact, sentiment, reasoning, …), free text.
        template: text with `{text}` exactly once, put around every input; None for the input alone.
        source: where the examples come from.
        licence: under which terms.
        details: anything else worth recording, JSON-serialisable: file, split, how the groups were found, …;
            not part of the fingerprint.

    Raises:
        InputError: the parts do not fit together (lengths, a class without examples, an empty text, …).
    """

    name: str
    inputs: Sequence[str] | npt.NDArray[Any]
    labels: IntArray
    classes: tuple[str, ...]
    groups: IntArray | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    category: str = ""
    template: str | None = None
    source: str = ""
    licence: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = self.inputs
        given: dict[str, Any] = {"inputs": inputs, "classes": self.classes}
        for what, values in given.items():
            if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
                raise InputError(f"concept {self.name!r} has {what} of kind {type(values).__name__}; give a list")
        if isinstance(inputs, np.ndarray) and inputs.ndim == 1 and inputs.dtype.kind in "UOT":
            inputs = inputs.tolist()  # texts, as pandas and numpy hold them
        if not isinstance(inputs, np.ndarray):
            object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "labels", self._indices(self.labels))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.groups is not None:
            object.__setattr__(self, "groups", _numbered(self.groups))
        if self.spans is not None:
            object.__setattr__(self, "spans", tuple((int(start), int(end)) for start, end in self.spans))
        self._check()

    def _indices(self, labels: npt.ArrayLike) -> IntArray:
        array = np.asarray(labels)
        if array.ndim != 1 or array.dtype.kind not in "iub":
            raise InputError(
                f"concept {self.name!r} has labels of kind {array.dtype} and shape {array.shape}; "
                "give one class index (0, 1, …) for each input"
            )
        return array.astype(np.int64)

    def _check(self) -> None:
        n = len(self.inputs)
        lengths = {"labels": self.labels, "groups": self.groups, "spans": self.spans}
        for what, values in lengths.items():
            if values is not None and len(values) != n:
                raise InputError(
                    f"concept {self.name!r} has {n} inputs but {len(values)} {what}; give one for each input"
                )
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise InputError(
                f"concept {self.name!r} has the classes {list(self.classes)}; "
                "a concept needs two or more different classes"
            )
        if n and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise InputError(
                f"concept {self.name!r} has labels outside 0 … {len(self.classes) - 1}; "
                "labels are indices into classes"
            )
        counts = self.class_counts
        empty = [name for name, count in counts.items() if count == 0]
        if empty:
            raise InputError(
                f"concept {self.name!r} has no example of class {empty[0]!r}; every class needs examples"
            )
        if self.is_text:
            for index, text in enumerate(self.inputs):
                if not isinstance(text, str) or not text.strip():
                    raise InputError(
                        f"concept {self.name!r}: the text of example {index + 1} is empty or no text; "
                        "remove that example or fill it in"
                    )
                if has_half_character(text):
                    raise InputError(
                        f"concept {self.name!r}: the text of example {index + 1} holds half a character (a lone "
                        "surrogate), which no tokenizer reads; remove that example or correct it"
                    )
        if self.spans is not None:
            for index, ((start, end), text) in enumerate(zip(self.spans, self.inputs, strict=True)):
                if not 0 <= start < end <= len(text):
                    raise InputError(
                        f"concept {self.name!r}: span ({start}, {end}) of example {index + 1} does not lie "
                        f"in its text of {len(text)} characters; give 0 ≤ start < end ≤ length"
                    )
        if self.template is not None and self.template.count("{text}") != 1:
            raise InputError(
                f"template {self.template!r} must hold {{text}} exactly once, as in 'Is this true? {{text}}'"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def is_text(self) -> bool:
        """Whether the inputs are texts (and not an array)."""
        return not isinstance(self.inputs, np.ndarray)

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of examples of each class."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items())
        return f"Concept({self.name!r}: {len(self)} examples; {counts})"

    def _repr_html_(self) -> str:
        """A table for notebooks: each class with its count and its first example."""
        rows = ""
        for index, (name, count) in enumerate(self.class_counts.items()):
            first = int(np.flatnonzero(self.labels == index)[0])
            shown = (
                str(self.inputs[first])[:200] if self.is_text else f"array of shape {np.shape(self.inputs[first])}"
            )
            rows += f"<tr><td>{escape(name)}</td><td>{count}</td><td>{escape(shown)}</td></tr>"
        groups = "" if self.groups is None else f" in {len(np.unique(self.groups))} groups"
        caption = f"{escape(self.name)}: {len(self)} examples{groups}"
        return f"<table><caption>{caption}</caption><tr><th>class</th><th>n</th><th>first</th></tr>{rows}</table>"

    def prompts(self) -> list[str]:
        """The N texts as the network reads them: each input inside the template."""
        if not self.is_text:
            raise InputError(f"concept {self.name!r} holds arrays; only texts have prompts")
        before, after = self.template_parts
        return [f"{before}{text}{after}" for text in self.inputs]

    @property
    def template_parts(self) -> tuple[str, str]:
        """What stands before and behind each text."""
        before, _, after = (self.template or "{text}").partition("{text}")
        return before, after

    def select(self, indices: npt.ArrayLike, **changes: Any) -> Concept:
        """The examples at `indices` (or where a mask is true), in that order; `changes` replace fields, as in
        `dataclasses.replace`.
        """
        chosen = self._chosen(np.asarray(indices))
        inputs = self.inputs[chosen] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in chosen]
        picked: dict[str, Any] = {
            "inputs": inputs,
            "labels": self.labels[chosen],
            "groups": None if self.groups is None else self.groups[chosen],
            "spans": None if self.spans is None else tuple(self.spans[i] for i in chosen),
        }
        return replace(self, **{**picked, **changes})

    def _chosen(self, indices: npt.NDArray[Any]) -> IntArray:
        if indices.dtype.kind == "b":
            if indices.shape != (len(self),):
                raise InputError(
                    f"a mask of shape {indices.shape} does not fit the {len(self)} examples of {self.name!r}; "
                    "give one true or false for each, or indices"
                )
            return np.flatnonzero(indices)
        if indices.size and indices.dtype.kind not in "iu":
            raise InputError(f"examples cannot be selected by {indices.dtype}; give indices, or a mask")
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if outside.size:
            raise InputError(f"there is no example {outside[0]} in {self.name!r}; it has 0 to {len(self) - 1}")
        return indices.astype(np.int64)

    def balanced(self, *, random_state: int = 0) -> Concept:
        """As many examples of each class as the rarest has, drawn at random, in their original order.

        Examples whose group holds every class are kept first, so that pairs stay pairs where they can.
        """
        rng = np.random.default_rng(random_state)
        target = min(self.class_counts.values())
        groups = np.arange(len(self)) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
        per_group = np.zeros((int(groups.max()) + 1, len(self.classes)), dtype=np.int64)
        np.add.at(per_group, (groups, self.labels), 1)
        complete: npt.NDArray[np.bool_] = np.all(per_group > 0, axis=1)
        kept: list[int] = []
        for label in range(len(self.classes)):
            members = rng.permutation(np.flatnonzero(self.labels == label))
            # One of each group before a second of any, groups with every class first.
            order = np.lexsort((_turns(groups[members]), ~complete[groups[members]]))
            kept.extend(members[order][:target].tolist())
        return self.select(sorted(kept))

    def take(self, n: int, *, random_state: int = 0) -> Concept:
        """About `n` examples (at most), made of whole groups drawn at random, in their original order.

        Raises:
            InputError: `n` is not positive, or so small that a class is left without examples.
        """
        given: Any = n
        if isinstance(given, bool) or not isinstance(given, Integral) or n < 1:
            raise InputError(f"cannot take {n} examples; give a whole number of 1 or more")
        if n >= len(self):
            return self
        groups = np.arange(len(self)) if self.groups is None else self.groups
        kept: list[int] = []
        members: dict[int, list[int]] = {}
        for index, group in enumerate(groups.tolist()):
            members.setdefault(group, []).append(index)
        for group in np.random.default_rng(random_state).permutation(sorted(members)).tolist():
            if len(kept) + len(members[group]) <= n:
                kept.extend(members[group])
        if set(self.labels[kept].tolist()) != set(range(len(self.classes))):
            raise InputError(f"{n} examples of {self.name!r} leave a class empty; take more")
        return self.select(sorted(kept))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything a measurement depends on: inputs, labels, classes, groups, spans, template."""
        digest = hashlib.sha256()

        def add(value: str | bytes) -> None:
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)

        if isinstance(self.inputs, np.ndarray):
            add(f"{self.inputs.dtype.str}{self.inputs.shape}")
            add(np.ascontiguousarray(self.inputs).tobytes())
        else:
            for text in self.inputs:
                add(text)
        add(self.labels.astype("<i8").tobytes())
        add(repr(self.classes))
        add(b"" if self.groups is None else self.groups.astype("<i8").tobytes())
        add(repr(self.spans))
        add(self.template or "{text}")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """JSON-serialisable origin of the examples, for records."""
        return {
            "name": self.name,
            "n": len(self),
            "classes": list(self.classes),
            "class_counts": self.class_counts,
            "category": self.category,
            "template": self.template,
            "source": self.source,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
            "details": dict(self.details),
        }


def _turns(groups: IntArray) -> IntArray:
    """How many of its group stand before each example."""
    seen: dict[int, int] = {}
    turns = []
    for group in groups.tolist():
        turns.append(seen.get(group, 0))
        seen[group] = turns[-1] + 1
    return np.asarray(turns, dtype=np.int64)


def has_half_character(text: str) -> bool:
    """Whether a text holds a lone surrogate: JSON can write one, and no encoding of text can."""
    return _SURROGATE.search(text) is not None


def _numbered(groups: Iterable[Any]) -> IntArray:
    """Group numbers as they are; names are numbered in their order, and whoever has none stands alone."""
    array = np.asarray(groups)
    if array.dtype.kind in "iubf" and array.ndim != 1:
        raise InputError(f"groups have the shape {array.shape}; give one number or name for each input")
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    values = list(groups)  # not the array's: numpy writes NaN beside names as the name "nan"
    alone = np.asarray([_is_absent(value) for value in values], dtype=bool)
    names = array if array.dtype.kind == "f" else np.asarray([str(value) for value in values])
    numbers = np.empty(len(values), dtype=np.int64)
    known, numbers[~alone] = np.unique(names[~alone], return_inverse=True)
    numbers[alone] = len(known) + np.arange(alone.sum())
    return numbers


def _is_absent(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, which equal nothing
        return True
    return isinstance(value, float) and math.isnan(value)
