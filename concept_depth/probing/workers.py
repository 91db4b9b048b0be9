"""Layers side by side on the cores of a CPU.

The fits of a layer are many small products with Python between them, so that torch's threads wait for each other much
of the time. Layers need nothing of each other: a thread of Python for each keeps the cores busy.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_NUMBERS = 1 << 29  # held at once, 2 GiB of float32


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, count: int, size: Callable[[Item], int]
) -> Iterator[Result]:
    """Yield `work(item)` of all items in their order, several at a time, torch's threads being divided among them.

    Close it if it is left before its end. An interrupt waits for the items in work.

    Args:
        work: may run in several threads at once.
        items: taken in this thread, and one more of them at a time than are worked on.
        count: how many there are.
        size: how many numbers the work on an item holds; of large ones fewer are worked on at once.
    """
    items = iter(items)
    first = list(itertools.islice(items, 1))
    threads = torch.get_num_threads()
    workers = min([threads, count, *(_NUMBERS // size(item) for item in first)])
    items = itertools.chain(first, items)
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    waiting: deque[tuple[int, Future[Result]]] = deque()
    try:
        for item in items:
            held = size(item)
            while waiting and held + sum(one for one, _ in waiting) > _NUMBERS:
                yield waiting.popleft()[1].result()
            waiting.append((held, pool.submit(work, item)))
            if len(waiting) > workers:
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            # torch gives new threads the number that was set last, in whatever thread.
            torch.set_num_threads(threads)
