"""A record holds every number with its origin, unrounded, and comes back as it was written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from reporting_runs import run

from concept_depth.errors import InputError
from concept_depth.reporting.notebook import report_html
from concept_depth.reporting.origin import clean
from concept_depth.reporting.page import write_page
from concept_depth.reporting.record import Report, load_runs
from concept_depth.reporting.tables import depth_table


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "capital"
    run().save(folder)
    return folder


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_run_folder_holds_record_tables_figures_and_page(saved):
    names = {path.name for path in saved.iterdir()}
    tables = {"record.json", "views.json", "layers.csv", "depth.csv"}
    assert names == tables | {"curve.pdf", "curve.svg", "curve.png", "report.html"}


def test_a_report_reads_back_equal(saved):
    assert Report.load(saved) == run()
    assert Report.load(saved / "record.json") == run()


def test_the_deterministic_part_is_the_same_bytes_for_the_same_inputs(tmp_path, saved):
    run.__wrapped__().save(tmp_path)
    first, second = (json.loads((folder / "record.json").read_text()) for folder in (saved, tmp_path))
    assert set(first.pop("run")) == set(second.pop("run"))
    assert json.dumps(first) == json.dumps(second)
    for name in ("views.json", "layers.csv", "depth.csv", "curve.pdf", "curve.svg", "curve.png"):
        assert (saved / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_every_number_has_its_origin(saved):
    record = json.loads((saved / "record.json").read_text())
    assert record["concept"]["fingerprint"]
    assert record["subject"]["name"] == "tiny-model"
    assert record["probe"]["C"] == 0.1
    assert {"numpy", "torch", "python", "concept-depth"} <= set(record["versions"])
    assert record["run"]["command"] == "concept-depth run tiny-model capital"
    assert record["audit"]["n_groups"] == 60
    assert len(record["scores"]["null_max"]) == 19


def test_settings_that_name_a_place_stay_out_of_the_record(saved):
    assert "device" not in json.loads((saved / "record.json").read_text())["extras"]["settings"]


def test_layers_csv_has_a_row_a_layer_and_rounds_nothing(saved):
    rows = rows_of(saved / "layers.csv")
    record = run().record
    assert [row["layer"] for row in rows] == record["layers"]["names"]
    for metric, values in record["scores"]["per_fold"].items():
        assert [float(row[metric]) for row in rows] == pytest.approx(
            np.mean(values, axis=1).tolist(), abs=0, rel=1e-15
        )
    assert float(rows[5]["fraction"]) == 5 / 8


def test_depth_csv_says_what_the_depth_says(saved):
    (row,) = rows_of(saved / "depth.csv")
    assert row["verdict"] == run().verdict == "found"
    assert int(row["number"]) == run().depth["number"]
    assert float(row["low"]) == run().depth["interval"][0]


def test_the_planted_depth_stands_in_the_report():
    assert 2 <= run().depth["number"] <= 6
    assert run(at=4, strength=0.0).verdict == "never"


def test_a_missing_or_foreign_record_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        Report.load(tmp_path)
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(InputError, match="no record"):
        Report.load(tmp_path)
    (tmp_path / "record.json").write_text('{"format": "concept-depth record", "format_version": 99}')
    with pytest.raises(InputError, match="version 99"):
        Report.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run"):
        load_runs([tmp_path / "empty"])


def test_runs_are_found_below_folders_and_each_once(saved):
    assert [item.folder for item in load_runs([saved.parent, saved])] == [saved]


def test_clean_gives_what_json_gives_back():
    dirty = {1: np.float32(0.5), "nan": float("nan"), "a": np.arange(2), "s": "\ud800", "t": (1, None, True)}
    expected = {"1": 0.5, "nan": None, "a": [0, 1], "s": "\ufffd", "t": [1, None, True]}
    assert clean(dirty) == expected == json.loads(json.dumps(clean(dirty)))


@pytest.mark.parametrize("style", ["markdown", "latex", "csv"])
def test_tables_have_a_row_a_run_and_escape_names(style):
    runs = [run(), run("50%_of|it", at=6), run("never", strength=0.0)]
    text = depth_table(runs, style=style)
    assert len(text.splitlines()) == {"markdown": 5, "latex": 9, "csv": 4}[style]
    shown = {"markdown": r"50%\_of\|it", "latex": r"50\%\_of|it", "csv": "50%_of|it"}[style]
    assert shown in text


def test_tables_name_model_and_condition_where_runs_differ_in_a_condition():
    def cells(*runs):
        return [[cell.strip() for cell in line.split("|")[1:4]] for line in depth_table(runs).splitlines()]

    head, _, *rows = cells(run(), run(condition="letters"))
    assert head == ["concept", "model", "condition"]
    assert sorted(row[1:] for row in rows) == [
        ["tiny-model", run(condition="letters").condition],
        ["tiny-model", "plain"],
    ]
    assert cells(run())[0] == ["concept", "layer", "depth"]
    assert cells(run(), run(model="other"))[0] == ["concept", "model", "layer"]


def test_an_unknown_table_style_is_named():
    with pytest.raises(InputError, match="markdown, latex, csv"):
        depth_table([run()], style="word")


def test_a_report_shows_itself_as_a_line_as_html_and_as_a_data_frame():
    pd = pytest.importorskip("pandas")
    assert "capital: layer" in repr(run())
    assert "<svg" in run()._repr_html_()
    assert isinstance(run().to_pandas(), pd.DataFrame)
    assert len(run().to_pandas()) == 9


def test_a_report_needs_neither_activations_nor_texts(tmp_path):
    from reporting_runs import planted

    from concept_depth.activations import Activations
    from concept_depth.depth import find_depth
    from concept_depth.probing.scores import score_layers

    layers, labels, groups = planted()
    acts = Activations.from_arrays(layers, labels, groups=groups)
    scores = score_layers(acts, cv=3, repeats=1, C=0.1, permutations=0)
    report = Report.of(None, scores, find_depth(scores))
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    assert report.record["geometry"]["cosine"] is None
    assert report.views["space"]["text"] is None
    assert report.model == "unnamed network"


def test_noisy_and_plain_runs_stand_together_under_their_conditions():
    from dataclasses import replace

    from concept_depth.reporting.style import Lines, by_concept

    plain = run()
    concept = {
        **plain.record["concept"],
        "name": "capital+letters=0.1",
        "details": {"noise": {"noise": "letters:0.1"}},
    }
    noisy = replace(plain, record={**plain.record, "concept": concept, "condition": "noise letters:0.1"})
    assert list(by_concept([plain, noisy])) == ["capital"]
    assert Lines([plain, noisy]).names == ("plain", "noise letters:0.1")
    again = replace(plain)
    assert Lines([plain, again]).names == ("tiny-model, run 1", "tiny-model, run 2")


def test_a_run_records_what_sets_it_apart():
    assert run().condition == ""
    assert run(condition="letters").condition == "noise letters"


@pytest.mark.parametrize(
    "settings",
    [{"protocol": "paper"}, {"cv": None}, {"scoring": "log_loss", "cv": 3, "repeats": 1, "C": 0.1}],
    ids=["paper", "in sample", "log loss"],
)
def test_every_protocol_can_be_reported(tmp_path, settings):
    from reporting_runs import planted

    from concept_depth.activations import Activations
    from concept_depth.depth import find_depth
    from concept_depth.probing.scores import score_layers

    layers, labels, groups = planted(L=4, D=6, N=80)
    acts = Activations.from_arrays(layers, labels, groups=groups)
    scores = score_layers(acts, permutations=0, **settings)
    rule = "converge" if "protocol" in settings else "separable" if settings["cv"] is None else "within:0.9"
    report = Report.of(acts, scores, find_depth(scores, rule=rule))
    page = report.save(tmp_path)
    assert page.is_file()
    assert Report.load(tmp_path) == report


def test_a_hollow_record_is_refused(tmp_path, saved):
    record = json.loads((saved / "record.json").read_text(encoding="utf-8"))
    kept = {key: record[key] for key in ("format", "format_version", "concept", "subject")}
    (tmp_path / "record.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="has no scores"):
        Report.load(tmp_path)


def test_a_record_without_what_pages_and_tables_read_is_named(tmp_path, saved):
    path = tmp_path / "record.json"
    record = json.loads((saved / "record.json").read_text(encoding="utf-8"))
    cases = [(key, without(record, key)) for key in record]
    for part in ("scores", "depth", "layers", "probe"):
        cases += [(f"{key} in its {part}", record | {part: without(record[part], key)}) for key in record[part]]
    cases += [
        (part, record | {part: None}) for part in ("concept", "subject", "scores", "depth", "layers", "audit")
    ]
    refused = {}
    for what, changed in cases:
        path.write_text(json.dumps(changed))
        try:
            report = Report.load(tmp_path)
        except InputError as error:
            refused[what] = str(error)
            continue
        # Whatever is not refused hinders neither tables nor pages.
        assert depth_table([report]), what
        assert report.layer_rows(), what
        assert report.depth_row(), what
        assert report_html(report), what
        assert write_page([report], tmp_path / "report.html").is_file(), what
    assert len(refused) > 25
    for what, sentence in refused.items():
        assert str(path) in sentence
        assert what == "format" or f"no {what}" in sentence
    path.write_text(json.dumps({"format": "concept-depth record", "format_version": 1}))
    with pytest.raises(InputError, match="has no concept"):
        Report.load(tmp_path)
    parts = {part: {} for part in ("concept", "subject", "scores", "depth")}
    path.write_text(json.dumps({"format": "concept-depth record", "format_version": 1, **parts}))
    with pytest.raises(InputError, match="has no scoring in its scores"):
        Report.load(tmp_path)


def without(part, key):
    return {name: value for name, value in part.items() if name != key}
