"""Token trees: packs of sequences in which every shared beginning stands once. Pure functions, no network.

Causal attention makes a hidden state depend only on the tokens before it, so sequences that begin alike share the
states of that beginning. A pack is a trie of some sequences, laid out in depth-first order (parents before
children, each subtree contiguous): node j is an ancestor of node i, or i itself, exactly when j ≤ i < end[j].

Two forms of the attention mask follow from that: the whole (T, T) matrix, and *blocks*: in depth-first order the
ancestors of any S consecutive nodes lie among those nodes and on the path to the first of them, so S queries need
only S + depth keys.

Shapes: T nodes (distinct tokens) of a pack, N sequences, C blocks, S queries of a block, K keys of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tree:
    """A trie of sequences in depth-first order.

    Args:
        ids: (T,) token of each node.
        parent: (T,) node before it, −1 where a sequence begins.
        position: (T,) distance from the beginning of the sequence: 0, 1, …
        leaf: (N,) node at which each sequence ends, in the order in which the sequences were given.
    """

    ids: IntArray
    parent: IntArray
    position: IntArray
    leaf: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def end(self) -> IntArray:
        """(T,) one past the last node of each node's subtree."""
        end = list(range(1, len(self) + 1))
        for node, above in zip(range(len(self) - 1, -1, -1), self.parent[::-1].tolist(), strict=True):
            if above >= 0 and end[above] < end[node]:
                end[above] = end[node]
        return np.asarray(end, dtype=np.int64)

    def path(self, node: int) -> IntArray:
        """The nodes from the beginning of a sequence to `node`, both included."""
        nodes = [node]
        while (above := int(self.parent[nodes[-1]])) >= 0:
            nodes.append(above)
        return np.asarray(nodes[::-1], dtype=np.int64)

    def nodes_at(self, sequence: int, positions: Sequence[int]) -> IntArray:
        """The nodes of one sequence at the given token positions."""
        leaf = int(self.leaf[sequence])
        if len(positions) == 1 and positions[0] == self.position[leaf]:
            return np.asarray([leaf], dtype=np.int64)
        return self.path(leaf)[np.asarray(positions, dtype=np.int64)]


@dataclass(frozen=True, eq=False)
class Blocks:
    """A tree's attention mask in blocks of S consecutive queries.

    Args:
        keys: (C, K) nodes that the queries of a block may look at (0 where a row is padded; masked there).
        mask: (C, S, K) whether a query sees a key; queries past the end of the tree see one key, to stay finite.
    """

    keys: IntArray
    mask: BoolArray


def shared_lengths(ordered: Sequence[Sequence[int]]) -> IntArray:
    """(N,) number of leading tokens that each sequence shares with the one before it; 0 for the first."""
    shared = np.zeros(len(ordered), dtype=np.int64)
    for index in range(1, len(ordered)):
        before, here = ordered[index - 1], ordered[index]
        limit = min(len(before), len(here))
        length = 0
        while length < limit and before[length] == here[length]:
            length += 1
        shared[index] = length
    return shared


def distinct_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Number of nodes of the trie of all sequences: the least number of tokens to compute."""
    ordered = sorted(map(tuple, sequences))
    return sum(map(len, ordered)) - int(shared_lengths(ordered).sum())


def grow(sequences: Sequence[Sequence[int]]) -> Tree:
    """The trie of `sequences` (none empty), in depth-first order; children stand in the order of their tokens."""
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    shared = shared_lengths([sequences[index] for index in order]).tolist()
    ids: list[int] = []
    parent: list[int] = []
    position: list[int] = []
    leaf = np.zeros(len(sequences), dtype=np.int64)
    path: list[int] = []
    for index, kept in zip(order, shared, strict=True):
        del path[kept:]
        for token in sequences[index][kept:]:
            ids.append(token)
            parent.append(path[-1] if path else -1)
            position.append(len(path))
            path.append(len(ids) - 1)
        leaf[index] = path[-1]
    return Tree(
        ids=np.asarray(ids, dtype=np.int64),
        parent=np.asarray(parent, dtype=np.int64),
        position=np.asarray(position, dtype=np.int64),
        leaf=leaf,
    )


def other_tokens(tree: Tree, kept: Sequence[int]) -> IntArray:
    """(T,) tokens of the tree, but others on every node that none of the sequences `kept` passes through.

    Each gives way to the next one that stands in the tree, so all are tokens that a network can read.
    """
    mine = np.zeros(len(tree), dtype=np.bool_)
    for sequence in kept:
        mine[tree.path(int(tree.leaf[sequence]))] = True
    known, place = np.unique(tree.ids, return_inverse=True)
    return np.where(mine, tree.ids, known[(place + 1) % len(known)])


def plan_packs(
    sequences: Sequence[Sequence[int]],
    *,
    budget: int,
    pair_cost: float = 0.0,
    pack_cost: float = 8.0,
) -> list[list[int]]:
    """Divide sequences into packs of at most `budget` nodes at the least cost.

    In lexicographic order a pack is a run of neighbours, and a cut between two neighbours costs the tokens they
    share a second time. The cheapest cuts are found exactly, by dynamic programming over the cut points.

    Args:
        sequences: N token sequences.
        budget: most nodes of a pack (a sequence longer than that makes a pack of its own).
        pair_cost: cost of one query-key pair, in units of one token through the linear layers; 0 where attention
            is computed in blocks, so that it does not grow with the square of the pack.
        pack_cost: cost of starting a pack, in the same unit.

    Returns:
        For each pack the indices of its sequences; every index occurs once. Depends on content alone.
    """
    order = sorted(range(len(sequences)), key=lambda index: (tuple(sequences[index]), index))
    lengths = np.asarray([len(sequences[index]) for index in order], dtype=np.int64)
    shared = shared_lengths([sequences[index] for index in order])
    # new[j]: nodes that the first j sequences add when nothing is cut
    new = np.concatenate([[0], np.cumsum(lengths - shared)])
    best = np.zeros(len(order) + 1)
    cut = np.zeros(len(order) + 1, dtype=np.int64)
    first = 0
    for stop in range(1, len(order) + 1):
        # nodes of the pack start … stop−1: all new ones, and once more what its first sequence shares
        while first < stop - 1 and new[stop] - new[first] + shared[first] > budget:
            first += 1
        starts = np.arange(first, stop)
        nodes = (new[stop] - new[starts] + shared[starts]).astype(np.float64)
        cost = best[starts] + nodes + pair_cost * nodes**2 + pack_cost
        cost[(nodes > budget) & (starts < stop - 1)] = np.inf
        chosen = int(cost.argmin())
        best[stop], cut[stop] = cost[chosen], starts[chosen]
    packs: list[list[int]] = []
    stop = len(order)
    while stop > 0:
        packs.append(order[cut[stop] : stop])
        stop = int(cut[stop])
    return packs[::-1]


def ancestor_mask(
    tree: Tree, *, window: int | None = None, chunk: int | None = None, device: torch.device | None = None
) -> torch.Tensor:
    """(T, T) whether a node (row) sees another (column): itself and its ancestors.

    A tensor, since its entries take longer to travel to a GPU than to be computed there.

    Args:
        tree: the pack.
        window: sliding-window attention: only the last `window` tokens of the path, the node itself included.
        chunk: chunked attention: only tokens of the path in the same chunk of so many positions.
        device: where the mask is made; the CPU by default.
    """
    nodes = torch.arange(len(tree), device=device)
    end, position = (torch.from_numpy(values).to(nodes.device) for values in (tree.end, tree.position))
    mask = (nodes <= nodes[:, None]) & (nodes[:, None] < end)
    if window is not None:
        mask &= position[:, None] < position + window
    if chunk is not None:
        mask &= position[:, None] // chunk == position // chunk
    return mask


def attention_blocks(tree: Tree, *, size: int) -> Blocks:
    """The full-attention mask of a tree, in blocks of `size` queries.

    Masks for windows and chunks follow from it: see `narrow`.
    """
    starts = range(0, len(tree), size)
    keys_of = []
    for start in starts:
        stop = min(start + size, len(tree))
        above = tree.path(start)[:-1]
        keys_of.append(np.concatenate([above, np.arange(start, stop)]))
    # multiples of 8 keep the rows of the mask aligned for vector instructions
    width = -(-max(map(len, keys_of)) // 8) * 8
    keys = np.zeros((len(keys_of), width), dtype=np.int64)
    real = np.zeros((len(keys_of), width), dtype=np.bool_)
    for block, found in enumerate(keys_of):
        keys[block, : len(found)] = found
        real[block, : len(found)] = True
    queries = np.arange(len(keys_of) * size).reshape(len(keys_of), size)
    end = tree.end[keys]
    mask: BoolArray = (keys[:, None, :] <= queries[:, :, None]) & (queries[:, :, None] < end[:, None, :])
    mask &= real[:, None, :]
    mask[..., 0] |= queries >= len(tree)
    return Blocks(keys=keys, mask=mask)


def narrow(blocks: Blocks, tree: Tree, *, window: int | None = None, chunk: int | None = None) -> BoolArray:
    """(C, S, K) the mask of `blocks` for sliding-window or chunked attention; see `ancestor_mask`."""
    count, size, _ = blocks.mask.shape
    queries = np.minimum(np.arange(count * size), len(tree) - 1).reshape(count, size)
    here, there = tree.position[queries][:, :, None], tree.position[blocks.keys][:, None, :]
    mask = blocks.mask.copy()
    if window is not None:
        mask &= here - there < window
    if chunk is not None:
        mask &= here // chunk == there // chunk
    past = (np.arange(count * size) >= len(tree)).reshape(count, size)
    mask[..., 0] |= past
    return mask
