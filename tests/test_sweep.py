"""Sweeps: plans are read strictly, run in order, resume, and survive a job that fails."""

import pytest

from concept_depth.errors import InputError
from concept_depth.sweep import Plan, read_plan


def plan_file(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_is_every_model_variant_and_concept(tmp_path):
    plan = read_plan(
        plan_file(
            tmp_path,
            'models = ["a", "b"]\nconcepts = ["x", "y"]\nseed = 3\n'
            '[variants.plain]\n[variants.noisy]\nnoise = "letters"\n',
        )
    )
    jobs = plan.jobs()
    assert len(jobs) == 8
    assert len({job.folder for job in jobs}) == 8
    assert jobs[0].folder == "a/plain/x"
    assert jobs[2].settings.noise == "letters"
    assert all(job.settings.seed == 3 for job in jobs)


def test_a_single_model_needs_no_folder_of_its_own():
    assert [job.folder for job in Plan(models=("org/model",), concepts=("x",)).jobs()] == ["x"]


def test_the_plan_of_the_paper_has_its_486_runs(root):
    assert len(read_plan(root / "scripts" / "jin2024" / "plan.toml").jobs()) == 486


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models = [", "not TOML"),
        ('models = ["a"]\nconcepts = ["x"]\npermutation = 3', "no setting 'permutation'"),
        ('models = ["a"]\nconcepts = ["x"]\nseed = "zero"', "give a whole number"),
        ('models = ["a"]\nconcepts = ["x"]\n[variants]\nnoisy = 3', "variants are tables"),
        ('models = ["a"]\nconcepts = [1]', "list of names"),
        ('concepts = ["x"]', "at least one model"),
    ],
)
def test_a_plan_with_a_mistake_is_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_plan(plan_file(tmp_path, text))


def test_two_jobs_never_share_a_folder():
    with pytest.raises(InputError, match="name each only once"):
        Plan(models=("a", "a"), concepts=("x",)).jobs()


def test_jobs_that_would_share_a_folder_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("contra.csv", "contra.tsv"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="name each only once"):
        Plan(models=("a",), concepts=("contra.csv", "./contra.csv")).jobs()
    for concepts in (("contra.csv", "contra.tsv"), ("contra.csv", "contra")):
        with pytest.raises(
            InputError, match=f"{concepts[0]} and {concepts[1]} would both .* 'contra'; rename one"
        ):
            Plan(models=("a",), concepts=concepts).jobs()
    with pytest.raises(InputError, match=r"org/m and org_m would both .* 'org_m/x'; rename one"):
        Plan(models=("org/m", "org_m"), concepts=("x",)).jobs()
    with pytest.raises(InputError, match=r"a b and a_b would both .* 'a_b/x'; rename one"):
        Plan(models=("m",), concepts=("x",), variants={"a b": {}, "a_b": {"seed": 1}}).jobs()
