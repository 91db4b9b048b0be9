"""Groups: twins found from the texts, against a slow and obvious definition and against known group columns."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import variants
from concept_depth.concepts.groups import derive_groups, fault, number_groups, split_twins
from concept_depth.concepts.variants import SLOT, normalise, tokens

CITIES = ["Lodz", "Krakow", "Addis Ababa", "Baku", "Baoji", "Maracay", "New York City", "Perth"]
COUNTRIES = ["Poland", "Ethiopia", "Azerbaijan", "China", "Venezuela", "the United States", "Australia", "Peru"]


def one_slot_apart(a: list[str], b: list[str]) -> bool:
    """Slow and obvious: cut every slot out of both and compare what is left."""

    def cuts(words):
        n = len(words)
        return {
            (tuple(words[:i]), tuple(words[i + size :]))
            for size in range(SLOT + 1)
            if n - size >= max(size, 2)
            for i in range(n - size + 1)
        }

    return bool(cuts(a) & cuts(b))


def components(texts: list[str]) -> np.ndarray:
    words = [tokens(text) for text in texts]
    group = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if normalise(texts[i]) == normalise(texts[j]) or one_slot_apart(words[i], words[j]):
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    return number_groups(group)


def city_sentences(n_cities: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """n_cities true and false sentences over few countries, so that all are linked by one slot."""
    texts, labels, city = [], [], []
    for i in range(n_cities):
        for label in (1, 0):
            country = COUNTRIES[(i + (0 if label else 1 + i // 8 % 7)) % 8]
            texts.append(f"The city of {CITIES[i % 8]} {i}x is in {country}.")
            labels.append(label)
            city.append(i)
    return texts, np.asarray(labels), np.asarray(city)


def test_one_slot_groups_equal_the_slow_definition():
    rng = np.random.default_rng(0)
    words = ["a", "b", "c", "d", "e", "f"]
    texts = [" ".join(rng.choice(words, size=rng.integers(4, 9))) for _ in range(120)]
    texts += [f"unique {i} sentence {i * i} of number {i + 500} here {i}" for i in range(40)]
    slow = components(texts)
    found = derive_groups(texts)
    if fault(slow) is None:
        assert found.details["how"] == "one slot"
        np.testing.assert_array_equal(found.groups, slow)
    else:
        assert any(line.startswith("one slot") for line in found.details["refused"])


@pytest.mark.parametrize("seed", range(3))
def test_sparse_twins_equal_the_slow_definition(seed):
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(300)]
    texts = []
    for _ in range(60):
        base = list(rng.choice(vocabulary, size=rng.integers(5, 20)))
        texts.append(" ".join(base))
        at = int(rng.integers(len(base)))
        kind = rng.integers(4)
        if kind == 0:
            base[at] = "other"
        elif kind == 1:
            base.insert(at, "not")
        elif kind == 2:
            base[at : at + 2] = ["quite", "another", "thing"]
        else:
            base[0], base[-1] = "two", "slots"
        texts.append(" ".join(base).upper() + ".")
    found = derive_groups(texts)
    assert found.details["how"] == "one slot"
    slow = components(texts)
    np.testing.assert_array_equal(found.groups, slow)
    assert 60 < found.details["n_groups"] < 120, "some pairs are twins and some are not"


def test_city_sentences_do_not_chain_into_one_group():
    texts, labels, city = city_sentences(60)
    assert fault(components(texts)) is not None, "premise: joining all one-slot variants collapses"
    found = derive_groups(texts, labels)
    np.testing.assert_array_equal(found.groups, city)
    assert found.details["how"] in ("slot at the end", "nearest twins")
    assert found.details["mixed"] == 1.0
    assert any(line.startswith("one slot puts") for line in found.details["refused"])


def test_texts_without_a_twin_are_not_joined_by_their_template():
    texts, labels, city = city_sentences(60)
    lone = [f"The city of Alone{i} is in Faraway{i}." for i in range(100)]
    found = derive_groups(texts + lone, [*labels, *(i % 2 for i in range(100))])
    np.testing.assert_array_equal(found.groups[:120], city)
    assert len(set(found.groups[120:])) == 100


def test_groups_do_not_depend_on_the_order_of_examples():
    texts, labels, _ = city_sentences(40)
    order = np.random.default_rng(1).permutation(len(texts))
    plain = derive_groups(texts, labels).groups[order]
    shuffled = derive_groups([texts[i] for i in order], labels[order]).groups
    assert len(set(zip(plain, shuffled, strict=True))) == len(set(plain)) == len(set(shuffled))


def test_negation_twins_are_found_though_one_has_a_word_more():
    texts = [
        f"The {a} of {b} {middle} {c}."
        for a, b, c in zip(
            [f"river{i}" for i in range(30)],
            [f"land{i}" for i in range(30)],
            [f"adjective{i}" for i in range(30)],
            strict=True,
        )
        for middle in ("is", "is not")
    ]
    found = derive_groups(texts, np.tile([1, 0], 30))
    np.testing.assert_array_equal(found.groups, np.repeat(np.arange(30), 2))


def test_copies_belong_together_whatever_their_case_quotes_and_spaces():
    texts = [f"Sentence {i} says “{i * 7}”  of  itself" for i in range(25)]
    copies = [f'SENTENCE {i} says "{i * 7}" of itself.' for i in range(25)]
    groups = derive_groups(texts + copies).groups
    np.testing.assert_array_equal(groups[:25], groups[25:])


def test_signs_are_not_punctuation_to_be_ignored():
    assert normalise("12 + 5 = 17") != normalise("12 - 5 = 17")
    assert normalise("( [ ] )") != normalise("( ( ) )")
    assert normalise("...") == "..."


def test_scripts_without_spaces_are_read_by_character():
    assert tokens("猫は好き") == ["猫", "は", "好", "き"]
    assert tokens("The U.S. isn't 3.5-fold!") == ["the", "u.s", ".", "isn't", "3.5-fold", "!"]


def test_collapsed_groupings_are_refused_and_small_sets_are_not():
    assert "30 of 100" in (fault([0] * 30 + list(range(1, 71))) or "")
    assert "leaves 19 groups" in (fault(np.repeat(np.arange(19), 2)) or "")
    assert fault(np.repeat(np.arange(20), 2)) is None
    assert fault([0, 0, *range(1, 25)]) is None, "one pair among 26 examples is no collapse"


def statements(path) -> tuple[list[str], list[int], list[dict]]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[:4000]
    return [row["statement"] for row in rows], [int(row["label"]) for row in rows], rows


def test_the_true_groups_of_real_sets_are_found(shared_data):
    texts, labels, rows = statements(shared_data / "cities" / "cities.csv")
    np.testing.assert_array_equal(
        derive_groups(texts, labels).groups, number_groups([row["city"] for row in rows])
    )


def test_no_true_group_of_a_real_set_is_divided(shared_data):
    texts, labels, rows = statements(shared_data / "counterfact" / "counterfact.csv")
    known = number_groups([(row["subject"], row["relation"]) for row in rows])
    found = derive_groups(texts, labels)
    assert found.details["how"] == "one slot"
    assert len(set(zip(known, found.groups, strict=True))) == len(set(known))
    assert not split_twins(texts, labels, found.groups).any()


def capitals(n: int = 120) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Cities, each in its own country and, falsely, in three others; every fifth falsely in the next one's country."""
    rng = np.random.default_rng(0)
    texts, labels, city = [], [], []
    for i in range(n):
        others = rng.choice(np.arange(n, 2 * n), size=3, replace=False)
        if i % 5 == 0:
            others[0] = i + 1
        for country in (i, *others):
            texts.append(f"Place{i} is a city in Land{country}")
            labels.append(int(country == i))
            city.append(i)
    return texts, np.asarray(labels), np.asarray(city)


def test_a_fact_and_all_its_false_twins_share_a_group():
    texts, labels, city = capitals()
    assert fault(components(texts)) is not None, "premise: joining all one-slot variants collapses"
    found = derive_groups(texts, labels)
    np.testing.assert_array_equal(found.groups, city)
    assert found.details["how"] == "slot at the end"


def test_texts_with_other_twins_do_not_divide_a_fact_from_its_false_twins():
    """Each of 20 places lies in its own country and falsely in four others; each of these five statements has a twin
    of its own with the slot at the start, and 20 towns have no other. The places must stay whole all the same.
    """
    place = "{} is a city in Land{}".format
    texts, labels = [], []
    for i in range(20):
        texts += [place(f"Place{i}", f"{i}x{k}") for k in range(5)]
        labels += [1, 0, 0, 0, 0]
        for k in range(5):  # a pair: it lies where the place is not, and falsely where the place is
            lands = (f"{i}x{k}", f"{i}y{k}") if k else (f"{i}y0", f"{i}x0")
            texts += [place(f"Rival{i}x{k}", land) for land in lands]
            labels += [1, 0]
        texts += [
            place(f"Town{i}", f"{i}y1"),
            place(f"Bridge{i}", f"{i}y2"),
            place(f"Bridge{i}", f"{(i + 1) % 20}y3"),
        ]
        labels += [1, 1, 0]
    assert fault(components(texts)) is not None, "premise: joining all one-slot variants collapses"
    found = derive_groups(texts, labels)
    assert found.details["mixed"] == 1.0
    for i in range(20):
        members = [at for at, text in enumerate(texts) if text.startswith(f"Place{i} ")]
        assert len(set(found.groups[members])) == 1


def test_facts_and_false_twins_of_public_sets_share_a_group(shared_data):
    """Of 717 stems ("Addis Ababa is a city in") two have an answer as long as they are, which is no slot."""
    for name, pattern, most in (
        ("truth_capitals", r".*? is a (?:city in|name of)", 2),
        ("truth_elements", r".*? has the atomic", 0),
        ("truth_companies", r".*? (?:engages in|has|operates in)", 0),
    ):
        concept = cd.load_concept(name, data_dir=shared_data)
        members: dict[str, list[int]] = {}
        for index, text in enumerate(concept.inputs):
            match = re.match(pattern, text)
            members.setdefault(match.group() if match else text, []).append(index)
        divided = [
            stem
            for stem, rows in members.items()
            if len(set(concept.labels[rows])) > 1 and len(set(concept.groups[rows])) > 1
        ]
        assert len(members) > 90
        assert len(divided) <= most, divided
        assert fault(concept.groups) is None


def test_a_grouping_that_holds_all_twins_gives_way_to_no_finer_one():
    """Three kinds of twins of one story; a pair of them is a group as well, but divides the others."""
    story = cd.load_concept("object_tracking")
    found = derive_groups(story.inputs, story.labels)
    assert found.details["how"] == "one slot"
    assert not split_twins(story.inputs, story.labels, found.groups).any()


def test_copies_with_both_labels_do_not_hide_their_twins():
    texts, labels, _ = capitals()
    names = [f"Rock{i} is a name of a {kind}" for i in range(30) for kind in ("city", "town", "city", "town")]
    found = derive_groups(texts + names, [*labels, *([1, 0, 0, 1] * 30)]).groups[len(texts) :]
    assert all(len(set(found[at : at + 4])) == 1 for at in range(0, 120, 4))


def nearest_twins(texts: list[str], labels: np.ndarray) -> list[set[int]]:
    """Slow and obvious: all members of each text's smallest sets of twins, for each position of the slot."""
    sets: dict[tuple, set[int]] = {}
    for index, words in enumerate(map(tokens, texts)):
        n = len(words)
        for size in range(SLOT + 1):
            for i in range(n - size + 1) if n - size >= max(size, 2) else ():
                sets.setdefault((tuple(words[:i]), tuple(words[i + size :])), set()).add(index)
    found = [set() for _ in texts]
    for wanted in ("end", "start", "inside"):
        mine: list[list[set[int]]] = [[] for _ in texts]
        for (before, behind), members in sets.items():
            position = "end" if not behind else "inside" if before else "start"
            several = len({labels[i] for i in members}) > 1 and len({normalise(texts[i]) for i in members}) > 1
            if position == wanted and several and len(members) <= max(0.05 * len(texts), 2):
                for index in members:
                    mine[index].append(members)
        for index, candidates in enumerate(mine):
            smallest = min(map(len, candidates), default=0)
            found[index] |= {i for members in candidates if len(members) == smallest for i in members}
    return found


@pytest.mark.parametrize("seed", range(3))
def test_split_twins_equal_the_slow_definition(seed):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(3, 6))) for _ in range(150)]
    labels, groups = rng.integers(0, 2, 150), rng.integers(0, 75, 150)
    groups[75:] = groups[:75]
    for at, twins in enumerate(nearest_twins(texts, labels)):
        if twins and rng.random() < 0.5:
            groups[list(twins)] = groups[at]
    slow = [len(set(groups[list(twins)])) > 1 for twins in nearest_twins(texts, labels)]
    assert 0.2 < np.mean(slow) < 0.95, "premise: some twins are divided and some are not"
    np.testing.assert_array_equal(split_twins(texts, labels, groups), slow)


def test_long_texts_are_read_in_parts_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcd"), size=rng.integers(1, 40))) for _ in range(200)]
    whole = derive_groups(texts, np.arange(200) % 2)
    monkeypatch.setattr(variants, "AT_ONCE", 1000)
    parts = [len(keys) for keys, _, _ in variants._Rows.of(map(tokens, texts)).slot_keys()]
    assert len(parts) > 15
    assert max(parts) < 4000
    np.testing.assert_array_equal(derive_groups(texts, np.arange(200) % 2).groups, whole.groups)
