"""Token trees over the causal-LM types of transformers: right where they are used."""

import re

import pytest
import transformers
from tree_types import concept, tree_outcome

# The kinds that most models are of, a kind for each attention pattern, and some that must fall back.
TYPES = {
    "tree": "llama qwen2 qwen3 gemma gemma2 gemma3_text mistral mixtral phi phi3 olmo2 gpt2 gpt_neox opt falcon",
    "prefix": "bloom gpt_neo qwen3_next qwen3_5_text falcon_h1 nemotron_h mamba2 rwkv",
    "plain": "mamba jamba",
}


@pytest.fixture(scope="module")
def listed(root):
    """Type → path, as docs/architectures.md has it."""
    text = (root / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|(?:[^|]*\|){3} (tree|prefix|plain|) \|", text, flags=re.MULTILINE)
    return text, dict(rows)


def test_trees_are_right_on_at_least_100_types(listed):
    assert list(listed[1].values()).count("tree") >= 100


def test_the_texts_share_beginnings_and_exceed_the_windows():
    texts = [text.split() for text in concept().inputs]
    assert min(map(len, texts)) < 6 < max(map(len, texts))
    assert texts[0][:3] == texts[-1][:3]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("expected", "name"), [(path, name) for path in TYPES for name in TYPES[path].split()])
def test_each_type_goes_the_way_the_table_says(expected, name, listed):
    path, detail = tree_outcome(name)
    assert path == expected, detail
    if f"transformers {transformers.__version__}" in listed[0]:
        assert listed[1][name] == expected
