"""A probe that outlives its run: fitted at the depth on all examples, stored, and applied to new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth import files
from concept_depth.errors import InputError
from concept_depth.measure import Settings, load_subject

if TYPE_CHECKING:
    from concept_depth.concepts.concept import Concept
    from concept_depth.measure import Measurement

PROBE = "probe.safetensors"


def save_probe(
    measured: Measurement,
    concept: Concept,
    *,
    model: str,
    settings: Settings,
    folder: Path,
) -> Path:
    """Fit a probe on all examples at the depth (at the peak where there is none) and store it with its card.

    Args:
        measured: what the run gave; the penalty is the median of those that were chosen at that layer.
        concept: its concept; the template goes onto the card.
        model: the name under which `from_pretrained` finds the model.
        settings: those of the run.
        folder: where `probe.safetensors` and its card go.

    Returns:
        The file written.
    """
    from concept_depth.probing.probe import LogisticProbe

    acts, scores, depth = measured.activations, measured.scores, measured.depth
    best = int(np.nanargmax(depth.curve)) if depth.layer is None else scores.names.index(depth.layer)
    layer = scores.names[best]
    # The strength of the penalty is relative to the number of examples, and here all of them are fitted.
    trained_on = 1 - 1 / settings.cv if settings.protocol is None else 0.6
    C = float(np.median(scores.C_chosen[best])) * trained_on
    probe = LogisticProbe(C=C, standardize=settings.standardize).fit(acts[layer], acts.labels)
    card = {
        "model": model,
        "subject": acts.provenance.get("subject", {}),
        "concept": concept.describe(),
        "classes": list(concept.classes),
        "layer": layer,
        "number": scores.numbers[best],
        "depth": str(depth),
        "score": float(depth.curve[best]),
        "scoring": scores.scoring,
        "threshold": 0.0,
        "settings": asdict(settings),
    }
    return probe.save(folder / PROBE, card)


def apply_probe(path: str | Path, texts: Sequence[str], *, model: str | None = None) -> list[dict[str, Any]]:
    """Class and probability of new texts, read by a stored probe.

    Args:
        path: the folder of a run, or the probe file in it.
        texts: the new texts; the probe's template is put around them.
        model: another name for the probe's model, as when it has moved.

    Returns:
        For each text: `text`, `class`, `probability` of that class, and `decision` (log-odds of the second class,
        or a list of scores for more than two classes).

    Raises:
        InputError: there is no probe, its model is not to be found, or the model is of another width.
    """
    from concept_depth.concepts.concept import Concept
    from concept_depth.extraction.collect import collect
    from concept_depth.probing.probe import LogisticProbe

    path = Path(path)
    path = path / PROBE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"there is no probe {path}; give the folder of a run, or a probe.safetensors")
    probe = LogisticProbe.load(path)
    card = files.read_json(path.with_suffix(".json"))
    card = card.get("card", card)
    settings = Settings().changed(card["settings"], where=str(path.with_suffix(".json")))
    classes = tuple(card["classes"])
    # Labels are not known and not looked at; a concept needs one example of each class.
    asked = [*texts, *["."] * max(0, len(classes) - len(texts))]
    concept = Concept(
        name="new texts",
        inputs=asked,
        labels=np.arange(len(asked)) % len(classes),
        classes=classes,
        template=card["concept"].get("template"),
    )
    acts = collect(load_subject(model or card["model"], settings), concept, layers=[card["layer"]], progress=False)
    hidden = acts[card["layer"]][: len(texts)]
    if hidden.shape[1] != probe.n_features_in_:
        raise InputError(
            f"the probe reads {probe.n_features_in_} hidden units and this model has {hidden.shape[1]}; "
            "name the model that the probe was fitted on"
        )
    probability, decision = probe.predict_proba(hidden), probe.decision_function(hidden)
    chosen = np.asarray(probe.predict(hidden), dtype=np.int64)
    return [
        {
            "text": text,
            "class": classes[chosen[index]],
            "probability": float(probability[index, chosen[index]]),
            "decision": decision[index].tolist(),
        }
        for index, text in enumerate(texts)
    ]
