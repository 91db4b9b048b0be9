"""From a model's name to where it is: a bundled name, a folder, a .gguf file, or the Hub. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.subjects.catalogue import BUNDLED, GgufSource, installed
from concept_depth.subjects.gguf import file_hash


@dataclass(frozen=True)
class Source:
    """Where a named model is: a folder, a .gguf file, or the Hub."""

    name: str
    kind: str
    location: str
    revision: str | None = None
    gguf: GgufSource | None = None


def resolve(name: str, *, revision: str | None = None) -> Source:
    """Find a model by its name, without reading its weights.

    Args:
        name: bundled name, Hub id, folder, or .gguf file.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: there is no such model here, and the Hub does not have it or cannot be reached.
    """
    path = Path(name).expanduser()
    if name.lower().endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"there is no file {name}; give an existing .gguf file")
        return Source(name, "gguf", str(path), gguf=GgufSource(path=path))
    if name in BUNDLED and not path.exists():
        found = installed(BUNDLED[name])
        if found is not None:
            return Source(name, "gguf", BUNDLED[name].hub_id, gguf=found)
        return _on_hub(BUNDLED[name].hub_id, revision, name, hint=f"type: {BUNDLED[name].install}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"the folder {name} holds no config.json; give a folder that save_pretrained wrote")
        return Source(name, "folder", str(path))
    if path.exists():
        raise InputError(f"{name} is neither a model's folder nor a .gguf file; give one of these or a Hub id")
    names = ", ".join(BUNDLED)
    return _on_hub(name, revision, name, hint=f"give a folder, a .gguf file, a Hub id or a bundled name ({names})")


def _on_hub(hub_id: str, revision: str | None, name: str, *, hint: str) -> Source:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.errors import RepositoryNotFoundError as NotFound

    try:
        if isinstance(try_to_load_from_cache(hub_id, "config.json", revision=revision), str):
            return Source(name, "hub", hub_id, revision)
        HfApi().model_info(hub_id, revision=revision, timeout=10)
    except HFValidationError as error:
        raise InputError(f"there is no model {name!r}, and it cannot be a Hub id; {hint}") from error
    except NotFound as error:
        raise InputError(
            f"there is no model {name!r} here, nor one on the Hub that you may read; {hint}"
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(f"there is no model {name!r} here, and the Hub cannot be reached; {hint}") from error
    except Exception as error:
        # The Hub's client passes on the errors of its HTTP library, which are no OSErrors in every release.
        if type(error).__module__.split(".")[0] not in ("httpx", "httpcore", "requests"):
            raise
        raise InputError(f"there is no model {name!r} here, and the Hub cannot be reached; {hint}") from error
    return Source(name, "hub", hub_id, revision)


def local_files_hash(folder: Path) -> str | None:
    """One hash of all weight files of a folder, or None where it holds none."""
    weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt") and p.is_file())
    if not weights:
        return None
    return files.content_key([[path.name, file_hash(path)] for path in weights])
