"""The nine data sets of Jin et al.: their rows in their order, against a plain selection."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import concept_depth as cd
from concept_depth.concepts import paper
from concept_depth.errors import InputError

SIZES = {
    "strategyqa": 2290,
    "coinflip": 500,
    "cities": 1496,
    "common_claim": 6000,
    "counterfact": 4000,
    "hateeval": 6000,
    "stsa": 6920,
    "imdb": 2000,
    "sarcasm": 6000,
}
TITLES = {"StrategyQA", "Coinflip", "Cities", "Common", "Counterfact", "HateEval", "STSA", "IMDb", "Sarcasm"}


def csv_rows(path, **options):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, **options))


def lists_of(name: str, data) -> tuple[list[str], list[str]]:
    """The two lists of the paper's code, selected in the plainest way."""
    if name == "strategyqa":
        examples = json.loads((data / "strategyqa/StrategyQA_task.json").read_text())["examples"]

        def joined(example):
            target = example["target"]
            for word in ("Yes.", "No."):
                if target.startswith(word):
                    return example["input"] + " " + target[len(word) :].strip()
            return example["input"] + " " + target

        yes = [joined(e) for e in examples if e["target_scores"]["Yes"] == 1]
        return yes, [joined(e) for e in examples if e["target_scores"]["No"] == 1]
    if name == "coinflip":
        examples = json.loads((data / "coinflip/coin_flip.json").read_text())["examples"]
        by = {answer: [e["question"] for e in examples if e["answer"] == answer] for answer in ("yes", "no")}
        return by["yes"], by["no"]
    if name == "stsa":
        lines = [line.strip().split(" ", 1) for line in (data / "stsa/stsa.binary.train").read_text().split("\n")]
        pairs = [line for line in lines if len(line) == 2]
        return [text for label, text in pairs if label == "0"], [text for label, text in pairs if label != "0"]
    if name == "sarcasm":
        entries = [json.loads(line) for line in (data / "sarcasm/sarcasm.jsonl").read_text().split("\n") if line]
        first = [e["headline"] for e in entries if e["is_sarcastic"] == 1]
        return first[:3000], [e["headline"] for e in entries if e["is_sarcastic"] != 1][:3000]
    file, options, text, label, first, keep = {
        "cities": ("cities/cities.csv", {}, "statement", "label", "1", None),
        "common_claim": ("common_claim/common_claim.csv", {}, "examples", "label", "True", 3000),
        "counterfact": ("counterfact/counterfact.csv", {}, "statement", "label", "1", 2000),
        "hateeval": ("hateeval/hateeval.tsv", {"delimiter": "\t"}, "text", "HS", "1", 3000),
        "imdb": ("imdb/imdb_test_2000.csv", {}, "text", "label", "0", 1000),
    }[name]
    rows = csv_rows(data / file, **options)
    second = {"1": "0", "0": "1", "True": "False"}[first]
    p = [row[text] for row in rows if row[label] == first]
    return p[:keep], [row[text] for row in rows if row[label] == second][:keep]


@pytest.mark.parametrize("name", SIZES)
def test_rows_and_order_are_those_of_the_paper(shared_data, name):
    concept = cd.load_concept(f"paper:{name}", data_dir=shared_data)
    first, second = lists_of(name, shared_data)
    assert len(concept) == SIZES[name] == len(first) + len(second) == paper.DATASETS[name].n
    assert list(concept.inputs) == first + second
    np.testing.assert_array_equal(concept.labels, [0] * len(first) + [1] * len(second))
    assert concept.details["groups"]["n_groups"] >= 20
    assert concept.details["paper"]["dataset"] in TITLES


@pytest.mark.parametrize("name", SIZES)
def test_the_instruction_stands_where_the_paper_puts_it(shared_data, name):
    own = cd.load_concept(f"paper:{name}", data_dir=shared_data)
    override = cd.load_concept(f"paper:{name}:prompt=override", data_dir=shared_data)
    bare = cd.load_concept(f"paper:{name}:prompt=none", data_dir=shared_data)
    assert bare.prompts() == list(bare.inputs) == list(own.inputs)
    front = name in ("cities", "common_claim", "counterfact", "sarcasm", "strategyqa")
    behind = name in ("stsa", "coinflip", "imdb", "hateeval", "sarcasm", "strategyqa")
    for concept in (own, override):
        before, after = concept.template_parts
        assert (before != "", after != "") == (front, behind)
    assert (override.template_parts[0] if front else override.template_parts[1]).strip() == paper.OVERRIDE


def test_true_and_false_twins_share_a_group(shared_data):
    cities = cd.load_concept("paper:cities", data_dir=shared_data)
    assert cities.details["groups"]["how"] == "column"
    for group in np.unique(cities.groups):
        assert sorted(cities.labels[cities.groups == group]) == [0, 1]
    facts = cd.load_concept("paper:counterfact", data_dir=shared_data)
    # As many as 1,995 and not 2,000: five subjects are asked twice about the same relation.
    assert facts.details["groups"]["n_groups"] == 1995
    assert facts.details["groups"]["mixed"] == 1.0


def test_options_change_rows_and_rationale(shared_data):
    every = cd.load_concept("paper:common_claim:rows=all", data_dir=shared_data)
    assert every.class_counts == {"true": 12063, "false": 4321}
    questions = cd.load_concept("paper:StrategyQA:rationale=no", data_dir=shared_data)
    reasons = cd.load_concept("paper:strategyqa", data_dir=shared_data)
    assert all(b.startswith(a + " ") for a, b in zip(questions.inputs, reasons.inputs, strict=True))
    np.testing.assert_array_equal(questions.groups, reasons.groups)
    assert questions.name == "paper-strategyqa-rationale=no"
    with pytest.raises(InputError, match="paper:cities has no option 'rationale'; it has prompt, rows"):
        cd.load_concept("paper:cities:rationale=no", data_dir=shared_data)
    with pytest.raises(InputError, match="prompt=mine is not known; give own or override or none"):
        cd.load_concept("paper:cities:prompt=mine", data_dir=shared_data)


def test_files_are_found_at_any_depth_and_told_from_their_namesakes(tmp_path):
    rows = [
        f"{'The city of'} Town{i} is in Land{i + k}.,{1 - k},Town{i},Land{i + k},Land{i}"
        for i in range(30)
        for k in (0, 1)
    ]
    deep = tmp_path / "z" / "CD" / "dataset"
    deep.mkdir(parents=True)
    (deep / "Cities.csv").write_text("statement,label,city,country,correct_country\n" + "\n".join(rows))
    (tmp_path / "cities.csv").write_text("name,population\nLodz,670000\n")
    concept = cd.load_concept("paper:cities", data_dir=tmp_path)
    assert concept.class_counts == {"true": 30, "false": 30}
    assert concept.inputs[0] == "The city of Town0 is in Land0."
    assert concept.inputs[30] == "The city of Town0 is in Land1."


def test_the_folder_can_stand_in_the_environment(shared_data, monkeypatch):
    monkeypatch.setenv("CONCEPT_DEPTH_DATA", str(shared_data))
    assert len(cd.load_concept("paper:coinflip")) == 500


def test_limit_keeps_the_order_of_the_lists(shared_data):
    concept = cd.load_concept("paper:cities", data_dir=shared_data, limit=200)
    assert concept.labels.tolist() == sorted(concept.labels.tolist())
    assert set(np.unique(concept.groups, return_counts=True)[1]) == {2}


def test_a_users_prompts_come_from_one_file(shared_data, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"cities": "Wahr oder falsch? {text}", "stsa": "{text} Na?"}))
    concept = cd.load_concept("paper:cities", data_dir=shared_data, template=str(prompts))
    assert concept.template == "Wahr oder falsch? {text}"
    with pytest.raises(InputError, match="no template for 'imdb'"):
        cd.load_concept("paper:imdb", data_dir=shared_data, template=str(prompts))


def test_groups_and_spans_of_ones_own_are_taken(shared_data):
    concept = cd.load_concept("paper:cities", data_dir=shared_data, group="statement", spans="city")
    assert concept.details["groups"]["column"] == "statement"
    assert concept.details["groups"]["n_groups"] == len(concept) == len(concept.spans)
    start, end = concept.spans[0]
    assert concept.inputs[0].startswith(f"The city of {concept.inputs[0][start:end]} is in")
    for option in ("group", "spans"):
        with pytest.raises(InputError, match=f"cities.csv has no column 'who'.*as {option}="):
            cd.load_concept("paper:cities", data_dir=shared_data, **{option: "who"})
