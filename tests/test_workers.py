"""Layers side by side: order, laziness, errors, and that scores do not depend on it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_depth.activations import Activations
from concept_depth.errors import InputError
from concept_depth.probing import masks, workers
from concept_depth.probing.lbfgs import minimise
from concept_depth.probing.path import _series
from concept_depth.probing.protocol import score_layers
from concept_depth.probing.workers import side_by_side


@pytest.fixture
def threads():
    """Sets torch's threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    """What torch gives a thread that was not there before; OpenMP's number is each thread's own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def layers(n=160, d=12, L=5):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    matrices = [rng.normal(size=(n, d)) + (y[:, None] - 0.5) * k * rng.normal(size=d) / 3 for k in range(L)]
    return Activations.from_arrays([matrix.astype(np.float32) for matrix in matrices], y, groups=np.arange(n) // 2)


def test_results_come_in_order_while_several_are_worked_on(threads):
    threads(3)
    together = threading.Barrier(3, timeout=60)  # breaks unless three threads meet here

    def work(item):
        if item < 3:
            together.wait()
        return item, threading.get_ident(), torch.get_num_threads()

    found = list(side_by_side(work, range(9), count=9, size=lambda item: 1))
    assert [item for item, _, _ in found] == list(range(9))
    assert threading.get_ident() not in {thread for _, thread, _ in found}
    assert {each for _, _, each in found} == {1}
    assert threads_of_a_new_thread() == 3


def test_no_more_is_read_ahead_than_is_worked_on_and_one(threads):
    threads(2)
    read, done = [], []

    def items():
        for item in range(8):
            read.append(item)
            assert len(read) - len(done) <= 3
            yield item

    for item in side_by_side(lambda item: item, items(), count=8, size=lambda item: 1):
        done.append(item)
    assert done == read == list(range(8))


def test_large_items_are_worked_on_one_by_one_by_all_threads(threads):
    threads(4)
    here = threading.get_ident()
    size = workers._NUMBERS // 2
    alone = list(side_by_side(lambda _: threading.get_ident(), range(3), count=3, size=lambda _: size + 1))
    assert set(alone) == {here}
    some = list(side_by_side(lambda _: torch.get_num_threads(), range(3), count=3, size=lambda _: size))
    assert some == [2, 2, 2]


def test_few_items_share_all_threads(threads):
    threads(4)
    each = [torch.get_num_threads] * 2
    assert list(side_by_side(lambda ask: ask(), each, count=2, size=lambda _: 1)) == [2, 2]
    alone = list(side_by_side(lambda _: threading.get_ident(), [0], count=1, size=lambda _: 1))
    assert alone == [threading.get_ident()]


def test_nothing_gives_nothing(threads):
    threads(2)
    assert list(side_by_side(lambda item: item, [], count=0, size=lambda item: 1)) == []


def test_an_error_ends_the_work_and_gives_the_threads_back(threads):
    threads(2)
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise InputError("layer 1 is bad")
        return item

    with pytest.raises(InputError, match="layer 1 is bad"):
        list(side_by_side(work, range(100), count=100, size=lambda item: 1))
    assert len(begun) < 10
    assert threads_of_a_new_thread() == 2


def test_scores_are_the_same_with_one_thread_and_with_several(threads):
    acts = layers()
    threads(1)
    alone = score_layers(acts, permutations=19, random_state=3)
    threads(3)
    seen = []
    together = score_layers(acts, permutations=19, random_state=3, progress=lambda done, total: seen.append(done))
    assert seen == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(together.decision, alone.decision)
    np.testing.assert_array_equal(together.null_curves, alone.null_curves)
    assert together.n_fits == alone.n_fits


def test_a_layer_with_nan_is_refused_in_the_midst_of_others(threads):
    threads(2)
    good = layers()
    bad = {name: good[name].copy() for name in good}
    bad[good.names[3]][5, 1] = np.nan
    acts = replace(good, read=bad.__getitem__)
    with pytest.raises(InputError, match=f"{good.names[3]!r} holds NaN"):
        score_layers(acts, permutations=0)
    assert threads_of_a_new_thread() == 2


def test_wide_layers_after_a_narrow_one_are_not_all_worked_on_at_once(threads):
    threads(8)
    sizes = [1] + [workers._NUMBERS // 2] * 6
    lock, working, most = threading.Lock(), [], []

    def work(size):
        with lock:
            working.append(size)
            most.append(sum(working))
        time.sleep(0.02)
        with lock:
            working.remove(size)

    list(side_by_side(work, sizes, count=7, size=lambda item: item))
    assert workers._NUMBERS // 2 < max(most) <= workers._NUMBERS


def test_a_reader_may_fill_the_same_memory_with_every_layer(threads):
    acts = layers()
    buffer = np.empty_like(acts[0])

    def read(name):
        buffer[:] = acts[name]
        return buffer

    threads(3)
    scores = score_layers(replace(acts, read=read), permutations=0)
    np.testing.assert_array_equal(scores.decision, score_layers(acts, permutations=0).decision)


def test_an_error_of_the_caller_ends_the_workers_at_once(threads):
    threads(2)
    before = set(threading.enumerate())

    def refuse(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as kept:
        score_layers(layers(), permutations=0, progress=refuse)
    assert kept.traceback[-1].name == "refuse"  # which is kept, with its frames, as a notebook does
    assert set(threading.enumerate()) <= before
    assert threads_of_a_new_thread() == 2


def test_what_a_wide_batch_leaves_is_solved_with_the_others(monkeypatch):
    """Of 3 × 40 problems a split, whatever is not solved at once is left, and ends where it would have ended there."""
    some, losses = layers(n=200, d=10), []
    acts = Activations.from_arrays([some[4]], some.labels, groups=some.groups)
    update = masks.Choice.update
    monkeypatch.setattr(masks.Choice, "update", lambda *given: losses.append(given[2]) or update(*given))
    monkeypatch.setattr(masks, "TOL_INNER", 1e-8)
    passes, passed = [], masks.MaskedFits._pass
    monkeypatch.setattr(masks.MaskedFits, "_pass", lambda *given: passes.append(given[-1]) or passed(*given))
    found = {}
    for leave in (0.0, 1.0):
        monkeypatch.setattr(masks, "_WIDE_LEAVE", leave)
        losses.clear()
        passes.clear()
        score_layers(acts, permutations=39)
        found[leave] = list(losses)
        assert set(passes) == {True, False}
    for exact, left in zip(found[0.0], found[1.0], strict=True):
        np.testing.assert_allclose(left, exact, rtol=2e-4)


def test_problems_with_equal_rows_are_one_series_whatever_stands_around_them():
    rng = np.random.default_rng(0)
    rows = (rng.integers(2, size=(7, 1003)) * rng.choice([-1.0, 1.0], size=(7, 1003))).astype(np.float32)
    owner = rng.permutation(np.repeat(np.arange(7), 11))
    values = torch.as_tensor(rows)[owner]
    values[::2] = torch.where(values[::2] == 0, -0.0, values[::2])
    C = torch.as_tensor(rng.random(77))
    found = _series(values, C)
    assert sorted(map(sorted, found)) == sorted(np.flatnonzero(owner == k).tolist() for k in range(7))
    for one in found:
        assert np.all(np.diff(C[one].numpy()) > 0)


class Bowls:
    """½ k_b ‖x‖² of problem b, preconditioned by nothing: problems of k = 1 are solved in one step."""

    def __init__(self, k):
        self.k = torch.as_tensor(k)

    def evaluate(self, x):
        return 1 + 0.5 * (self.k * x.square()).sum(1).double(), self.k * x

    def precondition(self, g):
        return g

    def keep(self, mask):
        self.k = self.k[mask]


def test_a_few_unsolved_problems_may_be_left_where_they_stand():
    stretched = np.ones((20, 3))
    stretched[:2] = [1.0, 50.0, 900.0]
    x = torch.ones(20, 3, dtype=torch.float64)
    left = minimise(Bowls(stretched), x, tol=1e-8, max_iter=200, leave=0.1)
    assert left.converged.tolist() == [False] * 2 + [True] * 18
    assert int(left.n_iter.max()) < 5
    assert torch.isfinite(left.x).all()
    solved = minimise(Bowls(stretched), x, tol=1e-8, max_iter=200, leave=0.09)
    assert solved.converged.all()
    resumed = minimise(Bowls(stretched[:2]), left.x[:2], tol=1e-8, max_iter=200)
    assert resumed.converged.all()
