"""`Report`: one run as data, its files, and the way back.

A run folder holds `record.json` (every number with its origin, unrounded), `views.json` (what only the page shows:
points, texts, directions), `layers.csv` (a row a layer), `depth.csv` (one row), figures and `report.html`.
The record has a deterministic part and a part `run` (time, duration, threads, the command that repeats it); equal
inputs give equal deterministic parts. Nothing is rounded here. Drawing is done in `figures` and `page`.

Shapes: L layers, R repeats, F folds, P permutations, N examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.reporting import tables
from concept_depth.reporting.origin import circumstances, clean, condition_of, noise_of, origin_of

if TYPE_CHECKING:
    from concept_depth.activations import Activations
    from concept_depth.depth import Depth
    from concept_depth.probing.scores import LayerScores

FORMAT = "concept-depth record"
FORMAT_VERSION = 1
PLACES = ("cache_dir", "data_dir", "device")  # settings that name a place and change no number
# What every reader of a record counts on: its parts with what must stand in each, and what stands beside them.
PARTS: Mapping[str, tuple[str, ...]] = {
    "concept": (),
    "subject": (),
    "scores": (
        *("scoring", "chance", "curve", "interval", "null_band", "means", "per_fold"),
        *("converged", "C_chosen", "at_edge", "n_fits"),
    ),
    "depth": (
        *("layer", "number", "total", "fraction", "interval", "interval_numbers", "verdict", "sentence", "text"),
        *("rule", "p", "gain"),
    ),
    "layers": ("names", "numbers", "total", "fractions"),
    "probe": ("scoring",),
    **dict.fromkeys(("extraction", "versions", "references", "audit", "geometry", "extras"), ()),
}
FACTS = ("format_version", "condition", "classes", "n_examples", "n_groups", "anchoring", "paired", "tokens")
SHOWN = ("anchoring", "paired", "tokens", "separability")  # extras that have a place of their own in a record


@dataclass(frozen=True)
class Report:
    """One measurement, ready to be written, read back, drawn and shown.

    Args:
        record: the deterministic part of `record.json`: names, origin, layers, scores, depth, references, audit.
        views: what only the page shows; see `views.build_views`. Empty where activations and texts were not given.
        run: when, how long, with which threads, and the command that repeats it.
        folder: where it was read from; None for a run that was not.
    """

    record: Mapping[str, Any]
    views: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        acts: Activations | None,
        scores: LayerScores,
        depth: Depth,
        *,
        concept: Any = None,
        references: Mapping[str, LayerScores] | None = None,
        extras: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Report:
        """Gather a run.

        Args:
            acts: what `scores` were made from; None leaves out the views that need vectors.
            scores: from `score_layers`.
            depth: from `find_depth`.
            concept: the `Concept` (for its texts and `describe()`), or such a description; None: as recorded.
            references: name → scores of a reference, as given to `find_depth`.
            extras: further JSON-serialisable results, kept as given. The page shows `settings`, `anchoring`,
                `paired` (comparisons), `separability` (a mapping a layer) and `tokens` (lines as those of
                `concept-depth tokens`, or mappings with `tokens`, `rows` and `label`).
            run: what differs between equal runs: `command`, `seconds`, ….
        """
        from concept_depth.reporting.geometry import measure_geometry
        from concept_depth.reporting.views import build_views

        geometry = measure_geometry(acts, scores)
        record = _record(scores, depth, concept, references or {}, extras or {})
        record["geometry"] = geometry.to_dict()
        shown = build_views(scores, depth, geometry, concept)
        return cls(record=clean(record), views=clean(shown), run=clean({**circumstances(), **(run or {})}))

    @property
    def model(self) -> str:
        """Name of the network."""
        return _first(self.record["subject"], ("name", "model", "model_id", "id")) or "unnamed network"

    @property
    def concept(self) -> str:
        """Name of the concept; a noise is part of the `condition`, so that noisy and plain runs stand together."""
        name = _first(self.record["concept"], ("name",)) or "unnamed concept"
        noise = noise_of(self.record["concept"])
        return name.removesuffix(f"+{noise.replace(':', '=')}") if noise else name

    @property
    def condition(self) -> str:
        """What sets this run apart from the plain one (noise, precision, template, site, …); "" for the plain."""
        return str(self.record["condition"])

    @property
    def in_sample(self) -> bool:
        """Whether the scores are of the very examples that the probes were fitted on."""
        return bool(self.record["probe"].get("splits") == "whole sample")

    @property
    def label(self) -> str:
        """Model, concept and condition in one line."""
        return " · ".join(part for part in (self.model, self.concept, self.condition) if part)

    @property
    def depth(self) -> Mapping[str, Any]:
        """The depth, as `Depth.to_dict` gives it."""
        return dict(self.record["depth"])

    @property
    def verdict(self) -> str:
        """found, at_input, never, undefined or unstable."""
        return str(self.record["depth"]["verdict"])

    def curve(self, metric: str | None = None) -> list[float]:
        """Mean over folds of a metric (by default the scoring), one value a layer.

        Raises:
            InputError: the run has no such metric.
        """
        means: dict[str, list[float]] = self.record["scores"]["means"]
        wanted = metric or self.record["scores"]["scoring"]
        if wanted not in means:
            raise InputError(f"{self.label} has no metric {wanted!r}; it has {', '.join(means)}")
        return means[wanted]

    def layer_rows(self) -> list[dict[str, Any]]:
        """One row a layer: name, number, fraction, every metric's mean and standard deviation over folds, …"""
        return [{**self._names, **row} for row in tables.layer_rows(self.record)]

    def depth_row(self) -> dict[str, Any]:
        """The depth as one flat row."""
        return {**self._names, **tables.depth_row(self.record)}

    @property
    def _names(self) -> dict[str, Any]:
        return {"model": self.model, "concept": self.concept, "condition": self.condition}

    def to_pandas(self) -> Any:
        """`layer_rows` as a pandas data frame.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InputError("pandas is not installed; type 'pip install pandas', or use layer_rows()") from error
        return pd.DataFrame(self.layer_rows())

    def save(self, folder: str | Path) -> Path:
        """Write the run folder (made where absent): record, tables, figures, page; each file is whole or absent.

        Returns:
            The path of `report.html`.

        Raises:
            InputError: the folder cannot be written.
        """
        from concept_depth.reporting.figures import save_run_figures
        from concept_depth.reporting.page import write_page

        folder = Path(folder)
        tables.write_csv(folder / "layers.csv", self.layer_rows())
        tables.write_csv(folder / "depth.csv", [self.depth_row()])
        files.write_text(folder / "views.json", tables.compact(self.views) + "\n")
        save_run_figures(self, folder)
        path = write_page([self], folder / "report.html")
        # The record comes last: a folder that has one has everything.
        files.write_json(folder / "record.json", {**self.record, "run": self.run})
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read what `save` wrote.

        Raises:
            InputError: there is no record, or it is not of this format and version.
        """
        path = Path(folder)
        path = path if path.name == "record.json" else path / "record.json"
        if not files.exists(path, Path.is_file):
            raise InputError(f"there is no {path}; give a folder that 'concept-depth run' wrote")
        record = files.read_json(path)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(f"{path} is no record of concept-depth; give a folder that 'concept-depth run' wrote")
        version = record.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {version}, this release reads {FORMAT_VERSION}; "
                "measure again with 'concept-depth run'"
            )
        if lacking := _lacking(record):
            raise InputError(f"{path} has no {lacking}; was it edited by hand? Measure again")
        run = record.pop("run", None) or {}
        views = path.with_name("views.json")
        shown = files.read_json(views) if views.is_file() else {}
        return cls(record=record, views=shown, run=run, folder=path.parent)

    def __repr__(self) -> str:
        return f"Report({self.label}: {self.record['depth']['text']})"

    def _repr_html_(self) -> str:
        from concept_depth.reporting.notebook import report_html

        html: str = report_html(self)
        return html


def load_runs(folders: Iterable[str | Path]) -> list[Report]:
    """The runs in or anywhere below some folders, in the order given and then by path.

    Raises:
        InputError: a folder does not exist or holds no run.
    """
    found: dict[Path, Report] = {}
    for folder in map(Path, folders):
        if not files.exists(folder, Path.is_dir):
            raise InputError(f"there is no folder {folder}; give folders that 'concept-depth run' wrote")
        paths = sorted(folder.rglob("record.json"))
        if not paths:
            raise InputError(f"{folder} holds no run; give folders that 'concept-depth run' wrote")
        for path in paths:
            found.setdefault(path.parent, Report.load(path))
    return list(found.values())


def _lacking(record: Mapping[str, Any]) -> str:
    """The first thing in words that a record has not and tables, figures and pages count on; "" where it has all."""
    for part, keys in PARTS.items():
        if not isinstance(record.get(part), Mapping):
            return part
        for key in keys:
            if key not in record[part]:
                return f"{key} in its {part}"
    return next((key for key in FACTS if key not in record), "")


def _record(
    scores: LayerScores,
    depth: Depth,
    concept: Any,
    references: Mapping[str, LayerScores],
    extras: Mapping[str, Any],
) -> dict[str, Any]:
    """The deterministic part of a record."""
    origin = origin_of(scores, concept)
    rest = {key: value for key, value in extras.items() if key not in SHOWN}
    if isinstance(rest.get("settings"), Mapping):
        rest["settings"] = {key: value for key, value in rest["settings"].items() if key not in PLACES}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **origin,
        "condition": condition_of(origin, rest.get("settings", {})),
        "classes": scores.classes,
        "n_examples": len(scores.labels),
        "class_counts": np.bincount(scores.labels, minlength=len(scores.classes)),
        "n_groups": scores.n_groups,
        "layers": {
            "names": scores.names,
            "numbers": scores.numbers,
            "total": scores.total,
            "fractions": np.asarray(scores.numbers) / max(scores.total, 1),
        },
        "depth": {**depth.to_dict(), "text": str(depth)},
        "scores": _scores(scores, depth),
        "references": {
            name: _reference(reference, depth.above.get(name)) for name, reference in references.items()
        },
        "audit": scores.audit,
        "separability": scores.separable or extras.get("separability", []),
        "anchoring": extras.get("anchoring"),
        "paired": extras.get("paired", []),
        "tokens": extras.get("tokens", []),
        "extras": rest,
    }


def _scores(scores: LayerScores, depth: Depth) -> dict[str, Any]:
    """Everything a layer's score says, with the per-fold values it is the mean of."""
    return {
        "scoring": scores.scoring,
        "chance": scores.chance,
        "curve": scores.curve,
        "interval": depth.curve_interval,
        "null_band": depth.null_band if len(depth.null_band) else None,
        "null_max": scores.null_max,
        "null_curves": scores.null_curves,
        "means": {name: _mean(scores.metric(name)) for name in scores.per_fold},
        "per_fold": {name: scores.metric(name) for name in scores.per_fold},
        "converged": scores.converged,
        "C_chosen": scores.C_chosen,
        "at_edge": scores.at_edge,
        "n_fits": scores.n_fits,
    }


def _reference(reference: LayerScores, above: Any) -> dict[str, Any]:
    """A reference's curve over its own layers, which may be one."""
    return {
        "numbers": reference.numbers,
        "total": reference.total,
        "means": {name: _mean(reference.metric(name)) for name in reference.per_fold},
        "per_fold": reference.metric(reference.scoring),
        "above": above,
        "origin": dict(reference.provenance),
    }


def _mean(values_LS: Any) -> Any:
    """(L,) mean over the folds that have a value; NaN where none has (a test part of one class has no AUROC)."""
    known = np.isfinite(values_LS)
    counts = known.sum(axis=1)
    sums = np.where(known, values_LS, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _first(described: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(described[key]) for key in keys if described.get(key)), "")
