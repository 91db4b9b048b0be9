"""The store: what is written is what is read, whole or not at all, and damage is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from concept_depth.errors import InputError
from concept_depth.extraction import store as st
from concept_depth.extraction.cache import list_cache, prune_cache, verify_cache

LAYERS = ["resid_post.0", "resid_post.1"]


def a_plan(**changes):
    settings = {"path": "plain", "batch_tokens": 64}
    about = {"concept": "cities", "model": "tiny", "site": "resid_post", "position": "last", "examples": 5}
    fields = {"shards": [[[3, 1]], [[0], [4, 2]]], "costs": [20, 30], "count": 5, "layers": LAYERS}
    return st.Plan(**{**fields, "settings": settings, "about": about, **changes})


def the_rows(store, shard, dtype=torch.float32):
    """Row i of layer l is 10·i + l in every column."""
    examples = [i for unit in store.plan.shards[shard] for i in unit]
    return {
        name: torch.tensor([[10.0 * i + number] * 3 for i in examples], dtype=dtype)
        for number, name in enumerate(LAYERS)
    }


def filled(tmp_path, dtype=torch.float32):
    store = st.open_store(tmp_path, "k", a_plan)
    for shard in store.missing():
        store.write(shard, the_rows(store, shard, dtype))
    return store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_comes_back_in_the_order_of_the_examples(tmp_path, dtype):
    store = filled(tmp_path, dtype)
    for number, name in enumerate(LAYERS):
        expected = np.repeat(10.0 * np.arange(5)[:, None] + number, 3, axis=1)
        np.testing.assert_array_equal(store.read(name), expected)
        assert store.read(name).dtype == np.float32


def test_only_shards_that_are_absent_are_missing(tmp_path):
    store = st.open_store(tmp_path, "k", a_plan)
    assert store.missing() == [0, 1]
    store.write(1, the_rows(store, 1))
    assert st.open_store(tmp_path, "k", a_plan).missing() == [0]


def test_a_resumed_run_keeps_the_first_plan(tmp_path):
    first = st.open_store(tmp_path, "k", a_plan)
    second = st.open_store(tmp_path, "k", lambda: a_plan(settings={"path": "tree", "batch_tokens": 9}))
    assert second.plan.settings == first.plan.settings
    assert second.plan.fingerprint == first.plan.fingerprint


def test_the_same_rows_give_the_same_bytes(tmp_path):
    one, two = filled(tmp_path / "a"), filled(tmp_path / "b")
    for shard in range(2):
        assert one.path(shard).read_bytes() == two.path(shard).read_bytes()


@pytest.mark.parametrize("where", [0.1, 0.5, 0.95])
def test_one_flipped_byte_is_found_named_and_costs_one_shard(tmp_path, where):
    store = filled(tmp_path)
    path = store.path(1)
    data = bytearray(path.read_bytes())
    place = int(len(data) * where)
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"shard-00001.safetensors is damaged"):
        missing = store.missing()
    assert missing == [1]
    entry = verify_cache(tmp_path)[0]
    assert (entry.state, entry.damaged) == ("damaged", ("shard-00001.safetensors",))
    store.write(1, the_rows(store, 1))
    assert store.missing() == []
    assert verify_cache(tmp_path)[0].state == "complete"


def test_damage_after_opening_is_an_error_when_the_layer_is_read(tmp_path):
    store = filled(tmp_path)
    store.path(0).write_bytes(store.path(0).read_bytes()[:-4])
    with pytest.raises(InputError, match="shard-00000"):
        store.read(LAYERS[0])


def test_a_shard_of_another_plan_does_not_count(tmp_path):
    store = filled(tmp_path)
    other = st.open_store(tmp_path, "other", lambda: a_plan(settings={"path": "tree", "batch_tokens": 64}))
    other.path(0).write_bytes(store.path(0).read_bytes())
    with pytest.warns(UserWarning, match="belongs to another plan"):
        assert other.missing() == [0, 1]


def test_a_damaged_plan_is_named_and_made_again(tmp_path):
    store = filled(tmp_path)
    path = store.folder / "plan.json"
    path.write_text(path.read_text().replace('"batch_tokens": 64', '"batch_tokens": 65'))
    assert list_cache(tmp_path)[0].state == "damaged"
    with pytest.warns(UserWarning, match=r"plan.json is damaged"):
        again = st.open_store(tmp_path, "k", a_plan)
    assert again.missing() == []


def test_a_shard_with_too_few_rows_is_refused(tmp_path):
    store = st.open_store(tmp_path, "k", a_plan)
    with pytest.raises(ValueError, match="3 examples of shard 1"):
        store.write(1, the_rows(store, 0))
    assert store.missing() == [0, 1]


def test_the_cache_is_listed_and_pruned_by_last_use(tmp_path):
    filled(tmp_path)
    st.open_store(tmp_path, "young", a_plan)
    old = time.time() - 40 * 86400
    for file in (tmp_path / st.FOLDER / "k").iterdir():
        os.utime(file, (old, old))
    states = {entry.key: (entry.state, round(entry.days)) for entry in list_cache(tmp_path)}
    assert states == {"k": ("complete", 40), "young": ("partial", 0)}
    assert json.dumps([entry.to_dict() for entry in list_cache(tmp_path)])
    assert prune_cache(tmp_path, days=30) == ["k"]
    assert [entry.key for entry in list_cache(tmp_path)] == ["young"]
    assert list_cache(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("k/.shard-00001.safetensors.x.tmp", {"k": "complete"}),
        ("k/shard-00001.safetensors", {"k": "partial"}),
        ("k", {}),
    ],
)
def test_what_another_process_removes_meanwhile_hinders_no_listing(name, state, tmp_path, monkeypatch):
    filled(tmp_path)
    st.open_store(tmp_path, "other", a_plan)
    goes = tmp_path / st.FOLDER / name
    if name.endswith(".tmp"):
        goes.write_bytes(b"x")
    stat = Path.stat

    def look_and_lose(path, **options):
        found = stat(path, **options)
        if path == goes:
            shutil.rmtree(goes) if os.path.isdir(goes) else os.unlink(goes)
        return found

    monkeypatch.setattr(Path, "stat", look_and_lose)
    entries = {entry.key: entry.state for entry in verify_cache(tmp_path)}
    assert not os.path.lexists(goes), "the premise: it was looked at, and then went"
    assert entries == {"other": "partial"} | state


@pytest.fixture
def shared_cache(tmp_path):
    """A cache that another user may enter: the folders that pytest makes are private."""
    if os.getuid():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="cache-of-root-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def another_user():
    """Whoever is root may do anything, so the user "nobody" takes over; others stay who they are."""
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@contextmanager
def without_rights(path, mode):
    """A path with other rights for a while, so that it can be cleared away."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def test_a_cache_that_may_only_be_read_is_used_and_left_alone(shared_cache):
    store = filled(shared_cache)
    dead = store.folder / ".shard-00000.safetensors.x.tmp"
    dead.write_bytes(b"x")
    os.utime(dead, (time.time() - 2 * st.STALE_SECONDS,) * 2)
    with without_rights(store.folder, 0o555), another_user():
        assert st.open_store(shared_cache, "k", a_plan).missing() == []
    assert dead.exists()


def test_what_may_not_be_read_is_no_damage_and_hides_nothing_else(shared_cache):
    store = filled(shared_cache)
    st.open_store(shared_cache, "other", a_plan)
    for hidden in (store.folder, store.folder / "plan.json", store.path(1)):
        with without_rights(hidden, 0o000), another_user():
            listed = {entry.key: entry.state for entry in verify_cache(shared_cache)}
            assert listed == {"k": "unreadable", "other": "partial"}, hidden
            if hidden != store.path(1):
                with pytest.raises(InputError, match=r"cannot read the cache .*--no-cache"):
                    st.open_store(shared_cache, "k", a_plan)
    assert store.missing() == []


def test_a_cache_that_may_not_be_listed_is_one_sentence(shared_cache):
    filled(shared_cache)
    with (
        without_rights(shared_cache / st.FOLDER, 0o000),
        another_user(),
        pytest.raises(InputError, match="cannot read the cache"),
    ):
        list_cache(shared_cache)


def test_a_damaged_plan_that_may_not_be_replaced_is_one_sentence(shared_cache):
    store = filled(shared_cache)
    (store.folder / "plan.json").write_text("{")
    with (
        without_rights(store.folder, 0o555),
        another_user(),
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(InputError, match="cannot write to the cache"),
    ):
        st.open_store(shared_cache, "k", a_plan)


def test_pruning_tells_what_stays(shared_cache):
    store = filled(shared_cache)
    with (
        without_rights(store.folder, 0o555),
        another_user(),
        pytest.raises(InputError, match=r"removed 0 entries, but 1 could not be deleted: .*/k"),
    ):
        prune_cache(shared_cache, days=0)
    assert store.missing() == []
    assert prune_cache(shared_cache, days=0) == ["k"]


def test_a_plan_that_tells_people_nothing_is_damaged(tmp_path):
    path = filled(tmp_path).folder / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "plan": {**asdict(a_plan()), "about": None}}))
    assert [entry.state for entry in list_cache(tmp_path)] == ["damaged"]
    with pytest.warns(UserWarning, match=r"plan.json is damaged"):
        assert st.open_store(tmp_path, "k", a_plan).missing() == []


def test_an_entry_without_its_plan_is_no_damage(tmp_path):
    store = filled(tmp_path)
    (tmp_path / st.FOLDER / "just begun").mkdir()
    (store.folder / "plan.json").unlink()  # as a prune under a running job leaves it
    assert {entry.key: entry.state for entry in verify_cache(tmp_path)} == {
        "k": "partial",
        "just begun": "partial",
    }
    assert st.open_store(tmp_path, "k", a_plan).missing() == []
    old = time.time() - 40 * 86400
    os.utime(tmp_path / st.FOLDER / "just begun", (old, old))
    assert prune_cache(tmp_path, days=30) == ["just begun"]


def test_half_written_files_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path):
    store = filled(tmp_path)
    dead, living = store.folder / ".shard-00000.safetensors.x.tmp", store.folder / ".shard-00001.safetensors.y.tmp"
    dead.write_bytes(b"x")
    living.write_bytes(b"y")
    os.utime(dead, (time.time() - 2 * st.STALE_SECONDS,) * 2)
    st.open_store(tmp_path, "k", a_plan)
    assert not dead.exists()
    assert living.exists()


@pytest.mark.parametrize("write", ["text", "tensors"])
def test_a_full_disk_is_one_sentence_and_leaves_no_file(write, tmp_path):
    script = f"""
import resource, signal, sys, torch
from pathlib import Path
from concept_depth import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    if {write!r} == "text":
        files.write_text(Path("a"), "x" * 10_000)
    else:
        files.write_tensors(Path("a"), {{"x": torch.zeros(10_000)}})
except files.InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("cannot write a: "), done.stderr
    assert "make room there" in done.stdout
    assert not list(tmp_path.iterdir())


def test_an_unwritable_cache_is_one_sentence(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(InputError, match="cannot write to the cache"):
        st.open_store(blocked, "k", a_plan)


def test_shards_fill_up_to_their_size_and_hold_at_least_one_unit():
    assert st.as_shards([[0, 1], [2], [3, 4, 5, 6]], 10, 30) == [[[0, 1], [2]], [[3, 4, 5, 6]]]
