"""Concepts × models × variants: plan, check everything first, run, resume.

A *variant* is a named set of settings that differ from the plan's (a noise, a precision, a template, a site), so
that one mechanism serves every condition. Models are loaded once for all jobs that share them. Nothing here knows
how a job is measured; that is `concept_depth.measure`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth import files
from concept_depth.application import save_probe
from concept_depth.checks import check_job
from concept_depth.errors import InputError
from concept_depth.measure import DONE, Settings, Stage, load_subject, measure
from concept_depth.processes import is_main

if TYPE_CHECKING:
    from concept_depth.concepts.concept import Concept


@dataclass(frozen=True)
class Job:
    """One model on one concept under one set of settings; `folder` is where its results go, below `out`."""

    model: str
    concept: str
    variant: str
    settings: Settings
    folder: str

    @property
    def label(self) -> str:
        """How progress and tables name this job."""
        return " · ".join(part for part in (_slug(self.model), _slug(self.concept), self.variant) if part)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Args:
        models: bundled names, Hub ids, folders or .gguf files.
        concepts: anything that `load_concept` takes; "all" stands for every bundled concept.
        variants: name → settings that differ from `settings`; empty for one run with `settings` alone.
        settings: what holds for every job.

    Raises:
        InputError: nothing to do, or two jobs would write to one folder.
    """

    models: tuple[str, ...]
    concepts: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.models or not self.concepts:
            raise InputError("a plan needs at least one model and one concept, as in 'run smollm2-135m cities'")

    def jobs(self) -> tuple[Job, ...]:
        """Every job, in the order in which it runs: jobs that share a loaded model stand together."""
        several_models, several_variants = len(self.models) > 1, len(self.variants) > 1
        jobs: list[Job] = []
        for model in self.models:
            for variant, changes in (self.variants or {"": {}}).items():
                settings = self.settings.changed(changes, where=f"variant {variant!r}")
                for concept in self.concepts:
                    parts = [
                        _slug(model) if several_models else "",
                        _slug(variant) if several_variants else "",
                        _slug(concept),
                    ]
                    folder = "/".join(part for part in parts if part)
                    jobs.append(Job(model, concept, variant, settings, folder))
        first: dict[str, Job] = {}
        for job in jobs:
            if first.setdefault(job.folder, job) is not job:
                raise InputError(_clash(first[job.folder], job))
        return tuple(jobs)


def _clash(one: Job, other: Job) -> str:
    """Why two jobs cannot both write to their folder: they are the same, or a name of theirs is shortened alike."""
    for a, b in ((one.model, other.model), (one.variant, other.variant), (one.concept, other.concept)):
        if os.path.abspath(a) != os.path.abspath(b):
            return (
                f"{a} and {b} would both write to {one.folder!r}; rename one of them, or measure them into folders of "
                "their own"
            )
    return f"two jobs of the plan would write to {one.folder!r}; name each only once"


def read_plan(path: str | Path) -> Plan:
    """A plan from a TOML file: `models`, `concepts`, any setting, and a table `[variants.NAME]` a variant.

    Args:
        path: the file; its keys are `models`, `concepts`, `variants` and the fields of `measure.Settings`.

    Raises:
        InputError: the file is absent, is not TOML, or has a key that is no setting.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f'cannot read the plan {path}: {error.strerror}; give a TOML file with models = ["…"] and concepts = '
            '["…"] in it'
        ) from error
    except ValueError as error:  # no UTF-8, no TOML, a name with a NUL character
        raise InputError(f"{path} is not TOML: {error}") from error
    models, concepts = (_names(data.pop(key, ()), key, path) for key in ("models", "concepts"))
    variants = data.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise InputError(f"{path}: variants are tables, as in '[variants.noisy]' with 'noise = \"letters\"' below")
    settings = Settings().changed(data, where=str(path))
    return Plan(models=models, concepts=concepts, variants=variants, settings=settings)


def _names(value: Any, key: str, path: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InputError(f'{path}: {key} must be a list of names, as in {key} = ["…"]')
    return tuple(value)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its folder with the results, or the sentence that says why there are none.

    Attributes:
        skipped: the results were there already.
        replaced: the folder held results of other examples or settings, which are gone.
    """

    job: Job
    folder: Path
    error: str | None = None
    skipped: bool = False
    replaced: bool = False
    seconds: float = 0.0


Progress = Callable[[Job, int, int, Stage, float], None]


def run_sweep(
    plan: Plan | str | Path,
    *,
    out: str | Path,
    resume: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> list[Outcome]:
    """Measure every job of a plan and write a folder for each below `out`.

    Every concept and model is resolved before the first forward pass. A job whose folder already holds results of
    the same settings and examples is skipped, so a sweep that was stopped goes on where it stood. A job that fails
    does not stop the others.

    Args:
        plan: a `Plan`, or the path of a TOML file.
        out: folder for the results.
        resume: skip what is done; False measures again.
        dry_run: resolve and check everything, measure nothing.
        progress: called as (job, index, number of jobs, stage, fraction of the stage).
        command: what the user typed, for the record.

    Returns:
        One `Outcome` a job, in order.

    Raises:
        InputError: something in the plan cannot be found or does not fit, or a folder holds the results of another
            model, before anything is measured.
    """
    if not isinstance(plan, Plan):
        plan = read_plan(plan)
    plan = replace(plan, concepts=_expand(plan.concepts))
    jobs = plan.jobs()
    concepts = [check_job(job.model, job.concept, job.settings) for job in jobs]
    out = Path(out)
    files.check_writable(out)
    if resume:
        _check_own_folders(jobs, out)
    if dry_run:
        return [
            Outcome(job, out / job.folder, skipped=resume and _is_done(out / job.folder, job, concept))
            for job, concept in zip(jobs, concepts, strict=True)
        ]
    return list(_run(jobs, concepts, out, resume=resume, progress=progress, command=command))


def _run(
    jobs: Sequence[Job],
    concepts: Sequence[Concept],
    out: Path,
    *,
    resume: bool,
    progress: Progress | None,
    command: str,
) -> Iterator[Outcome]:
    import time

    loaded: tuple[Any, Any] | None = None
    for index, (job, concept) in enumerate(zip(jobs, concepts, strict=True)):
        folder = out / job.folder

        def report(stage: Stage, fraction: float, job: Job = job, index: int = index) -> None:
            if progress is not None:
                progress(job, index, len(jobs), stage, fraction)

        started, replaced = time.monotonic(), False
        try:
            if resume and _is_done(folder, job, concept):
                yield Outcome(job, folder, skipped=True)
                continue
            mark = _key(job, concept)
            replaced = resume and _finished(folder).get("key", mark) != mark
            key = (job.model, job.settings.subject_part())
            if loaded is None or loaded[0] != key:
                report(Stage.LOADING, 0.0)
                loaded = None  # the old model goes before the new one comes
                loaded = (key, load_subject(job.model, job.settings))
            measured = measure(loaded[1], concept, job.settings, folder=folder, progress=report, command=command)
            if is_main():
                save_probe(measured, concept, model=job.model, settings=job.settings, folder=folder)
                _finish(folder, job, mark)
        except InputError as error:
            yield Outcome(job, folder, error=str(error), seconds=time.monotonic() - started)
            continue
        yield Outcome(job, folder, replaced=replaced, seconds=time.monotonic() - started)


def _expand(concepts: Sequence[str]) -> tuple[str, ...]:
    """`all` becomes the names of the bundled concepts; repeated names are dropped."""
    from concept_depth.concepts.registry import bundled_names

    names: list[str] = []
    for concept in concepts:
        names.extend(bundled_names() if concept == "all" else [concept])
    return tuple(dict.fromkeys(names))


def _key(job: Job, concept: Concept) -> str:
    """What a result depends on; settings of the cache or the device are left out.

    Files may change under their name, and a name may mean another file elsewhere: local models and adapters stand
    with their content.
    """
    from concept_depth import __version__
    from concept_depth.subjects.source import local_content

    named = (job.model, job.settings.adapter)
    networks = [name if name is None else local_content(name) or name for name in named]
    rest = {name: value for name, value in job.settings.result_part().items() if name != "adapter"}
    return files.content_key(__version__, networks, concept.fingerprint, rest)


def _finish(folder: Path, job: Job, key: str) -> None:
    """Leave in a folder what tells that its results are whole, and of what they are."""
    from concept_depth.subjects.source import local_content

    kinds = (".json", ".safetensors", ".csv", ".html")
    written = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix in kinds}
    about = {"key": key, "model": job.model, "content": local_content(job.model), "folder": job.folder}
    files.write_json(folder / DONE, {**about, "files": written})


def _is_done(folder: Path, job: Job, concept: Concept) -> bool:
    """Whether a folder holds this job's results; where a file is gone or cut short they are measured again."""
    found = _finished(folder)
    return _files_are_whole(folder, found) and found.get("key") == _key(job, concept)


def _files_are_whole(folder: Path, found: Mapping[str, Any]) -> bool:
    """Whether all is there that a job wrote; what programs read in its length, pages and tables may be made anew."""
    written = found.get("files")
    return isinstance(written, dict) and all(
        path.is_file() and (path.suffix not in (".json", ".safetensors") or path.stat().st_size == size)
        for path, size in ((folder / name, size) for name, size in written.items())
    )


def _finished(folder: Path) -> dict[str, Any]:
    """What a finished job left about itself; nothing where there is none, or it is damaged."""
    try:
        found = files.read_json(folder / DONE)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def finished_below(out: Path) -> list[Path]:
    """Folders of whole results that plans wrote for this `out`; those of another one below it are not among them.

    Nor are records of another version, or damaged ones: what was measured today is shown without them.
    """
    marks = [mark for depth in (1, 2, 3) for mark in out.glob("/".join([*"*" * depth, DONE]))]
    found = {mark.parent: _finished(mark.parent) for mark in sorted(marks)}
    own = {folder: about for folder, about in found.items() if out / str(about.get("folder")) == folder}
    return [folder for folder, about in own.items() if _files_are_whole(folder, about) and _is_read(folder)]


def _is_read(folder: Path) -> bool:
    from concept_depth.reporting.record import Report

    try:
        Report.load(folder)
    except InputError:
        return False
    return True


def _check_own_folders(jobs: Sequence[Job], out: Path) -> None:
    """Refuse to write over what was measured on another model: a plan of one model names no folder after it."""
    from concept_depth.subjects.source import local_content

    for job in jobs:
        found = _finished(out / job.folder)
        measured_on = found.get("model", job.model)
        if measured_on == job.model:
            continue
        # One folder has several names: with a slash at its end, or from another place.
        content = local_content(job.model)
        if content is None or found.get("content") != content:
            raise InputError(
                f"{out / job.folder} holds the results of {measured_on}; give another --out for {job.model}, or "
                "--again to write over them"
            )


def _slug(text: str) -> str:
    """A name for a folder: letters, digits, dot, dash and underscore; a path keeps its last part."""
    path = Path(text)
    name = text
    if files.exists(path, Path.is_file):
        name = path.stem
    elif "/" in text and files.exists(path, Path.is_dir):
        name = path.absolute().name
    return re.sub(r"[^\w.=-]+", "_", name).strip("._") or "unnamed"
