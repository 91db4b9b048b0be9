"""Extraction side by side, in one run: ours, length-sorted batches with output_hidden_states, one text at a time.

    python scripts/bench_collect.py [MODEL] [CONCEPT…] [--template "… {text}"] [--limit 1496] [--sample 200]
                                    [--threads 2] [--device cpu] [--repeats 1] [--json FILE]

The ways:

- *ours*: `collect`, everything included (tokens, plan, the check of the tree), activations in memory.
- *sorted batches*: batches of 64 texts of like length, padded, `output_hidden_states=True`, last rows kept.
- *one at a time*: each text through the whole causal LM with its logits, the last row of each hidden state kept:
  the way of the paper's code.

The slow ways run on `--sample` texts drawn evenly over the sorted lengths; texts per second do not depend on how
many. *Linear* is the speed of the model's own linear layers alone, on as many rows as a pack of ours has, and the
share is ours against it, counted in tokens that were computed: of the packs (or batches) alone, and of everything,
with the tokenizer, the plan, and the check that a tree is right, which a small concept feels most. Each way runs in
a process of its own, for its peak memory. On a busy machine give `--threads 1 --clock cpu`: seconds of the processor
instead of the wall's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from concept_depth.errors import InputError

now = time.perf_counter
WAYS = ("ours", "sorted batches", "one at a time")


def main() -> None:
    """Run every way in a process of its own and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("concepts", nargs="*", default=["cities"])
    parser.add_argument("--template", default="Judge the statement is True or False. {text}")
    parser.add_argument("--limit", type=int, default=None, help="at most so many examples (whole groups)")
    parser.add_argument("--sample", type=int, default=200, help="texts for the slow ways")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu, cuda, …")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--repeats", type=int, default=1, help="rounds; the best of each way counts")
    parser.add_argument("--batch-tokens", default="auto", help="tokens of our packs or batches")
    parser.add_argument("--ways", default=",".join(WAYS), help="some of the ways, divided by commas")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print("RESULT " + json.dumps(measure(options, options.one, options.concepts[0])))
        return
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for concept in options.concepts:
        for _ in range(options.repeats):
            for way in options.ways.split(","):
                found = in_process(options, way, concept)
                known = results.setdefault(concept, {}).get(way)
                if known is None or found["texts_per_second"] > known["texts_per_second"]:
                    results[concept][way] = found
    print(table(options, results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def in_process(options: argparse.Namespace, way: str, concept: str) -> dict[str, Any]:
    """The figures of one way on one concept, measured in a fresh process."""
    command = [sys.executable, __file__, options.model, concept, "--one", way, "--template", options.template]
    command += ["--sample", str(options.sample), "--threads", str(options.threads)]
    command += ["--batch-tokens", str(options.batch_tokens), "--clock", options.clock]
    command += ["--device", options.device, "--dtype", options.dtype]
    command += [] if options.limit is None else ["--limit", str(options.limit)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode == 2:
        print(done.stderr.splitlines()[-1], file=sys.stderr)
        raise SystemExit(2)
    if done.returncode or not lines:
        raise SystemExit(f"{way} on {concept} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def measure(options: argparse.Namespace, way: str, name: str) -> dict[str, Any]:
    """Texts and tokens per second, and peak memory, of one way."""
    import dataclasses

    import torch

    import concept_depth as cd

    global now
    torch.set_num_threads(options.threads)
    now = time.process_time if options.clock == "cpu" else time.perf_counter
    concept = cd.load_concept(name)
    if options.limit is not None:
        concept = concept.take(options.limit)
    if concept.template is None and options.template:
        concept = dataclasses.replace(concept, template=options.template)
    subject = cd.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    encoded = subject.encode_concept(concept)
    warm(subject, encoded)
    run = {"ours": run_ours, "sorted batches": run_sorted, "one at a time": run_single}[way]
    figures = run(subject, concept, sorted(encoded, key=lambda e: len(e.ids)), options)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def warm(subject: Any, encoded: list[Any]) -> None:
    """One small pass, so that no way pays for what is made at first use."""
    import torch

    with torch.inference_mode():
        for example in encoded[:2]:
            subject.module(input_ids=torch.tensor([example.ids], device=subject.device), use_cache=False)


@contextmanager
def timed_packs() -> Iterator[list[float]]:
    """The seconds of each pack of trees, or batch, that `collect` runs meanwhile."""
    from concept_depth.extraction import plan, prefix, tree_forward

    seconds: list[float] = []

    def timed(function: Any) -> Any:
        def run(*args: Any) -> Any:
            start = now()
            found = function(*args)
            seconds.append(now() - start)
            return found

        return run

    with ExitStack() as stack:
        for place, name in ((tree_forward.TreeRunner, "run"), (prefix.PrefixRunner, "run"), (plan, "run_batch")):
            stack.enter_context(patch.object(place, name, timed(getattr(place, name))))
        yield seconds


def run_ours(subject: Any, concept: Any, encoded: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """`collect`, with the speed of the linear layers alone just before and after."""
    import concept_depth as cd

    budget = options.batch_tokens if options.batch_tokens == "auto" else int(options.batch_tokens)
    before = linear_speed(subject, 1024)
    start = now()
    with timed_packs() as packs:
        acts = cd.collect(subject, concept, progress=False, batch_tokens=budget)
    seconds = now() - start
    extraction = acts.provenance["extraction"]
    linear = (before + linear_speed(subject, extraction["batch_tokens"])) / 2
    tokens = extraction["tokens"]
    computed = {
        "tree": extraction["distinct_tokens"],
        "prefix": tokens - extraction.get("prefix", {"tokens": 0})["tokens"] * (extraction["distinct_texts"] - 1),
        "plain": tokens,
    }[extraction["path"]]
    return {
        "texts_per_second": len(concept) / seconds,
        "tokens_per_second": tokens / seconds,
        "computed": computed,
        "path": extraction["path"],
        "share": computed / seconds / linear,
        "packs_share": computed / sum(packs) / linear,
        "gflops": 2 * linear_parameters(subject) * linear / 1e9,
    }


def sampled(encoded: list[Any], count: int) -> list[Any]:
    """Texts spread evenly over the sorted lengths."""
    step = max(1, len(encoded) // count)
    return encoded[step // 2 :: step]


def run_sorted(subject: Any, concept: Any, encoded: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Batches of 64 neighbours by length; of a sample, whole batches evenly spaced."""
    import torch

    from concept_depth.subjects.subject import token_batch

    batches = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    step = max(1, len(batches) * 64 // max(options.sample, 64))
    batches = batches[step // 2 :: step]
    start, texts, tokens, kept = now(), 0, 0, []
    for batch in batches:
        ids, mask = token_batch(batch, subject.pad_id)
        with torch.inference_mode():
            states = subject.module(
                input_ids=ids.to(subject.device),
                attention_mask=mask.to(subject.device),
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
        last = mask.sum(1) - 1
        kept.append(torch.stack([state[torch.arange(len(batch)), last] for state in states]).cpu())
        texts += len(batch)
        tokens += sum(len(example.ids) for example in batch)
    seconds = now() - start
    return {"texts_per_second": texts / seconds, "tokens_per_second": tokens / seconds, "computed": tokens}


def run_single(subject: Any, concept: Any, encoded: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """One text after the other through the whole model, with logits for every token."""
    import torch

    few = sampled(encoded, options.sample)
    kept = []
    start = now()
    for example in few:
        with torch.inference_mode():
            output = subject.model(
                input_ids=torch.tensor([example.ids], device=subject.device), output_hidden_states=True
            )
        kept.append(torch.stack([state[0, -1] for state in output.hidden_states]).cpu())
    seconds = now() - start
    tokens = sum(len(example.ids) for example in few)
    return {"texts_per_second": len(few) / seconds, "tokens_per_second": tokens / seconds, "computed": tokens}


def linear_layers(subject: Any) -> list[Any]:
    """The linear layers of the base model, in order (GPT-2's kind included)."""
    return [part for part in subject.module.modules() if type(part).__name__ in ("Linear", "Conv1D")]


def linear_parameters(subject: Any) -> int:
    """Weights of the linear layers."""
    return sum(part.weight.numel() for part in linear_layers(subject))


def linear_speed(subject: Any, rows: int) -> float:
    """Tokens per second through the model's own linear layers alone, in order, on so many rows: best of three."""
    import torch

    layers = linear_layers(subject)
    widths = {
        layer.weight.shape[1] if type(layer).__name__ == "Linear" else layer.weight.shape[0] for layer in layers
    }
    dtype = layers[0].weight.dtype
    inputs = {width: torch.randn(1, rows, width).to(subject.device, dtype) for width in widths}
    best = float("inf")
    with torch.inference_mode():
        for _ in range(3):
            start = now()
            for layer in layers:
                width = layer.weight.shape[1] if type(layer).__name__ == "Linear" else layer.weight.shape[0]
                layer(inputs[width])
            if subject.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, now() - start)
    return rows / best


def where(options: argparse.Namespace) -> str:
    """The device and its precision, or the threads and the clock of a CPU."""
    import torch

    if options.device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(options.device)}, {options.dtype}"
    return f"{options.threads} threads, {options.clock} clock, {options.dtype}"


def table(options: argparse.Namespace, results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{options.model}, {where(options)}",
        "",
        "| concept | way | texts/s | tokens/s | ours is faster by | computed | share of linear, packs / all | memory |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for concept, ways in results.items():
        for way, found in ways.items():
            ours = ways.get("ours")
            times = (
                ""
                if ours is None or way == "ours"
                else f"{ours['texts_per_second'] / found['texts_per_second']:.1f}×"
            )
            share = ""
            if "share" in found:
                share = f"{found['packs_share']:.0%}, {found['share']:.0%} of {found['gflops']:.0f} GFLOP/s"
            path = f" ({found['path']})" if "path" in found else ""
            lines.append(
                f"| {concept} | {way}{path} | {found['texts_per_second']:.1f} | {found['tokens_per_second']:.0f} "
                f"| {times} | {found['computed']} | {share} | {found['peak_mb']:.0f} MB |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"bench_collect: {error}", file=sys.stderr)
        raise SystemExit(2) from None
