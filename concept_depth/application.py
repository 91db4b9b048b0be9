"""A probe that outlives its run: fitted at the depth on all examples, stored, and applied to new texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_depth.errors import InputError
from concept_depth.files import exists
from concept_depth.measure import Settings, load_subject

if TYPE_CHECKING:
    from concept_depth.concepts.concept import Concept
    from concept_depth.measure import Measurement
    from concept_depth.probing.scores import LayerScores
    from concept_depth.subjects.subject import Subject

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
        measured: what the run gave; penalty and standardisation are those of its probes, and where penalties were
            chosen, the median of that layer's choices.
        concept: its concept; the template goes onto the card.
        model: the name under which `from_pretrained` finds the model.
        settings: those of the run.
        folder: where `probe.safetensors` and its card go.

    Returns:
        The file written.
    """
    from concept_depth.intervals import readable_layers
    from concept_depth.probing.probe import LogisticProbe

    acts, scores, depth = measured.activations, measured.scores, measured.depth
    # As the depth, the peak is sought where the fits converged, unless they did nowhere.
    readable = readable_layers(scores)
    curve = np.where(readable | ~readable.any(), scores.curve, np.nan)
    highest = np.nanargmin if scores.lower_is_better else np.nanargmax
    best = int(highest(curve)) if depth.layer is None else scores.names.index(depth.layer)
    layer = scores.names[best]
    probe = LogisticProbe(C=_penalty(scores, best), standardize=scores.settings["standardize"])
    probe.fit(acts[layer], acts.labels)
    card = {
        "model": model,
        "subject": acts.provenance.get("subject", {}),
        "concept": concept.describe(),
        "classes": list(concept.classes),
        "layer": layer,
        "number": scores.numbers[best],
        "depth": str(depth),
        "score": float(scores.curve[best]),
        "scoring": scores.scoring,
        "threshold": 0.0,
        "settings": asdict(settings),
    }
    return probe.save(folder / PROBE, card)


def _check_weights(subject: Subject, card: Mapping[str, Any], path: Path) -> None:
    """Refuse a network or adapter that has come to stand under the name of the probe's.

    Raises:
        InputError: it is so.
    """
    then, now = card.get("subject") or {}, subject.describe()
    if then.get("weights") is None:
        return
    same_adapter = (then.get("adapter") or {}).get("weights") == (now.get("adapter") or {}).get("weights")
    if then["weights"] != now["weights"] or not same_adapter:
        raise InputError(
            f"{card['model']} has other weights than when {path} was fitted on it; measure again, or name the model "
            "with --model (in Python model=…) to apply the probe to it all the same"
        )


def _penalty(scores: LayerScores, index: int) -> float:
    """The C of a probe that is fitted on all examples: what the user gave, or the chosen one.

    C is chosen as 1 / (λ n) with n the size of a training part, so that all examples need a smaller one.
    """
    C = scores.settings["C"]
    if C != "nested":
        return float(C)
    tested = (scores.fold >= 0).sum() / (len(scores.repeat) * len(scores.labels))
    trained = 1.0 if scores.settings["cv"] is None else 1 - float(tested)
    return float(np.median(scores.C_chosen[index])) * trained


def apply_probe(path: str | Path, texts: Sequence[str], *, model: str | None = None) -> list[dict[str, Any]]:
    """Class and probability of new texts, read by a stored probe.

    Args:
        path: the folder of a run, or the probe file in it.
        texts: the new texts; the probe's template is put around them.
        model: another name for the probe's model, as when it has moved; its weights are not checked.

    Returns:
        For each text: `text`, `class`, `probability` of that class, and `decision` (log-odds of the second class,
        or a list of scores for more than two classes).

    Raises:
        InputError: there is no probe, its model is not to be found, has other weights by now or another width.
    """
    from concept_depth.concepts.concept import Concept
    from concept_depth.extraction.collect import collect
    from concept_depth.probing.probe import LogisticProbe

    path = Path(path)
    folder, path = path, path / PROBE if exists(path, Path.is_dir) else path
    if not exists(path, Path.is_file):
        within = sorted(str(at.parent) for at in folder.rglob(PROBE)) if exists(folder, Path.is_dir) else []
        shown = ", ".join(within[:12]) + (", …" if len(within) > 12 else "")
        there = (
            f"the folder of one concept: {shown}" if within else f"the folder of a concept's results, or a {PROBE}"
        )
        raise InputError(f"there is no probe {path}; give {there}")
    probe = LogisticProbe.load(path)
    card = probe.card_
    needed = ("concept", "classes", "layer", "settings") + (() if model else ("model",))
    missing = [name for name in needed if name not in card]
    if missing:
        raise InputError(
            f"the card of {path} does not say {', '.join(missing)}, so its hidden states cannot be made again; apply a "
            "probe that a run stored, or give this one activations: LogisticProbe.load(path).predict(X)"
        )
    # Where it was computed says nothing of where it can be now.
    settings = Settings().changed({**card["settings"], "device": "auto"}, where=str(path))
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
    subject = load_subject(model or card["model"], settings)
    if model is None:
        _check_weights(subject, card, path)
    acts = collect(subject, concept, layers=[card["layer"]], progress=False)
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
