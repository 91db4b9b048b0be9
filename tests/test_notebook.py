"""Results show themselves in notebooks: as HTML that needs no style sheet and shows texts as they are."""

from __future__ import annotations

import pytest
from reporting_runs import planted, run

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
