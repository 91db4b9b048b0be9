"""A file of examples as columns: CSV, TSV, JSON, JSON-lines and Parquet, read whole, with nothing lost.

A `Table` knows neither labels nor groups; `concepts.examples` makes a `Concept` of it. Files are UTF-8, with or
without a byte-order mark. Whatever cannot be read is an `InputError` of one sentence.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length.

    Args:
        columns: name → values, one for each row.
        where: what is read, for messages ("cities.csv").
        info: what the source says of itself (BIG-bench's task_prefix, the order of class names, …).
    """

    columns: Columns
    where: str
    info: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str, *, option: str) -> Sequence[Any]:
        """The values of a column.

        Args:
            name: the column's name.
            option: which option named it ("text", "label", …), for the message.

        Raises:
            InputError: there is no such column; the message names those there are.
        """
        if name in self.columns:
            return self.columns[name]
        known = ", ".join(repr(column) for column in self.columns)
        raise InputError(f"{self.where} has no column {name!r}; it has {known}: name one of them as {option}=…")

    def select(self, rows: Sequence[int]) -> Table:
        """The given rows, in that order."""
        picked = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return Table(picked, self.where, self.info)


def read_table(path: Path) -> Table:
    """Read a file by its extension.

    Raises:
        InputError: no such file, a folder, an unknown extension, an empty file, or contents of another form.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file in it: {_some_files(path)}")
    reader = _READERS.get(path.suffix.lower())
    if not path.exists():
        raise InputError(f"there is no file {path}; give the path of a file with one of {', '.join(_READERS)}")
    if reader is None:
        raise InputError(
            f"{path.name} has the extension {path.suffix!r}; these can be read: {', '.join(_READERS)}: "
            "save it as one of them"
        )
    table = reader(path)
    if len(table) == 0:
        raise InputError(f"{path.name} holds no examples; give a file with a header and rows")
    return table


def _some_files(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _READERS)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "it holds none that can be read"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark, with line ends as they are.

    Raises:
        InputError: the file cannot be opened, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a file that you may read") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8 text (byte {error.object[error.start]:#04x} at position {error.start}, "
            "perhaps Latin-1 or UTF-16); save it as UTF-8"
        ) from error


def _read_csv(path: Path) -> Table:
    text = read_text(path)
    header = text.partition("\n")[0]
    # Spreadsheets of half the world write semicolons into .csv files.
    delimiter = ";" if "," not in header and ";" in header else ","
    return _delimited(path.name, text, delimiter, [("quoted", True), ("quoted", False)])


def _read_tsv(path: Path) -> Table:
    # Some TSV files quote as CSV files do, others let a quote stand for itself: the form that fits is taken.
    return _delimited(path.name, read_text(path), "\t", [("quoted", True), ("plain", True), ("quoted", False)])


def read_tsv_quoted(path: Path) -> Table:
    """A TSV file whose fields may stand in quotes, unbalanced ones forgiven: as pandas reads it by default."""
    return _delimited(path.name, read_text(path), "\t", [("quoted", False)])


def _delimited(where: str, text: str, delimiter: str, forms: Sequence[tuple[str, bool]]) -> Table:
    """Rows by the first form (quoting, strict) in which every row is as wide as the header."""
    problems = []
    for quoting, strict in forms:
        rows: list[list[str]] = []
        problem = ""
        try:
            with _long_fields():
                reader = csv.reader(
                    io.StringIO(text, newline=""),
                    delimiter=delimiter,
                    strict=strict,
                    quoting=csv.QUOTE_MINIMAL if quoting == "quoted" else csv.QUOTE_NONE,
                )
                for row in reader:
                    if not row:
                        continue
                    rows.append(row)
                    if len(row) != len(rows[0]):
                        problem = (
                            f"line {reader.line_num} has {len(row)} fields but the header has {len(rows[0])}; "
                            "put texts that hold the separator or line breaks into double quotes"
                        )
                        break
        except csv.Error as error:
            problem = f"line {reader.line_num} cannot be read ({error}); close its quotes or double those inside"
        if not problem:
            return _from_rows(where, rows)
        problems.append(problem)
    raise InputError(f"{where}: {problems[0]}")


@contextmanager
def _long_fields() -> Iterator[None]:
    # The limit belongs to the whole process, so it is put back.
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _from_rows(where: str, rows: list[list[str]]) -> Table:
    if not rows:
        raise InputError(f"{where} is empty; give a file with a header and rows")
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(rows[0])]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"the header of {where} names {twice!r} twice; rename one of the two columns")
    return Table({name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}, where, {})


def _read_json_lines(path: Path) -> Table:
    return _json_lines(path.name, read_text(path))


def _json_lines(where: str, text: str) -> Table:
    rows = []
    # Not splitlines(): a text may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(
                f"line {number} of {where} is not JSON ({error.msg}); write one object a line"
            ) from error
    return _from_objects(where, rows)


def _from_objects(where: str, rows: Sequence[Any], info: Mapping[str, Any] | None = None) -> Table:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(
                f"example {number} of {where} is {type(row).__name__}, not an object; "
                'write examples as {"text": …, "label": …}'
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table({name: [row.get(name) for row in rows] for name in names}, where, info or {})


def _read_json(path: Path) -> Table:
    text = read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # Many .json files hold JSON-lines.
        if "\n" in text.strip() and text.lstrip().startswith("{") and error.msg == "Extra data":
            return _json_lines(path.name, text)
        raise InputError(f"{path.name} is not JSON ({error}); was it cut short or edited by hand?") from error
    if isinstance(value, list):
        return _from_objects(path.name, value)
    if isinstance(value, dict):
        rows = next((value[key] for key in ("examples", "data", "rows") if isinstance(value.get(key), list)), None)
        if rows is not None:
            info = {name: entry for name, entry in value.items() if isinstance(entry, str)}
            return _with_choices(_from_objects(path.name, rows, info))
        widths = {len(entry) for entry in value.values() if isinstance(entry, list)}
        if value and len(widths) == 1 and all(isinstance(entry, list) for entry in value.values()):
            return Table(value, path.name, {})
        if "text" in value:
            return _json_lines(path.name, json.dumps(value))
    raise InputError(
        f'{path.name} holds no list of examples; write [{{"text": …, "label": …}}, …] or {{"examples": […]}}'
    )


def _with_choices(table: Table) -> Table:
    """BIG-bench's `task.json`: `text` is the input, `label` the choice with the highest target score."""
    scores = table.columns.get("target_scores")
    if scores is None or "input" not in table.columns:
        return table
    labels = []
    for number, choices in enumerate(scores, start=1):
        if not isinstance(choices, dict) or not choices:
            raise InputError(f"example {number} of {table.where} has no target_scores; remove that example")
        labels.append(max(choices, key=lambda choice: float(choices[choice])))
    columns = {"text": table.columns["input"], "label": labels, **table.columns}
    return Table(columns, table.where, {**table.info, "format": "BIG-bench task"})


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name} is not a Parquet file ({reason}); was it cut short?") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{path.name} has two columns {twice!r}; rename one of them")
    columns = {name: table.column(name).to_pylist() for name in names}
    return Table(_named_classes(columns, table.schema.metadata), path.name, {})


def _named_classes(columns: dict[str, list[Any]], metadata: Mapping[bytes, bytes] | None) -> dict[str, list[Any]]:
    """Parquet files of the Hub keep the names of their class numbers in the schema's metadata."""
    try:
        described = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    except json.JSONDecodeError:
        return columns
    for name, feature in described.get("info", {}).get("features", {}).items():
        names = feature.get("names") if isinstance(feature, dict) else None
        if names and name in columns:
            columns[name] = [None if value is None or value < 0 else names[value] for value in columns[name]]
    return columns


_READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


class Below:
    """The files below a folder, found by their name or the end of their path, upper or lower case alike."""

    def __init__(self, folder: Path) -> None:
        """List the folder once.

        Args:
            folder: where to look, at any depth; hidden folders are left out.

        Raises:
            InputError: there is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; give the folder that holds the raw files as data_dir")
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for root, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                self._by_name.setdefault(name.casefold(), []).append(Path(root, name))

    def find(self, endings: Sequence[str]) -> list[Path]:
        """Files whose path ends with one of `endings` ("cities.csv", "navigate/task.json"), the best first."""
        found = []
        for ending in endings:
            parts = tuple(part.casefold() for part in Path(ending).parts)
            for path in self._by_name.get(parts[-1], ()):
                if tuple(part.casefold() for part in path.parts[-len(parts) :]) == parts:
                    found.append(path)
        return found
