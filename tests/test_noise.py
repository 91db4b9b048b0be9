"""Noise: the same examples disturbed, seeded, with labels, groups and spans where they were."""

from __future__ import annotations

import re

import numpy as np
import pytest

from concept_depth.concepts.concept import Concept
from concept_depth.concepts.noise import Edit, apply, moved, paraphrase, perturb
from concept_depth.errors import InputError

ALL = ["letters", "typos", "typos:1", "case", "case:random", "case:lower", "words", "words:0.5", "front", "behind"]


def cities(n: int = 60, **fields) -> Concept:
    texts = [
        f"The town of Mersin{'abcdefghij'[i % 10]} lies beyond {'Norway' if i % 2 else 'Chile'} {i}."
        for i in range(n)
    ]
    spans = tuple((text.index("Mersin"), text.index(" lies")) for text in texts)
    return Concept(
        name="towns",
        inputs=texts,
        labels=np.arange(n) % 2,
        classes=("false", "true"),
        groups=np.arange(n) // 2,
        **{
            "spans": spans,
            "template": "Decide whether the following statement is true or false. {text}",
            **fields,
        },
    )


@pytest.mark.parametrize("noise", [*ALL, "paraphrase", "typos:0.5+front+paraphrase"])
def test_labels_groups_and_classes_stay_and_the_change_is_recorded(noise):
    clean = cities()
    noisy = perturb(clean, noise)
    np.testing.assert_array_equal(noisy.labels, clean.labels)
    np.testing.assert_array_equal(noisy.groups, clean.groups)
    assert noisy.classes == clean.classes
    assert noisy.name == "towns+" + noise.replace(":", "=")
    assert noisy.details["noise"]["noise"] == noise
    assert 0 < noisy.details["noise"]["changed"] <= 1
    assert noisy.fingerprint != clean.fingerprint
    assert clean.fingerprint == cities().fingerprint, "the given concept is left as it was"


@pytest.mark.parametrize("noise", ALL)
def test_a_text_is_disturbed_alike_in_any_company_and_otherwise_with_another_seed(noise):
    clean = cities()
    order = np.random.default_rng(0).permutation(len(clean))[:30]
    whole, part = perturb(clean, noise), perturb(clean.select(order), noise)
    assert part.inputs == tuple(whole.inputs[i] for i in order)
    assert part.spans == tuple(whole.spans[i] for i in order)
    if noise not in ("case", "case:lower"):
        assert perturb(clean, noise, random_state=1).inputs != whole.inputs


@pytest.mark.parametrize("noise", ["letters", "front", "behind", "words", "words:0.5"])
def test_spans_move_with_what_they_point_at(noise):
    clean = cities()
    noisy = perturb(clean, noise)
    assert noisy.inputs != clean.inputs
    for before, after, old, new in zip(clean.inputs, noisy.inputs, clean.spans, noisy.spans, strict=True):
        assert after[slice(*new)] == before[slice(*old)]


def test_spans_grow_and_shrink_with_changes_inside_them():
    clean = cities()
    for noise, same in (("case", str.upper), ("case:lower", str.lower)):
        for before, after, old, new in zip(
            clean.inputs, perturb(clean, noise).inputs, clean.spans, perturb(clean, noise).spans, strict=True
        ):
            assert after[slice(*new)] == same(before[slice(*old)])
    typed = perturb(clean, "typos:1")
    for after, (start, end) in zip(typed.inputs, typed.spans, strict=True):
        assert after[start] == "M"
        assert after[end : end + 2] == " l"


def test_edits_move_spans_as_a_marked_text_shows():
    """The slow reference: mark the span's characters by private symbols, edit, and look where they are."""
    rng = np.random.default_rng(0)
    text = "abcdefghijklmnop"
    for _ in range(300):
        start, end = sorted(rng.choice(len(text) + 1, size=2, replace=False))
        cuts = sorted(rng.choice(len(text) + 1, size=4))
        edits = [Edit(int(cuts[0]), int(cuts[1]), "X" * rng.integers(3)), Edit(int(cuts[2]), int(cuts[3]), "YY")]
        if any(edit.start < border < edit.end for edit in edits for border in (start, end)):
            continue  # over a border: the next test
        if cuts[1] == cuts[2] or cuts[0] == cuts[1] or cuts[2] == cuts[3]:
            continue
        inside = [edit for edit in edits if start <= edit.start and edit.end <= end]
        marked = apply(text[start:end], [Edit(e.start - start, e.end - start, e.new) for e in inside])
        new = moved((int(start), int(end)), edits)
        assert apply(text, edits)[slice(*new)] == marked


def test_an_edit_over_the_border_of_a_span_belongs_to_it():
    assert moved((4, 8), [Edit(2, 5, "x")]) == (2, 6)
    assert moved((4, 8), [Edit(7, 10, "xyz!")]) == (4, 11)
    assert moved((4, 8), [Edit(4, 4, "in front")]) == (12, 16)
    assert moved((4, 8), [Edit(8, 8, "behind")]) == (4, 8)


def test_letters_are_those_of_the_paper_and_say_nothing_of_the_label():
    clean = cities(2000)
    noisy = perturb(clean, "letters")
    first = np.asarray([text[:3] == "aaa" for text in noisy.inputs])
    for before, after in zip(clean.inputs, noisy.inputs, strict=True):
        assert after in (f"aaa{before}", f"bbb{before}")
    # Twice the standard deviation of a share of 1000 coin tosses is 0.032.
    for label in (0, 1):
        assert abs(first[clean.labels == label].mean() - 0.5) < 0.05


def test_typing_errors_hit_the_given_share_of_long_words_and_no_digit():
    clean = cities(500)
    noisy = perturb(clean, "typos:0.3")
    hit = total = 0
    for before, after in zip(clean.inputs, noisy.inputs, strict=True):
        assert re.findall(r"\d+", before) == re.findall(r"\d+", after)
        old, new = before.split(), after.split()
        assert len(old) == len(new)
        for a, b in zip(old, new, strict=True):
            if len(a) < 4 or not a.isalpha():
                assert a == b
            else:
                assert a[0] == b[0]
                total += 1
                hit += a != b
    assert 0.25 < hit / total < 0.35


def test_word_order_keeps_the_words_and_the_punctuation():
    clean = cities(spans=None)
    for before, after in zip(clean.inputs, perturb(clean, "words").inputs, strict=True):
        assert sorted(re.findall(r"\w+", before)) == sorted(re.findall(r"\w+", after))
        assert before != after
        assert after.endswith(".")


def test_paraphrases_keep_the_slot_and_change_the_words():
    assert paraphrase("Decide whether the following statement is true or false. {text}", 0) == (
        "Judge if the statement below is false or true. {text}"
    )
    assert paraphrase(None, 0) == "Consider the following. {text}"
    assert paraphrase("{text} Heads?", 1) == "Please read this. {text} Heads?"
    clean = cities()
    assert perturb(clean, "paraphrase").inputs == clean.inputs


@pytest.mark.parametrize(
    ("noise", "sentence"),
    [
        ("tpyos", "noise 'tpyos' is not known; give letters, typos"),
        ("typos:2", "'2' is no share; give a number above 0 and up to 1"),
        ("typos:much", "'much' is no share"),
        ("case:title", "there is no case 'title'; give upper, lower"),
        ("front:3", "'front' has no strength"),
        ("", "noise '' is not known"),
    ],
)
def test_an_unknown_noise_is_one_sentence(noise, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        perturb(cities(), noise)


def test_noise_that_changes_nothing_or_meets_no_text_is_refused():
    symbols = cities().select(range(60), inputs=["( [ ] )"] * 60, spans=None)
    with pytest.raises(InputError, match="changes no text"):
        perturb(symbols, "words")
    arrays = Concept(name="a", inputs=np.ones((4, 2)), labels=[0, 1, 0, 1], classes=("a", "b"))
    with pytest.raises(InputError, match="noise needs texts"):
        perturb(arrays, "letters")


def test_noise_upon_noise_is_recorded_whole():
    once = perturb(cities(), "letters", random_state=3)
    twice = perturb(once, "front")
    assert twice.name == "towns+letters+front"
    assert twice.details["noise"]["noise"] == "letters+front"
    assert twice.details["noise"]["before"] == once.details["noise"]
    assert once.details["noise"]["random_state"] == 3
    assert "before" not in once.details["noise"]
