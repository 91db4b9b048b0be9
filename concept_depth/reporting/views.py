"""What only the page shows of a run: points that move from layer to layer, and the examples that are read wrongly.

Texts are made harmless for the eye here (shortened, control and direction characters made visible) and escaped
where they are written into a page. Numbers are rounded to what a screen can show; the record keeps the exact ones.

Shapes: L layers, N examples, S sampled examples.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concept_depth.depth import Depth
    from concept_depth.probing.scores import LayerScores
    from concept_depth.reporting.geometry import Geometry

TEXT_LIMIT = 280
WRONG = 12


def build_views(scores: LayerScores, depth: Depth, geometry: Geometry, concept: Any) -> dict[str, Any]:
    """Points and examples of a run; without texts the points carry none."""
    texts = _texts(concept, len(scores.labels))
    at = _shown_layer(scores, depth)
    return {"space": _space(scores, geometry, texts), "wrong": _wrong(scores, texts, at)}


def _texts(concept: Any, n: int) -> list[str] | None:
    inputs = getattr(concept, "inputs", None)
    if inputs is None or len(inputs) != n or isinstance(inputs, np.ndarray):
        return None
    return [str(text) for text in inputs]


def _shown_layer(scores: LayerScores, depth: Depth) -> int:
    """The layer that examples are shown of: the depth, else the best layer."""
    if depth.layer in scores.names:
        return scores.names.index(depth.layer)
    return int(np.nanargmin(scores.curve) if scores.lower_is_better else np.nanargmax(scores.curve))


def _space(scores: LayerScores, geometry: Geometry, texts: list[str] | None) -> dict[str, Any]:
    sample = geometry.sample
    return {
        "index": sample,
        "label": scores.labels[sample],
        "text": None if texts is None else [visible(texts[i]) for i in sample],
        "x": _shown(geometry.x),
        "y": None if geometry.y is None else _shown(geometry.y),
        "several": scores.decision.ndim == 4,
    }


def _shown(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    """Two decimals: a point of a plot 800 pixels wide moves by less than a pixel."""
    return [[None if not np.isfinite(v) else round(float(v), 2) for v in row] for row in values]


def _wrong(scores: LayerScores, texts: list[str] | None, layer: int) -> dict[str, Any]:
    """The examples that the probes of one layer read wrongly in every repeat, the most confident first."""
    predicted_RN = np.asarray(scores.predicted[layer])
    tested_RN = np.asarray(scores.fold) >= 0
    wrong_RN = (predicted_RN != scores.labels) & tested_RN
    always = (wrong_RN | ~tested_RN).all(axis=0) & tested_RN.any(axis=0)
    confidence = _confidence(scores, layer)
    order = sorted(np.flatnonzero(always).tolist(), key=lambda i: (-confidence[i], i))[:WRONG]
    rows = []
    for i in order:
        votes = predicted_RN[tested_RN[:, i], i]
        read_as = int(np.bincount(votes, minlength=len(scores.classes)).argmax())
        rows.append(
            {
                "index": i,
                "text": None if texts is None else visible(texts[i]),
                "label": int(scores.labels[i]),
                "predicted": read_as,
                "probability": _probability(scores, layer, i, read_as),
            }
        )
    return {
        "layer": scores.names[layer],
        "number": scores.numbers[layer],
        "rows": rows,
        "total": int(always.sum()),
        "of": int(tested_RN.any(axis=0).sum()),
    }


def _confidence(scores: LayerScores, layer: int) -> npt.NDArray[np.float64]:
    """(N,): how sure the probes are of what they read, averaged over repeats."""
    decision = np.asarray(scores.decision[layer], dtype=np.float64)
    if decision.ndim == 2:
        strength = np.abs(decision)
    else:
        ranked = np.sort(decision, axis=-1)
        strength = ranked[..., -1] - ranked[..., -2]
    mean: npt.NDArray[np.float64] = np.nan_to_num(strength).mean(axis=0)
    return mean


def _probability(scores: LayerScores, layer: int, example: int, label: int) -> float:
    """Mean over repeats of the probability that the probes give to `label`."""
    decision = np.asarray(scores.decision[layer][:, example], dtype=np.float64)
    if decision.ndim == 1:
        chances = 1.0 / (1.0 + np.exp(-np.clip(decision if label == 1 else -decision, -700, 700)))
    else:
        odds = np.exp(decision - decision.max(axis=-1, keepdims=True))
        chances = (odds / odds.sum(axis=-1, keepdims=True))[:, label]
    return float(np.nanmean(chances))


def visible(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` shortened to about `limit` characters, its invisible characters made visible.

    Control characters become their pictures (U+2400 …), characters that turn the writing direction or hide
    themselves become ⟨U+…⟩, line ends become ⏎: what is shown is what the network read, and it cannot disturb what
    stands around it. Right-to-left letters and emoji stay as they are.
    """
    whole = len(text)
    if whole > limit:
        # Not inside an emoji or an accented letter that is made of several code points.
        end = limit
        while end > limit - 20 and (unicodedata.combining(text[end]) or text[end] in "\u200d\ufe0f"):
            end -= 1
        text = f"{text[:end]}… [{whole:,} characters]"
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return "⏎ "
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    kind = unicodedata.category(character)
    # Joiners belong to emoji and to several scripts; every other format character is hidden on purpose.
    if (kind == "Cf" and character not in "\u200c\u200d\u00ad") or kind in ("Cc", "Cs", "Co", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character


def short(text: str, limit: int = 24) -> str:
    """`text` for a label: at most `limit` characters, with an ellipsis where it was longer."""
    shown = visible(text, 4 * limit)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
