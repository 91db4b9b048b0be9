"""A file of examples as columns: CSV, TSV, JSON, JSON-lines and Parquet, read whole, with nothing lost.

A `Table` knows neither labels nor groups; `concepts.examples` makes a `Concept` of it. Files are UTF-8, with or
without a byte-order mark. Whatever cannot be read is an `InputError` of one sentence.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError
from concept_depth.files import exists

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
        unreadable: name → reason, of columns that were left out since their values are no texts or numbers.
    """

    columns: Columns
    where: str
    info: Mapping[str, Any]
    unreadable: Mapping[str, str] = field(default_factory=dict)

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
        if name in self.unreadable:
            raise InputError(
                f"column {name!r} of {self.where} cannot be read ({self.unreadable[name]}); "
                f"correct it there, or name another as {option}=…: it has {known}"
            )
        raise InputError(f"{self.where} has no column {name!r}; it has {known}: name one of them as {option}=…")

    def select(self, rows: Sequence[int]) -> Table:
        """The given rows, in that order."""
        picked = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return replace(self, columns=picked)


def read_table(path: Path) -> Table:
    """Read a file by its extension.

    Raises:
        InputError: no such file, a folder, an unknown extension, an empty file, or contents of another form.
    """
    if exists(path, Path.is_dir):
        raise InputError(f"{path} is a folder; give a file in it: {_some_files(path)}")
    reader = _READERS.get(path.suffix.lower())
    if not exists(path):
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
    header, _, rest = text.partition("\n")
    if named := re.fullmatch(r'("?)sep=(.)\1\r?', header):  # Excel's own first line
        delimiter, text = named[2], "\n" + rest  # lines keep their numbers
    else:
        header = text.lstrip().partition("\n")[0]
        # Spreadsheets of half the world write semicolons into .csv files.
        delimiter = ";" if "," not in header and ";" in header else ","
        if "\t" in header and delimiter not in header:
            raise InputError(f"{path.name} looks separated by tabs; name it {path.with_suffix('.tsv').name}")
    strict = _parsed(text, delimiter)
    if not strict.problem:
        return _from_rows(path.name, strict.rows)
    return _forgiving(path.name, text, delimiter, strict)


def _read_tsv(path: Path) -> Table:
    # Some TSV files quote as CSV files do, others let a quote stand for itself: the form that fits is taken. Where
    # both do, a quoted field of several lines is more likely two quotes that have nothing to do with each other.
    text = read_text(path)
    strict, plain = _parsed(text, "\t"), _parsed(text, "\t", quoted=False)
    if not strict.problem and (plain.problem or not strict.several_lines):
        return _from_rows(path.name, strict.rows)
    if not plain.problem:
        return _from_rows(path.name, plain.rows)
    return _forgiving(path.name, text, "\t", strict)


def read_tsv_quoted(path: Path) -> Table:
    """A TSV file whose fields may stand in quotes, unbalanced ones forgiven: as pandas reads it by default."""
    parsed = _parsed(read_text(path), "\t", strict=False)
    if parsed.problem:
        raise InputError(f"{path.name}: {parsed.problem}")
    return _from_rows(path.name, parsed.rows)


def _forgiving(where: str, text: str, delimiter: str, strict: _Parsed) -> Table:
    """Rows with loose quotes ('"So," he said'), unless a quote that is never closed swallowed the rows behind it."""
    parsed = _parsed(text, delimiter, strict=False)
    if parsed.problem or parsed.several_lines:
        raise InputError(f"{where}: {strict.problem}")
    return _from_rows(where, parsed.rows)


@dataclass(frozen=True)
class _Parsed:
    """The rows of a file of separated values, or the first problem; whether any row takes several lines."""

    rows: list[list[str]]
    problem: str
    several_lines: bool


def _parsed(text: str, delimiter: str, *, quoted: bool = True, strict: bool = True) -> _Parsed:
    rows: list[list[str]] = []
    problem, several_lines, begun = "", False, 1
    with _long_fields():
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            strict=strict,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        try:
            for row in reader:
                several_lines |= reader.line_num > begun
                # A line of spaces is no row, unless a single column may hold one.
                if row and (len(row) > 1 or row[0].strip() or (rows and len(rows[0]) == 1)):
                    rows.append(row)
                    if len(row) != len(rows[0]):
                        problem = (
                            f"line {begun} has {len(row)} fields but the header has {len(rows[0])}; "
                            "put texts that hold the separator or line breaks into double quotes"
                        )
                        break
                begun = reader.line_num + 1
        except csv.Error as error:
            problem = (
                f"the row that begins in line {begun} cannot be read ({error}); "
                "close its quotes or double those inside"
            )
    return _Parsed(rows, problem, several_lines)


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
        if line.strip():
            rows.append(_parsed_json(line, f"line {number} of {where} is not JSON", "write one object a line"))
    return _from_objects(where, rows)


def _parsed_json(text: str, problem: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only a JSONDecodeError: brackets may be nested too deep, or a number have too many digits.
        raise InputError(f"{problem} ({str(error).splitlines()[0]}); {advice}") from error


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
        value = _parsed_json(text, f"{path.name} is not JSON", "was it cut short or edited by hand?")
    except InputError as error:
        # Many .json files hold JSON-lines.
        if "\n" in text.strip() and text.lstrip().startswith("{") and "(Extra data" in str(error):
            return _json_lines(path.name, text)
        raise
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
        if not all(isinstance(score, int | float) for score in choices.values()):
            raise InputError(
                f"example {number} of {table.where} has target_scores that are no numbers; "
                'write them as {"yes": 1, "no": 0}'
            )
        labels.append(max(choices, key=lambda choice: choices[choice]))
    columns = {"text": table.columns["input"], "label": labels, **table.columns}
    return Table(columns, table.where, {**table.info, "format": "BIG-bench task"})


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                raise InputError(f"{path.name} has two columns {twice!r}; rename one of them")
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name} is not a Parquet file ({reason}); was it cut short?") from error
    columns, unreadable = {}, {}
    for name in names:
        try:
            columns[name] = [_decoded(value) for value in table.column(name).to_pylist()]
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            # A date out of range, or bytes that are no text: no matter where the column is not asked for.
            unreadable[name] = str(error).splitlines()[0]
    return Table(_named_classes(columns, table.schema.metadata), path.name, {}, unreadable)


def _decoded(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _named_classes(columns: dict[str, list[Any]], metadata: Mapping[bytes, bytes] | None) -> dict[str, list[Any]]:
    """Parquet files of the Hub keep the names of their class numbers in the schema's metadata."""
    try:
        described = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return columns
    features = _inside(_inside(described, "info"), "features")
    for name in features if isinstance(features, dict) else ():
        names = _inside(features[name], "names")
        if name in columns and _inside(features[name], "_type") == "ClassLabel" and isinstance(names, list):
            columns[name] = [_class_called(value, names) for value in columns[name]]
    return columns


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _class_called(value: Any, names: Sequence[str]) -> Any:
    if not isinstance(value, int) or value >= len(names):
        return value
    return names[value] if value >= 0 else None  # −1 is the Hub's word for "not labelled"


_READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
