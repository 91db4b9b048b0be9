"""Measure every bundled concept on the bundled models and write the table of depths into datasets/README.md.

    python scripts/measure_bundled.py [--models smollm2-135m gemma3-270m] [--concepts NAME …] [--out runs/bundled]

Goes on where it stopped. The table is written from the records below `--out`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from concept_depth.cli.progress import Bar
from concept_depth.errors import InputError
from concept_depth.files import default_cache_dir, write_text
from concept_depth.measure import Settings
from concept_depth.reporting.record import Report, load_runs
from concept_depth.sweep import Outcome, Plan, run_sweep

README = Path(__file__).resolve().parent.parent / "datasets" / "README.md"
BEGIN, END = "<!-- depths: python scripts/measure_bundled.py -->", "<!-- end of depths -->"


def table(runs: list[Report]) -> str:
    """A row a concept, ordered by mean depth, with a group of columns a model."""
    models = sorted({run.model for run in runs}, reverse=True)
    rows: dict[str, dict[str, Report]] = {}
    for run in runs:
        rows.setdefault(run.concept, {})[run.model] = run

    def order(item: tuple[str, dict[str, Report]]) -> tuple[float, str]:
        depths = [run.depth["fraction"] for run in item[1].values()]
        return sum(2.0 if depth is None else depth for depth in depths) / len(depths), item[0]

    head = ["concept", *(f"{model}: {what}" for model in models for what in ("layer", "depth", "peak")), "lexical"]
    lines = [head, ["---"] * len(head)]
    for concept, measured in sorted(rows.items(), key=order):
        cells = [cell for model in models for cell in cells_of(measured.get(model))]
        lines.append([f"[{concept}]({concept}/README.md)", *cells, lexical(next(iter(measured.values())))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells_of(run: Report | None) -> list[str]:
    """Layer, depth with interval or verdict, and peak."""
    if run is None:
        return ["", "", ""]
    depth: dict[str, Any] = dict(run.depth)
    peak = f"{depth['peak']:.2f}"
    if depth["number"] is None:
        return ["–", depth["verdict"], peak]
    low, high = depth["interval"] or (float("nan"),) * 2
    note = "" if depth["verdict"] == "found" else f", {depth['verdict']}"
    return [
        f"{depth['number']:g} of {depth['total']}",
        f"{depth['fraction']:.2f} ({low:.2f}–{high:.2f}){note}",
        peak,
    ]


def lexical(run: Report) -> str:
    """Balanced accuracy of the reference that reads words alone."""
    reference = run.record["references"].get("lexical")
    return "" if reference is None else f"{max(reference['means']['balanced_accuracy']):.2f}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "gemma3-270m"])
    parser.add_argument("--concepts", nargs="+", default=["all"])
    parser.add_argument("--out", type=Path, default=Path("runs/bundled"))
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    try:
        with Bar() as bar:
            # A folder a model, so that models measured on different days, or side by side, stand together.
            for model in options.models:
                plan = Plan(
                    models=(model,),
                    concepts=tuple(options.concepts),
                    settings=Settings(cache_dir=str(default_cache_dir())),
                )
                command = f"python scripts/measure_bundled.py --models {model}"
                outcomes += run_sweep(plan, out=options.out / model, progress=bar, command=command)
    except InputError as error:
        print(f"measure_bundled: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for outcome in outcomes:
        if outcome.error:
            print(f"measure_bundled: {outcome.job.label}: {outcome.error}", file=sys.stderr)
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_text(README, f"{before}{BEGIN}\n{table(load_runs([options.out]))}\n{END}{after}")


if __name__ == "__main__":
    main()
