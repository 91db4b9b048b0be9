"""What the model *says*: a two-class concept asked as a question, answered by the next token's probabilities.

This is the one place that needs the LM head, for one position of each prompt. The probability of a class is the
sum over the spellings of its name ("true", " True", "TRUE", …) of the probability of their first tokens. The raw
answer is the likelier class. The calibrated answer subtracts from each example's log-odds their mean over all
examples (Zhou et al. 2024, "batch calibration"), which removes a preference for one word without any label.

Shapes: N examples, B of a batch, T tokens, V words of the vocabulary, K spellings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from concept_depth.errors import InputError
from concept_depth.subjects.sites import evaluation_mode
from concept_depth.subjects.subject import Encoded, Subject, keep_nothing
from concept_depth.subjects.text import TokenReader, untouched

# Words that say the same in answer to a yes/no question, by the class they name; other classes have their name.
SYNONYMS = {
    "true": ("true", "yes", "correct"),
    "yes": ("yes", "true"),
    "correct": ("correct", "yes", "true"),
    "false": ("false", "no", "incorrect"),
    "no": ("no", "false"),
    "incorrect": ("incorrect", "no", "false"),
}
TOKENS_OF_A_BATCH = 2048


@dataclass(frozen=True, eq=False)
class Anchoring:
    """How often what the model says is right.

    Args:
        accuracy: share of examples whose likelier answer is their class.
        balanced_accuracy: the same, averaged over the two classes.
        auroc: of the log-odds, which needs no threshold.
        calibrated: accuracy and balanced accuracy of the calibrated answers.
        says_positive: share of examples to which the raw answer is the positive class.
        mass: mean probability of any of the spellings; near 0 the model does not answer at all.
        question: what is put behind each prompt.
        spellings: class → its spellings.
        log_odds: N log-odds of the positive class.
    """

    accuracy: float
    balanced_accuracy: float
    auroc: float
    calibrated: Mapping[str, float]
    says_positive: float
    mass: float
    question: str
    spellings: Mapping[str, Sequence[str]]
    log_odds: npt.NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable, without the numbers of single examples."""
        plain = asdict(self)
        del plain["log_odds"]
        return {**plain, "n": len(self.log_odds)}


def anchor(
    subject: Subject,
    concept: Any,
    *,
    question: str | None = None,
    spellings: Mapping[str, Sequence[str]] | None = None,
) -> Anchoring:
    """Ask the model for the class of each example, without examples or training.

    Args:
        subject: from `from_pretrained` or `from_model`, with a language-model head.
        concept: a concept of two classes whose inputs are texts.
        question: put behind each prompt; by default "Answer <negative> or <positive>." and "Answer:".
        spellings: class → words that name it; by default the class's name and, for true/false and yes/no, what
            means the same, each in small, capitalised and capital letters, with and without a space in front.

    Raises:
        InputError: not two classes, no texts, no head, or spellings that begin with the same tokens.
    """
    check_two_classes(concept)
    if subject.model is None or not isinstance(subject.reader, TokenReader):
        raise InputError(f"{subject.name} has no language-model head to ask; use from_pretrained or from_model")
    head: Any = getattr(subject.model, "get_output_embeddings", lambda: None)()
    if head is None:
        raise InputError(f"{subject.name} has no language-model head to ask; load it as a causal language model")
    negative, positive = concept.classes
    if question is None:
        question = f"\nAnswer {negative} or {positive}.\nAnswer:"
    words = {name: tuple((spellings or {}).get(name, default_spellings(name))) for name in concept.classes}
    ids = [first_tokens(subject.tokenizer, words[name]) for name in concept.classes]
    ids = [ids[0] - ids[1], ids[1] - ids[0]]
    if not ids[0] or not ids[1]:
        raise InputError(
            f"the answers {negative!r} and {positive!r} begin with the same token; give spellings that differ"
        )
    before, after = concept.template_parts
    reader = replace(subject.reader, position="last")
    encoded = reader.encode(concept.inputs, before=before, after=after + question, spans=None)
    log_2N = _answers(subject, encoded, [sorted(part) for part in ids])
    return _judge(log_2N, concept, question, words)


def check_two_classes(concept: Any) -> None:
    """Raise an InputError where a concept has not the two classes that a yes/no question needs."""
    if len(concept.classes) != 2:
        raise InputError(f"{concept.name} has {len(concept.classes)} classes; anchoring asks about two")


def default_spellings(name: str) -> tuple[str, ...]:
    """The spellings of a class's name."""
    base = SYNONYMS.get(name.lower(), (name,))
    forms = [form for word in base for form in (word, word.lower(), word.capitalize(), word.upper())]
    return tuple(dict.fromkeys([*forms, *(f" {form}" for form in forms)]))


def first_tokens(tokenizer: Any, words: Sequence[str]) -> set[int]:
    """The first tokens of some words, without those that are white space alone."""
    found = set()
    for word in words:
        with untouched(tokenizer):
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        for token in ids:
            if tokenizer.decode([token]).strip():
                found.add(int(token))
                break
    return found


def _answers(
    subject: Subject, encoded: Sequence[Encoded], ids: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """(2, N) log-probabilities of the two classes behind each prompt.

    Prompts of one length share a batch, so that nothing is padded and the model's own last logits are the answer.
    They end with the last token that is theirs: behind an end token, which some tokenizers add, nobody answers.
    """
    prompts = [example.ids[: example.rows[-1] + 1] for example in encoded]
    model: Any = subject.model
    named = signature(model.forward).parameters
    options = keep_nothing(model)
    if "logits_to_keep" in named:
        options["logits_to_keep"] = 1
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    log_2N = np.zeros((2, len(encoded)))
    with evaluation_mode(model), torch.inference_mode():
        for length, members in sorted(by_length.items()):
            size = max(1, TOKENS_OF_A_BATCH // length)
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                ids_BT = torch.tensor([prompts[i] for i in batch], device=subject.device)
                logits_BV = model(input_ids=ids_BT, **options).logits[:, -1].float()
                log_BV = logits_BV.log_softmax(-1)
                for row, chosen in enumerate(ids):
                    log_2N[row, batch] = log_BV[:, list(chosen)].logsumexp(-1).cpu().numpy()
    return log_2N


def _judge(
    log_2N: npt.NDArray[np.float64], concept: Any, question: str, words: Mapping[str, Sequence[str]]
) -> Anchoring:
    labels = np.asarray(concept.labels)
    odds_N = log_2N[1] - log_2N[0]
    raw = (odds_N > 0).astype(np.int64)
    calibrated = (odds_N > odds_N.mean()).astype(np.int64)
    return Anchoring(
        accuracy=float((raw == labels).mean()),
        balanced_accuracy=_balanced(raw, labels),
        auroc=_auroc(odds_N, labels),
        calibrated={
            "accuracy": float((calibrated == labels).mean()),
            "balanced_accuracy": _balanced(calibrated, labels),
        },
        says_positive=float(raw.mean()),
        mass=float(np.exp(log_2N).sum(0).mean()),
        question=question,
        spellings=dict(words),
        log_odds=odds_N,
    )


def _balanced(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean([(predicted[labels == label] == label).mean() for label in (0, 1)]))


def _auroc(scores_N: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """The share of (positive, negative) pairs in the right order, ties counting one half."""
    negatives = np.sort(scores_N[labels == 0])
    positives = scores_N[labels == 1]
    below = np.searchsorted(negatives, positives, side="left")
    upto = np.searchsorted(negatives, positives, side="right")
    return float((below + upto).mean() / (2 * len(negatives)))
