"""Attention in blocks against the formula, written in float64 over the dense mask."""

import numpy as np
import pytest
import torch

from concept_depth.extraction import token_tree
from concept_depth.subjects import attention
from concept_depth.subjects.attention import BlockMask, additive, attention_in_blocks

H, E = 6, 8


def sequences(count: int, depth: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    start = list(range(depth))
    return [start + rng.integers(0, 4, size=int(rng.integers(1, 7))).tolist() for _ in range(count)]


def written(query, key, value, allowed, scaling):
    """Softmax attention as its definition says, a head after the other."""
    shared = query.shape[1] // key.shape[1]
    heads = []
    for head in range(query.shape[1]):
        score = query[0, head].double() @ key[0, head // shared].double().T * scaling
        weight = torch.softmax(score.masked_fill(~allowed, -torch.inf), -1)
        heads.append(weight @ value[0, head // shared].double())
    return torch.stack(heads, 1)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("groups", "depth", "scaling", "width"), [(6, 3, None, E), (3, 9, 0.3, E), (1, 0, None, 5), (2, 200, None, E)]
)
def test_blocks_follow_the_formula(groups, depth, scaling, width, dtype, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REGISTRY

    tree = token_tree.grow(sequences(40, depth))
    size = 16
    assert len(tree) % size, "the last block should not be full"
    blocks = token_tree.attention_blocks(tree, size=size)
    mask = additive(torch.from_numpy(blocks.mask), dtype)[:, None]
    allowed = token_tree.ancestor_mask(tree)
    dense = additive(allowed, dtype)[None, None]

    torch.manual_seed(0)
    # As a network makes them: token by token in memory, heads seen first.
    T = len(tree)
    query = torch.randn(1, T, H, E, dtype=dtype).transpose(1, 2)
    key = torch.randn(1, T, groups, E, dtype=dtype).transpose(1, 2)
    value = torch.randn(1, T, groups, width, dtype=dtype).transpose(1, 2)
    products = []
    product = torch.bmm
    monkeypatch.setattr(attention.torch, "bmm", lambda *both: products.append(both) or product(*both))
    with attention_in_blocks({dense.data_ptr(): BlockMask(torch.from_numpy(blocks.keys), mask, T)}) as served:
        for _ in range(2):
            got, weights = REGISTRY["sdpa"](torch.nn.Module(), query, key, value, dense, scaling=scaling)
    assert served == [T, T]
    assert weights is None
    assert got.dtype == dtype
    # The formula is for few keys in float32 on a CPU; all else is SDPA's.
    assert bool(products) == (dtype == torch.float32 and depth < 100)
    expected = written(query, key, value, allowed, E**-0.5 if scaling is None else scaling)
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    assert got.shape == (1, T, H, width)
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=tolerance)


def test_other_calls_go_the_usual_way():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REGISTRY

    plain = REGISTRY["sdpa"]
    query, key, value = torch.randn(3, 1, 2, 40, E).unbind()
    mask = torch.zeros(1, 1, 40, 40)
    module = torch.nn.Module()
    # Another mask, and a known one beside tensors of another length.
    for tokens, other in ((40, mask.clone()), (41, mask)):
        blocks = BlockMask(torch.zeros(3, 40, dtype=torch.int64), torch.zeros(3, 1, 16, 40), tokens)
        with attention_in_blocks({mask.data_ptr(): blocks}) as served:
            got, _ = REGISTRY["sdpa"](module, query, key, value, other)
        torch.testing.assert_close(got, plain(module, query, key, value, other)[0])
        assert served == []
        assert REGISTRY["sdpa"] is plain
