"""Processes: shares of a job, and what one process does without a launcher."""

from __future__ import annotations

import sys

import numpy as np

from concept_depth import processes


def test_alone_there_is_one_process_and_accelerate_is_not_loaded(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    loaded = "accelerate" in sys.modules
    assert (processes.size(), processes.rank(), processes.is_main()) == (1, 0, True)
    processes.barrier()
    assert processes.from_main([1]) == [1]
    assert processes.share([3, 1, 2]) == [0, 1, 2]
    assert ("accelerate" in sys.modules) == loaded


def test_shares_hold_every_piece_once_and_cost_alike():
    costs = np.random.default_rng(0).exponential(size=40).tolist()
    for count in (2, 3, 7):
        parts = [processes.share(costs, processes=count, process=i) for i in range(count)]
        assert sorted(index for part in parts for index in part) == list(range(40))
        loads = [sum(costs[index] for index in part) for part in parts]
        # The dearest piece bounds how unlike shares by falling cost can be.
        assert max(loads) - min(loads) <= max(costs)


def test_more_processes_than_pieces_leaves_some_without_work():
    assert [processes.share([1.0], processes=2, process=i) for i in range(2)] == [[0], []]
