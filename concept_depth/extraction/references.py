"""Activations that need no trained network: what a probe reads from words, embeddings or random weights alone.

They decide no verdict; a depth says at which layer the network beats each of them. Each is extracted from the same
examples in the same order, so that it is scored on the same folds.

Shapes: N examples, R rows read, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from concept_depth.activations import Activations
from concept_depth.concepts.concept import Concept
from concept_depth.errors import InputError
from concept_depth.extraction.collect import Progress, as_activations, collect, unique
from concept_depth.subjects.identity import weights_hash
from concept_depth.subjects.subject import Layer, Subject
from concept_depth.subjects.text import TokenReader

REFERENCES = ("embedding", "lexical", "random")
# Words and n-grams are reduced to this many directions each, so that a probe of them costs about one layer.
LEXICAL_WIDTH = 256

FloatMatrix = npt.NDArray[np.floating[Any]]


def collect_references(
    subject: Subject,
    concept: Concept,
    *,
    names: Sequence[str] = REFERENCES,
    batch_tokens: int | str = "auto",
    random_state: int = 0,
    progress: bool | Progress = False,
) -> dict[str, Activations]:
    """Activations of the references of a depth.

    Args:
        subject: the network whose depth is asked for.
        concept: the labelled inputs.
        names: some of "embedding" (mean of the examples' token embeddings; the input itself for arrays), "lexical"
            (lengths, bag of words, character n-grams; texts only) and "random" (the same architecture with random
            weights, all layers).
        batch_tokens: as in `collect`, for "random".
        random_state: seed of the random weights.
        progress: as in `collect`, for "random".

    Returns:
        Name → Activations in the order of the concept: one layer each, all layers for "random". A reference that a
        kind of network cannot have (words of arrays, the embedding of a network without) is left out.

    Raises:
        InputError: there is no such reference, or the concept does not fit the network.
    """
    unknown = [name for name in names if name not in REFERENCES]
    if unknown:
        raise InputError(f"there is no reference {unknown[0]!r}; give some of {', '.join(REFERENCES)}")
    found: dict[str, Activations] = {}
    described = subject.describe()
    if "embedding" in names:
        matrix = _embedding(subject, concept) if subject.takes_text else _input(concept)
        if matrix is not None:
            found["embedding"] = _single(described, concept, "embedding", matrix)
    if "lexical" in names and concept.is_text:
        found["lexical"] = _single(described, concept, "lexical", lexical_matrix(concept))
    if "random" in names:
        twin = random_twin(subject, random_state=random_state)
        if twin is not None:
            found["random"] = collect(twin, concept, batch_tokens=batch_tokens, progress=progress)
    return found


def _single(described: Mapping[str, Any], concept: Concept, name: str, matrix: FloatMatrix) -> Activations:
    layer = Layer(name, 0)
    acts = as_activations(described, concept, [layer], lambda _: matrix, {"reference": name})
    return replace(acts, total=0)


def _embedding(subject: Subject, concept: Concept) -> FloatMatrix | None:
    """(N, D) mean of the embeddings of an example's own tokens, without special tokens; no position, no norm."""
    finder: Any = getattr(subject.module, "get_input_embeddings", None)
    table = None if finder is None else finder()
    if table is None or not isinstance(subject.reader, TokenReader):
        return None
    reader = replace(subject.reader, position="mean")
    distinct, places = unique(subject.changed(reader=reader).encode_concept(concept))
    means: list[torch.Tensor] = []
    with torch.inference_mode():
        for example in distinct:
            ids_R = torch.tensor([example.ids[row] for row in example.rows], device=subject.device)
            means.append(table(ids_R).float().mean(0))
    matrix: FloatMatrix = torch.stack(means).cpu().numpy()[places]
    return matrix


def _input(concept: Concept) -> FloatMatrix:
    return np.asarray(concept.inputs, dtype=np.float32).reshape(len(concept), -1)


def lexical_matrix(concept: Concept, *, width: int = LEXICAL_WIDTH) -> npt.NDArray[np.float32]:
    """(N, D) lengths, and the leading directions of the word and of the n-gram counts; labels play no part.

    The reduction is a truncated singular value decomposition of each tf-idf matrix (latent semantic analysis).
    """
    from sklearn.decomposition import TruncatedSVD

    from concept_depth.concepts.lexical import lexical_features

    parts = []
    for name, matrix in lexical_features(list(concept.inputs)).items():
        if name == "length":
            parts.append(np.asarray(matrix, dtype=np.float32))
            continue
        most = min(width, matrix.shape[0] - 1, matrix.shape[1] - 1)
        if most < 1:
            parts.append(matrix.toarray().astype(np.float32))
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # its shares of variance, of texts of equal words
            reduced = TruncatedSVD(most, random_state=0).fit_transform(matrix)
        parts.append(reduced.astype(np.float32))
    return np.concatenate(parts, axis=1)


def random_twin(subject: Subject, *, random_state: int = 0) -> Subject | None:
    """The same architecture, listened to at the same places, with random weights; None where it cannot be made.

    The weights are drawn as the architecture itself draws them before training. The caller's seed stays as it is.
    """
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        module = _fresh(subject.module)
    if module is None:
        return None
    described = {**subject.describe(), "weights": f"random, seed {random_state}", "reference": "random"}

    def origin() -> Mapping[str, Any]:
        return {**described, "drawn": weights_hash(module)}

    return subject.changed(module=module, name=f"{subject.name}-random", origin=origin, model=None)


def _fresh(module: nn.Module) -> nn.Module | None:
    config: Any = getattr(module, "config", None)
    if config is not None:
        plain = copy.deepcopy(config)
        if hasattr(plain, "quantization_config"):
            del plain.quantization_config
        make: Any = getattr(type(module), "_from_config", None)
        if make is None:
            return None
        numbers = (p.dtype for p in module.parameters() if p.is_floating_point())
        fresh: nn.Module = make(plain, dtype=next(numbers, torch.float32))
        device = next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
        return fresh.to(device).eval()
    twin = copy.deepcopy(module)
    for part in twin.modules():
        # nn.MultiheadAttention and nn.Transformer call it by the second name.
        reset: Any = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if reset is not None:
            reset()
    for trained, drawn in zip(module.parameters(), twin.parameters(), strict=True):
        if drawn.is_floating_point() and torch.equal(trained, drawn):
            # No part knows how to draw it (or it is constant, as a norm's scale at the start, and stays so).
            spread, centre = torch.std_mean(drawn.detach().float(), correction=0)
            nn.init.normal_(drawn, centre.item(), spread.item())
    return twin
