"""Token trees, against a slow reference that looks at whole sequences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concept_depth.extraction import token_tree as tt

sequences_of_tokens = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), min_size=1, max_size=14
)


def reference_mask(tree: tt.Tree, window: int | None = None, chunk: int | None = None) -> np.ndarray:
    """Climb from every node to its beginning, one step at a time."""
    mask = np.zeros((len(tree), len(tree)), dtype=bool)
    for node in range(len(tree)):
        at = node
        while at >= 0:
            near = window is None or tree.position[node] - tree.position[at] < window
            same = chunk is None or tree.position[node] // chunk == tree.position[at] // chunk
            mask[node, at] = near and same
            at = tree.parent[at]
    return mask


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sequences_of_tokens)
def test_each_sequence_can_be_read_off_its_path(sequences):
    tree = tt.grow(sequences)
    for index, sequence in enumerate(sequences):
        path = tree.path(int(tree.leaf[index]))
        assert tuple(tree.ids[path]) == sequence
        assert tree.position[path].tolist() == list(range(len(sequence)))
        assert tree.nodes_at(index, [0, len(sequence) - 1]).tolist() == [path[0], path[-1]]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sequences_of_tokens)
def test_each_distinct_prefix_stands_exactly_once(sequences):
    prefixes = {sequence[:stop] for sequence in sequences for stop in range(1, len(sequence) + 1)}
    assert len(tt.grow(sequences)) == len(prefixes) == tt.distinct_tokens(sequences)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sequences_of_tokens, st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, 2, 3]))
def test_the_mask_lets_a_node_see_its_ancestors_only(sequences, window, chunk):
    tree = tt.grow(sequences)
    expected = reference_mask(tree, window, chunk)
    np.testing.assert_array_equal(tt.ancestor_mask(tree, window=window, chunk=chunk), expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sequences_of_tokens, st.integers(1, 7), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, 2, 3]))
def test_blocks_hold_the_same_mask(sequences, size, window, chunk):
    tree = tt.grow(sequences)
    blocks = tt.attention_blocks(tree, size=size)
    mask = tt.narrow(blocks, tree, window=window, chunk=chunk)
    rebuilt = np.zeros((len(tree), len(tree)), dtype=int)
    for block in range(len(blocks.keys)):
        for row in range(size):
            query = block * size + row
            assert mask[block, row].any(), "a query without keys gives NaN"
            if query < len(tree):
                np.add.at(rebuilt[query], blocks.keys[block][mask[block, row]], 1)
    np.testing.assert_array_equal(rebuilt, reference_mask(tree, window, chunk).astype(int))


def cost_of(packs, sequences, pair_cost, pack_cost):
    sizes = [tt.distinct_tokens([sequences[i] for i in pack]) for pack in packs]
    return sum(size + pair_cost * size**2 + pack_cost for size in sizes)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=7),
    st.integers(6, 20),
    st.sampled_from([0.0, 0.05]),
)
def test_packs_are_the_cheapest_runs_of_neighbours(sequences, budget, pair_cost):
    packs = tt.plan_packs(sequences, budget=budget, pair_cost=pair_cost, pack_cost=2.0)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sequences)))
    for pack in packs:
        assert tt.distinct_tokens([sequences[i] for i in pack]) <= budget
    order = [i for pack in packs for i in pack]
    best = np.inf
    for cuts in range(2 ** (len(order) - 1)):
        trial, current = [], [order[0]]
        for bit, index in enumerate(order[1:]):
            if cuts >> bit & 1:
                trial.append(current)
                current = []
            current.append(index)
        trial.append(current)
        if all(tt.distinct_tokens([sequences[i] for i in pack]) <= budget for pack in trial):
            best = min(best, cost_of(trial, sequences, pair_cost, 2.0))
    assert cost_of(packs, sequences, pair_cost, 2.0) == pytest.approx(best)


def test_a_sequence_longer_than_the_budget_makes_a_pack_of_its_own():
    sequences = [(1, 2), tuple(range(50)), (1, 3)]
    packs = tt.plan_packs(sequences, budget=10)
    assert [1] in packs
    assert sorted(index for pack in packs for index in pack) == [0, 1, 2]


def test_the_plan_depends_on_content_alone():
    rng = np.random.default_rng(0)
    sequences = [(7, 7, 7, *rng.integers(0, 5, rng.integers(1, 8)).tolist()) for _ in range(200)]
    packs = tt.plan_packs(sequences, budget=64)
    shuffled = rng.permutation(len(sequences)).tolist()
    again = tt.plan_packs([sequences[i] for i in shuffled], budget=64)
    assert len(packs) > 3
    as_content = [sorted(sequences[i] for i in pack) for pack in packs]
    assert as_content == [sorted(sequences[shuffled[i]] for i in pack) for pack in again]
