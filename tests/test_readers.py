"""`load_concept`: every kind of source, and one clear sentence for everything that cannot be read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import readers
from concept_depth.concepts.groups import number_groups
from concept_depth.concepts.tables import Table
from concept_depth.errors import InputError

N = 40


def rows(n: int = N) -> list[dict]:
    return [
        {
            "text": f"Example {i} speaks of thing {i * i}, said “so”.",
            "label": i % 2 == 0,
            "kind": f"k{i % 4}",
            "who": i // 2,
        }
        for i in range(n)
    ]


def write_csv(path, table, **options):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]), **options)
        writer.writeheader()
        writer.writerows(table)
    return path


def write(path, content: str, encoding: str = "utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


@pytest.fixture
def every_format(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = rows()
    paths = [
        write_csv(tmp_path / "a.csv", table),
        write_csv(tmp_path / "a.tsv", table, delimiter="\t"),
        semicolon := write_csv(tmp_path / "semicolon.csv", table, delimiter=";"),
        write(tmp_path / "excel.csv", "sep=;\r\n" + semicolon.read_text(encoding="utf-8")),
        write(tmp_path / "a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in table)),
        write(tmp_path / "a.ndjson", "\r\n".join(json.dumps(row) for row in table) + "\r\n"),
        write(tmp_path / "lines.json", "\n".join(json.dumps(row) for row in table)),
        write(tmp_path / "a.json", json.dumps(table)),
        write(tmp_path / "examples.json", json.dumps({"examples": table})),
        write(tmp_path / "columns.json", json.dumps({key: [row[key] for row in table] for key in table[0]})),
        write(tmp_path / "bom.json", json.dumps(table), "utf-8-sig"),
        tmp_path / "a.parquet",
    ]
    pq.write_table(pa.Table.from_pylist(table), paths[-1])
    return paths


def test_every_format_gives_the_same_concept(every_format):
    first, *others = [cd.load_concept(path) for path in every_format]
    assert first.inputs == tuple(row["text"] for row in rows())
    assert tuple(name.casefold() for name in first.classes) == ("false", "true")
    assert first.labels.tolist() == [int(row["label"]) for row in rows()]
    for path, other in zip(every_format[1:], others, strict=True):
        assert other.inputs == first.inputs, path
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.groups, first.groups)


def test_nothing_is_lost_between_file_and_concept(tmp_path):
    texts = [f"Number {i}, plain" for i in range(30)]
    texts += [
        'quoted "words", and commas',
        "two\nlines",
        "carriage\r\nreturn",
        "x" * 300_000,
        "U+2028 \u2028 stays",
    ]
    texts += [" padded ", "emoji 🦜", "tab\there", "nan", '"starts with a quote']
    table = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
    before = csv.field_size_limit()
    for path in (
        write_csv(tmp_path / "t.csv", table),
        write_csv(tmp_path / "t.tsv", table, delimiter="\t"),
        write(tmp_path / "t.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in table)),
    ):
        assert cd.load_concept(path).inputs == tuple(texts), path
    assert csv.field_size_limit() == before


def test_a_tsv_whose_quotes_stand_for_themselves_keeps_them(tmp_path):
    lines = [f'{i % 2}\t"Quote {i}" he said, and 5" more' for i in range(30)]
    concept = cd.load_concept(write(tmp_path / "a.tsv", "\n".join(["label\ttext", *lines])))
    assert concept.inputs[3] == '"Quote 3" he said, and 5" more'


def test_two_stray_quotes_of_a_tsv_do_not_merge_what_lies_between(tmp_path):
    lines = [f"Some text of number {i * i}\t{i % 2}" for i in range(60)]
    lines[20] = '"' + lines[20]
    lines[40] = lines[40].replace("\t", '"\t')
    concept = cd.load_concept(write(tmp_path / "a.tsv", "\n".join(["text\tlabel", *lines])))
    assert len(concept) == 60
    assert concept.inputs[20] == '"Some text of number 400'


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lines_of_spaces_hinder_nothing(tmp_path, separator):
    text = "  \n" + GOOD.replace(",", separator) + f"   \nLast of all.{separator}1\n  "
    path = write(tmp_path / ("spaces.tsv" if separator == "\t" else "spaces.csv"), text)
    concept = cd.load_concept(path)
    assert len(concept) == 31
    assert concept.inputs[30] == "Last of all."


def test_the_separator_may_be_named_in_quotes(tmp_path):
    path = write(tmp_path / "named.csv", '"sep=|"\r\n' + GOOD.replace(",", "|"))
    assert cd.load_concept(path).inputs[0] == "Sentence number 0 of all."


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path):
    for closed in ("", '1,"Later, a row in quotes"'):
        lines = [f"{i % 2},Some text of number {i}" for i in range(60)]
        lines[20] = '0,"some text'
        lines[50] = closed or lines[50]
        with pytest.raises(InputError, match=r"the row that begins in line 22 cannot be read .* close its quotes"):
            cd.load_concept(write(tmp_path / "a.csv", "\n".join(["label,text", *lines])))
    loose = [f'{i % 2},"So," he said {i * i}' for i in range(60)]
    concept = cd.load_concept(write(tmp_path / "loose.csv", "\n".join(["label,text", *loose])))
    assert len(concept) == 60


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no"], ("no", "yes")),
        (["TRUE", "FALSE"], ("FALSE", "TRUE")),
        ([True, False], ("false", "true")),
        ([1, 0], ("0", "1")),
        ([1.0, 0.0], ("0", "1")),
        (["1.0", "0.0"], ("0", "1")),
        (["10", "9"], ("9", "10")),
        ([-1, 1], ("-1", "1")),
        (["plausible", "implausible"], ("implausible", "plausible")),
        (["ironic", "not ironic"], ("not ironic", "ironic")),
        (["entailment", "non-entailment"], ("non-entailment", "entailment")),
        (["positive", "negative"], ("negative", "positive")),
        ([" cat", "dog "], ("cat", "dog")),
        (["1_0", "1_1"], ("1_0", "1_1")),
        (["c", "a", "b"], ("a", "b", "c")),
        ([10, 2, 1, 0], ("0", "1", "2", "10")),
    ],
)
def test_classes_have_one_order_whatever_the_order_of_rows(tmp_path, labels, classes):
    table = [{"text": f"Text number {i}", "label": labels[i % len(labels)]} for i in range(42)]
    forward = cd.load_concept(write(tmp_path / "a.json", json.dumps(table)))
    backward = cd.load_concept(write(tmp_path / "b.json", json.dumps(table[::-1])))
    assert forward.classes == backward.classes == classes
    assert forward.labels.tolist() == backward.labels.tolist()[::-1]


def in_pairs(concept):
    """Whether each two examples that follow each other are a group."""
    return number_groups(concept.groups.tolist()).tolist() == [i // 2 for i in range(N)]


def test_columns_can_be_named(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows())
    concept = cd.load_concept(path, text="text", label="kind", group="who", template="Say: {text}")
    assert concept.classes == ("k0", "k1", "k2", "k3")
    assert in_pairs(concept)
    assert concept.details["groups"]["how"] == "column"
    assert concept.prompts()[0].startswith("Say: Example 0")
    assert cd.load_concept(path, group="who,kind").details["groups"]["n_groups"] == N
    assert cd.load_concept(path, group=["who", "kind"]).details["groups"]["column"] == "who,kind"


def test_group_keys_are_alike_however_they_are_written(tmp_path):
    for first, second in ((str, "{} ".format), (int, float), (str, "{}.0".format), ("c{}".format, " c{}".format)):
        table = [{**row, "who": (second if i % 2 else first)(row["who"])} for i, row in enumerate(rows())]
        path = write(tmp_path / "a.json", json.dumps(table))
        assert in_pairs(cd.load_concept(path, group="who"))


def test_the_group_column_is_used_by_default_where_it_can_be(tmp_path):
    named = [{**row, "group": row["who"]} for row in rows()]
    found = cd.load_concept(write(tmp_path / "a.json", json.dumps(named)))
    assert in_pairs(found)
    assert (found.details["groups"]["how"], found.details["groups"]["column"]) == ("column", "group")
    for cell in ("all", None):
        table = [{**row, "group": cell} for row in named]
        derived = cd.load_concept(write(tmp_path / "b.json", json.dumps(table)))
        assert derived.details["groups"]["how"] != "column"
        refused = [line for line in derived.details["groups"]["refused"] if line.startswith("column group")]
        assert len(refused) == (cell == "all")
    as_label = [{**row, "group": row["label"]} for row in rows()]
    path = write(tmp_path / "c.json", json.dumps(as_label))
    refused = cd.load_concept(path, label="group").details["groups"]["refused"]
    assert not any(line.startswith("column group") for line in refused), "labels are no groups"


def test_limit_takes_whole_groups(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows(200))
    concept = cd.load_concept(path, group="who", limit=51)
    assert len(concept) == 50
    assert set(np.unique(concept.groups, return_counts=True)[1]) == {2}
    assert concept.details["limit"] == 51


def test_spans_come_from_pairs_words_or_two_columns(tmp_path):
    table = [{**row, "pair": [0, 7], "word": f"thing {i * i}", "s": 0, "e": 7} for i, row in enumerate(rows())]
    path = write(tmp_path / "a.json", json.dumps(table))
    assert cd.load_concept(path, spans="pair").spans[0] == (0, 7)
    assert cd.load_concept(path, spans=("s", "e")).spans[5] == (0, 7)
    words = cd.load_concept(path, spans="word")
    for text, (start, end), row in zip(words.inputs, words.spans, table, strict=True):
        assert text[start:end] == row["word"]


def test_a_word_is_not_sought_inside_another(tmp_path):
    table = [{"text": f"The man {i} said he left", "label": i % 2, "word": "he"} for i in range(30)]
    table += [{"text": f"In {i} they went home", "label": i % 2, "word": "the"} for i in range(30)]
    concept = cd.load_concept(write(tmp_path / "a.json", json.dumps(table)), spans="word")
    assert concept.inputs[0][concept.spans[0][0] - 1 :] == " he left"
    assert concept.spans[30] == (5, 8), "a part of a word, where it is no word of its own"


def test_templates_do_not_keep_what_an_editor_adds(tmp_path):
    path = write_csv(tmp_path / "mine.csv", rows())
    windows = write(tmp_path / "windows.txt", "Judge this.\r\n{text} Well?\r\n", "utf-8-sig")
    assert cd.load_concept(path, template=str(windows)).template == "Judge this.\n{text} Well?"
    marked = write(tmp_path / "marked.json", '{"mine": "So: {text}"}', "utf-8-sig")
    assert cd.load_concept(path, template=str(marked)).template == "So: {text}"


def test_a_table_of_templates_knows_data_sets_of_the_hub(tmp_path, monkeypatch):
    table = Table(
        {key: [row[key] for row in rows()] for key in ("text", "label")}, "hub:org/imdb", {"split": "train"}
    )
    monkeypatch.setattr(readers, "hub_table", lambda *_: table)
    for key in ("hub:org/imdb", "org/imdb", "imdb"):
        prompts = write(tmp_path / "prompts.json", json.dumps({key: "A: {text}", "default": "B: {text}"}))
        assert cd.load_concept("hub:org/imdb:plain@main", template=str(prompts)).template == "A: {text}"


def test_templates_come_from_files(tmp_path):
    path = write_csv(tmp_path / "mine.csv", rows())
    plain = write(tmp_path / "plain.txt", "Judge this.\n{text} Well?\n")
    assert cd.load_concept(path, template=str(plain)).template == "Judge this.\n{text} Well?"
    toml = write(tmp_path / "prompts.toml", 'cities = "Is it so? {text}"\ndefault = "Hm: {text}"\n')
    assert cd.load_concept(path, template=str(toml)).template == "Hm: {text}"
    assert readers.read_template(str(toml), "Cities") == "Is it so? {text}"
    bad = write(tmp_path / "other.json", '{"sst": "{text}"}')
    with pytest.raises(InputError, match="holds no template for 'cities'; it has sst"):
        readers.read_template(str(bad), "cities")


def test_class_names_in_the_metadata_of_parquet_files_are_used(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"Text {i} here" for i in range(30)], "label": [i % 2 for i in range(30)]})
    features = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "a.parquet")
    assert cd.load_concept(tmp_path / "a.parquet").classes == ("neg", "pos")


def hub_features(**features) -> dict:
    return {"huggingface": json.dumps({"info": {"features": features}})}


@pytest.mark.parametrize(
    ("labels", "metadata", "classes"),
    [
        ([0, 1], hub_features(label={"names": ["neg", "pos"], "_type": "ClassLabel"}), ("neg", "pos")),
        ([0, 1], hub_features(label={"names": {"dtype": "string", "_type": "Value"}}), ("0", "1")),
        (["neg", "pos"], hub_features(label={"names": ["neg", "pos"], "_type": "ClassLabel"}), ("neg", "pos")),
        ([0.0, 1.0], hub_features(label={"names": ["neg", "pos"], "_type": "ClassLabel"}), ("0", "1")),
        ([1, 2], hub_features(label={"names": ["neg", "pos"], "_type": "ClassLabel"}), ("2", "pos")),
        ([0, 1], {"huggingface": '{"info": null}'}, ("0", "1")),
        ([0, 1], {"huggingface": "[" * 100_000}, ("0", "1")),
    ],
)
def test_metadata_of_parquet_files_is_read_with_care(tmp_path, labels, metadata, classes):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"Text {i} here" for i in range(30)], "label": [labels[i % 2] for i in range(30)]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert cd.load_concept(tmp_path / "a.parquet").classes == classes


def test_of_a_parquet_file_only_what_is_asked_for_must_be_readable(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"Über Text {i}" for i in range(30)]
    broken = pa.Array.from_buffers(pa.string(), 30, pa.array([b"caf\xe9 %d" % i for i in range(30)]).buffers())
    columns = {
        "text": [text.encode() for text in texts],
        "label": [i % 2 for i in range(30)],
        "when": pa.array([2**62] * 30, pa.timestamp("us")),
        "image": [b"\xff\xd8"] * 30,
        "broken": broken,
    }
    (tmp_path / "label=1").mkdir()
    path = tmp_path / "label=1" / "a.parquet"
    pq.write_table(pa.table(columns), path)
    assert cd.load_concept(path).inputs == tuple(texts)
    for name in ("when", "image", "broken"):
        with pytest.raises(InputError, match=f"column '{name}' of a.parquet cannot be read .* as text=") as caught:
            cd.load_concept(path, text=name)
        assert "\n" not in str(caught.value)
    twice = pa.table([pa.array(texts)] * 2 + [pa.array(columns["label"])], names=["text", "text", "label"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"twice.parquet has two columns 'text'; rename"):
        cd.load_concept(tmp_path / "twice.parquet")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    folder = tmp_path / "bundled"
    flips = folder / "flips"
    flips.mkdir(parents=True)
    table = [
        {
            "text": f"Coin {i} is turned {1 + i % 2} times by Ada{i // 4} of {'Ys' if i % 4 < 2 else 'Vaduz'}{i}.",
            "label": "yes" if i % 4 < 2 else "no",
            "group": i // 2,
            "steps": 1 + i % 2,
        }
        for i in range(160)
    ]
    (flips / "data.jsonl").write_text("\n".join(map(json.dumps, table)) + "\n")
    card = {"name": "flips", "classes": ["no", "yes"], "category": "reasoning", "template": "{text} Heads?"}
    (flips / "concept.json").write_text(json.dumps({**card, "licence": "CC0-1.0", "source": "rules"}))
    monkeypatch.setattr(readers, "bundled_folder", lambda: folder)
    return folder


def test_bundled_concepts_take_options_on_their_extra_columns(bundle):
    whole, two = cd.load_concept("flips"), cd.load_concept("flips:steps=2")
    assert (len(whole), len(two)) == (160, 80)
    assert whole.classes == ("no", "yes")
    assert whole.template == "{text} Heads?"
    assert cd.load_concept("flips", template="{text}").prompts()[0] == whole.inputs[0]
    assert all("turned 2 times" in text for text in two.inputs)
    assert two.name == "flips-steps=2"
    assert two.details["options"] == {"steps": "2"}
    with pytest.raises(InputError, match="no examples with steps=7; give one of 1, 2"):
        cd.load_concept("flips:steps=7")
    with pytest.raises(InputError, match="no option 'step'; it has steps: write flips:key=value"):
        cd.load_concept("flips:step=2")
    with pytest.raises(InputError, match="'steps' in 'flips:steps' is no option"):
        cd.load_concept("flips:steps")


def test_every_concept_in_the_checkout_loads():
    names = readers.bundled_names()
    for name in names:
        concept = cd.load_concept(name)
        assert len(concept) >= 200, name
        assert concept.details["groups"]["how"] == "column", name


GOOD = "text,label\n" + "".join(f"Sentence number {i} of all.,{i % 2}\n" for i in range(30))


def break_files(folder):
    """Every file that cannot be used, with the arguments and words of the sentence that says so."""
    (folder / "sub").mkdir()
    write(folder / "sub" / "inner.csv", GOOD)
    yield folder / "absent.csv", {}, "there is no file .*absent.csv"
    yield folder / "sub", {}, "is a folder; give a file in it: inner.csv"
    yield write(folder / "a.xlsx", GOOD), {}, "extension '.xlsx'; these can be read: .csv"
    yield write(folder / "empty.csv", ""), {}, "empty.csv is empty"
    yield write(folder / "empty.json", ""), {}, "empty.json is not JSON"
    yield write(folder / "header.csv", "text,label\n"), {}, "holds no examples"
    yield write(folder / "latin.csv", GOOD + "caf\xe9,1\n", "latin-1"), {}, "not UTF-8 text .*save it as UTF-8"
    yield write(folder / "u16.csv", GOOD, "utf-16"), {}, "not UTF-8 text"
    yield (
        write(folder / "good.csv", GOOD),
        {"text": "sentence"},
        "no column 'sentence'; it has 'text', 'label'.*text=",
    )
    tabs = GOOD.replace(",", "\t").replace("all.", "all, yes.")
    yield write(folder / "tabs.csv", tabs), {}, "tabs.csv looks separated by tabs.*tabs.tsv"
    yield folder / "good.csv", {"label": "truth"}, "no column 'truth'.*label="
    yield folder / "good.csv", {"group": "who"}, "no column 'who'.*group="
    yield folder / "good.csv", {"group": "label"}, "grouping good.csv by label puts 15 of 30"
    yield folder / "good.csv", {"label": "text"}, "30 different values in 30 rows"
    yield folder / "good.csv", {"limit": 0}, "limit=0"
    yield folder / "good.csv", {"limit": 1}, "leave a class empty"
    yield folder / "good.csv", {"split": "test"}, "split='test' applies to hub:"
    yield folder / "good.csv", {"template": "no slot"}, "holds no {text} and is no file"
    yield folder / "good.csv", {"template": "{text} {text}"}, "exactly once"
    yield folder / "good.csv", {"spans": "label"}, "row 3 of good.csv has the span '0'"
    yield write(folder / "three.csv", "text,label\na,1\nb,0\nc,1\n"), {}, "holds 3 examples; .* at least 20"
    yield write(folder / "one.csv", GOOD.replace(",1\n", ",0\n")), {}, "all labels in column 'label' .* are '0'"
    yield write(folder / "nolabel.csv", GOOD + "More of it.,\n"), {}, "row 31 .* no label in column 'label'"
    yield write(folder / "nan.csv", GOOD + "More of it.,NaN\n"), {}, "row 31 .* no label"
    yield write(folder / "blank.csv", GOOD + "  ,1\n"), {}, "row 31 .* no text in column 'text'"
    yield write(folder / "wide.csv", GOOD + "More, of it.,1\n"), {}, "line 32 has 3 fields but the header has 2"
    yield write(folder / "twice.csv", GOOD.replace("text,label", "text,text")), {}, "names 'text' twice"
    yield write(folder / "case.csv", GOOD + "A thing.,Yes\nB thing.,yes\n"), {}, "differ only in case"
    mixed = "".join(f'{{"text": "Text {i}", "label": {("true", "false", "1", "0")[i % 4]}}}\n' for i in range(40))
    yield write(folder / "mixed.jsonl", mixed), {}, "mixes true and false with numbers .*'0', '1', 'false', 'true'"
    yield write(folder / "mixed.csv", GOOD + "A thing.,TRUE\n"), {}, "mixes true and false with numbers"
    yield write(folder / "real.csv", GOOD + "A thing.,0.37\n"), {}, "holds 0.37, a continuous value"
    yield write(folder / "open.csv", GOOD + '"never closed,1\n'), {}, "line 32"
    yield (
        write(folder / "cut.jsonl", '{"text": "a", "label": 1}\n{"text": '),
        {},
        "line 2 of cut.jsonl is not JSON",
    )
    yield write(folder / "list.json", "[1, 2, 3]"), {}, "example 1 of list.json is int, not an object"
    yield write(folder / "word.json", '"word"'), {}, "holds no list of examples"
    yield write(folder / "bad.parquet", "PAR1 no"), {}, "bad.parquet is not a Parquet file"
    yield write(folder / "list.jsonl", '{"text": ["a"], "label": 1}\n' * 30), {}, "holds lists or objects"
    yield "citeis", {}, "no concept 'citeis'; did you mean"
    yield "qqq", {}, "no concept 'qqq'; bundled are"
    yield "paper:city", {"data_dir": folder}, "none of the paper's data sets; .*cities"
    yield "paper:cities", {"data_dir": folder}, "needs the file cities.csv, which is not found below"
    yield "paper:cities", {"data_dir": folder / "no"}, "there is no folder"
    yield "emotions", {"data_dir": folder}, "needs the file emotions.csv.* get it from https"
    yield "hub:", {}, "write hub:org/name"
    yield "hub:/", {}, "write hub:org/name"
    yield "x" * 300, {}, "no concept 'xxx"
    yield "x" * 300 + ".csv", {}, "there is no file xxx"
    yield "~nosuchuser/x.csv", {}, "home folder of no user here; write the whole path"
    yield folder / "good.csv", {"template": "Is this true? " * 30}, "holds no {text} and is no file"
    yield "emotions", {"data_dir": "x" * 300}, "there is no folder xxx"
    write(folder / "sub" / "concept.json", "{}")
    yield str(folder / "sub"), {}, "is a folder; give a file in it: concept.json"
    yield write(folder / "deep.json", "[" * 100_000), {}, "deep.json is not JSON"
    yield (
        write(folder / "long.jsonl", '{"text": "a", "label": ' + "1" * 5000 + "}\n"),
        {},
        "line 1 of long.jsonl is not",
    )
    half = "".join(f'{{"text": "Text {i} \\ud83d", "label": {i % 2}}}\n' for i in range(30))
    yield write(folder / "half.jsonl", half), {}, "row 1 of half.jsonl holds half a character"
    for score in ("null", '"x"'):
        task = [f'{{"input": "Text {i}", "target_scores": {{"a": {score}, "b": 1}}}}' for i in range(30)]
        task_file = write(folder / "task.json", f'{{"examples": [{", ".join(task)}]}}')
        yield task_file, {}, "example 1 of task.json has target_scores that are no numbers"


def test_each_kind_of_bad_input_gives_one_clear_sentence(tmp_path):
    seen = 0
    for given, arguments, sentence in break_files(tmp_path):
        with pytest.raises(InputError, match=sentence) as caught:
            cd.load_concept(given, **arguments)
        assert "\n" not in str(caught.value), given
        seen += 1
    assert seen >= 30


def hub_script(folder, name: str) -> str:
    return (
        "import json, concept_depth as cd\n"
        "try:\n"
        f"    c = cd.load_concept({name!r}, text='review')\n"
        "    print(json.dumps([len(c), c.classes, c.name, c.details['split'], c.inputs[0]]))\n"
        "except cd.InputError as error:\n"
        "    print('InputError', error)\n"
    )


@pytest.fixture
def hub_folder(tmp_path):
    """A data set in a folder as the Hub lays it out; `datasets` reads such folders without a network."""
    folder = tmp_path / "org" / "reviews"
    folder.mkdir(parents=True)
    table = [{"review": f"Film {i} was {'fine' if i % 2 else 'dull'} {i * i}", "label": i % 2} for i in range(50)]
    for split, part in (("train", table[:30]), ("test", table[30:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return tmp_path


def test_columns_of_images_are_no_hindrance_and_empty_splits_are_named(monkeypatch):
    import datasets

    columns = {**{key: [row[key] for row in rows()] for key in ("text", "label", "who")}, "image": ["a.png"] * N}
    features = {"text": "string", "label": "bool", "who": "int64"}
    typed = datasets.Features({**{k: datasets.Value(v) for k, v in features.items()}, "image": datasets.Image()})
    whole = datasets.Dataset.from_dict(columns, features=typed)
    splits = datasets.DatasetDict({"train": whole, "none": whole.select([])})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: splits)
    assert len(cd.load_concept("hub:org/name", group="who")) == N
    with pytest.raises(
        InputError, match=r"column 'image' of hub:org/name cannot be read \(it holds image, no text"
    ):
        cd.load_concept("hub:org/name", text="image")
    with pytest.raises(InputError, match="split 'none' of hub:org/name holds no examples; it has train, none"):
        cd.load_concept("hub:org/name", split="none")


def run_offline(folder, name: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", hub_script(folder, name)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_hub_data_sets_are_read_through_datasets(hub_folder):
    found = json.loads(run_offline(hub_folder, "hub:org/reviews"))
    assert found == [30, ["0", "1"], "reviews", "train", "Film 0 was dull 0"]


def test_a_broken_file_of_a_hub_data_set_is_one_sentence(hub_folder):
    (hub_folder / "org" / "reviews" / "train.jsonl").write_text('{"review": "cut sho')
    printed = run_offline(hub_folder, "hub:org/reviews").splitlines()
    assert printed[-1].startswith("InputError cannot load hub:org/reviews (")


def test_an_unreachable_hub_is_one_sentence(hub_folder):
    printed = run_offline(hub_folder, "hub:nobody/nothing@main")
    assert printed.startswith("InputError cannot load hub:nobody/nothing (")
    assert "connect to the network" in printed
    assert "\n" not in printed


def test_loading_a_file_imports_no_heavy_library(tmp_path):
    path = write(tmp_path / "good.csv", GOOD)
    code = (
        f"import sys, concept_depth as cd; cd.load_concept({str(path)!r})\n"
        "heavy = {'torch', 'sklearn', 'datasets', 'transformers', 'scipy', 'pandas', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
