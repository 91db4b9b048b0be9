"""Small real runs for the tests of reporting: a planted depth, scored and read off in the real way.

Texts are hostile on purpose where a test asks for it. Shapes: L layers, N examples, D hidden.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from concept_depth.activations import Activations
from concept_depth.concepts.concept import Concept
from concept_depth.depth import find_depth
from concept_depth.probing.scores import score_layers
from concept_depth.reporting.record import Report

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "</script><script>window.hacked = 1</script><!--",
    "{{ 7 * 7 }} {% raw %} ${1} \\u003cb\\u003e",
    "control \x00\x07\x1b[31m and \x7f",
    "left \u202ethgir ot\u202c שלום عالم",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 é",
    "lines\u2028and\u2029ends\r\n\tof them",
    "x" * 100_000,
    '=HYPERLINK("http://example.com")',
    "javascript:alert(1) <a href='javascript:alert(1)'>link</a>",
)


def planted(
    *, at: int = 4, strength: float = 2.0, L: int = 9, N: int = 120, D: int = 12, K: int = 2, seed: int = 0
):
    """Activations that hold the classes from about layer `at` on, in twins, with texts."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(K), N // K)
    groups = np.repeat(np.arange(N // K), K)
    axes_KD = rng.normal(size=(K, D))
    axes_KD /= np.linalg.norm(axes_KD, axis=1, keepdims=True)
    shared_ND = rng.normal(size=(N, D))
    layers = [
        (shared_ND + rng.normal(size=(N, D)) + 2 * strength / (1 + np.exp(at - number)) * axes_KD[labels])
        for number in range(L)
    ]
    return layers, labels, groups


@cache
def run(
    name: str = "capital",
    *,
    model: str = "tiny-model",
    at: int = 4,
    strength: float = 2.0,
    L: int = 9,
    K: int = 2,
    seed: int = 0,
    hostile: bool = False,
    condition: str = "",
) -> Report:
    """One report; equal arguments give the same object."""
    layers, labels, groups = planted(at=at, strength=strength, L=L, K=K, seed=seed)
    texts = [f"Example {i} of {name}." for i in range(len(labels))]
    if hostile:
        texts = [HOSTILE[i % len(HOSTILE)] + f" {i}" for i in range(len(labels))]
    classes = tuple(f"class {k}" for k in range(K)) if not hostile else ("<b>no</b>", "</script>yes")
    concept = Concept(name=name, inputs=texts, labels=labels, classes=classes, groups=groups, source="a test")
    provenance = {"concept": concept.describe(), "subject": {"name": model, "dtype": "float32"}, "extraction": {}}
    acts = Activations.from_arrays(layers, labels, groups=groups, classes=classes, provenance=provenance)
    settings = {"cv": 3, "repeats": 1, "C": 0.1, "random_state": 0}
    scores = score_layers(acts, permutations=19, **settings)
    words = Activations.from_arrays([layers[0]], labels, groups=groups, classes=classes)
    references = {"lexical": score_layers(words, permutations=0, **settings)}
    return Report.of(
        acts,
        scores,
        find_depth(scores, references=references),
        concept=concept,
        references=references,
        extras={"settings": {"noise": condition or None, "device": "here", "seed": 0}},
        run={"command": f"concept-depth run {model} {name}", "seconds": 1.5},
    )
