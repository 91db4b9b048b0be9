"""A table of examples as a `Concept`: which column is the text, which the label, which groups belong together.

Labels may be booleans, integers, floats that are integers, or strings. The order of classes is the same whatever
the order of rows: with two classes that say no and yes (false/true, 0/1, negative/positive, valid/invalid, …) the
yes is second; numbers are sorted as numbers, all others by name. This module reads no files.

Shapes: N examples, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from concept_depth.concepts import groups as grouping
from concept_depth.concepts.concept import Concept, IntArray, has_half_character
from concept_depth.concepts.tables import Table
from concept_depth.errors import InputError

FEWEST_EXAMPLES = grouping.FEWEST
MOST_CLASSES = 100

# (no, yes): the second is the positive class.
_POLAR = {
    ("no", "yes"),
    ("n", "y"),
    ("false", "true"),
    ("f", "t"),
    ("wrong", "right"),
    ("bad", "good"),
    ("negative", "positive"),
    ("neg", "pos"),
}
_NEGATIONS = ("not", "non", "no", "in", "im", "un", "ir", "dis")


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Args:
        text: the column of the texts.
        label: the column of the labels.
        group: the column (or columns, together one key) whose values belong together; None takes the column
            `group` where there is one that can be used, and else derives groups from the texts.
        spans: a column of [start, end] pairs or of words that stand in the text; or two columns, start and end.
    """

    text: str = "text"
    label: str = "label"
    group: str | Sequence[str] | None = None
    spans: str | Sequence[str] | None = None


@dataclass(frozen=True)
class Origin:
    """What is known of a concept beside its examples; see the fields of `Concept`."""

    name: str
    classes: tuple[str, ...] | None = None
    category: str = ""
    template: str | None = None
    source: str = ""
    licence: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def concept_of(table: Table, columns: Columns, origin: Origin, *, limit: int | None = None) -> Concept:
    """Make a concept of a table.

    Args:
        table: the rows.
        columns: which column holds what.
        origin: name, template, licence and the like; `classes` fixes their order.
        limit: at most this many examples, as whole groups; None for all.

    Raises:
        InputError: a column is missing, a label or text is missing, there are fewer than two classes or too few
            examples, or the group column cannot be used.
    """
    if len(table) == 0:
        raise InputError(f"{table.where} holds no examples; give a table with rows")
    texts = texts_of(table, columns.text)
    labels, classes = encode_labels(
        table.column(columns.label, option="label"), table, columns.label, origin.classes
    )
    if len(texts) < FEWEST_EXAMPLES:
        raise InputError(
            f"{table.where} holds {len(texts)} examples; a probe needs at least {FEWEST_EXAMPLES} "
            "(some hundreds are better): add more"
        )
    if columns.group is None:
        found = default_groups(table, columns, texts, labels)
    else:
        found = groups_of(table, columns.group, labels)
    spans = None if columns.spans is None else spans_of(table, columns.spans, texts)
    named = [classes[label] for label in labels.tolist()]
    concept = Concept(
        name=origin.name,
        inputs=texts,
        labels=labels,
        classes=classes,
        groups=grouping.by_content(found.groups, texts, named, *([] if spans is None else [spans])),
        spans=spans,
        category=origin.category,
        template=origin.template,
        source=origin.source or table.where,
        licence=origin.licence,
        details={**origin.details, "groups": found.details},
    )
    return concept if limit is None else limited(concept, limit)


def limited(concept: Concept, limit: int) -> Concept:
    """At most `limit` examples, as whole groups, with the limit in the details."""
    taken = concept.take(limit)
    return (
        taken
        if taken is concept
        else taken.select(np.arange(len(taken)), details={**concept.details, "limit": limit, "of": len(concept)})
    )


def texts_of(table: Table, name: str) -> list[str]:
    """The texts of a column; numbers become text, blanks are refused.

    Raises:
        InputError: no such column, or a row without text.
    """
    values = table.column(name, option="text")
    for row, value in enumerate(values, start=1):
        # A text may well read "null"; only a label may not.
        if not value.strip() if isinstance(value, str) else is_missing(value):
            raise InputError(
                f"row {row} of {table.where} has no text in column {name!r}; fill it in or remove the row"
            )
        if isinstance(value, list | dict):
            raise InputError(
                f"column {name!r} of {table.where} holds lists or objects, not texts; name the text's column"
            )
        if isinstance(value, str) and has_half_character(value):
            raise InputError(
                f"row {row} of {table.where} holds half a character (a lone surrogate) in column {name!r}, which no "
                "tokenizer reads; remove the row or correct it"
            )
    return [str(value) for value in values]


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or the text an exported table writes for them."""
    if isinstance(value, str):
        return value.strip().casefold() in ("", "nan", "null")
    return value is None or (isinstance(value, float) and math.isnan(value))


def encode_labels(
    values: Sequence[Any], table: Table, name: str, classes: Sequence[str] | None = None
) -> tuple[IntArray, tuple[str, ...]]:
    """(N,) class indices and the K class names in order.

    Args:
        values: N labels as the table holds them.
        table: where they come from, for messages.
        name: the column's name, for messages.
        classes: the order of classes, where it is known; else it is found (see the module's docstring).

    Raises:
        InputError: a label is missing, continuous, or of an unknown class; one class; more than 100 classes; labels
            that differ only in how they are written.
    """
    names = []
    for row, value in enumerate(values, start=1):
        if is_missing(value):
            raise InputError(
                f"row {row} of {table.where} has no label in column {name!r}; fill it in or remove the row"
            )
        names.append(_class_name(value, table, name))
    found = order_classes(set(names))
    order = found if classes is None else tuple(classes)
    unknown = sorted(set(found) - set(order))
    if unknown:
        raise InputError(
            f"column {name!r} of {table.where} holds {unknown[0]!r}; the classes are {', '.join(order)}: "
            "correct the label or the classes"
        )
    if len(found) < 2:
        raise InputError(
            f"all labels in column {name!r} of {table.where} are {found[0]!r}; "
            "a concept needs examples of two or more classes"
        )
    if len(found) > MOST_CLASSES or (len(found) > len(names) / 2 and len(names) >= FEWEST_EXAMPLES):
        raise InputError(
            f"column {name!r} of {table.where} holds {len(found)} different values in {len(names)} rows, as in "
            f"{found[0][:40]!r}; name a column of classes as label=…: "
            f"it has {', '.join(map(repr, table.columns))}"
        )
    folded: dict[str, str] = {}
    for label in found:
        if folded.setdefault(label.casefold(), label) != label:
            raise InputError(
                f"the labels {folded[label.casefold()]!r} and {label!r} of {table.where} differ only in case; "
                "write them alike"
            )
    # A table that was put together from two: true and 1 mean the same, and would be two classes.
    if not {"true", "false"}.isdisjoint(folded) and any(_number(label) is not None for label in found):
        raise InputError(
            f"column {name!r} of {table.where} mixes true and false with numbers (it holds "
            f"{', '.join(map(repr, found[:8]))}); write all labels in one way"
        )
    index = {label: i for i, label in enumerate(order)}
    return np.asarray([index[label] for label in names], dtype=np.int64), order


def _class_name(value: Any, table: Table, name: str) -> str:
    if not isinstance(value, bool | np.bool_ | int | np.integer | str | float):
        raise InputError(
            f"column {name!r} of {table.where} holds a {type(value).__name__}; "
            "labels are booleans, integers or texts"
        )
    called = plain(value)
    number = _number(called)
    if number is not None and not number.is_integer():
        raise InputError(
            f"column {name!r} of {table.where} holds {called}, a continuous value; "
            "name a column of classes as label=…, or sort the values into classes first"
        )
    return called


def plain(value: Any) -> str:
    """A cell as text, written alike whatever wrote it: "true" for True, "1" for 1, 1.0 and "1.0", no padding."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    text = str(value).strip()
    number = _number(text)
    if number is None or text.lstrip("-").isdigit() or not number.is_integer():
        return text
    # A spreadsheet writes 1 as 1.0 once a cell of the column was empty.
    return str(int(number))


def _number(text: str) -> float | None:
    if "_" in text:
        return None  # Python reads "1_0" as ten; nobody else does
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def order_classes(names: set[str]) -> tuple[str, ...]:
    """Class names in order: no before yes, numbers as numbers, all others by name."""
    numbers = {name: _number(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name] or 0.0, name)))
    ordered = tuple(sorted(names, key=lambda name: (name.casefold(), name)))
    if len(ordered) == 2:
        first, second = (name.casefold() for name in ordered)
        if (second, first) in _POLAR or _negates(second, first):
            return ordered[::-1]
    return ordered


def _negates(name: str, other: str) -> bool:
    """Whether `name` is `other` with a negation in front: "not ironic", "invalid", "non-hate"."""
    return any(
        name.removeprefix(prefix).lstrip(" -_") == other for prefix in _NEGATIONS if name.startswith(prefix)
    )


def default_groups(table: Table, columns: Columns, texts: Sequence[str], labels: IntArray) -> grouping.Grouping:
    """Groups from the column `group` where it has values that can be used, else derived from the texts."""
    refused = []
    cells = table.columns.get("group", ()) if "group" not in (columns.text, columns.label) else ()
    if not all(is_missing(cell) for cell in cells):
        numbers = _numbers_of(table, ["group"])
        problem = grouping.fault(numbers)
        if problem is None:
            return grouping.Grouping(numbers, grouping.describe(numbers, "column", column="group", labels=labels))
        refused.append(f"column group {problem}")
    found = grouping.derive_groups(texts, labels)
    return grouping.Grouping(found.groups, {**found.details, "refused": refused + found.details["refused"]})


def groups_of(table: Table, group: str | Sequence[str], labels: IntArray) -> grouping.Grouping:
    """Groups from a column, or from several that are one key together.

    Raises:
        InputError: no such column, or its groups are too few or one is too large.
    """
    names = [group] if isinstance(group, str) else list(group)
    if isinstance(group, str) and group not in table.columns and "," in group:
        names = [name.strip() for name in group.split(",")]
    numbers = _numbers_of(table, names)
    problem = grouping.fault(numbers)
    if problem is not None:
        raise InputError(
            f"grouping {table.where} by {', '.join(names)} {problem}: name another group column, or none "
            "to let groups be derived from the texts"
        )
    return grouping.Grouping(numbers, grouping.describe(numbers, "column", column=",".join(names), labels=labels))


def _numbers_of(table: Table, names: Sequence[str]) -> IntArray:
    columns = [table.column(name, option="group") for name in names]
    return grouping.number_groups(
        [
            # An empty cell groups nothing: that example stands alone.
            ("", str(row)) if all(is_missing(cell) for cell in cells) else ("key", *map(plain, cells))
            for row, cells in enumerate(zip(*columns, strict=True))
        ]
    )


def spans_of(table: Table, spans: str | Sequence[str], texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(start, end) in characters of each text, from a column of pairs or words, or from two columns.

    Raises:
        InputError: no such column, or a word that does not stand in its text.
    """
    if not isinstance(spans, str):
        if len(spans) != 2:
            raise InputError(f"spans={list(spans)!r} names {len(spans)} columns; name two (start, end) or one")
        starts, ends = (table.column(name, option="spans") for name in spans)
        cells: Sequence[Any] = list(zip(starts, ends, strict=True))
    else:
        cells = table.column(spans, option="spans")
    return tuple(
        _span(cell, text, row, table.where)
        for row, (cell, text) in enumerate(zip(cells, texts, strict=True), start=1)
    )


def _span(cell: Any, text: str, row: int, where: str) -> tuple[int, int]:
    if isinstance(cell, list | tuple) and len(cell) == 2:
        try:
            return int(cell[0]), int(cell[1])
        except (TypeError, ValueError):
            pass  # two words are no span; the sentence below says what is
    elif isinstance(cell, str) and cell.strip():
        start, colon, end = cell.partition(":")
        if colon and start.strip().isdigit() and end.strip().isdigit():
            return int(start), int(end)
        # "he" is first sought as a word of its own, not inside "The".
        whole = re.search(rf"(?<!\w){re.escape(cell.strip())}(?!\w)", text)
        at = whole.start() if whole else text.find(cell.strip())
        if at >= 0:
            return at, at + len(cell.strip())
    raise InputError(
        f"row {row} of {where} has the span {cell!r}; give [start, end] in characters, or words of its text"
    )
