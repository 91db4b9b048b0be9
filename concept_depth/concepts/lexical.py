"""What texts give away without a network: lengths, words, character n-grams, and how well they tell the classes.

`lexical_features` also serves as references of a depth (`extraction/references.py`): the same numbers, made the
same way, so that an audit and a reference agree. scikit-learn is imported inside the functions.

Shapes: N examples, D features, K classes, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_depth.concepts.variants import normalise, tokens

IntArray = npt.NDArray[np.int64]

MAX_FEATURES = 4096
# Rows of tf-idf have length 1, so this is a weak penalty: the baseline is to be as strong as it can be.
PENALTY = 10.0
FOLDS = 5


@dataclass(frozen=True)
class Baseline:
    """How well a lexical feature tells the classes.

    Args:
        score: balanced accuracy of out-of-fold predictions.
        low: lower end of its 95 % interval, groups resampled.
        high: upper end.
        n_features: D.
    """

    score: float
    low: float
    high: float
    n_features: int


@dataclass(frozen=True)
class TellingWord:
    """A word that stands in the texts of one class more often than in the others.

    Args:
        word: the word, normalised.
        label: name of the class.
        inside: texts of that class with the word.
        outside: texts of the other classes with the word.
        z: log-odds ratio over its standard error (Monroe, Colaresi & Quinn 2008, uniform prior).
    """

    word: str
    label: str
    inside: int
    outside: int
    z: float


def lexical_features(texts: Sequence[str], *, max_features: int = MAX_FEATURES) -> dict[str, Any]:
    """Feature matrices of texts, made without labels.

    Args:
        texts: N texts.
        max_features: at most this many words and n-grams, the most frequent.

    Returns:
        name → (N, D) matrix: "length" (dense: characters, words, letters a word, punctuation, digits, capitals),
        "bag_of_words" and "char_ngrams" (scipy CSR: tf-idf of words, and of runs of 2 to 4 characters).
    """
    return {
        "length": lengths(texts),
        "bag_of_words": _tfidf(texts, max_features, analyzer=tokens),
        "char_ngrams": _tfidf(texts, max_features, analyzer="char", ngram_range=(2, 4), preprocessor=_padded),
    }


def lengths(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N, 6) characters, words, letters a word, punctuation marks, digits, capitals."""
    rows = []
    for text in texts:
        words = text.split()
        rows.append(
            (
                len(text),
                len(words),
                sum(map(len, words)) / max(len(words), 1),
                sum(not character.isalnum() and not character.isspace() for character in text),
                sum(character.isdigit() for character in text),
                sum(character.isupper() for character in text),
            )
        )
    return np.asarray(rows, dtype=np.float64).reshape(-1, 6)


def _padded(text: str) -> str:
    # A space at each end tells the first and the last letters from those inside.
    return f" {normalise(text)} "


def _tfidf(texts: Sequence[str], max_features: int, **how: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    def matrix(min_df: int) -> Any:
        # lowercase and token_pattern belong to the analyzers of scikit-learn's own; ours has done that.
        shared = {"sublinear_tf": True, "max_features": max_features, "min_df": min_df, "dtype": np.float32}
        return TfidfVectorizer(lowercase=False, token_pattern=None, **shared, **how).fit_transform(texts)

    try:
        return matrix(2)
    except ValueError:
        return matrix(1)  # no term stands in two texts


def baselines(
    texts: Sequence[str], labels: IntArray, groups: IntArray, *, random_state: int = 0
) -> dict[str, Baseline]:
    """Balanced accuracy of a logistic regression on each lexical feature, groups never split.

    Args:
        texts: N texts.
        labels: N class indices.
        groups: N group numbers.
        random_state: seed of the folds and of the resampling.

    Returns:
        name of the feature → baseline, and "majority"; empty where the groups cannot be split into folds.
    """
    folds = _folds(labels, groups, random_state)
    if not folds:
        return {}
    chance = 1 / len(np.unique(labels))
    found = {"majority": Baseline(chance, chance, chance, 0)}
    for name, matrix in lexical_features(texts).items():
        predicted = _out_of_fold(matrix, labels, folds, dense=name == "length")
        low, high = _interval(predicted, labels, groups, random_state)
        found[name] = Baseline(balanced_accuracy(predicted, labels), low, high, matrix.shape[1])
    return found


def _folds(labels: IntArray, groups: IntArray, random_state: int) -> list[tuple[IntArray, IntArray]]:
    from sklearn.model_selection import StratifiedGroupKFold

    n_folds = min(FOLDS, int(np.bincount(labels).min()), len(np.unique(groups)))
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_state)
    return list(splitter.split(np.zeros(len(labels)), labels, groups))


def _out_of_fold(
    matrix: Any, labels: IntArray, folds: Sequence[tuple[IntArray, IntArray]], *, dense: bool
) -> IntArray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # liblinear is many times faster on wide sparse rows, but knows two classes only.
    solver = "lbfgs" if dense or labels.max() > 1 else "liblinear"
    predicted = np.zeros(len(labels), dtype=np.int64)
    for train, test in folds:
        if len(np.unique(labels[train])) < 2:
            predicted[test] = labels[train][0]
            continue
        model = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000, solver=solver)
        pipeline = make_pipeline(StandardScaler(), model) if dense else model
        predicted[test] = pipeline.fit(matrix[train], labels[train]).predict(matrix[test])
    return predicted


def balanced_accuracy(predicted: IntArray, labels: IntArray) -> float:
    """Mean over classes of the share of their examples that are told right."""
    right = predicted == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _interval(
    predicted: IntArray, labels: IntArray, groups: IntArray, random_state: int, replicates: int = 500
) -> tuple[float, float]:
    """2.5 and 97.5 % points of the balanced accuracy when groups are drawn with replacement."""
    numbers = np.unique(groups, return_inverse=True)[1]
    n_classes = int(labels.max()) + 1
    counts_GK = np.zeros((int(numbers.max()) + 1, n_classes))
    right_GK = np.zeros_like(counts_GK)
    np.add.at(counts_GK, (numbers, labels), 1)
    np.add.at(right_GK, (numbers, labels), predicted == labels)
    rng = np.random.default_rng(random_state)
    drawn_RG = rng.multinomial(len(counts_GK), np.full(len(counts_GK), 1 / len(counts_GK)), size=replicates)
    scores_R = np.mean(drawn_RG @ right_GK / np.maximum(drawn_RG @ counts_GK, 1), axis=1)
    low, high = np.quantile(scores_R, [0.025, 0.975])
    return float(low), float(high)


def telling_words(
    texts: Sequence[str], labels: IntArray, classes: Sequence[str], *, most: int = 10, least_z: float = 3.0
) -> tuple[TellingWord, ...]:
    """The words that tell most of a class, the most telling first.

    Args:
        texts: N texts.
        labels: N class indices.
        classes: K names.
        most: at most this many.
        least_z: weaker ones are left out; among a thousand words without meaning one reaches 3.3.

    Returns:
        Words with their counts of texts.
    """
    counts: dict[str, npt.NDArray[np.int64]] = {}
    for text, label in zip(texts, labels.tolist(), strict=True):
        for word in set(tokens(text)):
            counts.setdefault(word, np.zeros(len(classes), dtype=np.int64))[label] += 1
    n_texts = np.bincount(labels, minlength=len(classes))
    found = []
    for word, with_word in counts.items():
        for label in range(len(classes)):
            inside, outside = int(with_word[label]), int(with_word.sum() - with_word[label])
            z = _log_odds(inside, int(n_texts[label]), outside, int(n_texts.sum() - n_texts[label]))
            if z >= least_z:
                found.append(TellingWord(word, classes[label], inside, outside, z))
    return tuple(sorted(found, key=lambda item: (-item.z, item.word))[:most])


def _log_odds(inside: int, n_inside: int, outside: int, n_outside: int) -> float:
    # Half a count is added everywhere (a uniform prior), so that nothing is divided by zero.
    cells = np.asarray([inside, n_inside - inside, outside, n_outside - outside], dtype=np.float64) + 0.5
    ratio = np.log(cells[0] / cells[1]) - np.log(cells[2] / cells[3])
    return float(ratio / np.sqrt(np.sum(1 / cells)))
