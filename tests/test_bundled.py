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
def test_words_alone_do_not_tell_the_label_and_the_card_says_so(name):
    card, told = CARDS[name], cards.told(CARDS[name])
    measured = cards.measured(card)
    for kind, value in measured.items():
        # Rounded to hundredths on the card; another release of scikit-learn may tip a few examples.
        assert abs(float(told[f"baseline: {kind}"]) - value) <= 0.03, kind
    if not card.meta["lexical"]:
        assert max(measured.values()) <= 0.60, measured
        # Far below chance is as bad: then groups tear twins apart, and one twin's words predict the other's label.
        assert min(measured.values()) >= 0.40, measured


def test_the_measure_of_words_finds_a_set_that_words_give_away(tmp_path):
    # The check above must be able to fail.
    rows = [
        {"text": f"it is {word} {i}", "label": word, "group": i} for i in range(60) for word in ("bad", "good")
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "concept.json").write_text(json.dumps({"classes": ["bad", "good"]}))
    assert cards.baseline(cards.Card(tmp_path), "words") > 0.95
    assert cards.baseline(cards.Card(tmp_path), "characters") > 0.95


def test_the_overview_names_every_concept():
    text = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    for name in CARDS:
        assert f"[{name}]({name}/README.md)" in text
