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

_ELEMENTS = 1 << 25  # numbers of layers worked on at once; each takes up to some 40 bytes


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, count: int, size: Callable[[Item], int]
) -> Iterator[Result]:
    """Yield `work(item)` of all items in their order, several at a time, torch's threads being divided among them.

    Args:
        work: may run in several threads at once.
        items: all of a size; taken in this thread, and one more of them at a time than are worked on.
        count: how many there are.
        size: how many numbers an item holds; of large ones fewer are worked on at once, each by more threads.
    """
    items = iter(items)
    first = list(itertools.islice(items, 1))
    threads = torch.get_num_threads()
    workers = min([threads, count, *(_ELEMENTS // size(item) for item in first)])
    items = itertools.chain(first, items)
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's number is what threads of others would begin with
