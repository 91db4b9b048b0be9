"""Where a decoder is listened to, found by its structure, and how: hooks that leave no trace.

The sites inside a block (resid_mid, attn_out, mlp_out, mlp_in) are found in `subjects.inside`.

Shapes: B examples of a batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.subject import Layer, Subject, Tap

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in")
POSITIONS = ("last", "first", "mean", "span")


def check_site_and_position(site: str, position: str | int) -> None:
    """Raise an InputError where a site or position is none that exists."""
    if site not in SITES:
        raise InputError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    if isinstance(position, bool) or (isinstance(position, str) and position not in POSITIONS):
        raise InputError(
            f"there is no position {position!r}; give {', '.join(POSITIONS)}, or a whole number (0 is the first "
            "token, -1 the last)"
        )


def find_blocks(module: nn.Module, *, blocks: str | None = None) -> list[str]:
    """Names of the decoder's blocks in the order in which they run.

    The blocks are the outermost list of modules with the most parameters. (Experts, heads and the like are lists
    inside a block; lists of norms or embeddings are small.)

    Args:
        module: the network.
        blocks: name of the list in `named_modules()`, to override the choice.

    Raises:
        InputError: there is no such list.
    """
    lists = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(part)
    }
    if blocks is not None:
        if blocks not in lists:
            raise InputError(
                f"{type(module).__name__} has no list of modules {blocks!r}; it has {', '.join(lists) or 'none'}"
            )
        return [f"{blocks}.{name}" for name, _ in lists[blocks].named_children()]
    outermost = [
        name
        for name in lists
        if name and not any(name.startswith(f"{other}.") for other in lists if other and other != name)
    ]
    if not outermost:
        raise InputError(
            f"{type(module).__name__} holds no list of blocks; name it with blocks='…', or use Subject.from_module"
        )
    # Parameters that several elements share count once an element: a list of one block run often is still a list.
    sizes = {name: sum(p.numel() for part in lists[name] for p in part.parameters()) for name in outermost}
    largest = max(outermost, key=lambda name: sizes[name])
    return [f"{largest}.{name}" for name, _ in lists[largest].named_children()]


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
        # A network that is spread over memories moves weights back behind each pass, so it must run to its end.
        self._stop = not any(
            getattr(getattr(part, "_hf_hook", None), "offload", False) for part in subject.module.modules()
        )

    def attach(self, handles: list[Any]) -> None:
        """Hook every tap; each handle is put into `handles` at once, so that none is lost to an error."""
        parts = dict(self._subject.module.named_modules())
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

    def _hear(self, names: list[str], tensor: torch.Tensor | None) -> None:
        for name in names:
            if tensor is None:
                raise InputError(f"{self._subject.name}: no tensor passes at layer {name}; leave it out")
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
            with torch.inference_mode():
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
        yield
    finally:
        for part, training in modes:
            part.training = training


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
