"""`Activations`: the waist. An ordered mapping layer → (N examples, D hidden) matrix, and its file format.

Above it stand the ways to make activations, below it statistics that have never heard of a network. Layers may
differ in width, and each is read only when asked for, so that one layer of a large model fits where all do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth import files
from concept_depth.errors import InputError

FORMAT = "concept-depth activations"
FORMAT_VERSION = 1

IntArray = npt.NDArray[np.int64]
FloatMatrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, FloatMatrix]):
    """What a network holds at each layer for each example of a concept.

    Args:
        names: L layer names, in order.
        numbers: L layer numbers; a layer's relative depth is number / total.
        total: what the numbers are counted against (the number of blocks d of a language model).
        read: gives the (N, D) matrix of a layer by its name; called each time the layer is asked for.
        labels: N class indices into `classes`.
        classes: names of the classes.
        groups: N group numbers: examples of one group never stand on both sides of a split.
        provenance: where the numbers come from, JSON-serialisable (concept, subject, extraction, groups, …).
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    total: int
    read: Callable[[str], FloatMatrix] = field(repr=False)
    labels: IntArray = field(repr=False)
    classes: tuple[str, ...]
    groups: IntArray = field(repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, layer: str | int) -> FloatMatrix:
        """The (N, D) matrix of a layer, by name or number; bfloat16 comes back as float32.

        Raises:
            KeyError: there is no such layer.
        """
        return self.read(self.name_of(layer))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"Activations({len(self.labels)} examples × {len(self)} layers, "
            f"{self.names[0]} … {self.names[-1]}, classes {', '.join(self.classes)})"
        )

    def _repr_html_(self) -> str:
        """A table for notebooks: what there is, and where it comes from."""
        rows = {
            "layers": f"{len(self)}: {self.names[0]} … {self.names[-1]}",
            "examples": f"{len(self.labels)} in {len(np.unique(self.groups))} groups",
            "classes": ", ".join(
                f"{name} {count}"
                for name, count in zip(
                    self.classes, np.bincount(self.labels, minlength=len(self.classes)), strict=True
                )
            ),
        }
        for part in ("concept", "subject"):
            described = self.provenance.get(part)
            if isinstance(described, Mapping) and "name" in described:
                rows[part] = str(described["name"])
        cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
        return f"<table><caption>Activations</caption>{cells}</table>"

    def name_of(self, layer: str | int) -> str:
        """The name of a layer given by name or number."""
        if layer in self.names:
            return str(layer)
        if layer in self.numbers:
            return self.names[self.numbers.index(layer)]
        raise KeyError(f"no layer {layer!r}; there are numbers {self.numbers[0]} … {self.numbers[-1]}")

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """(L,) relative depth of each layer: number / total (0 where the total is 0)."""
        return np.asarray(self.numbers, dtype=np.float64) / max(self.total, 1)

    def numpy(self) -> npt.NDArray[np.float32]:
        """All layers as one (L, N, D) array; they must have one width.

        Raises:
            InputError: the layers differ in width.
        """
        matrices = [self[name] for name in self.names]
        if len({matrix.shape for matrix in matrices}) > 1:
            raise InputError("the layers differ in width, so they are no single array; ask for one at a time")
        return np.stack(matrices).astype(np.float32, copy=False)

    @classmethod
    def from_arrays(
        cls,
        layers: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike],
        labels: npt.ArrayLike,
        *,
        groups: npt.ArrayLike | None = None,
        classes: Sequence[str] | None = None,
        numbers: Sequence[int] | None = None,
        total: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Activations:
        """Activations from matrices in memory.

        Args:
            layers: (N, D) matrices, in order: a mapping name → matrix, or a sequence (named by their numbers).
            labels: N labels of any sortable kind (numbers, booleans, strings).
            groups: N group labels, or None: every example is a group of its own.
            classes: names of the sorted distinct labels; by default their `str`.
            numbers: numbers of the layers; by default 0 … L − 1.
            total: what the numbers are counted against; by default the last number.
            provenance: recorded as given, with numpy's numbers as plain ones.

        Raises:
            InputError: no layer, lengths that differ, a matrix that is not finite, fewer than two classes, numbers
                that do not rise or exceed the total, a provenance that is no JSON.
        """
        if not isinstance(layers, Mapping | Iterable):
            raise InputError(f"layers must be matrices, one a layer, not {type(layers).__name__}")
        named = dict(layers) if isinstance(layers, Mapping) else {str(i): m for i, m in enumerate(layers)}
        matrices = {str(name): _as_matrix(str(name), matrix) for name, matrix in named.items()}
        if not matrices:
            raise InputError("there is no layer; give at least one matrix of shape (examples, hidden)")
        if len(matrices) < len(named):
            raise InputError(f"layers {list(named)} have names that are written alike; give each its own")
        found, encoded = np.unique(_as_list("labels", labels), return_inverse=True)
        n = len(encoded)
        for name, matrix in matrices.items():
            if len(matrix) != n:
                raise InputError(f"layer {name!r} has {len(matrix)} rows but there are {n} labels")
        group_numbers = (
            np.arange(n) if groups is None else np.unique(_as_list("groups", groups), return_inverse=True)[1]
        )
        if len(group_numbers) != n:
            raise InputError(f"there are {len(group_numbers)} groups for {n} labels; give one for each example")
        names = tuple(str(label) for label in found) if classes is None else tuple(classes)
        if len(set(names)) != len(found) or len(names) != len(found) or len(found) < 2:
            raise InputError(
                f"the labels hold {len(found)} classes and {len(names)} class names; "
                "two or more classes are needed, with a name of its own for each"
            )
        counted = tuple(range(len(matrices))) if numbers is None else tuple(int(number) for number in numbers)
        if len(counted) != len(matrices):
            raise InputError(f"{len(counted)} numbers for {len(matrices)} layers; give one for each")
        if counted[0] < 0 or any(later <= number for number, later in pairwise(counted)):
            raise InputError(f"the layers' numbers {counted} do not rise from 0 or more; give them in their order")
        against = counted[-1] if total is None else int(total)
        if against < counted[-1]:
            raise InputError(f"total={total} is less than the last layer's number {counted[-1]}; leave it out")
        return cls(
            names=tuple(matrices),
            numbers=counted,
            total=against,
            read=matrices.__getitem__,
            labels=encoded.astype(np.int64),
            classes=names,
            groups=group_numbers.astype(np.int64),
            provenance=_as_plain(provenance or {}),
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: a tensor a layer, labels, groups, and the rest as JSON in the header."""
        import torch

        tensors = {f"layer/{name}": torch.from_numpy(np.ascontiguousarray(self[name])) for name in self.names}
        tensors["labels"] = torch.from_numpy(self.labels)
        tensors["groups"] = torch.from_numpy(self.groups)
        header = {
            "format_version": FORMAT_VERSION,
            "names": self.names,
            "numbers": self.numbers,
            "total": self.total,
            "classes": self.classes,
            "provenance": self.provenance,
        }
        files.write_tensors(Path(path), tensors, {"format": FORMAT, **header})

    @classmethod
    def load(cls, path: str | Path) -> Activations:
        """Open what `save` wrote; layers are read when asked for.

        Raises:
            InputError: the file is absent, or not of this format and version.
        """
        path = Path(path)
        if not files.exists(path, Path.is_file):
            raise InputError(f"there is no file {path}; give a file that Activations.save wrote")
        try:
            metadata = files.read_metadata(path)
        except Exception as error:  # safetensors raises its own kinds for anything that is not its format
            raise InputError(f"{path} is not a safetensors file ({error})") from error
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path} holds no activations; give a file that Activations.save wrote")
        if metadata["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {metadata['format_version']}, this release reads {FORMAT_VERSION}; "
                "extract the activations again"
            )

        def read(name: str) -> FloatMatrix:
            tensor = files.read_tensor(path, f"layer/{name}")
            return as_numpy(tensor)

        return cls(
            names=tuple(metadata["names"]),
            numbers=tuple(metadata["numbers"]),
            total=metadata["total"],
            read=read,
            labels=as_numpy(files.read_tensor(path, "labels")),
            classes=tuple(metadata["classes"]),
            groups=as_numpy(files.read_tensor(path, "groups")),
            provenance=metadata["provenance"],
        )


def as_numpy(tensor: Any) -> npt.NDArray[Any]:
    """A torch tensor as numpy, on the CPU; 16-bit floats become float32 (numpy has no bfloat16)."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def _as_list(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    array = as_numpy(values) if hasattr(values, "detach") else np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"the {name} have shape {array.shape}; give a flat list with one for each example")
    missing = sum(_is_missing(value) for value in array.tolist())
    if missing:
        raise InputError(f"{missing} of the {name} are missing (None or NaN); leave these examples out")
    try:
        np.unique(array)
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in array.tolist()}))
        raise InputError(f"the {name} are of several kinds ({kinds}); give them all as one kind") from error
    return array


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA is neither equal nor unequal to itself
        return True


def _as_plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} is none of them")

    try:
        made: dict[str, Any] = json.loads(json.dumps(dict(provenance), default=plain))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"provenance must hold numbers, texts, lists and mappings ({error}); leave the rest out"
        ) from error
    return made


def _as_matrix(name: str, matrix: npt.ArrayLike) -> FloatMatrix:
    try:
        array = as_numpy(matrix) if hasattr(matrix, "detach") else np.asarray(matrix)
    except ValueError as error:  # rows of unlike length
        raise InputError(f"layer {name!r} is no matrix ({error}); give (examples, hidden) numbers") from error
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
        raise InputError(f"layer {name!r} has shape {array.shape}; give a matrix (examples, hidden) of numbers")
    size = array.dtype.itemsize if array.dtype.kind == "f" else 0
    # torch knows neither longer floats nor another order of bytes than the machine's.
    array = array.astype(
        np.float32 if size < 4 else array.dtype.newbyteorder("=") if size <= 8 else np.float64, copy=False
    )
    if not np.isfinite(array).all():
        raise InputError(f"layer {name!r} holds NaN or infinity; leave that layer out or extract in float32")
    return array
