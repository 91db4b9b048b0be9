"""Where a decoder is listened to, found by its structure, and how: hooks that leave no trace.

The sites inside a block (resid_mid, attn_out, mlp_out, mlp_in) are found in `subjects.inside`.

Shapes: B examples of a batch, T tokens, D hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.reasons import told_by
from concept_depth.subjects.subject import Layer, Subject, Tap, keep_nothing

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in")
POSITIONS = ("last", "first", "mean", "span")


def check_site_and_position(site: str, position: str | int) -> None:
    """Raise an InputError where a site or position is none that exists."""
    if site not in SITES:
        raise InputError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    known = position in POSITIONS if isinstance(position, str) else isinstance(position, Integral)
    if isinstance(position, bool) or not known:
        raise InputError(
            f"there is no position {position!r}; give {', '.join(POSITIONS)}, or a whole number (0 is the first "
            "token, -1 the last)"
        )


def find_blocks(module: nn.Module, *, blocks: str | None = None) -> list[str]:
    """Names of the decoder's blocks in the order in which they run.

    One pass over three tokens is watched. The blocks are the outermost list of modules, with the most parameters,
    whose modules all take part, each once, and hand a stream on from one to the next. (Experts and heads are lists
    inside a block; lists of norms or embeddings are small; a vision tower takes no part in reading text.)

    Args:
        module: the network.
        blocks: name of the list in `named_modules()`, to override the choice.

    Raises:
        InputError: there is no such list, or the network cannot read token ids alone.
    """
    # With duplicates, here and below: a module may stand in several lists, and each names it by its own place.
    lists = {
        name: [f"{name}.{child}" for child, _ in part.named_children()]
        for name, part in module.named_modules(remove_duplicate=False)
        if name and isinstance(part, nn.ModuleList | nn.Sequential) and len(part)
    }
    kind = type(module).__name__
    if blocks is not None:
        if blocks not in lists:
            raise InputError(f"{kind} has no list of modules {blocks!r}; it has {', '.join(lists) or 'none'}")
        return lists[blocks]
    outermost = [
        name for name in lists if not any(name.startswith(f"{other}.") for other in lists if other != name)
    ]
    passes = _watch_lists(module, [path for name in outermost for path in lists[name]])
    ran = [name for name in outermost if all(passes[path] for path in lists[name])]
    # Modules that several blocks share count once a block: a list of one block run often is still a list.
    parts = dict(module.named_modules(remove_duplicate=False))
    size = {name: sum(p.numel() for path in lists[name] for p in parts[path].parameters()) for name in ran}
    for name in sorted(ran, key=lambda name: -size[name]):
        if any(len(passes[path]) > 1 for path in lists[name]):
            raise InputError(
                f"the blocks of {kind} run several times in one pass and have no one place in its depth; "
                "use Subject.from_module on an unrolled network"
            )
        if _hands_on([passes[path][0] for path in lists[name]]):
            return lists[name]
    raise InputError(
        f"{kind} has no list of blocks that hand a stream on from one to the next; "
        "name it with blocks='…', or use Subject.from_module"
    )


_InOut = tuple[torch.Tensor | None, torch.Tensor | None]


def _watch_lists(module: nn.Module, paths: Sequence[str]) -> dict[str, list[_InOut]]:
    """What each module at `paths` takes and gives each time it runs in a pass over three tokens."""
    parts = dict(module.named_modules(remove_duplicate=False))
    seen: dict[str, list[_InOut]] = {path: [] for path in paths}
    handles: list[Any] = []

    def watch(path: str) -> None:
        taken: list[torch.Tensor | None] = []

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensor = incoming(args, kwargs)
            # Clones: some networks add to their stream in place.
            taken.append(None if tensor is None else tensor.clone())

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            seen[path].append((taken.pop(), None if tensor is None else tensor.clone()))

        handles.append(parts[path].register_forward_pre_hook(before, with_kwargs=True))
        handles.append(parts[path].register_forward_hook(after))

    try:
        for path in paths:
            watch(path)
        short_pass(module)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _hands_on(passes: Sequence[_InOut]) -> bool:
    """Whether modules make one stream: all tensors have one shape, most outputs are the next input."""
    shapes = {tensor.shape for pair in passes for tensor in pair if tensor is not None}
    if len(shapes) != 1 or any(tensor is None for pair in passes for tensor in pair):
        return False
    handed = [
        torch.equal(given, taken)
        for (_, given), (taken, _) in pairwise(passes)
        if given is not None and taken is not None
    ]
    return 2 * sum(handed) >= len(handed)


def short_pass(module: nn.Module) -> None:
    """Run a network over three tokens, in evaluation mode.

    Raises:
        InputError: it cannot read token ids alone.
    """
    device = next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
    ids = torch.arange(1, 4, device=device)[None]
    try:
        with evaluation_mode(module), torch.inference_mode():
            module(input_ids=ids, **keep_nothing(module))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        advice = "only decoder-only language models are supported"
        if "dtype" in str(error):
            dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
            advice = f"its weights are {', '.join(dtypes)}: give it one dtype, such as model.float()"
        raise InputError(
            f"{type(module).__name__} cannot read token ids alone ({told_by(error)}); {advice}"
        ) from error


def stream_taps(blocks: Sequence[str], site: str) -> tuple[tuple[Layer, ...], dict[str, Tap]]:
    """Layers and taps of `resid_post` (number 0 is what enters block 1) or `resid_pre`."""
    if site == "resid_pre":
        taps = {f"resid_pre.{i}": Tap(block, "input") for i, block in enumerate(blocks, start=1)}
        return tuple(Layer(name, i) for i, name in enumerate(taps, start=1)), taps
    taps = {"resid_post.0": Tap(blocks[0], "input")}
    taps |= {f"resid_post.{i}": Tap(block, "output") for i, block in enumerate(blocks, start=1)}
    return tuple(Layer(name, i) for i, name in enumerate(taps)), taps


class _Heard(Exception):  # noqa: N818 - not an error: how a forward pass is left after the last wanted layer
    pass


Pick = Callable[[torch.Tensor], torch.Tensor]


class Listener:
    """Calls a network and returns what the wanted layers hold; made by `listen`."""

    def __init__(self, subject: Subject, layers: Sequence[Layer]) -> None:
        self._subject = subject
        self._taps = {layer.name: subject.taps[layer.name] for layer in layers}
        self._heard: dict[str, torch.Tensor] = {}
        self._shape: tuple[int, int] | None = None
        self._pick: Pick | None = None
        self._deaf = False
        # A network that is spread over memories moves weights back behind each pass, so it must run to its end; and
        # one that is no language model, whose blocks are known to run once, so that a part that runs again is seen.
        self._stop = subject.takes_text and not any(
            getattr(getattr(part, "_hf_hook", None), "offload", False) for part in subject.module.modules()
        )
        self._switching = _switching(subject.module)

    def attach(self, handles: list[Any]) -> None:
        """Hook every tap; each handle is put into `handles` at once, so that none is lost to an error."""
        parts = dict(self._subject.module.named_modules(remove_duplicate=False))
        by_place: dict[tuple[str, str], list[str]] = {}
        for name, tap in self._taps.items():
            by_place.setdefault((tap.path, tap.side), []).append(name)
        for (path, side), names in by_place.items():
            if side == "input":
                hook = self._input_hook(names)
                handles.append(parts[path].register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(parts[path].register_forward_hook(self._output_hook(names)))

    def _input_hook(self, names: list[str]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._hear(names, incoming(args, kwargs))

        return hook

    def _output_hook(self, names: list[str]) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._hear(names, first_tensor(output))

        return hook

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Passes inside are not listened to, and run to their end."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    def _hear(self, names: list[str], tensor: torch.Tensor | None) -> None:
        if self._deaf:
            return
        for name in names:
            if tensor is None:
                raise InputError(f"{self._subject.name}: no tensor passes at layer {name}; leave it out")
            if name in self._heard and not self._subject.takes_text:
                raise InputError(
                    f"{self._subject.name}: layer {name} runs several times in one pass and has no one place in its "
                    "depth; give each use a module of its own, or leave it out"
                )
            value = tensor if self._shape is None else batch_first(tensor, self._shape)
            scale = self._taps[name].scale
            value = value if scale == 1.0 else value * scale
            # A clone where nothing is picked: the network may go on to change its stream in place.
            self._heard[name] = value.clone() if self._pick is None else self._pick(value)
        if self._stop and len(self._heard) == len(self._taps):
            raise _Heard

    def __call__(self, *args: Any, pick: Pick | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Run one forward pass, up to the last wanted layer.

        Args:
            args: of the module.
            pick: reduces each (B, T, D) tensor as soon as it is heard, so that the rest is not kept.
            kwargs: of the module; with `input_ids` (B, T), layers come as (B, T, D) whatever the network's order.

        Returns:
            Layer name → tensor, in the subject's order.

        Raises:
            InputError: a wanted layer took no part in the pass.
        """
        ids = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        self._shape = None if ids is None else (ids.shape[0], ids.shape[1])
        self._pick = pick
        self._heard = {}
        try:
            with attention_as_it_was(self._switching), torch.inference_mode():
                self._subject.module(*args, **kwargs)
        except _Heard:
            pass
        finally:
            heard, self._heard = self._heard, {}
        silent = [name for name in self._taps if name not in heard]
        if silent:
            raise InputError(
                f"{self._subject.name}: layer {silent[0]} takes no part in a forward pass; leave it out"
            )
        return {name: heard[name] for name in self._taps}


@contextmanager
def listen(subject: Subject, layers: Sequence[Layer] | None = None) -> Iterator[Listener]:
    """Listen to `layers` of a subject during forward passes, in evaluation mode, then restore everything.

    Args:
        subject: the network and its taps.
        layers: some of `subject.layers`; all by default.

    Yields:
        A function: call it with the module's arguments, it returns layer name → tensor.
    """
    listener = Listener(subject, subject.layers if layers is None else layers)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(subject.module))
        handles: list[Any] = []
        try:
            listener.attach(handles)
            yield listener
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every part's own mode again afterwards (they may differ: a frozen norm, say)."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with attention_as_it_was(_switching(module)), _uncompiled():
            yield
    finally:
        for part, training in modes:
            part.training = training


def _uncompiled() -> AbstractContextManager[Any]:
    """What was compiled runs as it was written: hooks break a graph, and one that must be whole fails on them."""
    # Compiling loads this module, which takes long; where it is not loaded, nothing was compiled.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _switching(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if hasattr(part, "set_attention_type")]


@contextmanager
def attention_as_it_was(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Put back the attention of BigBird, which turns to another kind at its first short text, and stays there.

    And the random numbers of the caller: the other kind is made with some.
    """
    before = [(part, vars(part).get("attention_type"), dict(part.named_children())) for part in parts]
    try:
        with torch.random.fork_rng(devices=[]) if parts else nullcontext():
            yield
    finally:
        for part, kind, children in before:
            if kind is not None:
                vars(part)["attention_type"] = kind
            for name, child in children.items():
                setattr(part, name, child)


def incoming(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The hidden state among a module's arguments: the one of that name, or the first tensor of numbers."""
    named = kwargs.get("hidden_states")
    if isinstance(named, torch.Tensor):
        return named
    return first_tensor([*args, *kwargs.values()])


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first floating-point tensor in what a module returns: a tensor, tuple, list or mapping."""
    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def batch_first(tensor: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(B, T, D) from however a network lays out its stream: (T, B, D), (B·T, D), or several streams at once.

    Several streams, (S, B, T, D) or (B, T, S, D), are one vector of S·D: all of them are what the next block gets.
    """
    B, T = shape
    if tensor.ndim == 2 and tensor.shape[0] == B * T:
        return tensor.reshape(B, T, -1)
    if tensor.shape[:2] == (B, T):
        return tensor if tensor.ndim == 3 else tensor.flatten(2)
    if tensor.ndim == 3 and tensor.shape[:2] == (T, B):
        return tensor.transpose(0, 1)
    if tensor.ndim == 4 and tensor.shape[1:3] == (B, T):
        return tensor.permute(1, 2, 0, 3).flatten(2)
    raise InputError(
        f"a layer's tensor of shape {tuple(tensor.shape)} has no axes for a batch of {B} texts of {T} tokens; "
        "use Subject.from_module with a pool of your own"
    )
