"""score_layers against slow, obvious references: scikit-learn's fits, metrics by hand, the full grid."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.preprocessing import StandardScaler

from concept_depth.activations import Activations
from concept_depth.depth import find_depth
from concept_depth.errors import InputError
from concept_depth.probing import fits, masks, metrics
from concept_depth.probing.fits import fit_layer, plan_masks
from concept_depth.probing.nulls import permuted_labels
from concept_depth.probing.plan import PENALTIES, FitPlan
from concept_depth.probing.protocol import check_settings
from concept_depth.probing.scores import LayerScores, score_layers
from concept_depth.probing.splits import inner_pairs, make_splits


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def sample(n=120, hidden=8, layers=3, classes=2, seed=0, shift=1.0):
    """Twin-like groups of as many examples as classes; the last layers carry the class."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), n // classes)
    groups = np.repeat(np.arange(n // classes), classes)
    X = rng.normal(size=(layers, n, hidden)) * np.geomspace(1, 30, hidden)
    for layer in range(1, layers):
        X[layer, :, :classes] += shift * np.eye(classes)[labels] * np.geomspace(1, 30, hidden)[:classes]
    return Activations.from_arrays(list(X), labels, groups=groups)


@pytest.mark.parametrize("hidden", [8, 150])
@pytest.mark.parametrize("standardize", [True, "scale", False])
def test_a_fixed_c_gives_the_scores_of_scikit_learn_fold_by_fold(hidden, standardize):
    acts = sample(hidden=hidden)
    scores = score_layers(acts, C=0.3, permutations=0, repeats=1, standardize=standardize)
    splits = make_splits(acts.labels, acts.groups, repeats=1)
    for layer, name in enumerate(acts):
        for s, (train, test) in enumerate(splits.pairs):
            X = acts[name]
            scaler = StandardScaler(with_std=standardize is True).fit(X[train])
            scale = np.sqrt(X[train].var(0).mean()) if standardize == "scale" else 1.0
            fitted = LogisticRegression(C=0.3, tol=1e-10, max_iter=100_000, solver="newton-cholesky").fit(
                scaler.transform(X[train]) / scale, acts.labels[train]
            )
            decision = fitted.decision_function(scaler.transform(X[test]) / scale)
            mine = scores.decision[layer, 0, test]
            # Objectives within 1e-6 of the optimum leave decisions within about its root of it.
            assert np.abs(mine - decision).max() < 2e-2 * max(1.0, np.abs(decision).max())
            y, p = acts.labels[test], 1 / (1 + np.exp(-mine.astype(float)))
            expected = {
                "accuracy": accuracy_score(y, mine > 0),
                "balanced_accuracy": balanced_accuracy_score(y, mine > 0),
                "f1": f1_score(y, mine > 0),
                "auroc": roc_auc_score(y, mine),
                "log_loss": log_loss(y, p),
            }
            for metric, value in expected.items():
                assert scores.metric(metric)[layer, s] == pytest.approx(value, abs=1e-6), metric
            share = y.mean()
            entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
            bits = entropy - expected["log_loss"] / np.log(2)
            assert scores.metric("v_information")[layer, s] == pytest.approx(bits, abs=1e-6)


@pytest.mark.parametrize("hidden", [60, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_active_in_one_example_alone_count_as_constant_where_they_rest(hidden, dtype):
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 60)
    X = rng.normal(size=(120, hidden)) + (2 * labels[:, None] - 1) * (np.arange(hidden) < 3)
    resting = np.arange(20, 50)
    X[:, resting] = 0
    X[rng.integers(120, size=30), resting] = rng.uniform(0.1, 10, 30)
    acts = Activations.from_arrays([X.astype(dtype)], labels)
    scores = score_layers(acts, C=1.0, permutations=0, repeats=1)
    X = acts[acts.names[0]].astype(np.float64)
    for train, test in make_splits(acts.labels, acts.groups, repeats=1).pairs:
        scaler = StandardScaler().fit(X[train])
        fitted = LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000, solver="newton-cholesky").fit(
            scaler.transform(X[train]), labels[train]
        )
        decision = fitted.decision_function(scaler.transform(X[test]))
        assert np.abs(scores.decision[0, 0, test] - decision).max() < 2e-2 * np.abs(decision).max()


@pytest.mark.parametrize("standardize", [True, "scale", False])
@pytest.mark.parametrize(("hidden", "classes"), [(3, 2), (300, 2), (3, 4), (300, 4)])
def test_a_held_out_example_is_not_read_by_what_its_training_part_never_saw_move(hidden, classes, standardize):
    X = np.random.default_rng(0).normal(size=(60, hidden))
    decisions = []
    for value in (0, 1000):
        X[:, 1] = 0
        X[0, 1] = value
        acts = Activations.from_arrays([X.copy()], np.arange(60) % classes)
        scores = score_layers(acts, C=1.0, permutations=0, repeats=1, standardize=standardize)
        decisions.append(scores.decision[0, 0, 0])
    np.testing.assert_allclose(decisions[1], decisions[0], atol=5e-3)


def test_a_part_that_varies_by_rounding_alone_reads_nothing():
    labels = np.arange(60) % 3
    X = np.full((60, 8), 3.0, np.float32)
    X[:, 0] += labels * np.float32(2.4e-7)
    X[0, 0] = 5
    scores = score_layers(Activations.from_arrays([X], labels), standardize="scale", permutations=0, C=1.0)
    assert scores.curve[0] < 0.4


def test_splits_solved_together_as_on_a_gpu_give_what_they_give_alone(monkeypatch):
    acts = sample()
    alone = score_layers(acts, permutations=39)
    monkeypatch.setattr(masks, "_most_together", lambda X: 10**6)
    together = score_layers(acts, permutations=39)
    assert together.n_fits == alone.n_fits
    np.testing.assert_array_equal(together.C_chosen, alone.C_chosen)
    np.testing.assert_allclose(together.decision, alone.decision, atol=2e-3 * np.abs(alone.decision).max())
    assert np.abs(together.null_curves - alone.null_curves).max() <= 1 / 12  # a single example at the boundary


@pytest.mark.parametrize("standardize", [True, "scale"])
@pytest.mark.parametrize(("hidden", "classes"), [(20, 2), (400, 2), (20, 3), (400, 3)])
def test_the_last_digit_of_a_constant_is_no_concept(hidden, classes, standardize):
    labels = np.arange(240) % classes
    X = np.full((240, hidden), 1.2345678, np.float32)
    X[labels == 1] = np.nextafter(X[labels == 1], np.float32(2))
    acts = Activations.from_arrays([X], labels)
    scores = score_layers(acts, permutations=0, repeats=1, standardize=standardize)
    assert scores.curve == pytest.approx([1 / classes])


@pytest.mark.parametrize("kind", ["plain", "equal rows", "a single row", "outliers", "no factor"])
def test_coordinates_of_rows_keep_their_products(kind, monkeypatch):
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(40, 90)).astype(np.float32))
    if kind == "equal rows":
        X[10:20] = X[:10]
        X[32] = X[3]
    elif kind == "a single row":
        X[:] = X[0]
    elif kind == "outliers":
        X[:, 5] *= 1000
    elif kind == "no factor":
        monkeypatch.setattr(fits, "_JITTER", -1.0)
    Z = fits.row_coordinates(X, 30)
    assert (Z.shape, Z.dtype) == ((40, 30), torch.float32)
    expected = X.double() @ X[:30].double().T
    found = Z.double() @ Z[:30].double().T
    size = X.double().norm(dim=1)
    assert ((found - expected).abs() / (size[:, None] * size[:30])).max() < 2e-6
    assert fits.row_coordinates(X, 90) is X, "as many rows as features: the features themselves"


def full_grid(acts, name, train, inner):
    """The slow way: every inner fit of every penalty, by scikit-learn; the best, ties to the stronger penalty."""
    X, y = acts[name], acts.labels
    scaled = (X - X[train].mean(0)) / X[train].std(0)
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for part, test in inner:
            probe = LogisticRegression(C=1 / (penalty * len(part)), tol=1e-8, max_iter=10_000)
            p = probe.fit(scaled[part], y[part]).predict_proba(scaled[test])[:, 1]
            total += log_loss(y[test], p) * len(test)
        losses.append(total / len(train))
    return np.array(losses)


@pytest.mark.parametrize("hidden", [8, 100])
def test_the_walk_along_the_grid_ends_where_the_whole_grid_is_best(hidden):
    acts = sample(hidden=hidden, layers=4)
    splits = make_splits(acts.labels, acts.groups, repeats=1)
    rng = np.random.default_rng(0)
    inner = [inner_pairs(acts.labels, acts.groups, train, 3, rng) for train, _ in splits.pairs]
    plan = FitPlan(acts.labels[None], 2, splits.pairs, inner, None, True, "accuracy")
    for name in acts:
        (fits,) = fit_layer(acts[name], plan)
        for s, (train, _) in enumerate(splits.pairs):
            losses = full_grid(acts, name, train, inner[s])
            chosen = int(np.argmin(np.abs(np.log(1 / (fits.C_used[s] * len(train)) / np.array(PENALTIES)))))
            # Neighbours of the optimum may be chosen where they are as good within tie and tolerance.
            assert losses[chosen] <= losses.min() * 1.003, (name, s, chosen, losses)


@pytest.mark.parametrize("hidden", [10, 200])
def test_permutations_go_through_the_same_pipeline_as_labels(hidden):
    acts = sample(hidden=hidden, layers=2)
    scores = score_layers(acts, permutations=19, repeats=1)
    drawn = permuted_labels(acts.labels, acts.groups, 3)
    for permutation, labels in enumerate(drawn):
        # Twins permute inside their groups, so the folds of the permuted labels are those of the real ones.
        again = score_layers(
            Activations.from_arrays(list(acts.numpy()), labels, groups=acts.groups),
            permutations=0,
            cv=list(make_splits(acts.labels, acts.groups, repeats=1).pairs),
        )
        # Inner folds are dealt anew there and may choose another C: a few examples of 24 change sides.
        assert np.abs(again.curve - scores.null_curves[permutation]).max() < 0.15
    assert np.array_equal(scores.null_max, scores.null_curves.max(1))


def test_more_than_two_classes_are_scored_as_scikit_learn_does():
    acts = sample(n=180, classes=3, hidden=6)
    scores = score_layers(acts, C=1.0, permutations=19, repeats=1)
    train, test = make_splits(acts.labels, acts.groups, repeats=1).pairs[0]
    assert scores.decision.shape == (3, 1, 180, 3)
    for layer, name in enumerate(acts):
        scaler = StandardScaler().fit(acts[name][train])
        probe = LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(
            scaler.transform(acts[name][train]), acts.labels[train]
        )
        p = probe.predict_proba(scaler.transform(acts[name][test]))
        assert np.abs(np.exp(scores.decision[layer, 0, test]) - p).max() < 5e-3
        y, mine = acts.labels[test], np.exp(scores.decision[layer, 0, test].astype(float))
        mine /= mine.sum(1, keepdims=True)
        assert scores.metric("balanced_accuracy")[layer, 0] == balanced_accuracy_score(y, mine.argmax(1))
        assert scores.metric("f1")[layer, 0] == pytest.approx(f1_score(y, mine.argmax(1), average="macro"))
        assert scores.metric("auroc")[layer, 0] == pytest.approx(roc_auc_score(y, mine, multi_class="ovr"))
        assert scores.metric("log_loss")[layer, 0] == pytest.approx(log_loss(y, mine), abs=1e-6)


def test_scores_do_not_depend_on_the_order_of_layers_or_on_a_shift_or_feature_scale():
    acts = sample()
    scores = score_layers(acts, permutations=0, repeats=1)
    X = acts.numpy()
    moved = Activations.from_arrays(
        list((X * np.geomspace(0.1, 10, X.shape[2]) + 50)[::-1]), acts.labels, groups=acts.groups
    )
    again = score_layers(moved, permutations=0, repeats=1)
    # A decision within rounding of zero may change side: one example of 24 in a fold.
    assert np.abs(again.curve[::-1] - scores.curve).max() <= 1 / 24
    assert np.median(np.abs(again.decision[::-1] - scores.decision)) < 1e-2


def test_the_same_seed_gives_the_same_numbers_and_a_saved_file_gives_them_back(tmp_path):
    acts = sample()
    one, two = (score_layers(acts, permutations=19, repeats=1) for _ in range(2))
    assert np.array_equal(one.decision, two.decision)
    assert np.array_equal(one.null_curves, two.null_curves)
    one.save(tmp_path / "a.safetensors")
    two.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = LayerScores.load(tmp_path / "a.safetensors")
    assert again.to_dict() == one.to_dict()
    assert np.array_equal(again.predicted, one.predicted)


def test_the_audit_tells_what_a_naive_split_would_have_leaked():
    acts = sample(n=400, layers=1)
    audit = score_layers(acts, permutations=0, repeats=1, C=1.0).audit
    assert audit["n_groups"] == 200
    assert audit["groups_with_several_classes"] == 200
    assert audit["leak"] == 0
    assert 0.5 < audit["naive_leak"] < 0.7
    assert len(audit["naive_curve"]) == 1
    rows = KFold(5, shuffle=True, random_state=0)
    assert 0.7 < score_layers(acts, permutations=0, C=1.0, cv=rows).audit["leak"] < 0.9


def test_the_number_of_fits_is_counted_and_progress_is_told(capsys):
    told = []
    acts = sample(layers=2)
    scores = score_layers(acts, C=1.0, permutations=19, progress=lambda done, total: told.append((done, total)))
    assert scores.n_fits == 2 * (10 * 20 + 1)  # layers × (splits × label vectors + the naive split)
    assert told == [(1, 2), (2, 2)]
    score_layers(acts, C=1.0, permutations=0, repeats=1, progress=True)
    assert "12 fits" in capsys.readouterr().err


def test_a_layer_that_is_not_finite_is_named():
    acts = sample()
    broken = acts["1"].copy()
    broken[3, 2] = np.nan
    bad = Activations(
        acts.names, acts.numbers, acts.total, lambda name: broken if name == "1" else acts[name], acts.labels,
        acts.classes, acts.groups,
    )  # fmt: skip
    with pytest.raises(InputError, match="layer '1' holds NaN"):
        score_layers(bad, permutations=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scoring": "precision"}, "scoring='precision' is no metric"),
        ({"standardize": "yes"}, "standardize='yes'"),
        ({"C": -1}, "C=-1 is not allowed"),
        ({"C": "best"}, "C='best' is not allowed"),
        ({"C": np.array([1.0, 2.0])}, "is not allowed; give 'nested'"),
        ({"standardize": 0}, "standardize=0 is not allowed"),
        ({"permutations": -3}, "permutations=-3"),
        ({"permutations": 5}, "fewer than 19 can never decide"),
        ({"permutations": "x"}, "permutations='x' is not allowed"),
        ({"permutations": None}, "permutations=None is not allowed"),
        ({"permutations": float("nan")}, "permutations=nan is not allowed"),
        ({"repeats": 1.5}, "repeats=1.5 is not allowed"),
        ({"repeats": None}, "repeats=None is not allowed"),
        ({"random_state": None}, "random_state=None is no seed"),
        ({"random_state": -1}, "random_state=-1 is no seed"),
        ({"protocol": "mine"}, "protocol='mine' is unknown"),
        ({"cv": 40}, "too few for 40 folds"),
    ],
)
def test_settings_are_checked_before_anything_is_measured(arguments, message):
    labels = np.tile([0, 1], 30)
    with pytest.raises(InputError, match=message):
        check_settings(labels=labels, groups=np.repeat(np.arange(30), 2), **arguments)


def test_settings_given_as_numpy_scalars_are_recorded_as_plain_values(tmp_path):
    given = {
        "cv": np.int64(4), "repeats": np.int64(1), "C": np.float32(0.5), "standardize": np.False_,
        "permutations": np.int64(0), "random_state": np.int64(3),
    }  # fmt: skip
    scores = score_layers(sample(layers=1), **given)
    assert {type(scores.settings[name]) for name in given} == {int, float, bool}
    scores.save(tmp_path / "scores.safetensors")
    again = LayerScores.load(tmp_path / "scores.safetensors").settings
    assert [again[name] for name in given] == [4, 1, 0.5, False, 0, 3]


@pytest.mark.parametrize("device", ["banana", 3.5])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(InputError, match=f"device={device!r} cannot be used here"):
        score_layers(sample(layers=1), permutations=0, device=device)


def test_a_device_may_be_given_as_torch_has_it():
    acts = sample(layers=2)
    scores = score_layers(acts, permutations=0, device=torch.device("cpu"))
    np.testing.assert_array_equal(scores.decision, score_layers(acts, permutations=0, device="cpu").decision)


def test_nothing_of_a_finished_run_is_kept():
    score_layers(sample(layers=1), permutations=0, repeats=1)
    assert plan_masks.cache_info().currsize == 0


def test_chance_is_of_the_rows_that_are_tested():
    """Pairs of nine in ten rows of class 1, out of a balanced sample: always saying 1 is right nine times in ten."""
    labels = np.repeat([1, 0], 200)
    rows = np.random.default_rng(0).permutation([*range(180), *range(200, 220)])
    pairs = [(np.sort(rows[:100]), np.sort(rows[100:]))]
    X = np.random.default_rng(1).normal(size=(2, 400, 5))
    acts = Activations.from_arrays(list(X), labels)
    scores = score_layers(acts, cv=pairs, C=1.0, scoring="accuracy", permutations=19)
    assert scores.chance == labels[pairs[0][1]].mean()
    assert np.abs(scores.null_curves - scores.chance).max() < 0.1  # the null's labels have the same shares
    assert find_depth(scores).verdict == "never"


def test_scores_of_permuted_labels_are_known_where_a_class_is_rare():
    labels = (np.arange(60) < 6).astype(np.int64)
    X = np.random.default_rng(0).normal(size=(2, 60, 3))
    X[1, :, 0] += 20 * labels
    scores = score_layers(Activations.from_arrays(list(X), labels), C=1.0)
    assert np.isfinite(scores.null_max).all()
    depth = find_depth(scores, rule="onset")
    assert depth.number == 1
    json.dumps(depth.to_dict(), allow_nan=False)


def test_chance_is_what_the_best_constant_prediction_scores():
    labels = np.array([0] * 70 + [1] * 30)
    for metric in ("accuracy", "balanced_accuracy", "f1"):
        best = max(metrics.score(metric, np.full((1, 100), sign), labels[None], 2)[0] for sign in (-1.0, 1.0))
        assert metrics.chance(metric, labels, 2) == pytest.approx(best)
    constant = np.full((1, 100), np.log(0.3 / 0.7))
    assert metrics.chance("log_loss", labels, 2) == pytest.approx(
        metrics.score("log_loss", constant, labels[None], 2)[0]
    )
    assert metrics.score("v_information", constant, labels[None], 2)[0] == pytest.approx(0, abs=1e-12)


def test_the_outer_layers_differ_in_width_and_groups_of_twins_are_kept_with_splitters_of_ones_own():
    rng = np.random.default_rng(0)
    labels, groups = np.tile([0, 1], 40), np.repeat(np.arange(40), 2)
    acts = Activations.from_arrays([rng.normal(size=(80, width)) for width in (3, 90)], labels, groups=groups)
    scores = score_layers(acts, cv=GroupKFold(4), permutations=19)
    assert scores.metric("accuracy").shape == (2, 4)
    assert np.isfinite(scores.decision).all()
