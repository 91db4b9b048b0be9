"""`LayerScores`: how well a probe reads the concept from each layer, on examples it has not seen.

What a depth is read off, and nothing that needs a network. `score_layers` (in `protocol.py`) makes it.

Shapes: L layers, N examples, K classes, R repeats, F folds, S splits (R × F), P permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.probing.metrics import LOWER_IS_BETTER

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

FORMAT = "concept-depth scores"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Scores of every layer, with all that intervals, nulls and comparisons need.

    Attributes:
        names: L layer names, in order.
        numbers: L layer numbers.
        total: what the numbers are counted against.
        classes: names of the K classes.
        labels: (N,) class indices.
        groups: (N,) group numbers.
        per_fold: metric → (L, S) scores on the S test parts; columns repeat by repeat.
        decision: (L, R, N) decision on each example by the probe that had not seen it: log-odds of class 1, or for
            K > 2 log-probabilities (L, R, N, K); NaN where no split of a repeat tests an example.
        fold: (R, N) which fold of its repeat tests an example; -1 for none.
        repeat: (S,) the repeat of each column of `per_fold`.
        scoring: the metric that depth is read from.
        chance: what the best constant prediction scores on `scoring`.
        null_curves: (P, L) scores with permuted labels, through the same pipeline.
        null_max: (P,) the best of each permutation's curve.
        converged: (L,) share of the layer's reported fits that converged.
        C_chosen: (L, S).
        at_edge: (L,) share of the choices of C at an edge of the grid.
        n_fits: number of logistic problems solved.
        settings: what `score_layers` was given.
        audit: groups, and what a naive split would have leaked (`leaks.py`).
        provenance: where the activations come from.
        separable: for `cv=None`, one mapping a layer (`separability`); else empty.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    total: int
    classes: tuple[str, ...]
    labels: IntArray = field(repr=False)
    groups: IntArray = field(repr=False)
    per_fold: Mapping[str, FloatArray] = field(repr=False)
    decision: npt.NDArray[np.float32] = field(repr=False)
    fold: npt.NDArray[np.int16] = field(repr=False)
    repeat: IntArray = field(repr=False)
    scoring: str
    chance: float
    null_curves: FloatArray = field(repr=False)
    null_max: FloatArray = field(repr=False)
    converged: FloatArray = field(repr=False)
    C_chosen: FloatArray = field(repr=False)
    at_edge: FloatArray = field(repr=False)
    n_fits: int
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    audit: Mapping[str, Any] = field(default_factory=dict, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    separable: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def metric(self, name: str) -> FloatArray:
        """(L, S) scores of one metric on every test part.

        Raises:
            InputError: there is no such metric.
        """
        if name not in self.per_fold:
            raise InputError(f"there is no metric {name!r}; there are {', '.join(self.per_fold)}")
        return self.per_fold[name]

    @property
    def curve(self) -> FloatArray:
        """(L,) the scoring metric, averaged over folds and repeats."""
        return np.asarray(self.per_fold[self.scoring].mean(1))

    @property
    def fractions(self) -> FloatArray:
        """(L,) relative depth of each layer: number / total (0 where the total is 0)."""
        return np.asarray(self.numbers, dtype=np.float64) / max(self.total, 1)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int16]:
        """(L, R, N) predicted class; -1 where no split of a repeat tests an example."""
        if self.decision.ndim == 4:
            tested = np.asarray(np.isfinite(self.decision[..., 0]))
            best = np.nan_to_num(self.decision, neginf=-1e30).argmax(-1)
        else:
            tested = np.isfinite(self.decision)
            best = np.nan_to_num(self.decision) > 0
        return np.where(tested, best, -1).astype(np.int16)

    @property
    def in_sample(self) -> bool:
        """Whether probes were scored on what they were fitted to."""
        return self.settings.get("cv", 5) is None and self.settings.get("protocol") is None

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))

    def __repr__(self) -> str:
        best = self.curve.min() if self.lower_is_better else self.curve.max()
        return (
            f"LayerScores({len(self.names)} layers × {len(self.labels)} examples in {self.n_groups} groups, "
            f"{self.scoring} up to {best:.3f}, chance {self.chance:.3f}, {len(self.null_max)} permutations)"
        )

    @property
    def lower_is_better(self) -> bool:
        """Whether small values of the scoring metric are good."""
        return self.scoring in LOWER_IS_BETTER

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable summary: curves, nulls, convergence, audit, settings; not the examples' decisions."""
        means = {name: _numbers(values.mean(1)) for name, values in self.per_fold.items()}
        return {
            "names": list(self.names),
            "numbers": list(self.numbers),
            "total": self.total,
            "fractions": _numbers(self.fractions),
            "classes": list(self.classes),
            "n_examples": len(self.labels),
            "class_counts": np.bincount(self.labels, minlength=len(self.classes)).tolist(),
            "n_groups": self.n_groups,
            "scoring": self.scoring,
            "chance": self.chance,
            "curves": means,
            "per_fold": {name: [_numbers(row) for row in values] for name, values in self.per_fold.items()},
            "null_max": _numbers(self.null_max),
            "null_curves": [_numbers(row) for row in self.null_curves],
            "converged": _numbers(self.converged),
            "C_chosen": [_numbers(row) for row in self.C_chosen],
            "at_edge": _numbers(self.at_edge),
            "n_fits": self.n_fits,
            "settings": dict(self.settings),
            "audit": dict(self.audit),
            "provenance": dict(self.provenance),
            "separable": [dict(layer) for layer in self.separable],
        }

    def to_pandas(self) -> Any:
        """A pandas data frame with a row for each layer and metric: mean and deviation over the test parts.

        Columns: layer, number, fraction, metric, mean, std.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InputError("pandas is not installed; type 'pip install pandas', or use to_dict()") from error
        rows = [
            {"layer": layer, "number": number, "fraction": fraction, "metric": name, "mean": mean, "std": std}
            for name, values in self.per_fold.items()
            for layer, number, fraction, mean, std in zip(
                self.names, self.numbers, self.fractions, values.mean(1), values.std(1), strict=True
            )
        ]
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Write everything, the examples' decisions too, as one safetensors file with a JSON header."""
        import torch

        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"metric/{name}": values for name, values in self.per_fold.items()}
        header = {name: getattr(self, name) for name in _PLAIN}
        header |= {"format": FORMAT, "format_version": FORMAT_VERSION, "metrics": list(self.per_fold)}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        files.write_tensors(Path(path), tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> LayerScores:
        """Read what `save` wrote.

        Raises:
            InputError: the file is absent, or not of this format and version.
        """
        path = Path(path)
        if not files.exists(path, Path.is_file):
            raise InputError(f"there is no file {path}; give a file that LayerScores.save wrote")
        try:
            header = files.read_metadata(path)
        except Exception as error:  # safetensors raises its own kinds for anything that is not its format
            raise InputError(f"{path} is not a safetensors file ({error})") from error
        if header.get("format") != FORMAT or header.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path} holds no scores of this release; score the layers again")
        tensors = {name: tensor.numpy() for name, tensor in files.read_tensors(path).items()}
        plain: dict[str, Any] = {name: header[name] for name in _PLAIN}
        plain |= {name: tuple(plain[name]) for name in ("names", "numbers", "classes", "separable")}
        metrics = {name: tensors[f"metric/{name}"] for name in header["metrics"]}
        plain |= {name: tensors[name] for name in _ARRAYS}
        return cls(**plain, per_fold=metrics)


_ARRAYS = (
    "labels", "groups", "decision", "fold", "repeat",
    "null_curves", "null_max", "converged", "C_chosen", "at_edge",
)  # fmt: skip
_PLAIN = tuple(item.name for item in fields(LayerScores) if item.name not in (*_ARRAYS, "per_fold"))


def _numbers(values: npt.ArrayLike) -> list[float | None]:
    """A list for JSON, which has no NaN: None stands for it."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64)]


def __getattr__(name: str) -> Any:
    """`score_layers` and `check_settings` may be asked for here too; they stand in `protocol.py`."""
    if name in ("score_layers", "check_settings"):
        from concept_depth.probing import protocol

        return getattr(protocol, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
