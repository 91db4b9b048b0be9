"""Several processes at one job: the only module that knows accelerate.

Started alone, there is one process and nothing is imported. Under `torchrun` or `accelerate launch` each process
learns its rank here, takes its share of the work by cost, and waits for the others at a barrier; no data but small
lists ever travels between them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def size() -> int:
    """Number of processes; 1 without a launcher."""
    return int(_state().num_processes) if _launched() else 1


def rank() -> int:
    """Which of the processes this is: 0 … size − 1."""
    return int(_state().process_index) if _launched() else 0


def is_main() -> bool:
    """Whether this process is the one that prints and writes results."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process has come here."""
    if size() > 1:
        _state().wait_for_everyone()


def from_main(value: T) -> T:
    """The main process's value of something small, in every process (what the others give is ignored)."""
    if size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    shared: list[Any] = [value]
    broadcast_object_list(shared, from_process=0)
    result: T = shared[0]
    return result


def from_all(value: T) -> list[T]:
    """Every process's value of something small, by rank, in every process."""
    if size() == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object([value])
    return gathered


def share(costs: Sequence[float], *, processes: int | None = None, process: int | None = None) -> list[int]:
    """The indices of this process's part of a job, in rising order.

    Each piece of work, the dearest first, goes to the process that has least so far: the same division everywhere.

    Args:
        costs: cost of each piece of work, in any unit.
        processes: number of processes; by default `size()`.
        process: whose part; by default `rank()`.
    """
    count = size() if processes is None else processes
    mine = rank() if process is None else process
    if count == 1:
        return list(range(len(costs)))
    loads = np.zeros(count)
    owner = np.zeros(len(costs), dtype=np.int64)
    for index in np.argsort(-np.asarray(costs, dtype=np.float64), kind="stable"):
        owner[index] = int(loads.argmin())
        loads[owner[index]] += costs[index]
    return np.flatnonzero(owner == mine).tolist()


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@cache
def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
