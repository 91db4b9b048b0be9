"""Figures are drawn for every kind of run, fit a column, are the same bytes each time, show names as they are."""

from __future__ import annotations

import sys

import pytest
from reporting_runs import run

from concept_depth.errors import InputError
from concept_depth.reporting.figures import figure, save_figure
from concept_depth.reporting.plots import COLUMN, PAGE

KINDS = ("curve", "ladder", "heatmap", "space", "cosine")


def several():
    return [
        run(name, model=model, at=at, strength=strength)
        for model in ("model a", "model b")
        for name, at, strength in (("early", 1, 2.0), ("late", 6, 2.0), ("absent", 4, 0.0))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_one_run_at_the_width_of_a_column_or_page(kind):
    assert figure(kind, run()).get_figwidth() <= PAGE
    if kind in ("curve", "ladder", "cosine"):
        assert figure(kind, run()).get_figwidth() <= COLUMN


@pytest.mark.parametrize("kind", ["curve", "ladder", "heatmap"])
def test_many_runs_are_drawn_together(kind):
    drawn = figure(kind, several())
    words = [text.get_text() for text in drawn.findobj(lambda item: hasattr(item, "get_text"))]
    for name in ("early", "late", "absent"):
        assert name in words


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_the_same_runs_give_the_same_bytes(tmp_path, suffix):
    first, second = (save_figure("ladder", several(), tmp_path / f"{n}{suffix}").read_bytes() for n in "ab")
    assert first == second
    assert b"20" + b"26-" not in first


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    save_figure("curve", run(), tmp_path / "curve.svg")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_names_with_dollars_and_markup_are_shown_as_they_are(tmp_path):
    odd = run("$x_1$ <b>% \\frac", hostile=True)
    for kind in KINDS:
        save_figure(kind, odd, tmp_path / f"{kind}.pdf")
    words = [text.get_text() for text in figure("curve", odd).findobj(lambda item: hasattr(item, "get_text"))]
    assert "$x_1$ <b>% \\frac" in words


def test_every_metric_can_be_shown():
    for metric in run().record["scores"]["means"]:
        assert figure("curve", run(), metric=metric).axes


def test_unknown_kinds_formats_and_metrics_are_named(tmp_path):
    with pytest.raises(InputError, match="curve, ladder, heatmap"):
        figure("pie", run())
    with pytest.raises(InputError, match=r"\.pdf"):
        save_figure("curve", run(), tmp_path / "curve.bmp")
    with pytest.raises(InputError, match="accuracy"):
        figure("curve", run(), metric="beauty")
    with pytest.raises(InputError, match="no run"):
        figure("curve", [])
    with pytest.raises(InputError, match="one run"):
        figure("space", several())
