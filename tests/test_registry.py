"""The registry: every entry is complete, and reads the raw files it describes."""

from __future__ import annotations

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import registry
from concept_depth.concepts.tables import Below
from concept_depth.errors import InputError

ENTRIES = registry.entries()
IMAGES = [name for name, entry in ENTRIES.items() if entry.pixels]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_says_what_a_reader_must_know(name):
    entry = ENTRIES[name]
    assert entry.n >= 20
    assert entry.category
    assert entry.licence
    assert entry.citation
    assert entry.question.endswith("?")
    assert entry.files or entry.hub
    if entry.files:
        assert entry.origin.startswith("https://")
        assert entry.revision
    assert len(entry.classes) == (2 if entry.threshold is not None else 0)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_local_entry_reads_its_raw_file(shared_data, name):
    entry = ENTRIES[name]
    if registry.find_file(entry, shared_data) is None:
        assert entry.hub, "without a raw file here only Hub data sets are excused"
        with pytest.raises(InputError, match="on the Hub alone"):
            cd.load_concept(name, data_dir=shared_data)
        return
    concept = cd.load_concept(name, data_dir=shared_data)
    assert len(concept) == entry.n
    assert concept.details["registry"] == name
    assert min(concept.class_counts.values()) >= 20
    assert concept.details["groups"]["n_groups"] >= 20
    assert concept.licence == entry.licence
    if entry.labels:
        assert concept.classes == tuple(entry.labels.values())


def test_space_and_time_are_cut_at_their_thresholds(shared_data):
    hemisphere = cd.load_concept("world_place_hemisphere", data_dir=shared_data)
    by_name = dict(zip(hemisphere.inputs, hemisphere.labels.tolist(), strict=True))
    assert (by_name["Himalayas"], by_name["Aconcagua"]) == (1, 0)
    assert hemisphere.classes == ("south", "north")


def test_images_become_arrays(shared_data):
    digits = cd.load_concept("mnist_binary", data_dir=shared_data)
    assert digits.inputs.shape == (2000, 1, 28, 28)
    assert set(np.unique(digits.inputs)) == {0.0, 1.0}
    assert digits.classes == tuple("0123456789")
    assert set(digits.class_counts.values()) == {200}
    assert len(cd.load_concept("mnist_binary", data_dir=shared_data, limit=500)) == 500


def test_the_list_says_what_is_bundled_local_and_remote(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--SetFit--sst2").mkdir()
    rows = {row.name: row for row in cd.list_concepts(data_dir=shared_data)}
    assert rows["paper:cities"].available == rows["emotions"].available == "local"
    assert rows["sst2"].available == "cached"
    assert rows["toxic_chat"].available == "remote"
    assert {row.kind for row in rows.values()} >= {"paper", "registry"}
    assert sum(row.kind == "paper" for row in rows.values()) == 9
    monkeypatch.delenv("CONCEPT_DEPTH_DATA", raising=False)
    bare = {row.name: row for row in cd.list_concepts()}
    assert bare["emotions"].available == "by hand"
    assert bare["paper:imdb"].available == "remote"


def test_folders_are_searched_at_any_depth_by_the_end_of_the_path(tmp_path):
    for path in ("a/navigate/task.json", "a/b/Snarks/TASK.json", ".git/snarks/task.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("{}")
    below = Below(tmp_path)
    assert [path.parent.name for path in below.find(["snarks/task.json"])] == ["Snarks"]
    assert len(below.find(["task.json"])) == 2
    assert below.find(["other/task.json"]) == []


def test_a_task_of_free_choices_is_refused(shared_data):
    with pytest.raises(InputError, match="different values in 44 rows"):
        cd.load_concept(shared_data / "bigbench" / "crass_ai" / "task.json")
