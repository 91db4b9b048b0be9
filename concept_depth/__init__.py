"""At which layer of a network does a concept become linearly separable?

The public names load lazily: importing the package loads no torch, transformers, datasets, scikit-learn or
matplotlib, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "errors",
    "Concept": "concepts.concept",
    "load_concept": "concepts.readers",
    "audit": "concepts.audit",
    "list_concepts": "concepts.registry",
    "perturb": "concepts.noise",
    "Activations": "activations",
    "Subject": "subjects.subject",
    "from_pretrained": "subjects.huggingface",
    "from_model": "subjects.huggingface",
    "quantize": "subjects.quantize",
    "anchor": "subjects.anchoring",
    "collect": "extraction.collect",
    "collect_references": "extraction.references",
    "score_layers": "probing.protocol",
    "LayerScores": "probing.scores",
    "LogisticProbe": "probing.probe",
    "MassMeanProbe": "probing.probe",
    "separability": "probing.separability",
    "solve_logistic": "probing.logistic",
    "direction_cosines": "probing.directions",
    "find_depth": "depth",
    "Depth": "depth",
    "Comparison": "comparison",
    "compare": "comparison",
    "Report": "reporting.record",
    "Plan": "sweep",
    "read_plan": "sweep",
    "run_sweep": "sweep",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


if "IPython" in sys.modules:
    # Depths and scores stand below reporting and must not know it: a notebook is told here how to show them.
    import_module(f"{__name__}.reporting.notebook").enable()
