"""Every causal-LM type of the installed transformers: collected layers equal what enters and leaves each block."""

import re

import pytest
import transformers
from architecture_check import TOLERANCE, added_difference, outcome
from tiny_architectures import causal_types


@pytest.fixture(scope="module")
def table(root):
    """Type → status, as docs/architectures.md has it."""
    text = (root / "docs" / "architectures.md").read_text(encoding="utf-8")
    return text, dict(re.findall(r"^\| `([^`]+)` \| [^|]* \| ([a-z ]+) \|", text, flags=re.MULTILINE))


def test_at_least_130_types_are_listed_as_equal(table):
    statuses = list(table[1].values())
    assert statuses.count("equal") >= 130
    assert set(statuses) <= {"equal", "refused", "not built"}


# transformers warns of its own deprecations and of missing kernels when some of these are built.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", causal_types())
def test_collected_layers_equal_what_enters_and_leaves_the_blocks(name, table):
    text, listed = table
    status, detail = outcome(name)
    assert status != "different", f"{name}: relative difference {detail}"
    if f"transformers {transformers.__version__}" in text:
        assert status == listed[name], f"{name}: {detail}; run scripts/architectures.py to renew the table"


@pytest.mark.filterwarnings("ignore")
def test_what_is_added_makes_the_stream_of_every_type_with_a_middle(table):
    text = table[0]
    if f"transformers {transformers.__version__}" not in text:
        pytest.skip("the table is of another release")
    names = re.findall(r"^\| `([^`]+)` \| [^|]* \| equal \| mid[ ,]", text, flags=re.MULTILINE)
    assert len(names) > 100
    errors = {name: added_difference(name) for name in names}
    assert {name: error for name, error in errors.items() if error > TOLERANCE} == {}
