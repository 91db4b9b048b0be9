"""The page is one file that asks for nothing, says what was found, and lets no text out of its place."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from reporting_runs import HOSTILE, run

from concept_depth.reporting.overview import write_overview
from concept_depth.reporting.page import embed, number, render
from concept_depth.reporting.views import visible

LIMIT = 6_000_000


class Page(HTMLParser):
    """Collects elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self.open: list[str] = []
        self.inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = dict(attrs).get("id") or tag
        if tag not in ("meta", "link", "input", "br", "img", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"<{tag}> closes what it did not open"
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside] = self.raw.get(self.inside, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page():
    return Page(render([run()]))


@pytest.fixture(scope="module")
def several():
    return [
        run(name, model=model, at=at, strength=strength)
        for model in ("model a", "model b")
        for name, at, strength in (("early", 1, 2.0), ("late", 6, 2.0), ("absent", 4, 0.0))
    ]


def test_a_page_is_small_and_well_formed(page, several):
    assert page.open == []
    for runs in ([run()], several):
        assert len(render(runs).encode()) < LIMIT


def test_a_page_names_nothing_that_it_would_have_to_fetch(page):
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "action", "formaction", "poster", "background"):
            assert name not in attributes, tag
        if tag == "link":
            assert attributes["href"] == "data:,"
    assert not re.search(r"@import|url\(", page.raw["style"])
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert "unsafe-eval" not in policy


def test_the_verdict_comes_first(page, several):
    sentence = f"from layer {run().depth['number']} of 8"
    assert sentence in page.text[:600]
    many = Page(render(several)).text
    assert many.index("absent is not linearly separable") < many.index("Depth ladder")


def test_sections_have_headings_labels_and_tables(page):
    ids = {attributes.get("id") for _, attributes in page.elements}
    for tag, attributes in page.elements:
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids, "a link leads nowhere"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "button":
            assert attributes["type"] == "button"
    assert len([1 for tag, _ in page.elements if tag == "h1"]) == 1
    assert len(ids - {None}) == len([1 for _, a in page.elements if a.get("id")]), "an id is used twice"


def test_everything_of_a_single_run_stands_on_its_page(page):
    titles = (
        "Layer curve",
        "Do the classes come apart?",
        "Separation and margin",
        "Do layers share",
        "Leak audit",
    )
    for words in (*titles, "Most confidently misread", "concept-depth run tiny-model capital", "fingerprint"):
        assert words in page.text, words
    data = json.loads(page.raw["data"])
    assert len(data["space"]["label"]) == 120
    assert len(data["space"]["x"]) == 9
    assert data["concepts"][0]["runs"][0]["depth"]["number"] == run().depth["number"]


def test_a_page_of_many_runs_has_ladder_curves_heat_map_and_table(several):
    page = Page(render(several))
    for words in ("Depth ladder", "Layer curves", "Depth by model", "All results"):
        assert words in page.text
    assert page.text.index("early") < page.text.index("late")
    assert "space" not in json.loads(page.raw["data"])


def test_a_page_of_many_runs_links_to_the_single_ones(tmp_path):
    for name in ("one", "two & more"):
        run(name).save(tmp_path / name)
    path = write_overview([tmp_path], tmp_path)
    page = Page(path.read_text())
    links = {
        attributes["href"] for tag, attributes in page.elements if tag == "a" and attributes["href"][0] != "#"
    }
    assert links == {"one/report.html", "two%20%26%20more/report.html"}
    assert {path.name for path in tmp_path.iterdir()} >= {"depth.csv", "layers.csv", "ladder.pdf", "curve.svg"}


def test_hostile_text_stays_text():
    odd = run("<img src=x onerror=hacked()>", model="</title><script>hacked()</script>", hostile=True)
    page = Page(render([odd]))
    assert page.open == []
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {"type": "text/plain", "id": "plotly"}, {}]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "\u202e" not in page.text
    assert "\x00" not in page.text
    texts = json.loads(page.raw["data"])["space"]["text"]
    assert any(text.startswith("<script>window.hacked") for text in texts)
    assert max(map(len, texts)) < 600
    assert len(render([odd]).encode()) < LIMIT


def test_embedded_json_cannot_end_its_element():
    value = {"</script>": "<!-- & \u2028 \u2029 ]]>"}
    text = str(embed(value))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


def test_visible_shows_what_cannot_be_seen_and_keeps_what_can():
    assert visible("a\x00b\nc\x7f") == "a␀b⏎ c␡"
    assert visible("\u202eab") == "⟨U+202E⟩ab"
    assert visible("שלום 👩‍👩‍👧 é") == "שלום 👩‍👩‍👧 é"
    assert visible("x" * 100_000).startswith("x" * 280 + "…")
    assert "100,000" in visible("x" * 100_000)
    for text in HOSTILE:
        assert len(visible(text)) < 600
        visible(text).encode("utf-8")


def test_numbers_are_shown_short_and_never_as_a_wrong_zero():
    # Sums that cancel leave the last bit of a float, which is no value of theirs.
    assert [number(v) for v in (-2e-16, 2e-16, -0.0)] == ["0.00"] * 3
    assert [number(v) for v in (None, 0.123, 0.0001, 1234567, 12.0, 0.0)] == [
        "–",
        "0.12",
        "0.0001",
        "1,234,567",
        "12",
        "0.00",
    ]


def test_the_same_runs_give_the_same_page():
    assert render([run()]) == render([run()])


def test_what_else_was_measured_has_its_section():
    from dataclasses import replace

    plain = run()
    record = {
        **plain.record,
        "anchoring": {"accuracy": 0.6, "balanced_accuracy": 0.61, "calibrated": {"balanced_accuracy": 0.7}},
        "paired": [{"condition": "noise <letters>", "delta_depth": -0.1, "p_depth": 0.04, "delta_peak": 0.0}],
        "tokens": ["yes (3 tokens): The| city|【.】", {"tokens": ["<b>", "."], "rows": [0], "label": "no"}],
        "separability": [{"separable": False, "margin": 0.0, "cover_probability": 0.5, "n_directions": None}] * 9,
    }
    page = Page(render([replace(plain, record=record)]))
    assert page.open == []
    for words in ("61 % right when asked", "70 % once its bias", "noise <letters>", "−0.10", "not separable"):
        assert words in page.text, words
    marked = [
        attributes["class"]
        for tag, attributes in page.elements
        if (attributes.get("class") or "").startswith("token")
    ]
    assert [name.endswith("read") for name in marked if name != "tokens"] == [False, False, True, True, False]


def test_a_page_claims_unseen_examples_and_whole_groups_only_where_it_is_so():
    from dataclasses import replace

    plain = run()
    inside = replace(plain, record={**plain.record, "probe": {**plain.record["probe"], "splits": "whole sample"}})
    leaky = replace(plain, record={**plain.record, "audit": {**plain.record["audit"], "leak": 0.68}})
    texts = [Page(render([item])).text for item in (plain, inside, leaky)]
    assert ["not seen" in text for text in texts] == [True, False, True]
    assert ["never stand on both sides" in text for text in texts] == [True, False, False]
    assert "68 % of the test examples" in texts[2]
