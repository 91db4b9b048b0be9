"""One architecture on token trees, against its own plain passes over one text at a time."""

import numpy as np
from architecture_check import IdTokenizer
from tiny_architectures import tiny_model

from concept_depth import Concept, InputError, collect, from_model

# Routed experts enlarge roundings a little.
TOLERANCE = 2e-5
# Where a network picks the best few of something (experts, tokens to attend to), a rounding can turn one pick in
# random weights; it then differs in single examples, not in most, as it does between padded batches.
TURNED = 1


def concept():
    """Texts that share 3 to 14 tokens, longer than every window of the tiny models, written out as ids."""
    rng = np.random.default_rng(0)
    common = rng.integers(3, 120, size=14).tolist()
    texts = []
    for shared in (3, 9, 14, 14):
        for tail in (2, 3, 5, 8):
            ids = common[:shared] + rng.integers(3, 120, size=tail).tolist()
            texts.append(" ".join(map(str, ids)))
    return Concept(name="ids", inputs=texts, labels=[0, 1] * 8, classes=("a", "b"))


def tree_outcome(name):
    """(path, detail) of a type: "tree" or "prefix" with its error, "plain" with the reason, "wrong", "not read"."""
    try:
        subject = from_model(tiny_model(name), IdTokenizer())
    except InputError as error:
        return "not read", str(error)
    except Exception as error:  # whatever stops a shrunken config is transformers' matter
        return "not read", f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        found = collect(subject, concept(), progress=False, prefix_sharing=True)
    except InputError as error:
        return "not read", str(error)
    extraction = found.provenance["extraction"]
    if extraction["path"] == "plain":
        return "plain", extraction["reason"]
    single = collect(subject, concept(), progress=False, prefix_sharing=False, batch_tokens=1)
    worst = 0.0
    for layer in found.names:
        error = np.linalg.norm(found[layer] - single[layer], axis=1) / np.linalg.norm(single[layer], axis=1)
        worst = max(worst, float(np.sort(error)[-1 - TURNED]))
    return (extraction["path"] if worst <= TOLERANCE else "wrong"), f"{worst:.1e}"
