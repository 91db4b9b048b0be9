"""The nine data sets of Jin et al. (2024), in the rows and the order in which their code takes them.

Every set is two lists, and the examples are all of the first, then all of the second; class 0 is the first list
and class 1, the "positive" one of their F1, the second (false, no, not hateful, …). The files are those of a clone
of their repository (Luckfort/CD), found by name at any depth; the originals serve as well. Where their code puts
the instruction (in front, behind, around) is kept, its wording is ours; the exact wording can be given as a
template file. Their main.py then overrides every instruction by one about sentiment: `prompt=override` does the
same.

Options, written behind the name ("paper:strategyqa:rationale=no"):
    prompt=own|override|none   our instruction (default), the override in their code, or the bare text;
    rows=paper|all             the rows of the paper (default), or all of both classes (8 of their 9 models saw all
                               16,384 rows of CommonClaim);
    rationale=yes|no           StrategyQA only: with the gold rationale behind the question, as they have it
                               (default), or without.

This module reads local files; for the Hub `readers` hands it a table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from concept_depth.concepts import groups as grouping
from concept_depth.concepts.concept import Concept
from concept_depth.concepts.examples import groups_of, limited, spans_of, texts_of
from concept_depth.concepts.places import Below
from concept_depth.concepts.tables import Table, read_table, read_text, read_tsv_quoted
from concept_depth.errors import InputError

OVERRIDE = "According to the sentence, judge the emotion is Positive or Negative."
CITATION = "Jin et al., Exploring Concept Depth, COLING 2025 (arXiv 2404.07066)"


@dataclass(frozen=True)
class PaperDataset:
    """One of the nine; the fields are those of `paper.toml`.

    Args:
        key: its name here.
        title: its name in the paper's tables.
        files: names under which its file is found, the clone's first.
        text: column of the texts.
        label: column of the labels.
        lists: for the first and the second list, the label values that belong to it, in lower case.
        classes: what the two lists are.
        n: examples in the paper.
        template: our instruction and the text, in the paper's order.
        override: the same with the sentence of their main.py in place of every instruction.
        category: kind of concept.
        licence: as far as the files state it.
        keep: how many rows of each list are taken, in file order; None for all.
        group: columns of what belongs together; () derives groups from the texts.
        hub: id on the Hugging Face Hub, or "".
        hub_split: its split.
    """

    key: str
    title: str
    files: tuple[str, ...]
    text: str
    label: str
    lists: tuple[tuple[str, ...], ...]
    classes: tuple[str, str]
    n: int
    template: str
    override: str
    category: str
    licence: str
    keep: int | None = None
    group: tuple[str, ...] = ()
    hub: str = ""
    hub_split: str | None = None


def _read_datasets() -> dict[str, PaperDataset]:
    text = (package_files("concept_depth.concepts") / "paper.toml").read_text(encoding="utf-8")
    found = {}
    for key, table in tomllib.loads(text).items():
        table["override"] = table["override"].replace("{override}", OVERRIDE)
        lists = {name: tuple(value) for name, value in table.items() if isinstance(value, list)}
        lists["lists"] = tuple(tuple(values) for values in table["lists"])
        found[key] = PaperDataset(key=key, **{**table, **lists})
    return found


DATASETS: Mapping[str, PaperDataset] = _read_datasets()


def dataset(name: str) -> PaperDataset:
    """The data set of this name: its key, or its name in the paper's tables, upper or lower case alike.

    Raises:
        InputError: it is none of the nine.
    """
    wanted = name.strip().casefold().replace("-", "_")
    for known in DATASETS.values():
        if wanted in (known.key, known.title.casefold(), known.key.replace("_", "")):
            return known
    raise InputError(
        f"paper:{name} is none of the paper's data sets; write paper: and one of {', '.join(DATASETS)}"
    )


def find_file(known: PaperDataset, folder: Path | Below) -> Path | None:
    """The data set's file at any depth below a folder, or None.

    Of several files with its name the first that has its columns is taken: names such as cities.csv are common.

    Raises:
        InputError: there is no such folder.
    """
    below = folder if isinstance(folder, Below) else Below(folder)
    for path in below.find(known.files):
        if known.key == "stsa":
            return path
        try:
            columns = read_table(path).columns
        except InputError:
            continue
        if known.text in columns and known.label in columns:
            return path
    return None


def missing(known: PaperDataset, folder: Path | None) -> str:
    """The sentence for a data set whose file is not there."""
    where = f"below {folder}" if folder is not None else "since no data_dir is given"
    return (
        f"paper:{known.key} needs the file {known.files[0]}, which is not found {where}; clone "
        "https://github.com/Luckfort/CD and give its folder as data_dir (or in CONCEPT_DEPTH_DATA)"
    )


def read_rows(known: PaperDataset, path: Path) -> Table:
    """The rows of a data set's file, in file order."""
    if known.key == "hateeval" and path.suffix == ".tsv":
        # Some tweets begin with a quoted phrase; pandas, with which they read the file, drops those quotes.
        return read_tsv_quoted(path)
    if known.key != "stsa":
        return read_table(path)
    labels, texts = [], []
    for line in read_text(path).split("\n"):
        label, space, text = line.strip().partition(" ")
        if space:
            labels.append(label)
            texts.append(text)
    return Table({"label": labels, "text": texts}, path.name, {})


def concept_from(
    known: PaperDataset,
    table: Table,
    options: Mapping[str, str],
    *,
    group: str | Sequence[str] | None = None,
    spans: str | Sequence[str] | None = None,
    template: str | None = None,
    limit: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Concept:
    """The concept: rows selected, in the paper's order, with groups and template.

    Args:
        known: which of the nine.
        table: its rows, in file order.
        options: see the module's docstring.
        group: replaces the data set's own group columns.
        spans: as in `load_concept`.
        template: replaces the data set's own, as a text with {text}.
        limit: at most this many examples, as whole groups.
        details: recorded beside the paper's own.

    Raises:
        InputError: an option is unknown, or the table is not this data set.
    """
    chosen = _options(known, options)
    first, second = _lists(known, table, whole=chosen["rows"] == "all")
    picked = table.select([*first, *second])
    questions = texts_of(picked, known.text)
    classes = np.repeat([0, 1], [len(first), len(second)]).astype(np.int64)
    if group is not None:
        found = groups_of(picked, group, classes)
    elif known.group and all(name in picked.columns for name in known.group):
        found = groups_of(picked, known.group, classes)
    else:
        found = grouping.derive_groups(questions, classes)
    texts = questions
    if chosen.get("rationale") == "yes":
        texts = [
            _with_rationale(q, str(t))
            for q, t in zip(questions, picked.column("target", option="text"), strict=True)
        ]
    default = {"own": known.template, "override": known.override, "none": None}[chosen["prompt"]]
    named = [f"{key}={value}" for key, value in options.items()]
    concept = Concept(
        name="-".join(["paper", known.key, *named]),
        inputs=texts,
        labels=classes,
        classes=known.classes,
        groups=grouping.by_content(found.groups, questions, classes.tolist()),
        spans=None if spans is None else spans_of(picked, spans, texts),
        category=known.category,
        template=template if template is not None else default,
        source=f"{known.title} in {CITATION}; {table.where}",
        licence=known.licence,
        details={
            **(details or {}),
            "paper": {"dataset": known.title, "options": chosen, "n_in_paper": known.n},
            "groups": found.details,
        },
    )
    return concept if limit is None else limited(concept, limit)


def _lists(known: PaperDataset, table: Table, *, whole: bool) -> tuple[list[int], list[int]]:
    """The rows of the first and of the second list, in file order."""
    labels = [
        str(value).strip().casefold().removesuffix(".0") for value in table.column(known.label, option="label")
    ]
    lists = []
    for name, values in zip(known.classes, known.lists, strict=True):
        rows = [row for row, label in enumerate(labels) if label in values]
        if not rows:
            raise InputError(
                f"{table.where} has no row of the class {name!r} in column {known.label!r}; "
                f"give the original file {known.files[0]}"
            )
        lists.append(rows if whole else rows[: known.keep])
    return lists[0], lists[1]


def _options(known: PaperDataset, options: Mapping[str, str]) -> dict[str, str]:
    allowed = {"prompt": ("own", "override", "none"), "rows": ("paper", "all")}
    if known.key == "strategyqa":
        allowed["rationale"] = ("yes", "no")
    for key, value in options.items():
        if key not in allowed:
            raise InputError(
                f"paper:{known.key} has no option {key!r}; it has {', '.join(allowed)}: "
                f"write paper:{known.key}:prompt=none, say"
            )
        if value not in allowed[key]:
            raise InputError(f"paper:{known.key}:{key}={value} is not known; give {' or '.join(allowed[key])}")
    return {key: options.get(key, values[0]) for key, values in allowed.items()}


def _with_rationale(question: str, target: str) -> str:
    """The question and the gold answer without its leading "Yes." or "No.": what their code feeds the model."""
    for answer in ("Yes.", "No."):
        if target.startswith(answer):
            target = target.removeprefix(answer).strip()
            break
    return f"{question} {target}"
