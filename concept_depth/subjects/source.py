"""From a model's name to where it is: a bundled name, a folder, a .gguf file, or the Hub. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concept_depth import files
from concept_depth.errors import InputError, did_you_mean
from concept_depth.subjects.catalogue import BUNDLED, GgufSource, installed
from concept_depth.subjects.gguf import file_hash

# Kinds of files that models, tokenizers and adapters are read from.
_READ = {".safetensors", ".bin", ".pt", ".gguf", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py"}


@dataclass(frozen=True)
class Source:
    """Where a named model is: a folder, a .gguf file, or the Hub."""

    name: str
    kind: str
    location: str
    revision: str | None = None
    gguf: GgufSource | None = None


def resolve(
    name: str,
    *,
    revision: str | None = None,
    subfolder: str = "",
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Source:
    """Find a model by its name, without reading its weights.

    Args:
        name: bundled name, Hub id, folder, or .gguf file.
        revision: branch, tag or commit on the Hub.
        subfolder: where in the folder or repository the model is.
        token: of the Hub; by default the one that is stored.
        cache_dir: where files of the Hub are kept; by default in its own cache.

    Raises:
        InputError: there is no such model here, and the Hub does not have it or cannot be reached.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{name!r} names no model; give a folder, a .gguf file, a Hub id or a bundled name")
    path = files.local_path(name)
    if name.lower().endswith(".gguf"):
        if not files.exists(path, Path.is_file):
            raise InputError(f"there is no file {name}; give an existing .gguf file")
        return Source(name, "gguf", str(path), gguf=GgufSource(path=path))
    if name in BUNDLED and not files.exists(path):
        found = installed(BUNDLED[name])
        if found is not None:
            return Source(name, "gguf", BUNDLED[name].hub_id, gguf=found)
        hint = f"type: {BUNDLED[name].install}"
        return _on_hub(BUNDLED[name].hub_id, revision, name, subfolder, token, cache_dir, hint=hint)
    if files.exists(path, Path.is_dir):
        place = path / subfolder
        if not files.exists(place / "config.json", Path.is_file):
            raise InputError(f"the folder {place} holds no config.json; give a folder that save_pretrained wrote")
        return Source(name, "folder", str(path))
    if files.exists(path):
        raise InputError(f"{name} is neither a model's folder nor a .gguf file; give one of these or a Hub id")
    meant = did_you_mean(name, BUNDLED)
    hint = f"{meant}give a folder, a .gguf file, a Hub id or a bundled name ({', '.join(BUNDLED)})"
    return _on_hub(name, revision, name, subfolder, token, cache_dir, hint=hint)


def _on_hub(
    hub_id: str,
    revision: str | None,
    name: str,
    subfolder: str,
    token: str | bool | None,
    cache_dir: str | Path | None,
    *,
    hint: str,
) -> Source:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFound

    try:
        config = Path(subfolder, "config.json").as_posix()
        if isinstance(try_to_load_from_cache(hub_id, config, cache_dir=cache_dir, revision=revision), str):
            return Source(name, "hub", hub_id, revision)
        HfApi(token=token).model_info(hub_id, revision=revision, timeout=10)
    except HFValidationError as error:
        raise InputError(f"there is no model {name!r}, and it cannot be a Hub id; {hint}") from error
    except NotFound as error:
        raise InputError(
            f"there is no model {name!r} here, nor one on the Hub that you may read; {hint}"
        ) from error
    except Exception as error:
        # No network, a proxy, a certificate, the Hub's own troubles: which class each has changes from release to
        # release of its client and of the HTTP library below.
        raise InputError(f"there is no model {name!r} here, and the Hub cannot be reached; {hint}") from error
    return Source(name, "hub", hub_id, revision)


def local_content(name: str) -> str | None:
    """One hash of the files that a local model or adapter is read from, tokenizer included; None for all others."""
    path = files.local_path(name)
    try:
        if files.exists(path, Path.is_file):
            return file_hash(path)
        if not files.exists(path, Path.is_dir):
            return None
        read = sorted(part for part in path.iterdir() if part.suffix in _READ and part.is_file())
        return files.content_key([[part.name, file_hash(part)] for part in read])
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename or name}: {files.reason_of(error)}; make it readable"
        ) from error


def local_files_hash(folder: Path) -> str | None:
    """One hash of all weight files of a folder and of its own code, or None where it holds no weights."""
    weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt") and p.is_file())
    if not weights:
        return None
    return files.content_key([[path.name, file_hash(path)] for path in (*weights, *sorted(folder.glob("*.py")))])
