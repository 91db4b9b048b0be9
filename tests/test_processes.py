"""Processes: shares of a job, and what one process does without a launcher."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from concept_depth import processes
from concept_depth.probing.scores import LayerScores


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


SCORE = """
import sys
import torch
sys.path.insert(0, {tests!r})
from test_scores import sample
from concept_depth import find_depth, processes, score_layers
torch.set_num_threads(1)
read, acts = [], sample(layers=5)
counted = type(acts)(**{{**vars(acts), "read": lambda name: (read.append(name), acts.read(name))[1]}})
scores = score_layers(counted, permutations=19, random_state=3)
scores.save("scores.%d.safetensors" % processes.rank())
in_sample = score_layers(acts, cv=None, permutations=0)
found = [*sorted(set(read)), str(find_depth(in_sample, rule="separable").number)]
# A file each: what two processes print at one moment can stand in one line.
open("read.%d.txt" % processes.rank(), "w").write("\\n".join(found))
"""


def test_two_processes_divide_the_layers_and_both_have_all_scores(tmp_path):
    script = tmp_path / "score.py"
    script.write_text(SCORE.format(tests=os.path.dirname(__file__)))

    def run(*launcher):
        command = [sys.executable, *launcher, str(script)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = [path.read_text().splitlines() for path in sorted(tmp_path.glob("read.*.txt"))]
        return found, LayerScores.load(tmp_path / "scores.0.safetensors")

    (alone,), whole = run()
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    (first, second), divided = run(*launcher)
    assert {*first[:-1], *second[:-1]} == set(alone[:-1]), "each layer is read somewhere"
    assert not set(first[:-1]) & set(second[:-1]), "and nowhere twice"
    assert first[-1] == second[-1] == alone[-1]
    other = LayerScores.load(tmp_path / "scores.1.safetensors")
    for scores in (divided, other):
        assert scores.n_fits == whole.n_fits
        np.testing.assert_array_equal(scores.curve, whole.curve)
        np.testing.assert_array_equal(scores.null_curves, whole.null_curves)
        np.testing.assert_array_equal(scores.decision, whole.decision)
