"""Probes that outlive their run: the layer, penalty and scaling that are stored, and what is applied again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import turn_weights

from concept_depth.activations import Activations
from concept_depth.application import apply_probe, save_probe
from concept_depth.concepts.concept import Concept
from concept_depth.depth import find_depth
from concept_depth.errors import InputError
from concept_depth.measure import Measurement, Settings
from concept_depth.probing.probe import LogisticProbe
from concept_depth.probing.scores import score_layers


def stored(folder, unconverged=(), **settings):
    """A probe of noise that is a little readable at layer 2 of 5, so that no layer is named; and the scores."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    layers = [
        rng.normal(size=(200, 4)).astype(np.float32) * np.array([1, 10, 1, 0.1], np.float32) for _ in range(5)
    ]
    layers[2][:, 0] += 0.35 * (2 * y - 1)
    acts = Activations.from_arrays(layers, y)
    scores = score_layers(acts, permutations=0, **settings)
    scores = replace(scores, converged=1.0 - np.isin(np.arange(5), unconverged))
    depth = find_depth(scores, min_gain=0.9)
    assert depth.layer is None  # to be sure
    concept = Concept(
        name="noise",
        inputs=[f"text {i}" for i in range(200)],
        labels=y,
        classes=("no", "yes"),
        groups=np.arange(200),
    )
    measured = Measurement(acts, scores, depth, {})
    path = save_probe(measured, concept, model="none", settings=Settings(**settings), folder=folder)
    return LogisticProbe.load(path), scores, acts


@pytest.mark.parametrize("scoring", ["log_loss", "accuracy"])
def test_where_no_layer_is_named_the_best_one_is_stored(scoring, tmp_path):
    probe, scores, _ = stored(tmp_path, scoring=scoring)
    best = scores.curve.argmin() if scoring == "log_loss" else scores.curve.argmax()
    assert probe.card_["layer"] == scores.names[best]
    assert probe.card_["score"] == pytest.approx(scores.curve[best])


def test_no_layer_whose_fits_did_not_converge_is_the_best_unless_all_are(tmp_path):
    _, scores, _ = stored(tmp_path / "all", C=0.1)
    best = int(scores.curve.argmax())
    second = int(np.delete(np.arange(5), best)[np.delete(scores.curve, best).argmax()])
    assert stored(tmp_path / "one", unconverged=[best], C=0.1)[0].card_["number"] == second
    assert stored(tmp_path / "none", unconverged=range(5), C=0.1)[0].card_["number"] == best


def test_a_penalty_that_was_given_is_stored_as_given(tmp_path):
    probe, _, acts = stored(tmp_path, C=0.3, standardize="scale")
    expected = LogisticProbe(0.3, standardize="scale").fit(acts[probe.card_["layer"]], acts.labels)
    assert (probe.C, probe.standardize) == (0.3, "scale")
    assert probe.coef_ == pytest.approx(expected.coef_, rel=1e-6)


def test_a_penalty_that_was_chosen_is_scaled_from_a_training_part_to_all_examples(tmp_path):
    probe, scores, _ = stored(tmp_path, cv=4)
    chosen = np.median(scores.C_chosen[scores.names.index(probe.card_["layer"])])
    assert float(probe.C) == pytest.approx(0.75 * chosen)


def test_the_papers_protocol_stores_the_papers_probe(tmp_path):
    probe, _, _ = stored(tmp_path, protocol="paper")
    assert (probe.C, probe.standardize) == (1.0, False)


def test_a_probe_without_a_runs_card_is_refused_with_a_sentence(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    path = LogisticProbe().fit(X, y).save(tmp_path / "mine", {"layer": "11"})
    with pytest.raises(InputError, match="does not say concept, classes, settings, model"):
        apply_probe(path, ["a text"])


def test_a_stored_probe_reads_new_texts_as_it_read_its_own(tiny_model, tmp_path):
    from concept_depth.extraction.collect import collect
    from concept_depth.subjects.huggingface import from_pretrained

    texts = [f"Item {i} is {'even' if i % 2 else 'odd'}." for i in range(60)]
    concept = Concept(name="parity", inputs=texts, labels=np.arange(60) % 2, classes=("odd", "even"))
    acts = collect(from_pretrained(str(tiny_model), position=-2), concept, progress=False)
    scores = score_layers(acts, permutations=0, C=1.0)
    depth = find_depth(scores)
    path = save_probe(
        Measurement(acts, scores, depth, {}),
        concept,
        model=str(tiny_model),
        settings=Settings(C=1.0, position=-2, device="cuda:7"),  # of another machine
        folder=tmp_path,
    )
    rows = apply_probe(tmp_path, texts[:5])
    probe = LogisticProbe.load(path)
    assert [row["decision"] for row in rows] == pytest.approx(
        probe.decision_function(acts[probe.card_["layer"]][:5]).tolist(), abs=1e-4
    )
    assert [row["class"] for row in rows] == ["odd", "even", "odd", "even", "odd"]


def test_a_probe_is_not_applied_to_weights_that_it_was_not_fitted_on(tiny_model, tmp_path):
    from concept_depth.measure import load_subject, measure

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    texts = [f"Item {i} is {'even' if i % 2 else 'odd'}." for i in range(60)]
    concept = Concept(name="parity", inputs=texts, labels=np.arange(60) % 2, classes=("odd", "even"))
    settings = Settings(C=1.0, permutations=0, references=False)
    measured = measure(load_subject(str(model), settings), concept, settings)
    save_probe(measured, concept, model=str(model), settings=settings, folder=tmp_path)
    before = apply_probe(tmp_path, texts[:3])
    shutil.copytree(model, tmp_path / "moved")
    turn_weights(model)
    with pytest.raises(InputError, match="has other weights than when"):
        apply_probe(tmp_path, texts[:3])
    assert apply_probe(tmp_path, texts[:3], model=str(tmp_path / "moved")) == before
    assert apply_probe(tmp_path, texts[:3], model=str(model)) != before
