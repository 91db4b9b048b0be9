"""One job, from a named model and concept to a folder of results: the whole pipeline in one place.

`Settings` are the words of the command line and of sweep plans; each wing gets its part of them.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError, did_you_mean
from concept_depth.processes import is_main

if TYPE_CHECKING:
    from concept_depth.activations import Activations
    from concept_depth.concepts.concept import Concept
    from concept_depth.depth import Depth
    from concept_depth.probing.scores import LayerScores
    from concept_depth.subjects.subject import Subject


DONE = "done.json"  # stands in a folder whose results are whole; a sweep writes it


class Stage(enum.Enum):
    """What a job is doing, with the share of its time that it usually takes."""

    LOADING = ("loading", 0.02)
    EXTRACTING = ("extracting", 0.33)
    PROBING = ("probing", 0.50)
    REFERENCES = ("references", 0.13)
    WRITING = ("writing", 0.02)

    @property
    def label(self) -> str:
        """The word shown to a person."""
        return self.value[0]

    @property
    def share(self) -> float:
        """Share of a job's time."""
        return self.value[1]

    def overall(self, fraction: float) -> float:
        """How much of a job is done when `fraction` of this stage is."""
        before = 0.0
        for stage in Stage:
            if stage is self:
                break
            before += stage.share
        return before + self.share * fraction


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set for a job. Names and meanings are those of `load_concept`, `from_pretrained`,
    `collect`, `score_layers` and `find_depth`; `seed` is their `random_state`.
    """

    # the concept
    text: str = "text"
    label: str = "label"
    group: str | None = None
    split: str | None = None
    template: str | None = None
    limit: int | None = None
    data_dir: str | None = None
    noise: str | None = None
    # the subject
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    adapter: str | None = None
    device: str = "auto"
    site: str = "resid_post"
    position: str | int = "last"
    chat_template: bool = False
    max_length: int | None = None
    trust_remote_code: bool = False
    # the extraction
    batch_tokens: int | str = "auto"
    prefix_sharing: bool | str = "auto"
    cache_dir: str | None = None
    # the probing
    cv: int | None = 5
    repeats: int = 2
    C: float | str = "nested"
    scoring: str = "balanced_accuracy"
    standardize: bool | str = True
    permutations: int = 39
    protocol: str | None = None
    seed: int = 0
    # the depth
    rule: str = "within:0.9"
    min_gain: float = 0.05
    references: bool = True
    anchoring: bool = False

    def changed(self, changes: Mapping[str, Any], *, where: str) -> Settings:
        """A copy with some settings changed.

        Args:
            changes: setting → value.
            where: what messages begin with, the file that the changes stand in; nothing for arguments.

        Raises:
            InputError: a key is no setting, or a value is of the wrong kind.
        """
        known = {item.name: str(item.type) for item in dataclasses.fields(self)}
        made: dict[str, Any] = {}
        for given, value in changes.items():
            key = given.replace("-", "_")  # as options are spelled
            if key not in known:
                hint = did_you_mean(key, known)
                raise InputError(
                    f"{where}: there is no setting {given!r}; {hint}the settings are {', '.join(known)}"
                )
            if key in made:
                raise InputError(
                    f"{where}: {key} is given twice, with a dash and with an underscore; leave one out"
                )
            # TOML has no null.
            nothing = isinstance(value, str) and value.lower() == "none" and known[key] == "int | None"
            made[key] = None if nothing else value
            if not _fits(made[key], known[key]):
                kinds = " or ".join(_KINDS[kind] for kind in known[key].split(" | "))
                shown = f"{where}: {given} = {value!r}" if where else f"{given}={value!r}"
                raise InputError(f"{shown} is not allowed; give {kinds}")
        return dataclasses.replace(self, **made)

    def subject_part(self) -> tuple[Any, ...]:
        """The settings that decide which model is loaded and how it is listened to."""
        return (*self._model_arguments().values(), self.site, self.position, self.chat_template, self.max_length)

    def result_part(self) -> dict[str, Any]:
        """The settings that a result depends on: all but where it is computed and kept."""
        left_out = {"cache_dir", "data_dir", "device", "prefix_sharing", "batch_tokens"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    def probing_part(self) -> dict[str, Any]:
        """The arguments of `score_layers`, but for the permutations, which references go without."""
        names = ("cv", "repeats", "C", "scoring", "standardize", "protocol")
        return {**{name: getattr(self, name) for name in names}, "random_state": self.seed}

    def _model_arguments(self) -> dict[str, Any]:
        names = ("revision", "dtype", "quantization", "adapter", "device", "trust_remote_code")
        return {name: getattr(self, name) for name in names}


_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "None": "none",
}


def _fits(value: Any, kind: str) -> bool:
    kinds: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}
    for part in kind.split(" | "):
        if part == "None":
            if value is None:
                return True
        elif isinstance(value, kinds[part]) and (part == "bool" or not isinstance(value, bool)):
            return True
    return False


SETTING_NAMES = tuple(item.name for item in dataclasses.fields(Settings))

Report = Callable[[Stage, float], None]


@dataclass(frozen=True)
class Measurement:
    """What a job gives: activations, scores by layer, and the depth read off them."""

    activations: Activations
    scores: LayerScores
    depth: Depth
    references: Mapping[str, LayerScores]


def read_concept(name: str, settings: Settings) -> Concept:
    """The concept of a job: loaded, and perturbed where the settings name a noise."""
    from concept_depth.concepts.readers import load_concept

    concept = load_concept(
        name,
        text=settings.text,
        label=settings.label,
        group=settings.group,
        split=settings.split,
        template=settings.template,
        limit=settings.limit,
        data_dir=settings.data_dir,
    )
    if settings.noise is not None:
        from concept_depth.concepts.noise import perturb

        concept = perturb(concept, settings.noise, random_state=settings.seed)
    return concept


def load_subject(model: str, settings: Settings) -> Subject:
    """The model of a job, loaded and listened to as the settings say."""
    from concept_depth.subjects.huggingface import from_pretrained

    return from_pretrained(
        model,
        site=settings.site,
        position=settings.position,
        chat_template=settings.chat_template,
        max_length=settings.max_length,
        **settings._model_arguments(),
    )


def measure(
    subject: Subject,
    concept: Concept,
    settings: Settings,
    *,
    folder: Path | None = None,
    progress: Report | None = None,
    command: str = "",
) -> Measurement:
    """Extract, probe, find the depth, and write the folder of results.

    Args:
        subject: from `load_subject`.
        concept: from `read_concept`.
        settings: the same that made the two.
        folder: where results go; None writes nothing.
        progress: called as (stage, fraction).
        command: what the user typed, for the record.

    Raises:
        InputError: something in the data or settings does not fit.
    """
    from concept_depth.depth import find_depth
    from concept_depth.extraction.collect import collect
    from concept_depth.probing.protocol import score_layers

    started = time.monotonic()
    report = progress or (lambda _stage, _fraction: None)

    def counted(stage: Stage) -> Callable[[float, float], None]:
        return lambda done, total: report(stage, done / total if total else 1.0)

    probing = settings.probing_part()
    report(Stage.EXTRACTING, 0.0)
    acts = collect(
        subject,
        concept,
        batch_tokens=settings.batch_tokens,
        prefix_sharing=settings.prefix_sharing,
        cache_dir=settings.cache_dir,
        progress=counted(Stage.EXTRACTING),
    )
    report(Stage.PROBING, 0.0)
    scores = score_layers(acts, permutations=settings.permutations, progress=counted(Stage.PROBING), **probing)
    references: dict[str, LayerScores] = {}
    # Scored on what they were fitted to, wide references always win.
    if settings.references and settings.protocol is None and settings.cv is not None:
        references = _score_references(subject, concept, probing, report)
    depth = find_depth(scores, rule=settings.rule, references=references, min_gain=settings.min_gain)
    report(Stage.WRITING, 0.0)
    measured = Measurement(acts, scores, depth, references)
    if folder is not None and is_main():
        run = {"command": command, "seconds": time.monotonic() - started}
        _write(measured, subject, concept, settings, folder=folder, run=run)
    report(Stage.WRITING, 1.0)
    return measured


def _score_references(
    subject: Subject, concept: Concept, probing: Mapping[str, Any], report: Report
) -> dict[str, LayerScores]:
    """Scores of what needs no trained network: embeddings, words, random weights; same folds, no permutations."""
    from concept_depth.extraction.references import collect_references
    from concept_depth.probing.protocol import score_layers

    report(Stage.REFERENCES, 0.0)
    references = collect_references(subject, concept)
    scored: dict[str, LayerScores] = {}
    for index, (name, acts) in enumerate(references.items()):
        scored[name] = score_layers(acts, permutations=0, **probing)
        report(Stage.REFERENCES, (index + 1) / len(references))
    return scored


def _write(
    measured: Measurement,
    subject: Subject,
    concept: Concept,
    settings: Settings,
    *,
    folder: Path,
    run: Mapping[str, Any],
) -> None:
    from concept_depth.reporting.record import Report

    # Until the new results are whole, the folder does not pass for done.
    (folder / DONE).unlink(missing_ok=True)
    extras: dict[str, Any] = {"settings": asdict(settings)}
    if concept.is_text:
        from concept_depth.extraction.doctor import tokens

        extras["tokens"] = tokens(subject, concept, n=4)
    if settings.anchoring:
        from concept_depth.subjects.anchoring import anchor

        extras["anchoring"] = anchor(subject, concept).to_dict()
    Report.of(
        measured.activations,
        measured.scores,
        measured.depth,
        concept=concept,
        references=measured.references,
        extras=extras,
        run=run,
    ).save(folder)
    measured.scores.save(folder / "scores.safetensors")
