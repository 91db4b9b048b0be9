"""The command line: what it prints, what it writes, and one clear sentence for each thing a user can get wrong."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from tiny_models import turn_weights

from concept_depth.cli.main import exit_code
from concept_depth.errors import InputError

GOOD = [{"text": f"Item {i} is {'even' if i % 2 == 0 else 'odd'}.", "label": i % 2} for i in range(60)]


def run(arguments, capsys):
    """Exit code, standard output and standard error of a command line."""
    code = exit_code([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def quick(model, examples, folder):
    """A run that computes no more than it must, into `folder`/out."""
    return ["run", model, examples, "--out", folder / "out", "--permutations", 0, "--no-cache", "--quiet"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def examples(tmp_path):
    return write(tmp_path / "parity.jsonl", GOOD)


def test_a_run_prints_a_table_and_writes_everything(tiny_model, examples, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["run", tiny_model, examples, "--out", out, "--permutations", 19, "--no-cache", "--quiet"]
    code, printed, _ = run(command, capsys)
    assert code == 0
    assert "parity" in printed
    assert "report.html" in printed
    for name in ("record.json", "layers.csv", "depth.csv", "report.html", "scores.safetensors"):
        assert (out / "parity" / name).is_file() or (out / name).is_file(), name
    record = (out / "parity" / "record.json").read_bytes()

    code, printed, _ = run([*command, "--json"], capsys)
    assert code == 0, "the second time everything is done already"
    assert (out / "parity" / "record.json").read_bytes() == record
    (result,) = json.loads(printed)["results"]
    assert result["concept"] == "parity"
    keys = {"number", "total", "fraction", "interval", "interval_numbers", "verdict", "p", "gain"}
    assert set(result["depth"]) >= keys
    assert result["depth"]["total"] == 3


def test_a_damaged_record_is_measured_again(tiny_model, examples, tmp_path, capsys):
    command = quick(tiny_model, examples, tmp_path)
    assert run(command, capsys)[0] == 0
    record = tmp_path / "out" / "parity" / "record.json"
    os.truncate(record, 100)
    code, _, said = run(command, capsys)
    assert code == 0
    assert "replaced" not in said
    assert json.loads(record.read_text())["concept"]["name"] == "parity"


@pytest.mark.parametrize("name", ["record.json", "scores.safetensors", "probe.safetensors", "report.html"])
def test_results_of_which_a_file_is_gone_are_measured_again(name, tiny_model, examples, tmp_path, capsys):
    command = quick(tiny_model, examples, tmp_path)
    assert run(command, capsys)[0] == 0
    assert "1 of 1 results were there already" in run(command, capsys)[2]
    (tmp_path / "out" / "parity" / name).unlink()
    assert "there already" not in run(command, capsys)[2]
    assert (tmp_path / "out" / "parity" / name).is_file()


def test_results_that_were_only_half_replaced_are_not_taken_for_done(
    tiny_model, examples, tmp_path, capsys, monkeypatch
):
    def no_room(*_, **__):
        raise InputError("there is no room for the probe")

    command = quick(tiny_model, examples, tmp_path)
    assert run(command, capsys)[0] == 0
    record = tmp_path / "out" / "parity" / "record.json"
    good = json.loads(record.read_text())["scores"]
    with monkeypatch.context() as patched:
        patched.setattr("concept_depth.sweep.save_probe", no_room)
        assert run([*command, "--C", "0.1"], capsys)[0] == 2
    assert json.loads(record.read_text())["scores"] != good  # the premise
    assert run(command, capsys)[0] == 0
    assert json.loads(record.read_text())["scores"] == good


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json"])
def test_a_model_that_changed_under_its_name_is_measured_again(changed, tiny_model, examples, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    command = quick(model, examples, tmp_path)
    assert run(command, capsys)[0] == 0
    assert "there already" in run([f"{part}/" if part == model else part for part in command], capsys)[2]
    if changed == "tokenizer.json":
        (model / changed).write_text((model / changed).read_text() + "\n")
    else:
        turn_weights(model)
    code, _, said = run(command, capsys)
    assert code == 0
    assert "there already" not in said


def test_a_page_holds_all_results_that_stand_beside_each_other(tiny_model, examples, tmp_path, capsys):
    other = write(tmp_path / "other.jsonl", GOOD)
    for path in (examples, other):
        command = quick(tiny_model, path, tmp_path)
        assert run(command, capsys)[0] == 0
    assert (tmp_path / "out" / "depth.csv").read_text().count("\n") == 3
    inner = [part if part != tmp_path / "out" else tmp_path / "out" / "inner" for part in command]
    assert run(inner, capsys)[0] == run(command, capsys)[0] == 0
    assert (tmp_path / "out" / "depth.csv").read_text().count("\n") == 3, "without those of another --out below"
    folders = [tmp_path / "out" / name for name in ("parity", "other")]
    record = folders[0] / "record.json"
    whole = record.read_text()
    record.write_text(whole.replace('"format_version": 1', '"format_version": 9'))
    assert record.read_text() != whole  # the premise
    assert run(command, capsys)[0] == 0, "what another version wrote stops nothing"
    record.write_text(whole)
    page = (folders[0] / "report.html").read_bytes()
    assert "would replace that of" in assert_refused(["report", *folders], capsys)
    assert (folders[0] / "report.html").read_bytes() == page


def test_results_stay_whole_when_a_file_beside_them_goes(tiny_model, examples, tmp_path, capsys):
    command = quick(tiny_model, examples, tmp_path)
    (tmp_path / "out" / "parity").mkdir(parents=True)
    note = tmp_path / "out" / "parity" / "notes.txt"
    note.write_text("mine")
    assert run(command, capsys)[0] == 0
    note.unlink()
    assert "there already" in run(command, capsys)[2]


def test_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert exit_code(["concepts"]) == 0


def test_texts_from_a_pipe_of_windows_are_read_as_they_stand(tiny_model, examples, tmp_path, capsys, monkeypatch):
    assert run(quick(tiny_model, examples, tmp_path), capsys)[0] == 0
    said = []
    for ends in ("{}\n{}\n", "\ufeff{}\r\n{}\r\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(ends.format("Item 1 is odd.", "Item 2 is even.")))
        said.append(run(["apply", tmp_path / "out" / "parity"], capsys)[1])
    assert said[0] == said[1] != ""


def test_results_of_another_model_are_not_written_over(tiny_model, examples, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    assert run(quick(tiny_model, examples, tmp_path), capsys)[0] == 0
    assert "there already" in run(quick(other, examples, tmp_path), capsys)[2], "a copy is the same model"
    turn_weights(other)
    record = tmp_path / "out" / "parity" / "record.json"
    before = record.read_bytes()
    command = quick(other, examples, tmp_path)
    code, _, said = run(command, capsys)
    assert code == 2
    assert "holds the results of" in said
    assert record.read_bytes() == before
    assert run([*command, "--again"], capsys)[0] == 0
    assert record.read_bytes() != before


def test_results_of_other_settings_are_replaced_with_a_word(tiny_model, examples, tmp_path, capsys):
    command = quick(tiny_model, examples, tmp_path)
    assert "replaced" not in run(command, capsys)[2]
    assert "replaced" not in run(command, capsys)[2]
    code, _, said = run([*command, "--repeats", 1], capsys)
    assert code == 0
    assert f"{tmp_path / 'out' / 'parity'} held results of other examples or settings" in said


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_damaged_mark_of_a_finished_job_has_it_measured_again(content, tiny_model, examples, tmp_path, capsys):
    command = quick(tiny_model, examples, tmp_path)
    assert run(command, capsys)[0] == 0
    mark = tmp_path / "out" / "parity" / "done.json"
    mark.write_text(content)
    assert run(command, capsys)[0] == 0
    assert "key" in json.loads(mark.read_text())


def test_an_interrupt_says_that_nothing_is_lost(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("concept_depth.concepts.registry.bundled_names", interrupted)
    code, _, said = run(["concepts"], capsys)
    assert code == 130
    assert "the same command goes on from there" in said


def test_a_dry_run_checks_everything_and_writes_nothing(tiny_model, examples, tmp_path, capsys):
    code, printed, _ = run(["run", tiny_model, examples, "--out", tmp_path / "out", "--dry-run"], capsys)
    assert code == 0
    assert "to do" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dtype", "float8"),
        ("--device", "gpu"),
        ("--quantization", "int3"),
        ("--max-length", 0),
        ("--batch-tokens", "many"),
        ("--min-gain", 2),
        ("--min-gain", "nan"),
        ("--adapter", "/no/such/folder"),
        ("--position", "span"),
        ("--rule", "onset"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(option, value, tiny_model, examples, tmp_path, capsys):
    command = ["run", tiny_model, examples, "--out", tmp_path / "out", "--permutations", 0, option, value]
    dry = assert_refused([*command, "--dry-run"], capsys)
    assert assert_refused(command, capsys) == dry, "at once, and in the same words"
    assert not (tmp_path / "out").exists()


def test_anchoring_of_three_classes_is_refused_before_anything_is_measured(tiny_model, tmp_path, capsys):
    path = write(tmp_path / "three.jsonl", [{**row, "label": i % 3} for i, row in enumerate(GOOD)])
    assert_refused(["run", tiny_model, path, "--out", tmp_path / "out", "--anchoring", "--dry-run"], capsys)


def test_a_config_file_equals_flags_and_what_is_typed_wins(tiny_model, examples, tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text(f'concepts = ["{examples}"]\nlimit = 50\nno-cache = true\npermutations = 19\nquiet = true\n')
    command = ["run", tiny_model, "--config", config, "--out", tmp_path / "out", "--permutations", 0]
    assert run(command, capsys)[0] == 0
    record = (tmp_path / "out" / "parity" / "record.json").read_text()
    assert '"permutations": 0' in record
    assert '"limit": 50' in record


def test_without_arguments_the_command_explains_itself(capsys):
    code, printed, _ = run([], capsys)
    assert code == 0
    assert "concept-depth run smollm2-135m cities" in printed


BAD_ROWS = {
    "one class": [{"text": f"Text {i}.", "label": 1} for i in range(30)],
    "three examples": GOOD[:3],
    "empty text": [*GOOD, {"text": "  ", "label": 1}],
    "missing text": [*GOOD, {"label": 1}],
    "missing label": [*GOOD, {"text": "No label."}],
    "null label": [*GOOD, {"text": "No label.", "label": None}],
    "wrong column": [{"sentence": row["text"], "label": row["label"]} for row in GOOD],
    "no label column": [{"text": row["text"]} for row in GOOD],
    "too few groups": [{**row, "group": i % 4} for i, row in enumerate(GOOD)],
    "no rows": [],
    "a class with one example": [*GOOD[::2], GOOD[1]],
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_bad_examples_get_one_sentence(what, tiny_model, tmp_path, capsys):
    path = write(tmp_path / "bad.jsonl", BAD_ROWS[what])
    extra = ["--group", "group"] if what == "too few groups" else []
    assert_refused(["run", tiny_model, path, "--out", tmp_path / "out", *extra], capsys)
    assert not (tmp_path / "out").exists()


BAD_FILES = {
    "absent.csv": None,
    "empty.csv": "",
    "header_only.csv": "text,label\n",
    "broken.json": '{"text": ',
    "broken.jsonl": '{"text": "a", "label": 1}\n{"text": \n',
    "notes.docx": "text",
    "broken.parquet": "no parquet at all",
    "latin.csv": b"text,label\nCaf\xe9,1\n",
    "array.json": "3",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_get_one_sentence(name, tiny_model, tmp_path, capsys):
    content = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(["run", tiny_model, tmp_path / name, "--out", tmp_path / "out"], capsys)


BAD_OPTIONS = [
    ["--site", "resid_pots"],
    ["--position", "middle"],
    ["--position", "999"],
    ["--dtype", "float17"],
    ["--device", "gpu"],
    ["--quantization", "int3"],
    ["--cv", "1"],
    ["--cv", "1000"],
    ["--cv", "2.5"],
    ["--repeats", "0"],
    ["--C", "-1"],
    ["--C", "nest"],
    ["--scoring", "acuracy"],
    ["--permutations", "-1"],
    ["--permutations", "5"],
    ["--protocol", "papr"],
    ["--rule", "within:2"],
    ["--rule", "best"],
    ["--min-gain", "x"],
    ["--template", "no slot"],
    ["--limit", "0"],
    ["--noise", "aaaa"],
    ["--batch-tokens", "-5"],
    ["--batch-tokens", "many"],
    ["--max-length", "0"],
    ["--no-such-option"],
    ["--config", "absent.toml"],
    ["--adapter", "absent-adapter"],
]


@pytest.mark.parametrize("option", BAD_OPTIONS, ids=" ".join)
def test_bad_options_get_one_sentence(option, tiny_model, examples, tmp_path, capsys):
    assert_refused(["run", tiny_model, examples, "--out", tmp_path / "out", "--quiet", *option], capsys)


def test_unknown_models_concepts_and_folders_get_one_sentence(tiny_model, examples, tmp_path, capsys):
    out = ["--out", tmp_path / "out"]
    (tmp_path / "broken.gguf").write_bytes(b"no gguf")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "file").write_text("x")
    for command in [
        ["run", "no-such-model", examples, *out],
        ["run", "no-such/model", examples, *out],
        ["run", tmp_path / "broken.gguf", examples, *out],
        ["run", tmp_path / "absent.gguf", examples, *out],
        ["run", tmp_path / "hollow", examples, *out],
        ["run", tiny_model, "citys", *out],
        ["run", tiny_model, "paper:cities", *out],
        ["run", tiny_model, "paper:nothing", "--data-dir", tmp_path, *out],
        ["run", tiny_model, "paper:cities", "--data-dir", tmp_path / "absent", *out],
        ["run", tiny_model, examples, "--out", tmp_path / "file" / "below"],
        ["sweep", tmp_path / "absent.toml", *out],
        ["report", tmp_path / "hollow"],
        ["report", tmp_path / "absent"],
        ["compare", tmp_path / "hollow", tmp_path / "hollow"],
        ["figure", "ladder", tmp_path / "hollow", "-o", tmp_path / "x.pdf"],
        ["apply", tmp_path / "hollow", "text"],
        ["layers", "no-such-model"],
        ["audit", "citys"],
    ]:
        assert_refused(command, capsys)


def test_a_cache_that_is_none_and_options_that_exclude_each_other_get_one_sentence(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for options, sentence in [
        (["--cache-dir", tmp_path / "file"], "file is no folder"),
        (["--cache-dir", tmp_path / "absent"], "there is no folder"),
        (["--cache-dir", tmp_path / "absent", "--prune", 0], "there is no folder"),
        (["--prune", "nan"], "--prune nan: give a number of days, 0 or more"),
        (["--prune", "inf"], "--prune inf: give a number of days, 0 or more"),
        (["--prune", "-1"], "--prune -1: give a number of days, 0 or more"),
        (["--verify", "--prune", "30"], "--verify and --prune"),
    ]:
        assert sentence in assert_refused(["cache", *options], capsys)
    assert run(["cache", "--cache-dir", tmp_path / "empty"], capsys)[:2] == (0, "no entries\n")
    monkeypatch.setenv("CONCEPT_DEPTH_CACHE", str(tmp_path / "absent"))
    assert run(["cache"], capsys)[:2] == (0, "no entries\n"), "before the first run the user has no cache"


def test_a_run_that_is_told_to_end_leaves_nothing_behind(tiny_model, examples, tmp_path):
    command = [*map(str, quick(tiny_model, examples, tmp_path))]
    script = f"""
import sys, time
from concept_depth.cli.main import main
from concept_depth.extraction import collect
collect.MEMORY_BYTES = 0  # so that activations go to the disk
collect.run_missing = lambda *_: (print("at work", flush=True), time.sleep(60))
sys.argv = ["concept-depth", *{command!r}]
main()
"""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"at work\n"
        assert list(scratch.glob("concept-depth-*")), "the premise: there is something to be left"
        process.terminate()
        assert process.wait(30) == 143
    assert not list(scratch.glob("concept-depth-*"))


def in_a_shell(arguments, out=subprocess.PIPE, **variables):
    command = [sys.executable, "-m", "concept_depth", *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(command, stdout=out, stderr=subprocess.PIPE, env=environment, check=False)


def test_characters_that_a_terminal_lacks_are_replaced(tiny_model, tmp_path):
    path = write(tmp_path / "parity.jsonl", [{**row, "text": f"東京 {row['text']}"} for row in GOOD])
    done = in_a_shell(["run", tiny_model, path, "--out", tmp_path / "–", "--dry-run"], PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"/?/parity\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only some systems have a device that is always full")
@pytest.mark.parametrize("command", [["concepts"], ["models", "--json"], ["--help"], ["--version"]], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_without_room_is_one_sentence(command, unbuffered):
    with open("/dev/full", "wb") as full:
        done = in_a_shell(command, full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2, done.stderr
    assert done.stderr.decode().startswith("concept-depth: cannot write the output: ")
    assert done.stderr.count(b"\n") == 1


def test_names_that_no_file_can_have_get_one_sentence(tiny_model, examples, tmp_path, capsys):
    out, long = ["--out", tmp_path / "out", "--quiet"], "A sentence that is longer than a name may be. " * 8
    for command in [
        ["run", long, examples, *out],
        ["run", f"{long}.gguf", examples, *out],
        ["run", tiny_model, long, *out],
        ["run", tiny_model, examples, "--out", tmp_path / long],
        ["run", tiny_model, examples, "--permutations", 0, "--cache-dir", long, *out],
        ["sweep", long, *out],
        ["layers", long],
        ["tokens", long, examples],
        ["doctor", long],
        ["audit", examples, "--model", long],
        ["report", long],
        ["figure", "ladder", long, "-o", tmp_path / "x.pdf"],
        ["compare", long, long],
        ["apply", long, "text"],
        ["cache", "--cache-dir", long],
    ]:
        assert_refused(command, capsys)


def assert_refused(arguments, capsys):
    code, printed, complaint = run(arguments, capsys)
    assert code == 2, complaint
    sentences = [line for line in complaint.splitlines() if line.startswith("concept-depth: ")]
    assert len(sentences) == 1, complaint
    assert "Traceback" not in complaint
    assert len(sentences[0]) > len("concept-depth: ") + 15
    assert not printed
    return sentences[0]
