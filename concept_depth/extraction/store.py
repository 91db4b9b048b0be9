"""Activations on disk: written in shards while they are made, found again by content, verified on read.

An entry is a folder `activations/<key>` of the cache:

    plan.json                  what is computed in which order: made from content before work starts, never changed
    shard-00000.safetensors …  a tensor (n, D) for each layer, and `examples` (n,): which examples the rows are;
                               in the header the plan that it belongs to and a checksum for each tensor

The key is made of what decides the numbers (the tokens, the network, the layers) and of nothing else: no name, path,
batch size, device or number of processes. The plan is kept because those do change the last bits: whoever goes on with
an entry goes on with its plan, and so ends with the same bytes. Files appear whole or not at all; two processes
that write one shard write the same, and the second replaces the first.

Nothing here knows a network; shapes: U distinct examples, D hidden, n examples of a shard.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from concept_depth import files
from concept_depth.activations import as_numpy
from concept_depth.errors import InputError

FORMAT_VERSION = 3
FOLDER = "activations"
STALE_SECONDS = 3600.0

Units = list[list[int]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is computed in which order.

    Args:
        shards: for each shard its units of work (packs or batches), each a list of example indices.
        costs: for each shard what it costs, in tokens.
        count: U, the number of distinct examples.
        layers: names of the layers.
        settings: how the units are run, JSON-serialisable.
        about: for people: concept, model, site, position, number of examples.
    """

    shards: list[Units]
    costs: list[int]
    count: int
    layers: list[str]
    settings: dict[str, Any]
    about: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A key of everything that decides the bytes of the shards."""
        return files.content_key(self.shards, self.count, self.layers, self.settings)


class Damaged(Exception):  # noqa: N818 - says what a file is
    """A file that is not what was written."""


class Store:
    """One entry; made by `open_store`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self._fingerprint = plan.fingerprint

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def missing(self) -> list[int]:
        """Shards that are still to be computed; damaged ones are named in a warning and count as missing."""
        wanted = []
        for shard in range(len(self.plan.shards)):
            if not self.path(shard).is_file():
                wanted.append(shard)
                continue
            try:
                self.verify(shard)
            except Damaged as error:
                warnings.warn(f"{self.path(shard)} is damaged ({error}); it is computed again", stacklevel=2)
                wanted.append(shard)
        return wanted

    def write(self, shard: int, rows: Mapping[str, torch.Tensor]) -> None:
        """Write a shard: for each layer the (n, D) rows of its units, one after the other."""
        examples = torch.tensor([index for unit in self.plan.shards[shard] for index in unit], dtype=torch.int64)
        tensors = {f"layer/{name}": rows[name].contiguous() for name in self.plan.layers}
        for name, tensor in tensors.items():
            if len(tensor) != len(examples):
                raise ValueError(f"{len(tensor)} rows of {name} for the {len(examples)} examples of shard {shard}")
        tensors["examples"] = examples
        header = {
            "format_version": FORMAT_VERSION,
            "plan": self._fingerprint,
            "shard": shard,
            "sha256": {name: checksum(tensor) for name, tensor in tensors.items()},
        }
        files.write_tensors(self.path(shard), tensors, header)

    def verify(self, shard: int) -> None:
        """Check every tensor of a shard.

        Raises:
            Damaged: it is not what `write` wrote for this plan.
        """
        for name in ("examples", *(f"layer/{name}" for name in self.plan.layers)):
            self._tensor(shard, name)

    def _tensor(self, shard: int, name: str) -> torch.Tensor:
        path = self.path(shard)
        try:
            header = files.read_metadata(path)
            tensor = files.read_tensor(path, name)
        except Exception as error:  # safetensors raises kinds of its own for whatever is not its format
            raise Damaged(str(error).splitlines()[0]) from error
        if header.get("format_version") != FORMAT_VERSION or header.get("plan") != self._fingerprint:
            raise Damaged("it belongs to another plan")
        if header.get("shard") != shard or header["sha256"].get(name) != checksum(tensor):
            raise Damaged(f"checksum of {name} differs")
        return tensor

    def read(self, layer: str) -> npt.NDArray[np.floating[Any]]:
        """The (U, D) matrix of one layer; the other layers are not read.

        Raises:
            InputError: a shard is absent or damaged.
        """
        matrix: npt.NDArray[np.floating[Any]] | None = None
        for shard in range(len(self.plan.shards)):
            try:
                rows = as_numpy(self._tensor(shard, f"layer/{layer}"))
                examples = as_numpy(self._tensor(shard, "examples"))
            except Damaged as error:
                raise InputError(
                    f"{self.path(shard)} is damaged ({error}); run the same command again: that shard alone is "
                    "computed again"
                ) from error
            if matrix is None:
                matrix = np.empty((self.plan.count, rows.shape[1]), dtype=rows.dtype)
            matrix[examples] = rows
        if matrix is None:
            raise InputError(f"{self.folder} holds no shard; run the same command again")
        return matrix


def checksum(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def open_store(cache_dir: str | Path, key: str, make_plan: Callable[[], Plan]) -> Store:
    """The entry of a key; where it is new, with the plan that `make_plan` gives.

    Of several processes that make a plan at once the first wins, and all use its plan.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = files.local_path(cache_dir) / FOLDER / key
    path = folder / "plan.json"
    plan = read_plan(path)
    if plan is None:
        plan = make_plan()
        _publish(path, plan)
        # Another process may have been first; its plan is then the one.
        plan = read_plan(path) or plan
    _touch(path)
    _sweep(folder)
    return Store(folder, plan)


def read_plan(path: Path) -> Plan | None:
    """A plan from its file; None where there is none. A damaged one is named in a warning and put aside.

    Raises:
        InputError: the file is there and may not be read.
    """
    try:
        return plan_in(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a ValueError of names with a NUL character
        raise InputError(
            f"cannot read the cache {path.parent}: {files.reason_of(error)}; give another cache_dir (--cache-dir), "
            "or none (--no-cache)"
        ) from error
    except Damaged as error:
        warnings.warn(f"{path} is damaged ({error}); the plan is made again", stacklevel=2)
        with suppress(OSError):  # where it may not be removed, it may not be written either, and that is told
            path.unlink()
        return None


def plan_in(data: bytes) -> Plan:
    """The plan that a file holds.

    Raises:
        Damaged: it holds something else.
    """
    try:
        stored = json.loads(data.decode("utf-8"))
        plan = Plan(**stored["plan"])
        whole = stored["fingerprint"] == plan.fingerprint and isinstance(plan.about, dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(str(error)) from error
    if not whole:
        raise Damaged("its checksum differs")
    return plan


def _publish(path: Path, plan: Plan) -> None:
    """Write a plan unless there is one already: a hard link to a whole file either succeeds or does not."""
    text = json.dumps({"fingerprint": plan.fingerprint, "plan": asdict(plan)}, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".plan.{os.getpid()}.{time.monotonic_ns()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to the cache {path.parent}: {error.strerror}; give another cache_dir (--cache-dir), or "
            "none (--no-cache)"
        ) from error


def _touch(path: Path) -> None:
    """Note that an entry was used, where the cache may be written."""
    with suppress(OSError):
        os.utime(path)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half written; a file that a living one writes is younger than that."""
    for path in folder.glob(".*.tmp"):
        # Its writer may have finished, another process may have swept it, or the cache may only be read.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def as_shards(units: Sequence[Sequence[int]], bytes_per_example: int, shard_bytes: int) -> list[Units]:
    """Consecutive units in shards of about `shard_bytes`; each holds at least one unit."""
    shards: list[Units] = []
    filled = 0
    for unit in units:
        size = len(unit) * bytes_per_example
        if not shards or filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(list(unit))
        filled += size
    return shards
