"""One architecture against an independent reference: its blocks, hooked one text at a time, without padding."""

import numpy as np
import torch
from tiny_architectures import tiny_model
from torch import nn

from concept_depth import Concept, InputError, collect, from_model

# Texts are token ids written out, so that every vocabulary can read them.
TEXTS = ["5 9 33", "7 8 21 60 4 4 90 11", "17", "100 41 5 6 7 30 29 64 10 77 12 9 8", "7 8 21 60 4 5", "33 9 5"]


class IdTokenizer:
    """Reads "5 9 33" as the ids 5, 9 and 33; no special tokens, no pad token."""

    is_fast = False
    all_special_ids = ()
    pad_token_id = None

    def __call__(self, texts, **_):
        ids = [[int(word) for word in text.split()] for text in texts]
        return {"input_ids": ids, "special_tokens_mask": [[0] * len(row) for row in ids]}


def concept():
    """Six short texts of different lengths."""
    return Concept(name="ids", inputs=TEXTS, labels=[0, 1] * 3, classes=("a", "b"))


def reference(model, blocks):
    """(L, N, D) what enters block 1 and leaves each block at the last token, by plain hooks on the whole model."""
    rows_NL = []
    for text in TEXTS:
        ids = torch.tensor([[int(word) for word in text.split()]])
        heard = []
        handles = [
            blocks[0].register_forward_pre_hook(
                lambda _m, args, kwargs, heard=heard: heard.append(_hidden([*args, *kwargs.values()])),
                with_kwargs=True,
            )
        ]
        handles += [
            block.register_forward_hook(lambda _m, _a, out, heard=heard: heard.append(_hidden(out)))
            for block in blocks
        ]
        try:
            with torch.no_grad():
                try:
                    model(input_ids=ids, use_cache=False)
                except TypeError:
                    model(input_ids=ids)
        finally:
            for handle in handles:
                handle.remove()
        assert len(heard) == len(blocks) + 1, f"{len(heard)} tensors from {len(blocks)} blocks"
        rows_NL.append([_last(tensor, ids.shape[1]) for tensor in heard])
    return np.swapaxes(np.asarray(rows_NL), 0, 1)


def _hidden(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    return next(item for item in value if isinstance(item, torch.Tensor) and item.is_floating_point()).clone()


def _last(tensor, length):
    """The last token's vector of a batch of one: (1, T, D), (T, 1, D), or with an axis of several streams."""
    array = tensor.numpy()
    if array.shape[0] == 1 and array.shape[1] == length:
        return array[0, -1].ravel()
    if array.ndim == 3 and array.shape[1] == 1:
        return array[-1, 0]
    return array[:, 0, -1].ravel()  # (S, 1, T, D)


def named_blocks(model):
    """The longest list of modules, not inside another, that all run when the model reads text."""
    ran = set()
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    handles = [
        part.register_forward_hook(lambda module, *_: ran.add(module))
        for blocks in lists.values()
        for part in blocks
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6]]))
    for handle in handles:
        handle.remove()
    outer = [
        blocks
        for name, blocks in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    ]
    return list(max((blocks for blocks in outer if set(blocks) <= ran), key=len))


def difference(model, **options):
    """Largest relative difference between collected layers and the reference, over layers."""
    subject = from_model(model, IdTokenizer(), **options)
    acts = collect(subject, concept(), progress=False, prefix_sharing=False)
    expected = reference(model, named_blocks(model))
    assert len(acts.names) == len(expected), f"{len(acts.names)} layers, {len(expected)} expected"
    worst = 0.0
    for name, rows in zip(acts.names, expected, strict=True):
        assert acts[name].shape == rows.shape
        assert np.isfinite(rows).all()
        worst = max(worst, float(np.linalg.norm(acts[name] - rows) / max(np.linalg.norm(rows), 1e-30)))
    return worst


# Batched sums run in another order, which recurrent scans and routed experts enlarge a little.
TOLERANCE = 2e-5


def outcome(name):
    """(status, detail) of a type: "equal", "different", "refused" by us, or "not built" by transformers."""
    try:
        model = tiny_model(name)
    except Exception as error:  # whatever stops a shrunken config is transformers' matter, and is listed
        return "not built", _first_line(error)
    try:
        worst = difference(model)
    except InputError as error:
        return "refused", _first_line(error)
    return ("equal" if worst <= TOLERANCE else "different"), f"{worst:.1e}"


def _first_line(error):
    return " ".join(str(error).split())[:160]


def inner_sites(name):
    """Which of the inner sites a type has, as "mid" (resid_mid, attn_out, mlp_out) and "mlp_in"."""
    model = tiny_model(name)
    found = []
    for site, label in (("resid_mid", "mid"), ("mlp_in", "mlp_in")):
        try:
            from_model(model, IdTokenizer(), site=site)
        except InputError:
            continue
        found.append(label)
    return found


def added_difference(name):
    """How far pre + attn_out is from mid, and mid + mlp_out from post, relative to the largest value of a layer."""
    model = tiny_model(name)
    pre, attention, mid, mlp, post = (
        collect(from_model(model, IdTokenizer(), site=site), concept(), progress=False, prefix_sharing=False)
        for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    sums = [(pre[n] + attention[n], mid[n]) for n in mid.numbers]
    sums += [(mid[n] + mlp[n], post[n]) for n in mid.numbers]
    return max(float(np.abs(found - wanted).max() / np.abs(wanted).max()) for found, wanted in sums)
