"""What the model says, against its own logits one prompt at a time."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tiny_models import SENTENCES, VOCABULARY, causal_lm, word_tokenizer

from concept_depth import Concept, InputError, Subject, from_model
from concept_depth.subjects.anchoring import anchor, default_spellings, first_tokens

SPELLINGS = {"false": ("false", "not"), "true": ("true", "Is")}


def concept(**changes):
    values = {"name": "tiny", "inputs": SENTENCES, "labels": [0, 1, 1, 0] * 2, "classes": ("false", "true")}
    return Concept(**(values | changes))


def test_answers_are_the_models_next_token_probabilities_summed_over_spellings():
    model, tokenizer = causal_lm(), word_tokenizer()
    said = anchor(from_model(model, tokenizer), concept(), question=" . Is this true ?", spellings=SPELLINGS)
    expected = []
    for text in SENTENCES:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenizer(f"{text} . Is this true ?")["input_ids"]])).logits[
                0, -1
            ]
        chances = logits.softmax(-1)
        yes = sum(chances[VOCABULARY[word]] for word in SPELLINGS["true"])
        no = sum(chances[VOCABULARY[word]] for word in SPELLINGS["false"])
        expected.append(float(yes.log() - no.log()))
    np.testing.assert_allclose(said.log_odds, expected, rtol=1e-4, atol=1e-4)
    labels = concept().labels
    assert said.accuracy == np.mean((np.asarray(expected) > 0) == labels)
    assert said.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, np.asarray(expected) > 0))
    assert said.auroc == pytest.approx(roc_auc_score(labels, expected))
    calibrated = np.asarray(expected) > np.mean(expected)
    assert said.calibrated["accuracy"] == np.mean(calibrated == labels)
    assert 0 < said.mass < 1


def test_calibration_takes_away_a_preference_for_one_word():
    model = causal_lm()
    subject = from_model(model, word_tokenizer())
    options = {"question": " ?", "spellings": {"false": ["false"], "true": ["true"]}}
    plain = anchor(subject, concept(), **options)
    preference = torch.zeros(len(VOCABULARY))
    preference[VOCABULARY["false"]] = 5.0
    handle = model.lm_head.register_forward_hook(lambda _m, _a, logits: logits + preference)
    biased = anchor(subject, concept(), **options)
    handle.remove()
    np.testing.assert_allclose(biased.log_odds, plain.log_odds - 5, rtol=1e-4, atol=1e-4)
    # Premise: the preference decides the raw answers; the calibrated ones and the order stay.
    assert biased.says_positive == 0 < plain.says_positive
    assert biased.calibrated == plain.calibrated
    assert biased.auroc == plain.auroc


def test_the_answer_stands_behind_the_question_and_not_behind_an_end_token():
    model = causal_lm()
    options = {"question": " . Is this true ?", "spellings": SPELLINGS}
    plain = anchor(from_model(model, word_tokenizer()), concept(), **options)
    ended = anchor(from_model(model, word_tokenizer(eos=True)), concept(), **options)
    # Premise: this tokenizer puts an end token behind the question.
    assert word_tokenizer(eos=True)("true ?")["input_ids"][-1] == VOCABULARY["</s>"]
    np.testing.assert_array_equal(ended.log_odds, plain.log_odds)


def test_the_dictionary_is_json_and_names_the_question():
    said = anchor(from_model(causal_lm(), word_tokenizer()), concept(), spellings=SPELLINGS).to_dict()
    assert said["question"] == "\nAnswer false or true.\nAnswer:"
    assert said["n"] == 8
    assert set(said["calibrated"]) == {"accuracy", "balanced_accuracy"}


def test_spellings_come_from_the_class_and_count_their_first_token():
    assert {"true", " True", "YES"} <= set(default_spellings("true"))
    assert {"spam", " Spam", "SPAM"} <= set(default_spellings("spam"))
    assert first_tokens(word_tokenizer(), ["true false", "false"]) == {VOCABULARY["true"], VOCABULARY["false"]}


def test_the_model_and_its_tokenizer_are_left_as_they_were():
    model = causal_lm().train()
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(pad_id=0, pad_token="<pad>")
    tokenizer.backend_tokenizer.enable_truncation(12)
    before = tokenizer.backend_tokenizer.to_str()
    anchor(from_model(model, tokenizer), concept(), spellings=SPELLINGS)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert all(part.training for part in model.modules())


def test_what_cannot_be_asked_is_one_sentence():
    subject = from_model(causal_lm(), word_tokenizer())
    with pytest.raises(InputError, match="begin with the same token"):
        anchor(subject, concept(classes=("same words", "same word")))
    with pytest.raises(InputError, match="3 classes"):
        anchor(subject, concept(classes=("a", "b", "c"), labels=[0, 1, 2, 0, 1, 2, 0, 1]))
    with pytest.raises(InputError, match="no language-model head"):
        anchor(from_model(causal_lm().model, word_tokenizer()), concept(), spellings=SPELLINGS)
    with pytest.raises(InputError, match="no language-model head"):
        anchor(Subject.from_module(torch.nn.Linear(2, 2), layers="input"), concept())
