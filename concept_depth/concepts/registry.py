"""Public data sets by name: what `registry.toml` says of them, and what can be loaded here and now.

An entry names its raw files (and where they come from, with revision) or a Hub data set, its columns, what the
labels mean, groups, licence, size and citation. A local copy always works: files are found by name at any depth
below `data_dir`, or below the folder in the environment variable CONCEPT_DEPTH_DATA. This module loads no network
library; for the Hub `readers` hands it a table.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from concept_depth import files
from concept_depth.concepts import groups as grouping
from concept_depth.concepts import paper
from concept_depth.concepts.concept import Concept
from concept_depth.concepts.examples import Columns, Origin, concept_of, encode_labels, is_missing, limited, plain
from concept_depth.concepts.places import Below
from concept_depth.concepts.tables import Table, read_table
from concept_depth.errors import InputError
from concept_depth.files import exists, local_path


@dataclass(frozen=True)
class Entry:
    """A known public data set; the fields are those of `registry.toml`.

    Args:
        name: its name in `load_concept`.
        category: fact, sentiment, reasoning, ….
        n: number of examples.
        licence: as its source states it.
        citation: whom to cite.
        question: what the concept asks.
        files: raw files, as the end of a path ("navigate/task.json"); the first found is read.
        origin: where the raw file comes from.
        revision: the commit, version or date of that source.
        hub: id on the Hugging Face Hub, or "".
        hub_config: its configuration.
        hub_split: its split.
        hub_revision: its revision.
        text: column of the texts.
        label: column of the labels.
        labels: label as the file has it → name of the class; the order is that of the classes, rows with other
            labels are left out. Empty: labels as they are.
        threshold: makes two classes of a column of numbers: below it, and not below it (names in `classes`).
        classes: names of the two classes of a threshold.
        group: columns of what belongs together; empty derives groups from the texts.
        group_pattern: a regular expression instead; what its first group matches in a text belongs together.
        drop_missing: leave out rows without a label or a text.
        pixels: the text column holds rows of 0 and 1, this many to a line: inputs become (N, 1, H, W) images.
        template: put around every text.
    """

    name: str
    category: str
    n: int
    licence: str
    citation: str
    question: str = ""
    files: tuple[str, ...] = ()
    origin: str = ""
    revision: str = ""
    hub: str = ""
    hub_config: str | None = None
    hub_split: str | None = None
    hub_revision: str | None = None
    text: str = "text"
    label: str = "label"
    labels: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    classes: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    group_pattern: str = ""
    drop_missing: bool = False
    pixels: int = 0
    template: str | None = None


@dataclass(frozen=True)
class Listed:
    """One row of `list_concepts`.

    Args:
        name: what `load_concept` takes.
        kind: "bundled", "paper" or "registry".
        category: kind of concept.
        n: number of examples.
        licence: under which terms.
        available: "bundled", "local" (its raw file is found), "cached" (the Hub's copy is on this machine),
            "remote" (the Hub has it), or "by hand" (download the raw file and give data_dir).
    """

    name: str
    kind: str
    category: str
    n: int
    licence: str
    available: str


def parse_toml(name: str, text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        InputError: it is none; the message says where.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not TOML ({error}); correct it there") from error


@cache
def entries() -> Mapping[str, Entry]:
    """All entries of the registry by name, in its order."""
    text = (package_files("concept_depth.concepts") / "registry.toml").read_text(encoding="utf-8")
    data = parse_toml("registry.toml", text)
    defaults = data.pop("sources")
    found: dict[str, Entry] = {}
    known = {item.name for item in fields(Entry)}
    for name, table in data.items():
        merged = {**defaults.get(table.pop("source", ""), {}), **table}
        unknown = set(merged) - known
        if unknown:
            raise ValueError(f"registry.toml: {name} has the unknown keys {sorted(unknown)}")
        lists = {key: tuple(value) for key, value in merged.items() if isinstance(value, list)}
        found[name] = Entry(name=name, **{**merged, **lists})
    return found


def default_data_dir() -> Path | None:
    """The folder of raw files that the environment variable CONCEPT_DEPTH_DATA names, or None."""
    given = os.environ.get("CONCEPT_DEPTH_DATA", "")
    return local_path(given) if given and exists(local_path(given), Path.is_dir) else None


def find_file(entry: Entry, folder: Path | Below) -> Path | None:
    """The entry's raw file at any depth below a folder, or None.

    Of several files with its name the first that has its columns is taken: names such as cities.csv are common.

    Raises:
        InputError: there is no such folder.
    """
    below = folder if isinstance(folder, Below) else Below(folder)
    found = below.find(entry.files)
    if len(found) > 1:
        found = [path for path in found if _has_columns(entry, path)] or found
    return next(iter(found), None)


def _has_columns(entry: Entry, path: Path) -> bool:
    try:
        return {entry.text, entry.label, *entry.group} <= set(read_table(path).columns)
    except InputError:
        return False


def missing(entry: Entry, folder: Path | None) -> str:
    """The sentence for an entry whose data are not on this machine."""
    if not entry.files:
        return f"{entry.name} is on the Hub alone, as {entry.hub}: leave data_dir out"
    where = f"below {folder}" if folder is not None else "since no data_dir is given"
    return (
        f"{entry.name} needs the file {entry.files[0]}, which is not found {where}; get it from {entry.origin} "
        "and give its folder as data_dir (or in CONCEPT_DEPTH_DATA)"
    )


def concept_from(
    entry: Entry,
    table: Table,
    *,
    group: str | Sequence[str] | None = None,
    spans: str | Sequence[str] | None = None,
    template: str | None = None,
    limit: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Concept:
    """The concept that an entry describes, from the table of its data.

    Args:
        entry: the description.
        table: the rows.
        group: replaces the entry's group columns.
        spans: as in `load_concept`.
        template: replaces the entry's.
        limit: at most this many examples, as whole groups.
        details: recorded beside the entry's own.

    Raises:
        InputError: the table is not what the entry describes.
    """
    table = _with_subjects(entry, _relabelled(entry, table))
    origin = Origin(
        name=entry.name,
        classes=_class_order(entry),
        category=entry.category,
        template=entry.template if template is None else template,
        source=entry.origin or f"https://huggingface.co/datasets/{entry.hub}",
        licence=entry.licence,
        details={
            **(details or {}),
            "registry": entry.name,
            "revision": entry.revision,
            "citation": entry.citation,
            "question": entry.question,
        },
    )
    if entry.pixels:
        return _images(entry, table, origin, limit)
    own = "subject" if entry.group_pattern else entry.group or None
    columns = Columns(text=entry.text, label=entry.label, group=group or own, spans=spans)
    return concept_of(table, columns, origin, limit=limit)


def _class_order(entry: Entry) -> tuple[str, ...] | None:
    if entry.threshold is not None:
        return entry.classes
    return tuple(dict.fromkeys(entry.labels.values())) or None


def _relabelled(entry: Entry, table: Table) -> Table:
    """The rows that have one of the entry's labels, with the names of the classes as labels."""
    values = list(table.column(entry.label, option="label"))
    if entry.drop_missing:
        texts = table.column(entry.text, option="text")
        rows = [row for row, value in enumerate(values) if not is_missing(value) and str(texts[row] or "").strip()]
        table, values = table.select(rows), [values[row] for row in rows]
    if entry.threshold is not None:
        names = [
            entry.classes[_number_in(value, row, entry, table) >= entry.threshold]
            for row, value in enumerate(values, start=1)
        ]
    elif entry.labels:
        cells = [plain(value) for value in values]
        if set(entry.labels) <= {"0", "1"}:
            cells = [{"false": "0", "true": "1"}.get(cell.casefold(), cell) for cell in cells]
        rows = [row for row, cell in enumerate(cells) if cell in entry.labels]
        if not rows:
            raise InputError(
                f"column {entry.label!r} of {table.where} holds none of the labels {', '.join(entry.labels)}; "
                f"get the data again from {entry.origin or 'hub:' + entry.hub}"
            )
        table, names = table.select(rows), [entry.labels[cells[row]] for row in rows]
    else:
        return table
    return replace(table, columns={**table.columns, entry.label: names})


def _number_in(value: Any, row: int, entry: Entry, table: Table) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise InputError(
            f"row {row} of {table.where} holds {value!r} in column {entry.label!r}, which is no number; "
            "correct it or remove the row"
        )
    return number


def _with_subjects(entry: Entry, table: Table) -> Table:
    """The rows with a column `subject`, of what the entry's pattern finds in the texts."""
    if not entry.group_pattern:
        return table
    found = [re.match(entry.group_pattern, str(text)) for text in table.column(entry.text, option="text")]
    return replace(table, columns={**table.columns, "subject": [match and match.group(1) for match in found]})


def _images(entry: Entry, table: Table, origin: Origin, limit: int | None) -> Concept:
    cells = [str(cell) for cell in table.column(entry.text, option="text")]
    labels, classes = encode_labels(table.column(entry.label, option="label"), table, entry.label, origin.classes)
    try:
        flat = np.asarray([[int(character) for character in cell] for cell in cells], dtype=np.float32)
        pixels_NCHW = flat.reshape(len(cells), 1, -1, entry.pixels)
    except ValueError as error:
        raise InputError(
            f"column {entry.text!r} of {table.where} holds no images of width {entry.pixels}; "
            f"get the file again from {entry.origin}"
        ) from error
    found = grouping.by_content(grouping.number_groups(cells), cells)
    concept = Concept(
        name=origin.name,
        inputs=pixels_NCHW,
        labels=labels,
        classes=classes,
        groups=found,
        category=origin.category,
        source=origin.source,
        licence=origin.licence,
        details={**origin.details, "groups": grouping.describe(found, "duplicates", labels=labels)},
    )
    return concept if limit is None else limited(concept, limit)


def bundled_folder() -> Path | None:
    """The folder of bundled concepts: inside the installed package, else beside the checkout's package."""
    package = Path(str(package_files("concept_depth")))
    candidates = (package / "bundled", package.parent / "datasets")
    return next((folder for folder in candidates if any(folder.glob("*/concept.json"))), None)


def bundled_names() -> list[str]:
    """Names of the bundled concepts, sorted."""
    folder = bundled_folder()
    return [] if folder is None else sorted(path.parent.name for path in folder.glob("*/concept.json"))


def list_concepts(*, data_dir: str | Path | None = None) -> list[Listed]:
    """All concepts that have a name: bundled, of the paper, of the registry.

    Args:
        data_dir: a folder of raw files; what is found in it is "local".

    Returns:
        Rows with name, kind, category, n, licence, available.

    Raises:
        InputError: there is no such folder.
    """
    folder = local_path(data_dir) if data_dir is not None else default_data_dir()
    below = None if folder is None else Below(folder)
    rows = [_bundled_row(name) for name in bundled_names()]
    for dataset in paper.DATASETS.values():
        local = below is not None and paper.find_file(dataset, below) is not None
        state = "local" if local else _hub_state(dataset.hub)
        rows.append(Listed(f"paper:{dataset.key}", "paper", dataset.category, dataset.n, dataset.licence, state))
    for entry in entries().values():
        local = below is not None and find_file(entry, below) is not None
        state = "local" if local else _hub_state(entry.hub)
        rows.append(Listed(entry.name, "registry", entry.category, entry.n, entry.licence, state))
    return rows


def _bundled_row(name: str) -> Listed:
    folder = bundled_folder()
    assert folder is not None, "a bundled name implies its folder"
    card = files.read_json(folder / name / "concept.json")
    with (folder / name / "data.jsonl").open("rb") as stream:
        n = sum(1 for line in stream if line.strip())
    return Listed(name, "bundled", card.get("category", ""), n, card.get("licence", ""), "bundled")


def _hub_state(repository: str) -> str:
    if not repository:
        return "by hand"
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return "cached" if (hub / f"datasets--{repository.replace('/', '--')}").is_dir() else "remote"
