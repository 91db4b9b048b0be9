"""Files that are either whole or absent: atomic writes, checksums, paths as users write them, and the only user of
safetensors.

Knows nothing of concepts, networks or statistics; both sides of the waist may use it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError

if TYPE_CHECKING:
    import torch


def local_path(name: str | Path) -> Path:
    """A path as the user wrote it, with ~ for the home folder.

    Raises:
        InputError: it names the home of a user who does not exist.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name} names the home folder of no user here; write the whole path") from error


def exists(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether a path is there, and of a kind (`Path.is_file`, `Path.is_dir`); one that no path can be is not."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False  # a name too long, a folder that may not be entered


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step, on error it is removed.

    Raises:
        InputError: the folder cannot be made or written, or has no room.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except (OSError, ValueError) as error:  # a ValueError of names with a NUL character
        raise InputError(
            f"cannot write to {path.parent}: {reason_of(error)}; name a folder that you may write to"
        ) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; results are as readable as the user's own files.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room there, or name another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def reason_of(error: OSError | ValueError) -> str:
    """Why a path could not be used, without the path."""
    return getattr(error, "strerror", None) or str(error)


def check_writable(folder: Path) -> None:
    """Raise an InputError where `folder` cannot be made or written, without making it."""
    place = folder.absolute()
    while True:
        try:
            place.stat()
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except (OSError, ValueError) as error:  # no name for a file, a folder that may not be entered
            raise InputError(f"cannot write to {folder}: {reason_of(error)}; name another folder") from error
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {place} is no folder that you may write to; name another")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, with or without a byte-order mark.

    Raises:
        InputError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers or brackets without end
        raise InputError(f"{path} is not JSON ({error}); was it cut short or edited by hand?") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_key(*parts: Any) -> str:
    """A short, stable key (32 hexadecimal digits) of JSON-serialisable `parts`, for naming files by content."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write named tensors and JSON `metadata` as one safetensors file, atomically; same content, same bytes.

    All metadata stand under one key of the header: safetensors writes several keys in random order.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    packed = {"metadata": json.dumps(dict(metadata or {}), ensure_ascii=False)}
    with atomic_path(path) as temporary:
        try:
            save_file(_unshared(tensors), temporary, metadata=packed)
        except SafetensorError as error:  # it wraps the system's own errors
            raise OSError(str(error)) from error


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors without common memory, which safetensors refuses."""
    seen: set[int] = set()
    owned: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        owned[name] = tensor
    return owned


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """Read one tensor of a safetensors file, without reading the others."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a safetensors file."""
    from safetensors.torch import load_file

    return load_file(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write_tensors` stored; cheap, since only the header is read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        packed: dict[str, Any] = json.loads((file.metadata() or {}).get("metadata", "{}"))
    return packed


def default_cache_dir() -> Path:
    """Where activations and converted models are kept: $CONCEPT_DEPTH_CACHE, else the user's cache folder."""
    given = os.environ.get("CONCEPT_DEPTH_CACHE")
    if given:
        return local_path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (local_path(base) if base else Path.home() / ".cache") / "concept_depth"
