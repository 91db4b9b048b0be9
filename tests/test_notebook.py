"""Results show themselves in notebooks: as HTML that needs no style sheet and shows texts as they are."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from reporting_runs import planted, run

import concept_depth
from concept_depth.activations import Activations
from concept_depth.depth import find_depth
from concept_depth.probing.scores import score_layers
from concept_depth.reporting.notebook import depth_html, enable, report_html, scores_html


@pytest.fixture(scope="module")
def scores():
    layers, labels, groups = planted()
    acts = Activations.from_arrays(layers, labels, groups=groups, classes=("<b>", "yes"))
    return score_layers(acts, cv=3, repeats=1, C=0.1, permutations=0)


def test_scores_show_their_curve_and_a_table(scores):
    html = scores_html(scores)
    assert "<polyline" in html
    assert "AUROC" in html


def test_a_depth_shows_its_sentence_and_its_place(scores):
    depth = find_depth(scores)
    html = depth_html(depth)
    assert str(depth) in html
    assert html.count("<line") == 1


def test_a_report_shows_its_verdict_and_escapes_names():
    html = report_html(run("<img src=x>", hostile=True))
    assert "&lt;img" in html
    assert "<img" not in html


def test_without_ipython_nothing_is_enabled():
    assert enable() is False


def test_a_running_ipython_shows_scores_and_depths(scores, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # its history is not the user's
    interactive = pytest.importorskip("IPython.core.interactiveshell", reason="no IPython")
    shell = interactive.InteractiveShell.instance()
    try:
        assert enable()
        html = shell.display_formatter.formatters["text/html"]
        html.enabled = True  # as a notebook's shell has it
        assert "<polyline" in html(scores)
        assert "<polyline" in html(find_depth(scores))
    finally:
        shell.history_manager.end_session()
        interactive.InteractiveShell.clear_instance()


def test_values_show_themselves_in_notebooks_with_texts_escaped():
    texts = [f"<script>{i}</script>" for i in range(40)]
    concept = concept_depth.Concept(name="<b>", inputs=texts, labels=[0, 1] * 20, classes=("no", "<i>"))
    images = concept_depth.Concept(
        name="a", inputs=np.zeros((4, 2, 3)), labels=[0, 1, 0, 1], classes=("no", "yes")
    )
    acts = concept_depth.Activations.from_arrays(
        [np.ones((40, 3))], [0, 1] * 20, classes=("no", "<i>"), provenance={"concept": concept.describe()}
    )
    for value in (concept, images, acts):
        html = value._repr_html_()
        assert html.startswith("<table>")
        assert "<script" not in html
        assert "<b>" not in html
        assert "<i>" not in html
    assert "(2, 3)" in images._repr_html_()
    assert "&lt;b&gt;" in acts._repr_html_()


def test_scores_become_a_data_frame_with_a_row_for_each_layer_and_metric(monkeypatch):
    rng = np.random.default_rng(0)
    acts = concept_depth.Activations.from_arrays([rng.normal(size=(60, 3)) for _ in range(2)], [0, 1] * 30)
    scores = concept_depth.score_layers(acts, cv=3, repeats=1, C=1.0, permutations=0)
    frame = scores.to_pandas()
    assert len(frame) == 2 * len(scores.per_fold)
    curve = frame[frame["metric"] == scores.scoring].sort_values("number")["mean"]
    np.testing.assert_allclose(curve, scores.curve)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(concept_depth.InputError, match="pip install pandas"):
        scores.to_pandas()
