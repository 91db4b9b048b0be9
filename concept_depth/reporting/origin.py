"""Where a run's numbers come from: origin, condition, versions, circumstances; and values as JSON keeps them."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth import __version__

if TYPE_CHECKING:
    from concept_depth.probing.scores import LayerScores

LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")


def origin_of(scores: LayerScores, concept: Any) -> dict[str, Any]:
    """Where the numbers come from: concept, subject, extraction, probe settings, versions."""
    provenance = dict(scores.provenance)
    if concept is not None:
        provenance["concept"] = dict(concept) if isinstance(concept, Mapping) else concept.describe()
    return {
        "concept": provenance.pop("concept", {}),
        "subject": provenance.pop("subject", {}),
        "extraction": provenance.pop("extraction", {}),
        "probe": scores.settings,
        "provenance": provenance,
        "versions": versions(),
    }


def condition_of(origin: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Short words for what is not plain about a run; conditions of one model and concept differ in them."""
    subject, extraction = origin["subject"], origin["extraction"]
    noise = noise_of(origin["concept"]) or settings.get("noise")
    parts = [f"noise {noise}"] if noise else []
    for key in ("quantization", "adapter", "revision"):
        value = settings.get(key) or subject.get(key)
        if value:
            parts.append(str(value))
    if subject.get("dtype", "float32") != "float32":
        parts.append(str(subject["dtype"]))
    for key, plain in (("site", "resid_post"), ("position", "last")):
        value = settings.get(key, subject.get(key, extraction.get(key, plain)))
        if value not in (plain, None):
            parts.append(f"{key} {value}")
    if settings.get("template"):
        parts.append(f"template “{settings['template']}”")
    if settings.get("protocol"):
        parts.append(f"protocol {settings['protocol']}")
    return ", ".join(parts)


def noise_of(concept: Mapping[str, Any]) -> str:
    """What `perturb` did to a concept, or ""."""
    noise = (concept.get("details") or {}).get("noise")
    return str(noise.get("noise", "")) if isinstance(noise, Mapping) else ""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on; read without importing it."""
    found = {"concept-depth": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def circumstances() -> dict[str, Any]:
    """What may differ between equal runs; names no machine and no person."""
    torch = sys.modules.get("torch")  # a report never imports it, but says how many threads it had
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
    }


def clean(value: Any) -> Any:
    """`value` as what JSON gives back: lists, plain numbers, string keys; NaN and infinity become None, and lone
    surrogates, which no UTF-8 file can hold, U+FFFD.
    """
    if isinstance(value, Mapping):
        return {str(clean(str(key))): clean(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return clean(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "to_dict"):
        return clean(value.to_dict())
    return str(value)
