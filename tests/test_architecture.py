"""The house rules, read from the source: who may import whom, how long a module is, what is light to load."""

import ast
import subprocess
import sys

import pytest

PACKAGE = "concept_depth"
MAX_MODULE, MAX_FUNCTION = 400, 60

# What a room may see besides itself; files, errors and activations stand at the waist and are open to all.
COMMON = {"errors", "files"}
SEES = {
    "errors": set(),
    "files": {"errors"},
    "processes": {"errors"},
    "activations": COMMON,
    "concepts": COMMON,
    "subjects": COMMON | {"processes"},
    "extraction": COMMON | {"activations", "processes", "concepts", "subjects"},
    "probing": COMMON | {"activations", "processes"},
    "rules": COMMON,
    "intervals": COMMON | {"activations", "probing", "rules"},
    "depth": COMMON | {"activations", "probing", "rules", "intervals"},
    "comparison": COMMON | {"activations", "probing", "rules", "intervals", "depth"},
    "reporting": COMMON | {"activations", "probing", "rules", "depth", "comparison"},
    "measure": None,
    "checks": None,
    "application": None,
    "sweep": None,
    "cli": None,
    "__main__": None,
    "__init__": None,
}
# Libraries that only one room may open.
ONLY_IN = {
    "datasets": {"concepts/readers.py", "concepts/hub.py"},
    "safetensors": {"files.py"},
    "accelerate": {"processes.py"},
    "transformers": "subjects",
    "matplotlib": "reporting",
    "plotly": "reporting",
    "typer": "cli",
    "pickle": set(),
    "joblib": set(),
}
HEAVY = ("torch", "transformers", "datasets", "sklearn", "matplotlib", "scipy", "pandas", "plotly", "pyarrow")


def modules(root):
    return sorted((root / PACKAGE).rglob("*.py"))


def room_of(path, root):
    parts = path.relative_to(root / PACKAGE).with_suffix("").parts
    return parts[0]


def imports(tree):
    """Every imported module of a file, wherever the statement stands, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def seen_rooms(source):
    rooms = set()
    for name in imports(ast.parse(source)):
        parts = name.split(".")
        if parts[0] == PACKAGE and len(parts) > 1:
            rooms.add(parts[1])
    return rooms


def intruders(source, relative):
    """Libraries that `source`, standing at `relative`, must not open."""
    found = set()
    for name in imports(ast.parse(source)):
        allowed = ONLY_IN.get(name.split(".")[0])
        if isinstance(allowed, str):
            if not relative.startswith(allowed):
                found.add(name)
        elif allowed is not None and relative not in allowed:
            found.add(name)
    return found


def test_every_room_sees_only_what_the_plan_allows(root):
    names = {room_of(path, root) for path in modules(root)}
    assert names <= set(SEES), f"rooms without a rule: {names - set(SEES)}"
    for path in modules(root):
        room = room_of(path, root)
        if SEES[room] is None:
            continue
        forbidden = (seen_rooms(path.read_text()) & set(SEES)) - SEES[room] - {room}
        assert not forbidden, f"{path.relative_to(root)} must not import {sorted(forbidden)}"


def test_libraries_with_one_door_are_opened_there_only(root):
    for path in modules(root):
        relative = path.relative_to(root / PACKAGE).as_posix()
        assert not intruders(path.read_text(), relative), relative


def test_the_checks_can_fail():
    assert seen_rooms("from concept_depth.subjects import sites") == {"subjects"}
    assert seen_rooms("def f():\n    import concept_depth.concepts.noise") == {"concepts"}
    assert intruders("from safetensors import safe_open", "extraction/store.py")
    assert intruders("import matplotlib.figure", "cli/main.py")
    assert not intruders("import matplotlib.figure", "reporting/figures.py")


def test_modules_and_functions_stay_short(root):
    for path in modules(root):
        text = path.read_text()
        assert text.count("\n") <= MAX_MODULE, f"{path.relative_to(root)} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body
                # The docstring documents arguments and is no code.
                start = body[1].lineno if ast.get_docstring(node) and len(body) > 1 else node.lineno
                length = node.end_lineno - start
                assert length <= MAX_FUNCTION, f"{path.relative_to(root)}:{node.name} has {length} lines"


def test_every_module_and_public_name_is_documented(root):
    for path in modules(root):
        tree = ast.parse(path.read_text())
        if not tree.body:
            continue
        assert ast.get_docstring(tree), f"{path.relative_to(root)} has no docstring"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.relative_to(root)}:{node.name} has no docstring"


def test_there_is_no_drawer_and_no_shadow(root):
    assert not list((root / PACKAGE).rglob("utils*"))
    assert not list((root / "datasets").rglob("__init__.py")), "it would shadow Hugging Face's datasets"


@pytest.mark.parametrize(
    "command",
    [
        "import concept_depth",
        "import concept_depth.cli.main",
        "from concept_depth.cli.main import main; import sys; sys.argv = ['concept-depth', '--help']; main()",
        "import concept_depth; concept_depth.load_concept; concept_depth.Concept",
    ],
)
def test_what_must_be_light_loads_nothing_heavy(command):
    program = (
        "import sys\n"
        f"try:\n    exec({command!r})\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_the_public_names_are_there():
    import concept_depth

    for name in concept_depth.__all__:
        assert getattr(concept_depth, name) is not None
