"""The registry: every entry is complete, and reads the raw files it describes."""

from __future__ import annotations

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import registry
from concept_depth.concepts.places import Below
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


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "far" / "sub").mkdir(parents=True)
    (tmp_path / "far" / "sub" / "cities.csv").write_text("statement,label\n")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "sub" / "back").symlink_to(tmp_path / "near")
    assert len(Below(tmp_path / "near").find(["cities.csv"])) == 1
    assert len(Below(tmp_path).find(["cities.csv"])) == 1


def raw_file(path, labels, column="label", text="statement", n=60):
    lines = [f"Thing{i * i} was seen by watcher{i} at gate{i},{labels[i % len(labels)]}" for i in range(n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"{text},{column}", *lines]) + "\n")
    return path.parent


@pytest.mark.parametrize(
    "labels", [["1", "0"], ["True", "False"], ["1.0", "0.0"], ["1", "0", "1.0", "0.0"], [" TRUE", "false "]]
)
def test_labels_are_read_however_they_are_written(tmp_path, labels):
    concept = cd.load_concept("truth_facts", data_dir=raw_file(tmp_path / "facts.csv", labels))
    assert concept.class_counts == {"false": 30, "true": 30}
    assert concept.labels.tolist() == [1, 0] * 30


def test_a_file_without_the_labels_of_its_entry_is_refused(tmp_path):
    folder = raw_file(tmp_path / "facts.csv", ["wahr", "falsch"])
    with pytest.raises(
        InputError, match=r"column 'label' of facts.csv holds none of the labels 0, 1; get the data"
    ):
        cd.load_concept("truth_facts", data_dir=folder)


def test_a_threshold_needs_numbers(tmp_path):
    for index, missing in enumerate(("nan", "", "north")):
        path = tmp_path / str(index) / "world_place.csv"
        folder = raw_file(path, ["1.5", "-2", missing], column="latitude", text="name")
        with pytest.raises(InputError, match=f"row 3 of world_place.csv holds '{missing}' in column 'latitude'"):
            cd.load_concept("world_place_hemisphere", data_dir=folder)


def test_of_several_files_the_one_with_the_columns_is_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "facts.csv").write_text("name,population\nx,1\n")
    raw_file(tmp_path / "b" / "facts.csv", ["1", "0"])
    assert len(cd.load_concept("truth_facts", data_dir=tmp_path)) == 60


def test_the_data_folder_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    raw_file(tmp_path / "raw" / "facts.csv", ["1", "0"])
    assert len(cd.load_concept("truth_facts", data_dir="~/raw")) == 60
    rows = {row.name: row for row in cd.list_concepts(data_dir="~/raw")}
    assert rows["truth_facts"].available == "local"


def test_a_pattern_names_what_a_text_speaks_of(shared_data):
    companies = cd.load_concept("truth_companies", data_dir=shared_data)
    assert set(np.unique(companies.groups, return_counts=True)[1]) == {6}
    assert companies.details["groups"]["column"] == "subject"


def test_a_task_of_free_choices_is_refused(shared_data):
    with pytest.raises(InputError, match="different values in 44 rows"):
        cd.load_concept(shared_data / "bigbench" / "crass_ai" / "task.json")
