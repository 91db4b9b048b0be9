"""The commands that measure: `run` and `sweep`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from concept_depth.cli import options as o
from concept_depth.cli.progress import Bar
from concept_depth.cli.wording import as_typed
from concept_depth.errors import InputError

if TYPE_CHECKING:
    from concept_depth.sweep import Outcome, Plan

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the plan, measure nothing.")
]
ResumeOption = Annotated[bool, typer.Option("--resume/--again", help="Skip what is done, or measure it again.")]
CacheOption = Annotated[
    str | None, typer.Option("--cache-dir", help="Where activations are kept (default: the user's cache folder).")
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep no activations.")]
BatchOption = Annotated[str, typer.Option("--batch-tokens", help="Tokens in a forward pass, or auto.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command(epilog="Example:  concept-depth run smollm2-135m cities capitals --out runs/first")(run)
    app.command(epilog="Example:  concept-depth sweep plan.toml --out runs/sweep")(sweep)


def run(
    model: o.ModelArgument,
    concepts: o.ConceptsArgument,
    out: o.OutOption,
    text: o.TextOption = "text",
    label: o.LabelOption = "label",
    group: o.GroupOption = None,
    split: o.SplitOption = None,
    template: o.TemplateOption = None,
    limit: o.LimitOption = None,
    data_dir: o.DataDirOption = None,
    noise: o.NoiseOption = None,
    revision: o.RevisionOption = None,
    dtype: o.DtypeOption = "auto",
    quantization: o.QuantizationOption = None,
    adapter: o.AdapterOption = None,
    device: o.DeviceOption = "auto",
    site: o.SiteOption = "resid_post",
    position: o.PositionOption = "last",
    chat_template: o.ChatOption = False,
    max_length: o.MaxLengthOption = None,
    trust_remote_code: o.TrustOption = False,
    cv: o.CvOption = "5",
    repeats: o.RepeatsOption = 2,
    c: o.COption = "nested",
    scoring: o.ScoringOption = "balanced_accuracy",
    permutations: o.PermutationsOption = 39,
    protocol: o.ProtocolOption = None,
    seed: o.SeedOption = 0,
    rule: o.RuleOption = "within:0.9",
    min_gain: o.MinGainOption = 0.05,
    references: o.ReferencesOption = True,
    anchoring: o.AnchoringOption = False,
    batch_tokens: BatchOption = "auto",
    cache_dir: CacheOption = None,
    no_cache: NoCacheOption = False,
    resume: ResumeOption = True,
    dry_run: DryRunOption = False,
    json_: o.JsonOption = False,
    quiet: o.QuietOption = False,
    config: o.ConfigOption = None,
) -> int:
    """Measure at which layer of MODEL each CONCEPT becomes linearly separable (the main job)."""
    given = dict(locals())
    from concept_depth.measure import SETTING_NAMES, Settings
    from concept_depth.sweep import Plan

    values = {name: given[name] for name in SETTING_NAMES if name in given}
    values |= {
        "C": o.number_or_word(c),
        "cv": o.number_or_word(cv),
        "position": o.number_or_word(position),
        "batch_tokens": o.number_or_word(batch_tokens),
        "cache_dir": _cache_dir(cache_dir, no_cache),
    }
    settings = Settings().changed(values, where="")
    _check_order(model, concepts)
    plan = Plan(models=(model,), concepts=tuple(concepts), settings=settings)
    return measure_plan(plan, out, resume=resume, dry_run=dry_run, as_json=json_, quiet=quiet)


def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="Models, concepts, settings and variants.")],
    out: o.OutOption,
    cache_dir: CacheOption = None,
    no_cache: NoCacheOption = False,
    resume: ResumeOption = True,
    dry_run: DryRunOption = False,
    json_: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> int:
    """Measure every concept of a plan on every model under every variant; resumes where it stopped."""
    from concept_depth.sweep import read_plan

    read = read_plan(plan)
    settings = replace(read.settings, cache_dir=_cache_dir(cache_dir or read.settings.cache_dir, no_cache))
    return measure_plan(
        replace(read, settings=settings), out, resume=resume, dry_run=dry_run, as_json=json_, quiet=quiet
    )


def _check_order(model: str, concepts: list[str]) -> None:
    """Tell whoever typed a concept in the model's place, and a model in a concept's.

    Raises:
        InputError: it was so.
    """
    from concept_depth.concepts.registry import bundled_names
    from concept_depth.subjects.catalogue import BUNDLED

    models = [concept for concept in concepts if concept in BUNDLED]
    if model in bundled_names() and models:
        rest = shlex.join([models[0], model, *(concept for concept in concepts if concept != models[0])])
        raise InputError(
            f"{model} is a concept and {models[0]} a model; type the model first: concept-depth run {rest}"
        )


def _cache_dir(given: str | None, no_cache: bool) -> str | None:
    from concept_depth.files import default_cache_dir

    return None if no_cache else given or str(default_cache_dir())


def measure_plan(plan: Plan, out: Path, *, resume: bool, dry_run: bool, as_json: bool, quiet: bool) -> int:
    """Run a plan with a bar, write the overview, print the table; gives the exit code."""
    from concept_depth import processes
    from concept_depth.sweep import run_sweep

    main = processes.is_main()
    command = shlex.join(["concept-depth", *sys.argv[1:]])
    with Bar(quiet=quiet or not main) as bar:
        outcomes = run_sweep(plan, out=out, resume=resume, dry_run=dry_run, progress=bar, command=command)
    if not main:
        return 0
    if dry_run:
        _print_plan(outcomes, as_json=as_json)
        return 0
    return _finish(outcomes, out, as_json=as_json)


def _finish(outcomes: list[Outcome], out: Path, *, as_json: bool) -> int:
    from concept_depth.cli import tables
    from concept_depth.reporting.overview import write_overview
    from concept_depth.sweep import finished_below

    measured = [outcome for outcome in outcomes if outcome.error is None]
    rows = [tables.result_row(outcome.folder, outcome.job.variant) for outcome in measured]
    page = write_overview(finished_below(out), out) if measured else None
    if as_json:
        failed = [{"job": item.job.label, "error": as_typed(item.error)} for item in outcomes if item.error]
        typer.echo(json.dumps({"results": rows, "failed": failed}, indent=1, ensure_ascii=False))
    elif rows:
        typer.echo(tables.results_table(rows))
    for item in outcomes:
        if item.error:
            print(f"concept-depth: {item.job.label}: {as_typed(item.error)}", file=sys.stderr)
        elif item.replaced:
            note = "held results of other examples or settings; these have replaced them"
            print(f"concept-depth: {item.folder} {note}", file=sys.stderr)
    if skipped := sum(item.skipped for item in outcomes):
        note = "results were there already (same model, examples and settings); --again measures them anew"
        print(f"concept-depth: {skipped} of {len(outcomes)} {note}", file=sys.stderr)
    if page is not None:
        print(f"report: {page}", file=sys.stderr if as_json else sys.stdout)
    if not measured:
        return 2
    return 3 if len(measured) < len(outcomes) else 0


def _print_plan(outcomes: list[Outcome], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "model": item.job.model,
            "concept": item.job.concept,
            "variant": item.job.variant,
            "folder": str(item.folder),
            "done": item.skipped,
        }
        for item in outcomes
    ]
    if as_json:
        typer.echo(json.dumps({"jobs": rows}, indent=1, ensure_ascii=False))
        return
    for row in rows:
        label = " · ".join(str(row[key]) for key in ("model", "concept", "variant") if row[key])
        typer.echo(f"{'done' if row['done'] else 'to do':<6} {label} → {row['folder']}")
