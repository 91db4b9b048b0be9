"""Jin et al., "Concept Depth" (COLING 2025), reproduced: their protocol beside the published numbers, and ours.

    python scripts/reproduce_jin2024.py MODEL… --data-dir CD [--concepts NAME …] [--prompt own|override|none]
        [--templates FILE.toml] [--conditions] [--protocol paper|ours|both] [--limit N] [--out runs/jin2024]

MODEL is anything that `concept-depth run` takes; the checkpoints of the paper are google/gemma-{2b,7b},
meta-llama/Llama-2-{7b,13b}-chat-hf, Qwen/Qwen1.5-{0.5,1.8,4,7,14}B. `--data-dir` is a clone of their repository,
or any folder with its raw files. `--conditions` adds their noise and their precisions (6 conditions in all).
All 486 runs of the paper are the sweep scripts/jin2024/plan.toml.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from concept_depth.cli.progress import Bar
from concept_depth.cli.tables import text_table
from concept_depth.cli.wording import as_typed
from concept_depth.depth import converging_layer, jumping_layer
from concept_depth.errors import InputError
from concept_depth.files import default_cache_dir
from concept_depth.measure import Settings
from concept_depth.probing.scores import LayerScores
from concept_depth.sweep import Outcome, Plan, run_sweep

FACTS = Path(__file__).parent / "jin2024"
TITLES = {
    "cities": "Cities",
    "common_claim": "Common",
    "counterfact": "Counterfact",
    "hateeval": "HateEval",
    "stsa": "STSA",
    "imdb": "IMDb",
    "sarcasm": "Sarcasm",
    "strategyqa": "StrategyQA",
    "coinflip": "Coinflip",
}
PUBLISHED_NAMES = {
    "google/gemma-2b": "Gemma-2B",
    "google/gemma-7b": "Gemma-7B",
    "meta-llama/Llama-2-7b-chat-hf": "LLaMA-7B",
    "meta-llama/Llama-2-13b-chat-hf": "LLaMA-13B",
    **{f"Qwen/Qwen1.5-{size}B": f"Qwen-{size}B" for size in ("0.5", "1.8", "4", "7", "14")},
}
CONDITIONS: dict[str, dict[str, Any]] = {
    f"bits{bits}{'-noise' if noise else ''}": {**how, **({"noise": "letters"} if noise else {})}
    for noise in (False, True)
    for bits, how in (
        (32, {"dtype": "float32"}),
        (16, {"dtype": "bfloat16"}),
        (8, {"quantization": "int8"}),
    )
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument(
        "--data-dir", required=True, help="clone of their repository, or a folder with its raw files"
    )
    parser.add_argument("--concepts", nargs="+", choices=TITLES, default=list(TITLES), metavar="NAME")
    parser.add_argument("--prompt", choices=("own", "override", "none"), default="own", help="instruction (own)")
    parser.add_argument("--templates", type=Path, help="TOML file: data set = 'text with {text}'")
    parser.add_argument("--conditions", action="store_true", help="also noise, 16 and 8 bits")
    parser.add_argument("--protocol", choices=("paper", "ours", "both"), default="both")
    parser.add_argument("--limit", type=int, help="at most so many examples a data set")
    parser.add_argument("--out", type=Path, default=Path("runs/jin2024"))
    return parser.parse_args()


def measure(options: argparse.Namespace, protocol: str) -> list[Outcome]:
    """Every model, data set and condition under one protocol; resumes."""
    base: dict[str, Any] = {
        "data_dir": options.data_dir,
        "limit": options.limit,
        "cache_dir": str(default_cache_dir()),
    }
    if protocol == "paper":
        base |= {"protocol": "paper", "site": "mlp_in", "rule": "converge", "references": False}
    templates = _templates(options.templates)
    outcomes: list[Outcome] = []
    # A template belongs to one data set, so each data set with its own template is a plan of its own.
    alike = [name for name in options.concepts if name not in templates]
    parts = [(alike, {})] if alike else []
    parts += [([name], {"template": templates[name]}) for name in options.concepts if name in templates]
    with Bar() as bar:
        for names, changes in parts:
            plan = Plan(
                models=tuple(options.models),
                concepts=tuple(f"paper:{name}:prompt={options.prompt}" for name in names),
                variants=CONDITIONS if options.conditions else {"bits32": CONDITIONS["bits32"]},
                settings=Settings().changed({**base, **changes}, where="reproduce_jin2024"),
            )
            outcomes += run_sweep(plan, out=options.out / protocol, progress=bar, command=" ".join(sys.argv))
    return outcomes


def _templates(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        templates = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read templates from {path}: {error}") from error
    unknown = sorted(set(templates) - set(TITLES))
    if unknown:
        raise InputError(f"{path}: there is no data set {unknown[0]!r}; the data sets are {', '.join(TITLES)}")
    return templates


def row_of(outcome: Outcome, published: Mapping[str, Any], protocol: str) -> list[str]:
    """One line of the table: what was measured, and what they published for this model where they did."""
    name = outcome.job.concept.split(":")[1]
    head = [protocol, outcome.job.model, TITLES[name], outcome.job.variant]
    if outcome.error is not None:
        return [*head, outcome.error, *[""] * 6]
    scores = LayerScores.load(outcome.folder / "scores.safetensors")
    facts = published.get(PUBLISHED_NAMES.get(outcome.job.model, ""), {})
    theirs = [
        f"{100 * facts['peak_accuracy'][TITLES[name]]:.1f}" if facts else "–",
        str(facts["converging_layer"][TITLES[name]]) if facts else "–",
    ]
    accuracy = scores.metric("accuracy").mean(axis=1)
    counts = np.bincount(scores.labels)
    if protocol == "paper":
        jump = jumping_layer(accuracy)
        depth = f"C {converging_layer(accuracy)}, J {jump if jump is not None else 'none'}"
    else:
        found = json.loads((outcome.folder / "record.json").read_text(encoding="utf-8"))
        found = found.get("result", found)["depth"]
        depth = f"{found['verdict']} {'' if found['number'] is None else found['number']}".strip()
    return [
        *head,
        f"{100 * accuracy.max():.1f}",
        theirs[0],
        depth,
        theirs[1],
        f"{100 * accuracy[0]:.1f}",
        f"{100 * counts.max() / counts.sum():.1f}",
        f"{int((np.asarray(scores.converged) < 1).sum())}/{len(accuracy)}",
    ]


def errata(outcomes: list[Outcome]) -> list[str]:
    """What the numbers themselves say against the protocol, a sentence each."""
    found = []
    for outcome in outcomes:
        if outcome.error is not None:
            continue
        scores = LayerScores.load(outcome.folder / "scores.safetensors")
        label = outcome.job.label
        share = scores.audit.get("naive_twin_share")
        if share:
            found.append(
                f"{label}: twin leakage: {100 * share:.0f} % of the test examples have their twin in training"
            )
        accuracy = scores.metric("accuracy").mean(axis=1)
        if accuracy.min() < 0.5:
            layer = scores.names[int(accuracy.argmin())]
            found.append(
                f"{label}: below chance: accuracy {accuracy.min():.3f} at {layer}, the mark of leaking twins"
            )
        share_not = float((np.asarray(scores.converged) < 1).mean())
        if share_not:
            found.append(
                f"{label}: unconverged solver at {100 * share_not:.0f} % of the layers (lbfgs, max_iter=100)"
            )
        if converging_layer(accuracy, as_printed=True) >= len(accuracy) - 1:
            found.append(f"{label}: the printed formula of C names one of the last two layers")
    return found


def main() -> None:
    """Measure, and print the table beside the published numbers."""
    options = parse()
    published = json.loads((FACTS / "published.json").read_text(encoding="utf-8"))
    protocols = ("paper", "ours") if options.protocol == "both" else (options.protocol,)
    try:
        measured = {protocol: measure(options, protocol) for protocol in protocols}
    except InputError as error:
        print(f"reproduce_jin2024: {as_typed(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    head = ["protocol", "model", "data set", "condition", "peak %", "published", "depth", "published C"]
    rows = [row_of(item, published, name) for name, outcomes in measured.items() for item in outcomes]
    print(text_table([*head, "first %", "majority %", "unconverged"], rows))
    if "paper" in measured:
        print("\nErrata that these numbers show (their protocol):")
        print("\n".join(f"- {line}" for line in errata(measured["paper"])) or "- none")
    print(f"\nresults: {options.out}")


if __name__ == "__main__":
    main()
