"""A GPU gives what the CPU gives: fits, scores, activations, a whole run. Skipped where torch sees no GPU.

What is computed is tested elsewhere, on every machine; here only that the device does not change it.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from test_prefix import subject_of
from test_scores import sample
from test_tree_path import CONFIGS, RELATIVE, many, one_at_a_time, tiny
from tiny_models import causal_lm, word_tokenizer

from concept_depth import collect, from_model, from_pretrained, score_layers
from concept_depth.cli.main import exit_code
from concept_depth.extraction.doctor import doctor
from concept_depth.probing import protocol
from concept_depth.probing.logistic import rotation_of, solve_logistic
from concept_depth.probing.probe import LogisticProbe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("n", "d"), [(300, 20), (60, 150)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 4])
def test_fits_reach_the_same_minimum(n, d, dtype, classes):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, d)) * np.geomspace(1, 1000, d)).astype(dtype)
    Y = np.stack([rng.integers(0, classes, n) for _ in range(8)], 1)
    C = np.geomspace(1e-6, 1e-2, 8)
    weight = rng.integers(0, 3, (n, 8)).astype(dtype)
    given = {"C": C, "sample_weight": weight, "n_classes": classes}
    here, there = (solve_logistic(X, Y, device=device, **given) for device in ("cpu", "cuda"))
    assert isinstance(there.coef, np.ndarray)
    np.testing.assert_allclose(there.objective, here.objective, rtol=1e-5)
    assert here.converged.all()
    assert there.converged.all()
    on_gpu = solve_logistic(
        torch.from_numpy(X).cuda(), Y, rotation=rotation_of(torch.from_numpy(X).cuda()), **given
    )
    assert on_gpu.coef.is_cuda
    np.testing.assert_allclose(on_gpu.objective.cpu(), here.objective, rtol=1e-5)


@pytest.mark.parametrize("standardize", [True, "scale", False])
@pytest.mark.parametrize(("hidden", "classes"), [(8, 2), (150, 2), (8, 3)])
def test_scores_are_the_same(hidden, classes, standardize):
    acts = sample(n=120, hidden=hidden, classes=classes)
    given = {"permutations": 19, "repeats": 1, "standardize": standardize}
    here, there = (score_layers(acts, device=device, **given) for device in ("cpu", "auto"))
    # Where two values of C are equally good but for rounding, either may be chosen.
    assert (there.C_chosen == here.C_chosen).mean() >= 0.9
    np.testing.assert_allclose(there.curve, here.curve, atol=0.03)
    np.testing.assert_allclose(there.null_curves, here.null_curves, atol=0.1)
    fixed_here, fixed_there = (score_layers(acts, C=0.3, device=device, **given) for device in ("cpu", "cuda"))
    scale = np.abs(fixed_here.decision).max()
    np.testing.assert_allclose(fixed_there.decision, fixed_here.decision, atol=2e-2 * scale)


def test_a_probe_is_the_same():
    acts = sample(n=120, hidden=8)
    X = acts[acts.names[-1]]
    here, there = (LogisticProbe(device=device).fit(X, acts.labels) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-2, atol=1e-3)
    assert (there.predict(X) == here.predict(X)).mean() > 0.98


def test_what_is_told_nothing_computes_on_the_gpu():
    assert protocol._device("auto") == "cuda"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    score_layers(sample(), permutations=0)
    assert torch.cuda.max_memory_allocated() > before


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_trees_on_a_gpu_give_single_passes(kind):
    subject = from_model(tiny(kind).to(GPU), word_tokenizer())
    acts = collect(subject, many(), progress=False)
    assert acts.provenance["extraction"]["path"] == "tree", acts.provenance["extraction"]
    expected = one_at_a_time(from_model(tiny(kind), word_tokenizer()), many())
    for layer, name in enumerate(acts):
        error = np.linalg.norm(acts[name] - expected[layer], axis=1) / np.linalg.norm(expected[layer], axis=1)
        assert error.max() < 10 * RELATIVE, name


@pytest.mark.parametrize("sharing", [False, "auto"])
@pytest.mark.parametrize("position", ["last", "mean"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_every_site_and_position_is_the_same(site, position, sharing):
    model = causal_lm()
    found = [
        collect(
            from_model(copy.deepcopy(model).to(device), word_tokenizer(), site=site, position=position),
            many(),
            prefix_sharing=sharing,
            progress=False,
        )
        for device in (CPU, GPU)
    ]
    for acts in found:
        assert acts.provenance["extraction"]["path"] == ("tree" if sharing else "plain")
    for name in found[0]:
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["alibi", "recurrent", "hybrid"])
def test_a_beginning_goes_on_from_a_cache_on_the_gpu(kind):
    here = collect(subject_of(kind), many(), progress=False)
    subject = subject_of(kind)
    subject.model.to(GPU)
    there = collect(from_model(subject.model, word_tokenizer()), many(), progress=False)
    for acts in (here, there):
        assert acts.provenance["extraction"]["path"] == "prefix", acts.provenance["extraction"]
    for name in here:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_run_and_a_doctor_find_the_gpu_by_themselves(dtype, tiny_model, tmp_path, capsys):
    subject = from_pretrained(str(tiny_model), dtype=dtype)
    assert subject.device.type == "cuda"
    assert doctor(subject).healthy, str(doctor(subject))
    rows = [{"text": f"Item {i} is {'even' if i % 2 == 0 else 'odd'}.", "label": i % 2} for i in range(60)]
    data = tmp_path / "parity.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["run", str(tiny_model), str(data), "--dtype", dtype, "--permutations", "19"]
    assert exit_code([*command, "--out", str(tmp_path / "out"), "--no-cache", "--quiet"]) == 0
    record = json.loads((tmp_path / "out" / "parity" / "record.json").read_text(encoding="utf-8"))
    assert record["depth"]["total"] == 3
    capsys.readouterr()
