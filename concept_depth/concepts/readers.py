"""`load_concept`: a concept by bundled name, path, `hub:org/name`, `paper:name`, or name of the registry.

The only user of Hugging Face `datasets`, and only for the Hub. How a file becomes columns is in `tables`, how
columns become a concept in `examples`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from concept_depth import files
from concept_depth.concepts import paper, registry
from concept_depth.concepts.concept import Concept
from concept_depth.concepts.examples import Columns, Origin, concept_of
from concept_depth.concepts.registry import bundled_folder as bundled_folder
from concept_depth.concepts.registry import bundled_names as bundled_names
from concept_depth.concepts.tables import Table, read_table, read_text
from concept_depth.errors import InputError, did_you_mean
from concept_depth.files import exists, local_path

OFFLINE = "connect to the network, or download the files and give their path"


def load_concept(
    name_or_path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    group: str | Sequence[str] | None = None,
    split: str | None = None,
    template: str | None = None,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    spans: str | Sequence[str] | None = None,
) -> Concept:
    """Load labelled examples.

    Args:
        name_or_path: one of
            a bundled name ("cities"; "coin_flip:steps=3" keeps the examples whose column `steps` is 3);
            a path to a file .csv, .tsv, .json, .jsonl, .ndjson or .parquet (BIG-bench's task.json too);
            "hub:org/name", "hub:org/name:config", "hub:org/name@revision" for a data set of the Hugging Face Hub;
            "paper:name" for a data set of Jin et al. (see `concepts.paper` for its options);
            a name of the registry (`list_concepts` shows all).
        text: the column of the texts (for files and the Hub; the other kinds know theirs).
        label: the column of the labels: booleans, integers or texts, two classes or more.
        group: the column (or columns) of what belongs together, as the city of a true and a false statement; by
            default the column `group` where it makes usable groups, else groups are derived from the texts
            (`concepts.groups`).
        split: the split of a Hub data set; by default "train", or the only one.
        template: a text with {text} once, put around every example; or the path of a file that holds one; "{text}"
            for none. By default the concept's own.
        limit: at most this many examples, as whole groups drawn at random with a fixed seed.
        data_dir: the folder with the raw files of `paper:` and registry data sets, found at any depth below.
        spans: a column of [start, end] pairs or of words of the text; or two columns, start and end.

    Returns:
        The concept; `details` says which file, split and groups it was made with.

    Raises:
        InputError: there is no such concept, file, column or split, or the examples cannot be used; the message
            says what is allowed.
    """
    name = str(name_or_path)
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no example; give a number of 1 or more")
    columns = Columns(text=text, label=label, group=group, spans=spans)
    given = None if template is None else read_template(template, *_template_names(name))
    folder = None if data_dir is None else local_path(data_dir)
    if name.startswith("hub:"):
        return _from_hub(name, columns, split, given, limit)
    if split is not None:
        raise InputError(f"split={split!r} applies to hub: data sets; {name!r} has no splits: leave split out")
    if name.startswith("paper:"):
        return _from_paper(name, folder, columns, given, limit)
    if isinstance(name_or_path, str):
        stem, bundled = name.partition(":")[0], bundled_folder()
        # Only a name: joined with the path of a folder, pathlib would forget the folder of bundled concepts.
        if bundled is not None and Path(stem).name == stem and exists(bundled / stem / "concept.json"):
            return _from_bundle(bundled / stem, parse_options(name)[1], columns, given, limit)
        if stem in registry.entries():
            return _from_registry(name, folder, columns, given, limit)
    if isinstance(name_or_path, Path) or looks_like_path(name):
        return _from_file(local_path(name), columns, given, limit)
    raise InputError(_unknown(name))


def looks_like_path(name: str) -> bool:
    """Whether a name means a file: it has a folder, an extension, or stands on the disk as a file."""
    return "/" in name or "\\" in name or Path(name).suffix != "" or exists(Path(name), Path.is_file)


def parse_options(name: str) -> tuple[str, dict[str, str]]:
    """Split "coin_flip:steps=3,coins=1" into the name and its options.

    Raises:
        InputError: an option is not of the form key=value.
    """
    stem, colon, rest = name.partition(":")
    options: dict[str, str] = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = part.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise InputError(f"{part!r} in {name!r} is no option; write options as {stem}:key=value,key=value")
        options[key.strip()] = value.strip()
    return stem, options


def _template_names(name: str) -> list[str]:
    """Under which names a file of templates may hold the one for a concept."""
    if name.startswith("hub:"):
        repository = name.removeprefix("hub:").partition("@")[0].partition(":")[0]
        return [f"hub:{repository}", repository, repository.rpartition("/")[2]]
    stem = name.removeprefix("paper:").partition(":")[0]
    return [stem, Path(name).stem] if looks_like_path(name) else [stem]


def read_template(template: str, *concepts: str) -> str:
    """A template given as text, or as a file: plain text with {text}, or JSON or TOML with one for each concept.

    Args:
        template: the text, or the path of the file.
        concepts: names of the concept, of which the first that stands in the file is taken, else "default".

    Raises:
        InputError: the file cannot be read, or holds no template for this concept.
    """
    if "{text}" in template:
        return template
    path = local_path(template)
    if not exists(path, Path.is_file):
        raise InputError(
            f"template {template!r} holds no {{text}} and is no file; write a template such as "
            "'Is this true? {text}', or the path of a file that holds one"
        )
    content = read_text(path)
    if path.suffix.lower() not in (".json", ".toml"):
        return content.replace("\r\n", "\n").removesuffix("\n")
    table = files.read_json(path) if path.suffix.lower() == ".json" else registry.parse_toml(path.name, content)
    by_name = {str(key).casefold(): value for key, value in table.items()} if isinstance(table, dict) else {}
    known = [name.casefold() for name in (*concepts, "default") if name.casefold() in by_name]
    found = by_name[known[0]] if known else None
    if not isinstance(found, str):
        raise InputError(
            f"{path.name} holds no template for {concepts[-1]!r}; it has {', '.join(by_name) or 'none'}: "
            "add one under that name, or under 'default'"
        )
    return found


def _unknown(name: str) -> str:
    bundled = bundled_names()
    known = [*bundled, *(f"paper:{key}" for key in paper.DATASETS), *registry.entries()]
    hint = did_you_mean(name.partition(":")[0].casefold(), known, most=3)
    return (
        f"there is no concept {name!r}; {hint}bundled are {', '.join(bundled) or 'none'}; "
        "or give a path such as data.csv, hub:org/name, paper:name, or a name of the registry"
    )


def _from_file(path: Path, columns: Columns, template: str | None, limit: int | None) -> Concept:
    table = read_table(path)
    origin = Origin(
        name=path.parent.name if path.stem == "task" and path.parent.name else path.stem,
        template=template,
        source=path.name,
        details={"file": path.name, "sha256": files.sha256_of(path), **_notes(table)},
    )
    return concept_of(table, columns, origin, limit=limit)


def _notes(table: Table) -> dict[str, Any]:
    wanted = ("format", "name", "description", "task_prefix")
    return {key: table.info[key] for key in wanted if key in table.info}


def _from_bundle(
    folder: Path, options: Mapping[str, str], columns: Columns, template: str | None, limit: int | None
) -> Concept:
    path = folder / "data.jsonl"
    card = files.read_json(folder / "concept.json")
    table = filtered(read_table(path), options, folder.name)
    if columns.group is None and "group" in table.columns:
        columns = replace(columns, group="group")
    if columns.spans is None and "span" in table.columns:
        columns = replace(columns, spans="span")
    origin = Origin(
        name=concept_name(folder.name, options),
        classes=tuple(str(name) for name in card["classes"]),
        category=card.get("category", ""),
        template=card.get("template") if template is None else template,
        source=card.get("source", ""),
        licence=card.get("licence", ""),
        details={
            "bundled": folder.name,
            "options": dict(options),
            "sha256": files.sha256_of(path),
            **{key: card[key] for key in ("question", "kind") if key in card},
        },
    )
    return concept_of(table, columns, origin, limit=limit)


def concept_name(stem: str, options: Mapping[str, str]) -> str:
    """The name with its options, fit for file names: "coin_flip-steps=3"."""
    return "-".join([stem, *(f"{key}={value}" for key, value in options.items())])


def filtered(table: Table, options: Mapping[str, str], name: str) -> Table:
    """The rows whose columns have the given values.

    Raises:
        InputError: no such column, or no row with that value; the message names what there is.
    """
    for key, value in options.items():
        extra = [column for column in table.columns if column not in ("text", "label", "group", "span")]
        if key not in extra:
            known = ", ".join(extra) or "none"
            raise InputError(f"concept {name!r} has no option {key!r}; it has {known}: write {name}:key=value")
        cells = [str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in table.columns[key]]
        rows = [row for row, cell in enumerate(cells) if cell == value]
        if not rows:
            values = sorted(set(cells), key=lambda cell: (len(cell), cell))
            shown = ", ".join(values[:12]) + (", …" if len(values) > 12 else "")
            raise InputError(f"concept {name!r} has no examples with {key}={value}; give one of {shown}")
        table = table.select(rows)
    return table


def _from_paper(
    name: str, folder: Path | None, columns: Columns, template: str | None, limit: int | None
) -> Concept:
    stem, options = parse_options(name.removeprefix("paper:"))
    dataset = paper.dataset(stem)
    searched = folder or registry.default_data_dir()
    path = None if searched is None else paper.find_file(dataset, searched)
    if path is not None:
        table = paper.read_rows(dataset, path)
    elif dataset.hub and folder is None:
        table = hub_table(dataset.hub, None, dataset.hub_split, None)
    else:
        raise InputError(paper.missing(dataset, searched))
    origin = {} if path is None else {"file": path.name, "sha256": files.sha256_of(path)}
    return paper.concept_from(
        dataset,
        table,
        options,
        group=columns.group,
        spans=columns.spans,
        template=template,
        limit=limit,
        details=origin,
    )


def _from_registry(
    name: str,
    folder: Path | None,
    columns: Columns,
    template: str | None,
    limit: int | None,
) -> Concept:
    stem, options = parse_options(name)
    if options:
        raise InputError(f"{stem!r} takes no options; write {stem} alone")
    entry = registry.entries()[stem]
    searched = folder or registry.default_data_dir()
    path = None if searched is None else registry.find_file(entry, searched)
    if path is not None:
        table = read_table(path)
        origin = {"file": path.name, "sha256": files.sha256_of(path)}
    elif entry.hub and folder is None:
        table = hub_table(entry.hub, entry.hub_config, entry.hub_split, entry.hub_revision)
        origin = {"hub": entry.hub}
    else:
        raise InputError(registry.missing(entry, searched))
    return registry.concept_from(
        entry, table, group=columns.group, spans=columns.spans, template=template, limit=limit, details=origin
    )


def _from_hub(name: str, columns: Columns, split: str | None, template: str | None, limit: int | None) -> Concept:
    repository, revision = name.removeprefix("hub:"), None
    if "@" in repository:
        repository, _, revision = repository.partition("@")
    repository, _, config = repository.partition(":")
    if not repository.strip("/ "):
        raise InputError(
            f"{name!r} names no data set; write hub:org/name, hub:org/name:config or hub:org/name@revision"
        )
    table = hub_table(repository, config or None, split, revision)
    origin = Origin(
        name=repository.rstrip("/").split("/")[-1] + (f"-{config}" if config else ""),
        template=template,
        source=f"https://huggingface.co/datasets/{repository}",
        details={"hub": repository, "config": config or None, "revision": revision, "split": table.info["split"]},
    )
    return concept_of(table, columns, origin, limit=limit)


def hub_table(repository: str, config: str | None, split: str | None, revision: str | None) -> Table:
    """A split of a Hub data set as a table, with class numbers as the names that the data set gives them.

    Raises:
        InputError: `datasets` is not installed, the Hub cannot be reached, or there is no such data set, config or
            split.
    """
    try:
        from datasets import ClassLabel, DatasetDict, load_dataset
        from datasets.exceptions import DatasetsError
        from datasets.features.features import require_decoding
    except ImportError as error:
        raise InputError(f"hub:{repository} needs the package datasets; type pip install datasets") from error
    try:
        loaded = load_dataset(repository, config, revision=revision)
    except (DatasetsError, OSError, ValueError, RuntimeError, KeyError) as error:
        # Unknown names, unknown configs and no network all come as subclasses of these, with long texts.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load hub:{repository} ({reason[:300]}); check the name and config, or {OFFLINE}"
        ) from error
    splits: Mapping[str, Any] = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
    chosen = split or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else None)
    if chosen is None or chosen not in splits:
        given = f"no split {split!r}" if split else "no split 'train'"
        raise InputError(f"hub:{repository} has {given}; it has {', '.join(splits)}: name one as split=…")
    rows = splits[chosen]
    if not len(rows):
        raise InputError(f"split {chosen!r} of hub:{repository} holds no examples; it has {', '.join(splits)}")
    columns: dict[str, list[Any]] = {}
    unreadable: dict[str, str] = {}
    for name, feature in rows.features.items():
        if require_decoding(feature):
            unreadable[name] = f"it holds {type(feature).__name__.lower()}, no text"
            continue
        values = list(rows.select_columns(name)[name])
        if isinstance(feature, ClassLabel):
            values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
        columns[name] = values
    info = {"split": chosen, "json": json.dumps(sorted(splits))}
    return Table(columns, f"hub:{repository}", info, unreadable)
