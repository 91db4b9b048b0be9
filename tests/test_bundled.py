"""Every bundled concept is what its card says: the same bytes when made again, balanced, no hints in words."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("cards", ROOT / "scripts" / "cards.py")
assert SPEC is not None
assert SPEC.loader is not None
cards = importlib.util.module_from_spec(SPEC)
sys.modules["cards"] = cards
SPEC.loader.exec_module(cards)

CARDS = {card.folder.name: card for card in cards.bundled()}
GENERATED = sorted(name for name, card in CARDS.items() if card.meta["made"] == "generated")
KEYS = {"name", "question", "kind", "category", "classes", "template", "made", "lexical", "licence", "source"}

each = pytest.mark.parametrize("name", sorted(CARDS))


def test_datasets_is_no_python_package():
    # With an __init__.py it would shadow Hugging Face's package of the same name.
    assert not list((ROOT / "datasets").rglob("__init__.py"))


def test_every_folder_is_a_whole_concept():
    folders = {path.name for path in (ROOT / "datasets").iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert folders == set(CARDS), "each folder needs concept.json, README.md and data.jsonl"


@each
def test_a_concept_says_what_it_is(name):
    meta = CARDS[name].meta
    assert set(meta) >= KEYS
    assert set(meta) <= KEYS | {"steps", "columns"}
    assert meta["name"] == name
    assert meta["made"] in ("generated", "written")
    assert meta["question"].endswith("?")
    assert meta["licence"] == "CC0-1.0"
    described = {"text", "label", "group", *meta.get("columns", {})}
    assert all(set(row) == described for row in CARDS[name].rows)


@each
def test_the_card_tells_the_counts_and_the_checksum_of_the_data(name):
    told = cards.told(CARDS[name])
    assert {key: told.get(key) for key in cards.counted(CARDS[name])} == cards.counted(CARDS[name])


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_concept_is_made_again_byte_for_byte(name, tmp_path):
    folder, again = CARDS[name].folder, tmp_path / "data.jsonl"
    subprocess.run([sys.executable, "-I", "-B", str(folder / "prepare.py"), "--out", str(again)], check=True)
    assert again.read_bytes() == (folder / "data.jsonl").read_bytes()


@each
def test_classes_are_balanced_and_texts_are_different(name):
    card = CARDS[name]
    counts = Counter(row["label"] for row in card.rows)
    assert set(counts) == set(card.meta["classes"])
    assert max(counts.values()) - min(counts.values()) <= 0.02 * len(card.rows)
    assert len(card.rows) >= (300 if card.meta["made"] == "written" else 600)
    texts = [" ".join(text.split()).casefold() for text in card.texts]
    # Case tells two formulas or names apart nowhere in these sets, so no two texts may be equal but for it.
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() and "  " not in text for text in card.texts)


@each
def test_groups_are_many_and_none_is_large(name):
    sizes = np.bincount(CARDS[name].groups)
    assert len(sizes) >= 20
    assert sizes.max() <= 0.05 * sizes.sum()


@pytest.mark.parametrize("name", sorted(name for name, card in CARDS.items() if "steps" in card.meta))
def test_each_number_of_steps_is_a_balanced_concept_of_its_own(name):
    card = CARDS[name]
    assert card.meta["steps"] == sorted({row["steps"] for row in card.rows})
    for step in card.meta["steps"]:
        rows = [row for row in card.rows if row["steps"] == step]
        counts = Counter(row["label"] for row in rows)
        groups = Counter(str(row["group"]) for row in rows)
        assert len(rows) >= 300
        assert len(set(counts.values())) == 1
        assert len(groups) >= 20
        assert max(groups.values()) <= 0.05 * len(rows)


@each
def test_words_alone_do_not_tell_the_label_and_the_card_says_what_the_audit_finds(name):
    card = CARDS[name]
    found, told = cards.audited(card), cards.told(card)
    assert found.duplicates == found.conflicts == 0
    measured = {kind: baseline.score for kind, baseline in found.baselines.items()}
    assert set(measured) == {"majority", "length", "bag_of_words", "char_ngrams"}
    for kind, value in measured.items():
        # Rounded to hundredths on the card; another release of scikit-learn may tip a few examples.
        assert abs(float(told[f"baseline: {kind.replace('_', ' ')}"]) - value) <= 0.03, kind
    if not card.meta["lexical"]:
        assert max(measured.values()) <= 0.60, measured
        # Far below chance is as bad: then groups tear twins apart, and one twin's words predict the other's label.
        assert min(measured.values()) >= 0.40, measured


def test_the_audit_finds_a_set_that_words_give_away(tmp_path):
    # The check above must be able to fail.
    rows = [
        {"text": f"it is {word} {i}", "label": word, "group": i} for i in range(60) for word in ("bad", "good")
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "concept.json").write_text(json.dumps({"classes": ["bad", "good"]}))
    measured = cards.measured(cards.Card(tmp_path))
    assert measured["bag of words"] > 0.95
    assert measured["char ngrams"] > 0.95
    assert measured["majority"] == 0.5


def test_the_overview_names_every_concept():
    text = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    for name in CARDS:
        assert f"[{name}]({name}/README.md)" in text


# What the label must be, read off the text again by code that knows nothing of how the set was made.


def by_arithmetic(text: str) -> str:
    for word, sign in {"plus": "+", "minus": "-", "times": "*", "equals": "="}.items():
        text = text.replace(word, sign)
    a, sign, b, _, result = text.rstrip(".").split()
    return str({"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(result)).lower()


def by_size(text: str) -> str:
    a, b = text.rstrip(".").split(" is larger than ")
    return str(int(a) > int(b)).lower()


def by_flipping(text: str) -> str:
    start, *acts, question = text.replace("?", ".").rstrip(".").split(". ")
    heads = "heads" in start
    for act in acts:
        heads ^= " not " not in act and " leaves " not in act
    return "yes" if heads == ("heads" in question) else "no"


def by_swapping(text: str) -> str:
    start, *swaps, end = text.rstrip(".").split(". ")
    first, last = start.split(" and ")
    one, two = first.split(", ")
    holds = {part.split()[0]: part.split()[-1] for part in (one, two, last)}
    for swap in swaps:
        a, _, b, *_ = swap.split()
        holds[a], holds[b] = holds[b], holds[a]
    person, thing = end.removeprefix("At the end, ").split(" holds the ")
    return str(holds[person] == thing).lower()


def by_cancelling(text: str) -> str:
    signs = text.replace(" ", "")
    while "()" in signs:
        signs = signs.replace("()", "")
    return "unbalanced" if signs else "balanced"


def by_looking(text: str) -> str:
    *words, last = text.split()
    return "yes" if last in words else "no"


def by_counting(text: str) -> str:
    return ("even", "odd")[len(text) % 2]


def by_trying_all_worlds(text: str) -> str:
    # A world says which of the eight kinds of things (in or out of each of three nouns) there are.
    claims = []
    nouns: list[str] = []
    for claim in text.replace("Therefore, ", "").lower().rstrip(".").split(". "):
        quantifier, a, _, *negation, b = claim.split()
        nouns += [noun for noun in (a, b) if noun not in nouns]
        claims.append((quantifier, nouns.index(a), bool(negation), nouns.index(b)))

    def holds(claim, world):
        quantifier, a, negated, b = claim
        inside = [(kind >> b & 1) != negated for kind in world if kind >> a & 1]
        return {"all": all(inside), "no": not any(inside), "some": any(inside)}[quantifier]

    for number in range(256):
        world = [kind for kind in range(8) if number >> kind & 1]
        if all(holds(claim, world) for claim in claims[:2]) and not holds(claims[2], world):
            return "invalid"
    return "valid"


REFERENCES = {
    "arithmetic": by_arithmetic,
    "larger_than": by_size,
    "coin_flip": by_flipping,
    "object_tracking": by_swapping,
    "parentheses": by_cancelling,
    "word_repetition": by_looking,
    "string_parity": by_counting,
    "syllogisms": by_trying_all_worlds,
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_every_label_made_by_a_rule_is_what_the_text_says(name):
    for row in CARDS[name].rows:
        assert REFERENCES[name](row["text"]) == row["label"], row["text"]


def test_denial_turns_the_truth_over():
    truth = {row["text"]: row["label"] for row in CARDS["negated_facts"].rows}
    for text, label in truth.items():
        if " not " in text:
            assert {label, truth[text.replace(" not ", " ")]} == {"true", "false"}


def test_random_labels_follow_neither_truth_nor_their_neighbours():
    rows = CARDS["random_labels"].rows
    cells = Counter((row["truth"], row["label"]) for row in rows)
    assert len(set(cells.values())) == 1, cells
    patterns = Counter(tuple(row["label"] for row in rows[start : start + 4]) for start in range(0, len(rows), 4))
    assert len(patterns) == 6
    assert len(set(patterns.values())) == 1


def test_what_is_true_in_one_set_is_false_in_none():
    labels: dict[str, set[str]] = {}
    for card in CARDS.values():
        if set(card.meta["classes"]) == {"false", "true"}:
            for row in card.rows:
                labels.setdefault(row["text"], set()).add(row["label"])
    assert len(labels) > 8000
    assert all(len(found) == 1 for found in labels.values())
