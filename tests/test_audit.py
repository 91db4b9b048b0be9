"""The audit: it finds what was planted, nothing where nothing is, and holds the bundled sets to their cards."""

from __future__ import annotations

import json

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import lexical, registry
from concept_depth.concepts.audit import _shingles, audit, near_duplicates
from concept_depth.concepts.variants import normalise
from concept_depth.errors import InputError

WORDS = [
    f"{a}{b}{c}"
    for a in ("bra", "ste", "klo", "mun", "fri")
    for b in ("nd", "lt", "ver", "sk")
    for c in ("o", "an")
]


def sentences(n: int, seed: int = 0, words: int = 12) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=words)) + f" q{i}" for i in range(n)]


def concept(texts, labels, **fields) -> cd.Concept:
    return cd.Concept(name="planted", inputs=texts, labels=labels, classes=("no", "yes"), **fields)


def test_labels_without_reason_are_told_by_nothing():
    found = audit(concept(sentences(600), np.random.default_rng(1).integers(0, 2, 600)))
    assert not found.lexical
    assert found.duplicates == found.conflicts == found.split_twins == 0
    assert all(0.42 < baseline.score < 0.58 for baseline in found.baselines.values())
    assert all(b.low <= b.score <= b.high for b in found.baselines.values())


def test_a_telling_word_is_found_and_named():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    marked = labels ^ (rng.random(400) < 0.1)
    texts = [
        f"{text} {'zebra' if mark else 'otter'} end" for text, mark in zip(sentences(400), marked, strict=True)
    ]
    found = audit(concept(texts, labels))
    assert {word.word for word in found.telling[:2]} == {"zebra", "otter"}
    assert {(word.word, word.label) for word in found.telling[:2]} == {("zebra", "yes"), ("otter", "no")}
    # The word is right in nine of ten; a few points are lost to the words without meaning.
    assert 0.85 < found.baselines["bag_of_words"].score < 0.93
    assert found.lexical
    assert found.baselines["length"].score < 0.6
    assert any("bag of words alone" in warning for warning in found.warnings)


def test_length_is_found():
    labels = np.tile([0, 1], 150)
    texts = [sentences(1, seed=i, words=8 + 4 * label)[0] for i, label in enumerate(labels)]
    assert audit(concept(texts, labels)).baselines["length"].score == 1.0


def test_brackets_are_words_too():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(list("()[]{}()[]{}"))) for _ in range(300)]
    labels = np.asarray([text.index("(") < text.index("[") for text in texts]).astype(int)
    features = lexical.lexical_features(texts)
    assert features["bag_of_words"].shape == (300, 6)
    assert audit(concept(texts, labels)).baselines["char_ngrams"].score > 0.6


def test_baselines_keep_groups_whole():
    """Each group has its own word and one label; only a split inside groups could use the word."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 5)
    labels = np.repeat(rng.integers(0, 2, 80), 5)
    texts = [f"{text} own{group}" for text, group in zip(sentences(400), groups, strict=True)]
    whole = lexical.baselines(texts, labels, groups)["bag_of_words"].score
    split = lexical.baselines(texts, labels, np.arange(400))["bag_of_words"].score
    assert split > 0.9, "premise: the word tells the label where a group stands on both sides"
    assert whole < 0.65


def test_balanced_accuracy_is_that_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    assert lexical.balanced_accuracy(predicted, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )


def test_the_interval_covers_the_score_of_a_coin():
    """Of 100 coin-toss predictions with paired groups, the 95 % interval misses one half in about five."""
    misses = 0
    groups = np.repeat(np.arange(100), 2)
    labels = np.tile([0, 1], 100)
    for seed in range(100):
        predicted = np.random.default_rng(seed).integers(0, 2, 200)
        low, high = lexical._interval(predicted, labels, groups, seed)
        misses += not low <= 0.5 <= high
    assert misses <= 12  # binomial(100, 0.05) exceeds 12 once in a thousand


def test_copies_and_conflicts_are_counted():
    texts = sentences(100)
    copied = [*texts, texts[0].upper() + ".", texts[1] + "  ", texts[2]]
    labels = np.tile([0, 1], 50).tolist()
    found = audit(concept(copied, [*labels, 1 - labels[0], labels[1], 1 - labels[2]]))
    assert (found.duplicates, found.conflicts) == (3, 2)
    assert found.conflict_examples == (texts[0], texts[2])
    assert any("different labels" in warning for warning in found.warnings)


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs():
    rng = np.random.default_rng(0)
    texts = sentences(60, words=25)
    for i in range(0, 60, 2):  # from nearly equal to quite different
        words = texts[i].split()
        for at in rng.choice(25, size=i // 4, replace=False):
            words[at] = "other"
        texts[i + 1] = " ".join(words)
    groups = np.arange(60)
    groups[1] = 0  # a near duplicate inside a group is none

    def alike(a: str, b: str) -> float:
        x, y = ({t[i : i + 5] for i in range(len(t) - 4)} for t in (normalise(a), normalise(b)))
        return len(x & y) / len(x | y)

    slow = [
        (i, j)
        for i in range(60)
        for j in range(i + 1, 60)
        if groups[i] != groups[j] and texts[i] != texts[j] and alike(texts[i], texts[j]) >= 0.8
    ]
    assert 3 < len(slow) < 25, "premise: some pairs are near and some are not"
    assert near_duplicates(texts, groups) == slow
    assert len(_shingles("abc")) == 1


def test_twins_that_a_group_column_separates_are_named():
    texts = [
        f"In a village {word}{i} they built a {thing}."
        for i, word in enumerate(WORDS[:30])
        for thing in ("mill", "dam")
    ]
    labels = np.tile([0, 1], 30)
    together = audit(concept(texts, labels, groups=np.repeat(np.arange(30), 2)))
    apart = audit(concept(texts, labels, groups=np.arange(60)))
    assert together.split_twins == 0
    assert apart.split_twins == 60
    assert any("twin" in warning for warning in apart.warnings)


def test_twins_that_derived_groups_divide_are_counted():
    """Each city lies in one country and falsely in another, which is that of other cities: both cannot be joined."""
    texts = [
        f"The city of {word}{i} is in {WORDS[(i * step) % 40]}land."
        for i, word in enumerate(WORDS)
        for step in (1, 3)
    ]
    found = audit(concept(texts, np.tile([1, 0], 40)))
    assert found.groups["how"] == "slot at the end"
    assert found.groups["n_groups"] == 40
    assert found.split_twins >= 40
    assert any("twin" in warning for warning in found.warnings)


def test_baselines_keep_copies_together_where_no_groups_are_given(monkeypatch):
    """Labels mean nothing, each text stands there twice, and only a part of the texts is measured."""
    monkeypatch.setattr("concept_depth.concepts.audit.MOST_FOR_BASELINES", 500)
    labels = np.repeat(np.random.default_rng(2).integers(0, 2, 300), 2)
    found = audit(concept([text for text in sentences(300) for _ in range(2)], labels))
    assert found.baseline_n == 500
    assert found.groups["n_groups"] == 300
    assert found.baselines["bag_of_words"].score < 0.6


def test_imbalance_is_named_and_small_sets_have_no_baselines():
    found = audit(concept(sentences(100), np.arange(100) < 90))
    assert found.majority == 0.9
    assert any("not balanced" in warning for warning in found.warnings)
    tiny = audit(concept(sentences(4), [0, 1, 1, 1]))
    assert tiny.baselines == {}
    assert any("too few groups" in warning for warning in tiny.warnings)


def test_the_audit_is_json_and_a_page_of_text():
    found = audit(concept(sentences(100), np.tile([0, 1], 50)))
    restored = json.loads(json.dumps(found.to_dict()))
    assert restored["baselines"]["bag_of_words"]["score"] == found.baselines["bag_of_words"].score
    assert restored["lexical"] is found.lexical
    page = str(found)
    assert page.startswith("planted: 100 examples; no 50, yes 50")
    assert "bag of words" in page
    assert audit(concept(sentences(100), np.tile([0, 1], 50))).to_dict() == found.to_dict(), "seeded"


def test_more_classes_than_two_are_audited(shared_data):
    found = audit(cd.load_concept("emotions", data_dir=shared_data, limit=500))
    assert found.baselines["majority"].score == pytest.approx(1 / 6)
    assert found.baselines["bag_of_words"].score > 0.4


def test_arrays_are_refused():
    with pytest.raises(InputError, match="an audit needs texts"):
        audit(cd.Concept(name="a", inputs=np.ones((4, 2)), labels=[0, 1, 0, 1], classes=("a", "b")))


@pytest.mark.parametrize("name", registry.bundled_names())
def test_bundled_sets_are_balanced_free_of_copies_and_as_lexical_as_their_card_says(name):
    loaded = cd.load_concept(name)
    card = json.loads((registry.bundled_folder() / name / "concept.json").read_text(encoding="utf-8"))
    found = audit(loaded)
    assert max(found.class_counts.values()) == min(found.class_counts.values())
    assert found.duplicates == found.conflicts == 0
    if not card["lexical"]:
        strongest = max(baseline.score for baseline in found.baselines.values())
        assert strongest <= 0.60, str(found)
        assert not found.warnings, str(found)
