"""Write docs/architectures.md: which causal-LM types of the installed transformers can be read, measured tiny.

python scripts/architectures.py            # all types, some minutes
python scripts/architectures.py llama rwkv # print a few, write nothing
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402
import transformers  # noqa: E402
from architecture_check import inner_sites, outcome  # noqa: E402
from tiny_architectures import causal_types  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: E402
from tree_types import tree_outcome  # noqa: E402

from concept_depth.errors import did_you_mean  # noqa: E402

HEAD = """# Architectures

Every type that `AutoModelForCausalLM` knows, built tiny with random weights and read by `collect` in padded
batches. *equal*: each collected layer equals what enters block 1 or leaves a block when one text at a time passes
without padding, to the relative difference in the last column. *refused*: no stream of blocks that could be read;
the reason is what the user is told. *not built*: the installed transformers cannot make a small model of it.

Sites: `mid` means `resid_mid`, `attn_out` and `mlp_out`, found by measurement where a block adds attention and
MLP one after the other; `mlp_in` for the input of the MLP. `resid_pre` and `resid_post` are everywhere.

Sharing: *tree* where every shared beginning is computed once, found right by `collect`'s own check and compared
with single passes here ({trees} types); *prefix* where trees are wrong, but the one beginning that all texts share
is computed once and kept in the network's own cache, checked likewise ({prefixes} types); *plain* where neither is
right, so that whole texts are read in padded batches.

Made by `scripts/architectures.py` with transformers {version}: {equal} of the {built} types that can be built are
equal.

| type | class | outcome | sites | sharing | difference or reason |
|---|---|---|---|---|---|
"""


def main(names: list[str]) -> None:
    """Measure the named types, or all and write the page."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    rows, statuses, paths = [], [], []
    for name in names or causal_types():
        status, detail = outcome(name)
        sites = ", ".join(inner_sites(name)) if status == "equal" else ""
        path = tree_outcome(name)[0] if status == "equal" else ""
        kind = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
        rows.append(f"| `{name}` | {kind} | {status} | {sites} | {path} | {detail.replace('|', '/')} |")
        statuses.append(status)
        paths.append(path)
        print(rows[-1], flush=True)
    if not names:
        built = len(statuses) - statuses.count("not built")
        kinds = {"trees": paths.count("tree"), "prefixes": paths.count("prefix")}
        equal = statuses.count("equal")
        head = HEAD.format(version=transformers.__version__, equal=equal, built=built, **kinds)
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "architectures.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="types to print; none: all, into the page")
    given = parser.parse_args().types
    unknown = [name for name in given if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if unknown:
        meant = did_you_mean(unknown[0], MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        parser.error(f"there is no type {unknown[0]!r}; {meant}give types that AutoModelForCausalLM knows")
    main(given)
