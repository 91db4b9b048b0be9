"""What README and docs say is what the code does: examples run, help texts are the printed ones."""

import importlib
import importlib.metadata
import inspect
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import concept_depth

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages(root):
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def blocks(text, language):
    """The code blocks of a page in one language."""
    return [block for tongue, block in BLOCK.findall(text) if tongue == language]


def commands(root):
    """(page, words) of every `concept-depth …` in a bash block; comments and shell syntax are left out."""
    for page in pages(root):
        for block in blocks(page.read_text(encoding="utf-8"), "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("concept-depth ") else []
                if words:
                    yield page.name, words[1:]


def test_the_python_of_the_readme_runs_as_it_stands(root, tiny_model, tmp_path, monkeypatch, capsys):
    (block,) = blocks((root / "README.md").read_text(encoding="utf-8"), "python")
    # A random model of three blocks stands for SmolLM2, and 160 examples for all; nothing else is changed.
    for old, new in (('"smollm2-135m"', repr(str(tiny_model))), ('"cities")', '"cities", limit=160)')):
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    assert f"of {names['subject'].total}" in capsys.readouterr().out
    assert (tmp_path / "runs" / "cities" / "report.html").is_file()
    assert set(re.findall(r"^(\w+) = ", block, re.MULTILINE)) == {"concept", "subject", "acts", "scores", "depth"}
    # The sentence below the block.
    assert names["acts"]["resid_post.3"].shape == (len(names["concept"]), 16)
    assert len(names["scores"].curve) == 4
    assert names["depth"].verdict
    assert names["depth"].sentence


def test_the_python_of_your_own_data_and_model_runs_as_it_stands(root, tiny_model, capsys):
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rng = np.random.default_rng(0)
    names = {
        "model": AutoModelForCausalLM.from_pretrained(tiny_model),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
        "images": rng.normal(size=(60, 1, 8, 8)).astype(np.float32),
        "digits": np.arange(60) % 10,
    }
    names["network"] = torch.nn.Sequential()
    names["network"].add_module("features", torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()))
    layers = [rng.normal(size=(120, 8)) for _ in range(3)]
    layers[2][:, 0] += 6 * np.tile([0, 1], 60)
    names |= {f"layer_{i}": layer for i, layer in enumerate(layers)}
    for block in blocks((root / "docs" / "own.md").read_text(encoding="utf-8"), "python"):
        exec(compile(block, "own.md", "exec"), names)
    assert "layer 2 of 2" in capsys.readouterr().out


def test_the_help_texts_are_what_the_commands_print(root):
    pinned = dict(
        line.split("==")
        for line in (root / "scripts" / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for library in ("typer", "rich"):
        found = importlib.metadata.version(library)
        if found != pinned[library]:
            pytest.skip(f"{library} {found} draws help otherwise than the pinned {pinned[library]}")
    command = [sys.executable, str(root / "scripts" / "help_texts.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["xor.py", "--out", "FILE"], "FILE is no folder that you may write to"),
        (["alain_bengio.py", "--out", "FILE"], "FILE is no folder that you may write to"),
        (["alain_bengio.py", "--data", "mnist_binary", "--data-dir", "FILE/x"], "raw files as --data-dir"),
        (["reproduce_jin2024.py", "smollm2-135m", "--data-dir", "FILE/x"], "raw files as --data-dir"),
        (["architectures.py", "lama"], "there is no type 'lama'; did you mean 'llama'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_scripts_refuse_in_one_sentence(command, sentence, root, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    script, *options = (word.replace("FILE", str(file)) for word in command)
    words = [sys.executable, str(root / "scripts" / script), *options]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert sentence.replace("FILE", str(file)) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_script_of_architectures_explains_itself(root):
    command = [sys.executable, str(root / "scripts" / "architectures.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "print a few, write nothing" in done.stdout


def test_the_check_of_the_help_texts_can_fail(root):
    sys.path.insert(0, str(root / "scripts"))
    try:
        from help_texts import rewritten
    finally:
        sys.path.pop(0)
    page = "above\n<!-- help -->\n\nold\n\n<!-- end of help -->\nbelow"
    assert rewritten(page, {"help": lambda: "old"}, "page") == page
    assert rewritten(page, {"help": lambda: "new"}, "page") == page.replace("old", "new")
    with pytest.raises(SystemExit, match="once each"):
        rewritten("no markers", {"help": lambda: "new"}, "page")


def parse(words):
    """Parse a command line without running anything; complains as the command would."""
    import typer

    group = typer.main.get_command(importlib.import_module("concept_depth.cli.main").app)
    with group.make_context("concept-depth", list(words), resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        # Eager options would act (`--config` reads its file, which the reader has yet to write).
        for parameter in command.params:
            parameter.callback = None
        command.make_context(name, rest, parent=context).close()
    return name


def test_every_command_that_is_shown_exists_with_its_options(root):
    shown = list(commands(root))
    assert len(shown) >= 15
    for page, words in shown:
        try:
            name = parse(words)
        except Exception as error:
            raise AssertionError(f"{page}: concept-depth {shlex.join(words)}: {error}") from error
        assert name == words[0]


@pytest.mark.parametrize(
    "words", ["run smollm2-135m", "walk model", "run m cities --out x --no-such", "models extra"]
)
def test_a_command_that_does_not_exist_would_be_noticed(words):
    with pytest.raises(Exception, match=r"Missing|No such|unexpected"):
        parse(words.split())


def test_every_file_that_is_called_exists(root):
    for page in pages(root):
        for block in blocks(page.read_text(encoding="utf-8"), "bash"):
            for path in re.findall(r"(?:python|bash|sweep) (scripts/\S+|tests/\S+)", block):
                assert (root / path).is_file(), f"{page.name} names {path}"


def test_the_plans_and_settings_that_are_shown_can_be_read(root, tmp_path):
    from concept_depth.sweep import read_plan

    plans = [
        block
        for page in pages(root)
        for block in blocks(page.read_text(encoding="utf-8"), "toml")
        if "models" in tomllib.loads(block)
    ]
    assert plans
    for number, block in enumerate([*plans, (root / "scripts" / "jin2024" / "plan.toml").read_text()]):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        assert read_plan(path).jobs()


def documented(docstring, section):
    """The names that a section of a docstring explains."""
    match = re.search(rf"^{section}:\n((?:    .*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    return [] if match is None else re.findall(r"^    (\w+):", match[1], re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in concept_depth.__all__ if name != "__version__"])
def test_the_docstring_explains_every_parameter(name):
    value = getattr(concept_depth, name)
    assert inspect.getdoc(value)
    functions = {name: value}
    if inspect.isclass(value):
        # Only what the class itself defines: inherited methods are documented where they are written.
        functions |= {
            f"{name}.{key}": getattr(value, key)
            for key, member in vars(value).items()
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, classmethod))
        }
    for label, function in functions.items():
        if function is concept_depth.InputError:
            continue
        explained = documented(function.__doc__ or "", "Args")
        fields = documented(function.__doc__ or "", "Attributes")
        wanted = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
        if label != name and not explained:
            assert function.__doc__, f"{label} has no docstring"
        else:
            assert wanted in (explained, fields), label


def test_every_public_name_stands_in_the_api_page(root):
    page = (root / "docs" / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    homes = {f"concept_depth.{module}.{name}" for name, module in concept_depth._HOME.items()}
    assert homes <= shown, f"missing: {sorted(homes - shown)}"
