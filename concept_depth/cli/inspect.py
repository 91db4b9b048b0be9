"""The commands that look before measuring: concepts, models, layers, tokens, doctor, audit, cache."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from concept_depth.cli import options as o
from concept_depth.cli.tables import text_table
from concept_depth.errors import InputError

if TYPE_CHECKING:
    from concept_depth.subjects.subject import Subject


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command()(concepts)
    app.command()(models)
    app.command(epilog="Example:  concept-depth layers smollm2-135m")(layers)
    app.command(epilog="Example:  concept-depth tokens smollm2-135m cities")(tokens)
    app.command(epilog="Example:  concept-depth doctor smollm2-135m")(doctor)
    app.command(epilog="Example:  concept-depth audit my_examples.csv --label truth")(audit)
    app.command(epilog="Example:  concept-depth cache --prune 30")(cache)


def concepts(
    all_: Annotated[bool, typer.Option("--all", help="Also the known public sets that are not bundled.")] = False,
    data_dir: o.DataDirOption = None,
    json_: o.JsonOption = False,
) -> None:
    """List the concepts that can be named."""
    from concept_depth.concepts.registry import list_concepts

    rows = [asdict(row) for row in list_concepts(data_dir=data_dir)]
    if not all_:
        rows = [row for row in rows if row["kind"] == "bundled"]
    _print_rows(rows, ["name", "kind", "category", "n", "licence", "available"], as_json=json_, key="concepts")


def models(json_: o.JsonOption = False) -> None:
    """List the models that have a short name, and whether they are installed."""
    from concept_depth.subjects.catalogue import list_models

    rows = list_models()
    _print_rows(rows, ["name", "blocks", "hub_id", "available"], as_json=json_, key="models")
    for row in [] if json_ else rows:
        if not row["available"]:
            typer.echo(f"to get {row['name']}: {row['install']}")


def _load(
    model: str, *, dtype: str, device: str, site: str, position: str, quantization: str | None = None, trust: bool
) -> Subject:
    from concept_depth.subjects.huggingface import from_pretrained

    return from_pretrained(
        model,
        dtype=dtype,
        device=device,
        site=site,
        position=o.number_or_word(position),
        quantization=quantization,
        trust_remote_code=trust,
    )


def layers(
    model: o.ModelArgument,
    site: o.SiteOption = "resid_post",
    trust_remote_code: o.TrustOption = False,
    json_: o.JsonOption = False,
) -> None:
    """Show where MODEL is listened to: the name and number of every layer."""
    subject = _load(model, dtype="auto", device="auto", site=site, position="last", trust=trust_remote_code)
    rows = [
        {"number": layer.number, "depth": layer.number / max(subject.total, 1), "name": layer.name}
        for layer in subject.layers
    ]
    if json_:
        typer.echo(json.dumps({"model": subject.describe(), "layers": rows}, indent=1))
        return
    body = [(row["number"], f"{row['depth']:.2f}", row["name"]) for row in rows]
    typer.echo(text_table(["number", "depth", "name"], body))


def tokens(
    model: o.ModelArgument,
    concept: o.ConceptArgument,
    text: o.TextOption = "text",
    label: o.LabelOption = "label",
    group: o.GroupOption = None,
    split: o.SplitOption = None,
    template: o.TemplateOption = None,
    limit: o.LimitOption = None,
    data_dir: o.DataDirOption = None,
    noise: o.NoiseOption = None,
    revision: o.RevisionOption = None,
    position: o.PositionOption = "last",
    chat_template: o.ChatOption = False,
    max_length: o.MaxLengthOption = None,
    trust_remote_code: o.TrustOption = False,
    n: Annotated[int, typer.Option("-n", help="Number of examples.")] = 5,
) -> None:
    """Show the text as MODEL sees it, token by token, with the probed token marked."""
    given = dict(locals())
    from concept_depth.extraction.doctor import tokens as token_view
    from concept_depth.measure import SETTING_NAMES, Settings, load_subject, read_concept

    values = {name: given[name] for name in SETTING_NAMES if name in given}
    settings = Settings().changed({**values, "position": o.number_or_word(position)}, where="")
    loaded = read_concept(concept, settings)
    for line in token_view(load_subject(model, settings), loaded, n=n):
        typer.echo(line)


def doctor(
    model: o.ModelArgument,
    dtype: o.DtypeOption = "auto",
    device: o.DeviceOption = "auto",
    quantization: o.QuantizationOption = None,
    site: o.SiteOption = "resid_post",
    position: o.PositionOption = "last",
    trust_remote_code: o.TrustOption = False,
    json_: o.JsonOption = False,
) -> int:
    """Test MODEL itself, here: is what we extract what the model computes? Exit code 3 when a check fails."""
    from concept_depth.extraction.doctor import doctor as diagnose

    subject = _load(
        model,
        dtype=dtype,
        device=device,
        site=site,
        position=position,
        quantization=quantization,
        trust=trust_remote_code,
    )
    diagnosis = diagnose(subject)
    typer.echo(json.dumps(diagnosis.to_dict(), indent=1) if json_ else str(diagnosis))
    return 0 if diagnosis.healthy else 3


def audit(
    concept: o.ConceptArgument,
    text: o.TextOption = "text",
    label: o.LabelOption = "label",
    group: o.GroupOption = None,
    template: o.TemplateOption = None,
    limit: o.LimitOption = None,
    data_dir: o.DataDirOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Also count the tokens that this model sees.")
    ] = None,
    json_: o.JsonOption = False,
) -> None:
    """Look for what could give CONCEPT's answer away: duplicates, twins, lengths, telling words."""
    from concept_depth.concepts.audit import audit as examine
    from concept_depth.concepts.readers import load_concept

    loaded = load_concept(
        concept, text=text, label=label, group=group, template=template, limit=limit, data_dir=data_dir
    )
    result = examine(loaded)
    found: dict[str, Any] = result.to_dict()
    lines = [str(result)]
    if model is not None:
        subject = _load(model, dtype="auto", device="auto", site="resid_post", position="last", trust=False)
        counts = sorted(len(encoded.ids) for encoded in subject.encode_concept(loaded))
        found["tokens"] = {"min": counts[0], "median": counts[len(counts) // 2], "max": counts[-1]}
        lines.append("tokens per text: {min} to {max}, median {median}".format(**found["tokens"]))
    typer.echo(json.dumps(found, indent=1, ensure_ascii=False) if json_ else "\n".join(lines))


def cache(
    cache_dir: Annotated[Path | None, typer.Option("--cache-dir", help="The cache (default: the user's).")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the checksum of every shard.")] = False,
    prune: Annotated[
        float | None, typer.Option("--prune", metavar="DAYS", help="Delete what was not used for so many days.")
    ] = None,
    json_: o.JsonOption = False,
) -> int:
    """List the stored activations with their sizes; verify or prune them. Exit code 3 when a shard is damaged."""
    from concept_depth.extraction.cache import list_cache, prune_cache, verify_cache
    from concept_depth.files import default_cache_dir, exists, local_path

    if verify and prune is not None:
        raise InputError("--verify and --prune are two jobs; type the command once with each")
    if cache_dir is not None and not exists(local_path(cache_dir), Path.is_dir):
        there = f"{cache_dir} is no folder" if exists(local_path(cache_dir)) else f"there is no folder {cache_dir}"
        raise InputError(f"{there}; give one that a run had as --cache-dir, or none for the user's own")
    folder = cache_dir or default_cache_dir()
    if prune is not None:
        if not 0 <= prune < math.inf:
            raise InputError(f"--prune {prune:g}: give a number of days, 0 or more")
        removed = prune_cache(folder, days=prune)
        typer.echo(json.dumps({"removed": removed}) if json_ else f"removed {len(removed)} entries")
        return 0
    entries = verify_cache(folder) if verify else list_cache(folder)
    columns = ["concept", "model", "site", "position", "examples", "megabytes", "state"]
    _print_rows([entry.to_dict() for entry in entries], columns, as_json=json_, key="entries")
    return 3 if any(entry.state == "damaged" for entry in entries) else 0


def _print_rows(rows: list[dict[str, Any]], columns: list[str], *, as_json: bool, key: str) -> None:
    if as_json:
        typer.echo(json.dumps({key: rows}, indent=1, ensure_ascii=False))
        return
    if not rows:
        typer.echo(f"no {key}")
        return

    def cell(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:.1f}"
        return "–" if value is None else str(value)

    typer.echo(text_table(columns, [[cell(row.get(column)) for column in columns] for row in rows]))
