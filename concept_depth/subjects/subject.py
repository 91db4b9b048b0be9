"""`Subject`: a network, where to listen to it, and how inputs reach it. Nothing here knows transformers.

Shapes: B examples of a batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.modules import INPUT, Pool, as_batch, describe_module, matching


@dataclass(frozen=True)
class Layer:
    """One place that is listened to; relative depth is number / total of the subject."""

    name: str
    number: int


@dataclass(frozen=True)
class Tap:
    """How a layer is heard: what enters or leaves a module, times a constant.

    Args:
        path: the module's name in `named_modules()`; "" is the network itself.
        side: "input" or "output".
        scale: constant that the network multiplies the tensor with before it adds it to its stream.
    """

    path: str
    side: str
    scale: float = 1.0


@dataclass(frozen=True)
class Encoded:
    """One example as the network takes it.

    Args:
        ids: token ids with the special tokens, without padding.
        rows: token positions that are averaged into this example's vector (one for last, first, an integer).
        truncated: tokens that were cut inside the {text} slot.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]
    truncated: int = 0


class TextReader(Protocol):
    """Turns texts into tokens; `subjects.text.TokenReader` is the one for tokenizers of transformers."""

    def encode(
        self, texts: Sequence[str], *, before: str, after: str, spans: Sequence[tuple[int, int]] | None
    ) -> list[Encoded]:
        """Each text between `before` and `after`, as tokens with the rows to read."""

    def describe(self) -> dict[str, Any]:
        """What of the reading decides the numbers: position, chat template, length limit."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and where to listen to it. Made by `from_pretrained`, `from_model` or `Subject.from_module`.

    Args:
        module: what is called; for a language model its base model, so that the LM head never runs.
        name: short name, used in tables and file names.
        layers: where it is listened to, in order.
        total: what the layers' numbers are counted against.
        taps: layer name → how it is heard.
        reader: how texts become tokens; None for a network that takes arrays.
        prepare: how a batch of inputs becomes the module's arguments, for networks that take arrays.
        pool: (layer name, (B, …) tensor) → (B, D) tensor, for networks that take arrays.
        origin: JSON-serialisable facts for `describe`; a callable is asked each time (weights can change).
        model: the whole model with its head, where there is one (for anchoring and quantisation).
        tokenizer: the tokenizer, where there is one; it is never changed.
        pad_id: id that fills batches; masked, so any id of the vocabulary serves.
    """

    module: nn.Module
    name: str
    layers: tuple[Layer, ...]
    total: int
    taps: Mapping[str, Tap] = field(repr=False)
    reader: TextReader | None = field(default=None, repr=False)
    prepare: Callable[[Any], torch.Tensor] | None = field(default=None, repr=False)
    pool: Callable[[str, torch.Tensor], torch.Tensor] | None = field(default=None, repr=False)
    origin: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = field(default_factory=dict, repr=False)
    model: nn.Module | None = field(default=None, repr=False)
    tokenizer: Any = field(default=None, repr=False)
    pad_id: int = 0

    def __repr__(self) -> str:
        names = [layer.name for layer in self.layers]
        return f"Subject({self.name!r}: {len(names)} layers, {names[0]} … {names[-1]})"

    @property
    def takes_text(self) -> bool:
        """Whether the network reads texts (and not arrays)."""
        return self.reader is not None

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first parameter that holds data."""
        for parameter in self.module.parameters():
            if parameter.device.type != "meta":
                return parameter.device
        return torch.device("cpu")

    def encode(
        self,
        texts: Sequence[str],
        *,
        before: str = "",
        after: str = "",
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> list[Encoded]:
        """Turn texts into tokens with the rows to read.

        Args:
            texts: what stands in the {text} slot; only this is ever truncated.
            before: what the template has in front of it.
            after: what the template has behind it.
            spans: per text (start, end) in its characters, for `position="span"`.

        Raises:
            InputError: the network reads no text, or a text does not fit.
        """
        if self.reader is None:
            raise InputError(f"{self.name} takes arrays, not texts; give a concept whose inputs are an array")
        return self.reader.encode(texts, before=before, after=after, spans=spans)

    def encode_concept(self, concept: Any) -> list[Encoded]:
        """`encode` for a concept: its inputs in its template, with its spans."""
        if not concept.is_text:
            raise InputError(f"{self.name} reads texts, but concept {concept.name!r} holds arrays; give texts")
        before, after = concept.template_parts
        return self.encode(concept.inputs, before=before, after=after, spans=concept.spans)

    def arguments(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None = None) -> dict[str, Any]:
        """Keyword arguments of `module` for right-padded token ids and their mask (1 = token, 0 = padding).

        Only what the network's `forward` names is given: some take no mask, some keep no cache.
        """
        given: dict[str, Any] = {"input_ids": ids_BT.to(self.device), **keep_nothing(self.module)}
        if mask_BT is not None and "attention_mask" in signature(self.module.forward).parameters:
            given["attention_mask"] = mask_BT.to(self.device)
        return given

    def describe(self) -> dict[str, Any]:
        """JSON-serialisable origin of the numbers, without anything that does not change them (device, batch).

        Provenance for records, and the subject's part of the store's key.
        """
        origin = self.origin() if callable(self.origin) else self.origin
        described = {"name": self.name, "total": self.total, **origin}
        if self.reader is not None:
            described |= self.reader.describe()
        return described

    def select(self, layers: Sequence[str | int] | None) -> tuple[Layer, ...]:
        """The layers of the given names or numbers, in the network's order; all for None.

        Raises:
            InputError: there is no such layer.
        """
        if layers is None:
            return self.layers
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise InputError(f"layers {layers!r} is no list of layers; give layers=[{layers!r}], or None for all")
        layers = list(layers)
        known: dict[str | int, Layer] = {layer.name: layer for layer in self.layers}
        known |= {layer.number: layer for layer in self.layers}
        for wanted in layers:
            if not isinstance(wanted, str | Integral) or wanted not in known:
                raise InputError(
                    f"{self.name} has no layer {wanted!r}; it has the numbers {self.layers[0].number} to "
                    f"{self.layers[-1].number} ({self.layers[0].name} … {self.layers[-1].name})"
                )
        if not layers:
            raise InputError("no layer was asked for; name at least one, or give None for all")
        chosen = {known[wanted].name for wanted in layers}
        return tuple(layer for layer in self.layers if layer.name in chosen)

    def changed(self, **changes: Any) -> Subject:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        layers: str | Sequence[str] = "*",
        encode: Callable[[Any], torch.Tensor] | None = None,
        pool: str | int | Callable[[torch.Tensor], torch.Tensor] | None = None,
        name: str | None = None,
    ) -> Subject:
        """Listen to any network that takes one tensor.

        Args:
            module: the network; it is called with one batch.
            layers: names in `named_modules()`, or patterns of them (`"features.*"`; `*` stays inside one part of
                a dotted name, `**` crosses dots); `"input"` is what enters the network. Layers are numbered from
                0 in that order.
            encode: turns a list or array of a concept's inputs into the batch; by default an array becomes a
                tensor of the network's dtype.
            pool: how (B, …) becomes (B, D): "flatten", "mean" (over all axes behind the channels'), a number of
                dimensions for a seeded random projection, or a function. By default flattened, and beyond 1024
                values projected to 1024.
            name: short name; by default the class's.

        Returns:
            The subject. `describe()` states the pooling of every layer.

        Raises:
            InputError: no module has such a name, or `pool` is none of these.
        """
        names = matching(module, [layers] if isinstance(layers, str) else list(layers))
        pooling = Pool.of(pool)
        return cls(
            module=module,
            name=name or type(module).__name__,
            layers=tuple(Layer(path, number) for number, path in enumerate(names)),
            total=max(len(names) - 1, 0),
            taps={path: Tap("", "input") if path == INPUT else Tap(path, "output") for path in names},
            prepare=encode or (lambda inputs: as_batch(inputs, module)),
            pool=pooling,
            origin=lambda: describe_module(module, pooling),
        )


def keep_nothing(module: nn.Module) -> dict[str, Any]:
    """Keyword arguments with which a model of transformers keeps neither a cache nor what its config asks it to keep.

    It would keep every layer's states, by hooks that it never takes away.
    """
    named = signature(module.forward).parameters
    takes_any = any(argument.kind is argument.VAR_KEYWORD for argument in named.values())
    given: dict[str, Any] = {"use_cache": False} if "use_cache" in named else {}
    for wish in ("output_hidden_states", "output_attentions", "output_router_logits"):
        if getattr(getattr(module, "config", None), wish, False) and (wish in named or takes_any):
            given[wish] = False
    return given


def token_batch(encoded: Sequence[Encoded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, T) padded on the right, and their mask.

    T is never B (unless both are 1): the axes of a batch can then be told apart in any tensor a network makes.
    """
    longest = max(len(example.ids) for example in encoded)
    if longest == len(encoded) > 1:
        longest += 1
    ids_BT = torch.full((len(encoded), longest), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(encoded), longest), dtype=torch.long)
    for row, example in enumerate(encoded):
        ids_BT[row, : len(example.ids)] = torch.tensor(example.ids)
        mask_BT[row, : len(example.ids)] = 1
    return ids_BT, mask_BT
