"""Conditions of one model and concept are compared with the plain run, and two folders with each other."""

from __future__ import annotations

import json

import pytest
from reporting_runs import planted, run

from concept_depth.activations import Activations
from concept_depth.cli.main import exit_code
from concept_depth.depth import find_depth
from concept_depth.errors import InputError
from concept_depth.probing.scores import score_layers
from concept_depth.reporting.overview import write_overview
from concept_depth.reporting.pairs import compare_conditions, compare_folders, compare_runs
from concept_depth.reporting.record import Report, load_runs


def save(folder, at: int, noise: str = "", model: str = "tiny", name: str = "capital") -> None:
    """One run with its scores, under a noise if one is named."""
    layers, labels, groups = planted(at=at, N=80, L=7)
    concept = {"name": name + (f"+{noise}" if noise else ""), "details": {"noise": {"noise": noise}}}
    origin = {"concept": concept, "subject": {"name": model}}
    acts = Activations.from_arrays(layers, labels, groups=groups, provenance=origin)
    scores = score_layers(acts, cv=3, repeats=1, C=0.1, permutations=0)
    Report.of(None, scores, find_depth(scores)).save(folder)
    scores.save(folder / "scores.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("conditions")
    save(root / "plain", at=2)
    save(root / "noisy", at=5, noise="letters")
    return root


def test_a_noise_that_delays_a_concept_is_seen_as_a_later_depth(folder):
    (entry,) = compare_conditions(load_runs([folder]))
    assert entry["concept"] == "capital"
    assert entry["condition"] == "noise letters"
    assert entry["paired"]
    assert entry["delta_depth"] > 0


def test_an_overview_shows_the_comparison(folder, tmp_path):
    text = write_overview([folder], tmp_path).read_text()
    assert "Conditions compared" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["lines"] == ["noise letters", "plain"]
    assert [concept["name"] for concept in data["concepts"]] == ["capital"]


def test_two_folders_are_compared_by_concept(folder):
    left, right = load_runs([folder / "plain"]), load_runs([folder / "noisy"])
    ((name, there),) = compare_folders(left, right)
    ((_, back),) = compare_folders(right, left)
    assert name == "capital"
    assert there.delta_depth == pytest.approx(-back.delta_depth)


def test_runs_that_cannot_be_compared_are_named(folder):
    with pytest.raises(InputError, match="no concept in common"):
        compare_folders(load_runs([folder]), [run("other"), run("another", at=6)])
    with pytest.raises(InputError, match="not read from a folder"):
        compare_runs(run(), run())


def test_runs_without_stored_scores_are_shown_without_comparison(tmp_path):
    run().save(tmp_path / "plain")
    run(condition="letters").save(tmp_path / "noisy")
    assert compare_conditions(load_runs([tmp_path])) == []


def test_of_several_runs_of_a_concept_those_of_one_model_and_condition_go_together(folder, tmp_path):
    for model, at in (("early", 1), ("late", 5)):
        save(tmp_path / "models" / model, at=at, model=model)
    for runs in (load_runs([folder]), load_runs([tmp_path / "models"])):
        found = compare_folders(runs, runs)
        assert [name for name, _ in found] == [run.label for run in runs]
        assert [comparison.delta_depth for _, comparison in found] == [0, 0]
    with pytest.raises(InputError, match=r"tiny · capital.* could be compared with .*early or .*late"):
        compare_folders(load_runs([tmp_path / "models"]), load_runs([folder / "plain"]))
    # One model on the left against several on the right leaves no doubt.
    assert len(compare_folders(load_runs([folder / "plain"]), load_runs([tmp_path / "models"]))) == 2


def test_without_a_plain_run_the_entries_name_what_they_are_compared_with(tmp_path):
    for noise in ("case", "typos"):
        save(tmp_path / noise, at=3, noise=noise)
    (entry,) = compare_conditions(load_runs([tmp_path]))
    assert entry["condition"] == "noise typos against noise case"


def test_the_command_names_concepts_that_one_side_lacks(folder, tmp_path, capsys):
    save(tmp_path / "more" / "capital", at=2)
    save(tmp_path / "more" / "lake", at=4, name="lake")
    assert exit_code(["compare", str(tmp_path / "more"), str(folder / "plain")]) == 0
    assert f"only in {tmp_path / 'more'}: lake" in capsys.readouterr().err
