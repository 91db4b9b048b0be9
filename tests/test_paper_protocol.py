"""protocol="paper" is scikit-learn's defaults on the paper's split, number by number."""

import csv
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import train_test_split

from concept_depth.activations import Activations
from concept_depth.depth import find_depth
from concept_depth.errors import InputError
from concept_depth.probing.leaks import naive_split, twin_share
from concept_depth.probing.scores import score_layers


def layers(n=300, seed=0):
    """Unscaled layers, the last so badly scaled that 100 iterations do not suffice."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) >= n // 2).astype(int)
    X = rng.normal(size=(3, n, 30)) + np.array([0, 0.3, 0.3])[:, None, None] * labels[None, :, None]
    X[2] *= np.geomspace(1, 1e4, 30)
    return X.astype(np.float32), labels


def test_scores_are_those_of_the_papers_code():
    X, labels = layers()
    scores = score_layers(Activations.from_arrays(list(X), labels), protocol="paper", scoring="accuracy")
    train, test = train_test_split(np.arange(len(labels)), test_size=0.4, random_state=42)
    for index, matrix in enumerate(X):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe = LogisticRegression().fit(matrix[train], labels[train])
        predicted, decision = probe.predict(matrix[test]), probe.decision_function(matrix[test])
        assert scores.metric("accuracy")[index, 0] == accuracy_score(labels[test], predicted)
        assert scores.metric("f1")[index, 0] == pytest.approx(f1_score(labels[test], predicted), abs=1e-12)
        assert scores.metric("auroc")[index, 0] == pytest.approx(roc_auc_score(labels[test], decision), abs=1e-6)
    assert scores.converged.tolist() == [1, 1, 0]  # marked, and read all the same
    assert find_depth(scores, rule="converge").number is not None


def test_two_thirds_of_the_papers_test_items_have_their_twin_in_training(shared_data):
    with (shared_data / "cities" / "cities.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # The paper's code lists all true statements, then all false ones.
    rows = [row for label in "10" for row in rows if row["label"] == label]
    cities = np.unique([row["city"] for row in rows], return_inverse=True)[1]
    train, test = naive_split(len(rows))
    assert len(test) == 599
    assert round(twin_share(cities, train, test) * 599) == 407


def test_counterfact_leaks_as_much_as_its_erratum_says(shared_data):
    path = next((shared_data / "counterfact").glob("*.csv"))
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    rows = [row for label in "10" for row in [row for row in rows if row["label"] == label][:2000]]
    facts = np.unique([f"{row['relation']}|{row['subject']}" for row in rows], return_inverse=True)[1]
    train, test = naive_split(len(rows))
    assert len(test) == 1600
    assert twin_share(facts, train, test) == pytest.approx(0.61, abs=0.005)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 1], "too few"), ([0] * 40 + [1], "lacks class"), (list("abc") * 20, "two classes")],
)
def test_what_the_paper_could_not_split_is_refused(labels, message):
    X = np.random.default_rng(0).normal(size=(len(labels), 4))
    with pytest.raises(InputError, match=message):
        score_layers(Activations.from_arrays([X], labels), protocol="paper")
