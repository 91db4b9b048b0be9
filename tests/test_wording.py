"""Sentences speak of options to whoever typed a command."""

import json

import pytest

from concept_depth.cli.main import exit_code
from concept_depth.cli.wording import as_typed


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("give a finer grouping (group=...)", "give a finer grouping (--group ...)"),
        ("random_state=-1 is no seed", "--seed -1 is no seed"),
        ("min_gain=2.0 is not allowed; give a number", "--min-gain 2.0 is not allowed; give a number"),
        ("protocol='paper' is for two classes", "--protocol paper is for two classes"),
        ("2 or more folds, or cv=None for the whole sample", "2 or more folds, or --cv none for the whole sample"),
        ("name a column of classes as label=…, or sort", "name a column of classes as --label …, or sort"),
        ("the folder that holds the raw files as data_dir", "the folder that holds the raw files as --data-dir"),
        (
            "give more examples, a finer grouping (group=...), or splits of your own (cv=[(train, test), ...])",
            "give more examples, a finer grouping (--group ...)",
        ),
        (
            (
                "at most 5% is allowed: group by something finer (group=...), or give splits of your own (cv=[(train, "
                "test), ...])"
            ),
            "at most 5% is allowed: group by something finer (--group ...)",
        ),
        ("scoring='balanced accuracy' is no metric", "--scoring 'balanced accuracy' is no metric"),
        ("scoring='' is no metric", "--scoring '' is no metric"),
        ("give a larger max_length", "give a larger --max-length"),
        ("the settings are text, data_dir, max_length", "the settings are text, data_dir, max_length"),
        ("the argument `trust_remote_code=True`", "the argument `trust_remote_code=True`"),
        ("variant 'seed=1': there is no setting", "variant 'seed=1': there is no setting"),
        ("see https://host/a?revision=main", "see https://host/a?revision=main"),
        # Options of concepts, and paths, are written with a sign of equality at the shell, too.
        ("write coin_flip:steps=3", "write coin_flip:steps=3"),
        ("there is no file a/limit=3.csv", "there is no file a/limit=3.csv"),
        ("there is no file limit=3.csv", "there is no file limit=3.csv"),
        ("give steps=3,limit=4", "give steps=3,limit=4"),
    ],
)
def test_arguments_become_options(python, shell):
    assert as_typed(python, ["run"]) == shell


def test_a_command_with_few_options_speaks_of_these_alone():
    assert as_typed("random_state=-1 is no seed", ["compare", "a", "b", "--seed", "-1"]) == "--seed -1 is no seed"
    assert as_typed("rule='bst' is no rule", ["compare", "a", "b"]) == "--rule bst is no rule"
    for words in (["compare", "a", "b"], ["report", "a"]):
        assert as_typed("measured with seed=3; a finer grouping (group=...)", words).endswith("(group=...)")


def test_what_was_typed_stays_and_plans_keep_pythons_words():
    assert (
        as_typed("cannot write to seed=2: no folder", ["run", "--out", "seed=2"])
        == "cannot write to seed=2: no folder"
    )
    assert (
        as_typed("a finer grouping (group=...), or cv=None", ["sweep"])
        == 'a finer grouping (group=...), or cv = "none"'
    )


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "parity.jsonl"
    rows = [{"text": f"Item {i} is {'even' if i % 2 == 0 else 'odd'}.", "label": i % 2} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refused(arguments, capsys):
    assert exit_code(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said


def test_a_model_in_a_concepts_place_is_told(tmp_path, capsys):
    said = refused(["run", "capitals", "smollm2-135m", "--out", str(tmp_path)], capsys)
    assert said.endswith("type the model first: concept-depth run smollm2-135m capitals")


def test_an_empty_folder_is_none(examples, capsys):
    assert "names nothing" in refused(["run", "smollm2-135m", examples, "--out", ""], capsys)
    assert "names nothing" in refused(["report", str(examples), "--out", ""], capsys)


def test_the_rule_separable_is_refused_before_work_starts_and_runs_on_the_whole_sample(
    tiny_model, examples, tmp_path, capsys
):
    command = ["run", str(tiny_model), examples, "--out", str(tmp_path), "--rule", "separable", "--no-cache"]
    assert "(--cv none)" in refused([*command, "--dry-run"], capsys)
    assert exit_code([*command, "--cv", "none", "--quiet", "--json", "--no-references"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["depth"]["rule"] == "separable"
    assert result["in_sample"]


def test_scores_of_the_training_sample_are_called_so(tiny_model, examples, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["run", str(tiny_model), examples, "--out", str(out), "--cv", "none", "--no-cache", "--quiet"]
    assert exit_code([*command, "--permutations", "0"]) == 0
    assert "on the examples the probes were fitted to" in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "has not seen" not in page
    assert "above the control" not in page
    assert not json.loads((out / "parity" / "record.json").read_text())["references"]


def test_too_few_examples_are_told_of_with_the_concepts_name(tiny_model, examples, tmp_path, capsys):
    said = refused(["run", str(tiny_model), examples, "--out", str(tmp_path), "--limit", "10"], capsys)
    assert said.startswith("concept-depth: parity: 10 examples")


def test_settings_are_spelled_with_dashes_or_underscores_and_near_ones_are_named(
    tiny_model, examples, tmp_path, capsys
):
    path = tmp_path / "settings.toml"
    command = ["run", str(tiny_model), examples, "--out", str(tmp_path), "--dry-run", "--config", str(path)]
    for text in ("min_gain = 0.1", "min-gain = 0.1"):
        path.write_text(text)
        assert exit_code(command) == 0
        capsys.readouterr()
    path.write_text("min_gain = 0.1\nmin-gain = 0.2")
    assert "given twice" in refused(command, capsys)
    path.write_text("min_gian = 0.1")
    assert "did you mean 'min-gain'?" in refused(command, capsys)
    plan = tmp_path / "plan.toml"
    sweep = ["sweep", str(plan), "--out", str(tmp_path / "out"), "--dry-run"]
    for text in ("min_gain = 0.1", "min-gain = 0.1"):
        plan.write_text(f"models = [{str(tiny_model)!r}]\nconcepts = [{examples!r}]\n{text}\n")
        assert exit_code(sweep) == 0
        capsys.readouterr()
    plan.write_text(f"models = [{str(tiny_model)!r}]\nconcepts = [{examples!r}]\nmin_gian = 0.1\n")
    assert "did you mean 'min_gain'?" in refused(sweep, capsys)


def test_a_folder_of_several_runs_names_them(tmp_path, capsys):
    (tmp_path / "capitals").mkdir()
    (tmp_path / "capitals" / "probe.safetensors").touch()
    assert str(tmp_path / "capitals") in refused(["apply", str(tmp_path), "a text"], capsys)


def test_a_value_of_the_wrong_kind_is_told_in_words(tiny_model, examples, tmp_path, capsys):
    command = ["run", str(tiny_model), examples, "--out", str(tmp_path / "out"), "--dry-run"]
    assert "give a whole number or none" in refused([*command, "--cv", "five"], capsys)
    assert exit_code([*command, "--cv", "None"]) == 0
