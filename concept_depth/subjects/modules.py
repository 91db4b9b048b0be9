"""What `Subject.from_module` needs: modules named by pattern, wide layers reduced.

Shapes: B examples of a batch, F features of a layer, D of them kept, K terms summed into each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from concept_depth.errors import InputError
from concept_depth.subjects.identity import structure_hash, weights_hash

# Wider layers are projected: a probe on a few hundred examples has no use for more columns, and 1024 random ones
# keep distances within about 10 % (Johnson-Lindenstrauss).
MAX_WIDTH = 1024
INPUT = "input"

PoolSetting = str | int | Callable[[torch.Tensor], torch.Tensor] | None


def describe_module(module: nn.Module, pooling: Pool) -> dict[str, Any]:
    """Origin of what a plain module gives, JSON-serialisable."""
    return {
        "model": type(module).__name__,
        "architecture": type(module).__name__,
        "structure": structure_hash(module, settings=True),
        "weights": weights_hash(module),
        "dtype": str(next((p.dtype for p in module.parameters()), torch.float32)).removeprefix("torch."),
        "quantization": None,
        "site": "output",
        "position": None,
        "pool": pooling.describe(),
        "versions": {"torch": str(torch.__version__)},
    }


def matching(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of modules that match any pattern, in the order of `named_modules()`, "input" first.

    Raises:
        InputError: a pattern matches nothing.
    """
    if not patterns:
        raise InputError("no layer was asked for; give layers='*' or names of modules")
    known = [name for name, _ in module.named_modules() if name]
    candidates = known if INPUT in known else [INPUT, *known]
    chosen: set[str] = set()
    for pattern in patterns:
        expression = _expression(pattern)
        # A pattern means modules; what enters the network is meant only by its own name.
        found = [name for name in candidates if expression.fullmatch(name) and (name in known or pattern == INPUT)]
        if not found:
            raise InputError(
                f"no module of {type(module).__name__} is named {pattern!r}; "
                f"there are {', '.join(known[:12])}{', …' if len(known) > 12 else ''}, and 'input'"
            )
        chosen.update(found)
    return [name for name in candidates if name in chosen]


def _expression(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay inside one part of a dotted name, `**` crosses dots."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    meaning = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))


@dataclass(frozen=True, eq=False)
class Pool:
    """(B, …) → (B, D), with a record of what was done to each layer."""

    kind: str
    width: int = MAX_WIDTH
    function: Callable[[torch.Tensor], torch.Tensor] | None = None
    done: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, setting: PoolSetting) -> Pool:
        """From what the caller gave.

        Raises:
            InputError: it is none of the allowed kinds.
        """
        if setting is None:
            return cls("auto")
        if callable(setting):
            return cls("function", function=setting)
        if isinstance(setting, int) and not isinstance(setting, bool) and setting > 0:
            return cls("projection", width=setting)
        if setting in ("flatten", "mean"):
            return cls(str(setting))
        raise InputError(
            f"pool {setting!r} is none that exists; give 'flatten', 'mean', a number of dimensions or a function"
        )

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Reduce one layer's tensor."""
        if self.function is not None:
            self.done[name] = getattr(self.function, "__name__", "function")
            return self.function(tensor)
        if tensor.ndim == 1:
            tensor = tensor[:, None]
        shape = "×".join(str(size) for size in tensor.shape[1:])
        if self.kind == "mean" and tensor.ndim > 2:
            self.done[name] = f"{shape}: mean over all axes behind the first"
            return tensor.flatten(2).mean(2)
        flat_BF = tensor.flatten(1)
        features = flat_BF.shape[1]
        if self.kind in ("flatten", "mean") or features <= self.width:
            self.done[name] = f"{shape}: as it is" if tensor.ndim == 2 else f"{shape}: flattened"
            return flat_BF
        self.done[name] = f"{shape}: flattened, random projection of {features} to {self.width} (seed 0)"
        return project(flat_BF, self.width)

    def describe(self) -> dict[str, Any]:
        """How layers are reduced: the setting, and for each layer heard so far what was done."""
        return {"kind": self.kind, "width": self.width, "layers": dict(self.done)}


def project(flat_BF: torch.Tensor, width: int, *, seed: int = 0) -> torch.Tensor:
    """Random projection (B, F) → (B, D): each feature goes, with a random sign, into one of D sums of like size.

    The sparse projection of Charikar, Chen and Farach-Colton ("count sketch"): inner products keep their expected
    value, and it costs F additions instead of F · D multiplications.
    """
    features = flat_BF.shape[1]
    generator = torch.Generator().manual_seed(seed)
    order_F = torch.randperm(features, generator=generator).to(flat_BF.device)
    sign_F = (torch.randint(0, 2, (features,), generator=generator) * 2 - 1).to(flat_BF)
    terms = math.ceil(features / width)
    signed_BF = (flat_BF * sign_F)[:, order_F]
    padded = nn.functional.pad(signed_BF, (0, terms * width - features))
    return padded.reshape(len(flat_BF), terms, width).sum(1)


def as_batch(inputs: npt.ArrayLike, module: nn.Module) -> torch.Tensor:
    """An array of examples as a tensor of the module's dtype and device."""
    if isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], str):
        raise InputError(
            f"{type(module).__name__} takes arrays, not texts; give encode=… that turns texts into one"
        )
    tensor = torch.as_tensor(inputs)
    parameter = next(iter(module.parameters()), None)
    if parameter is None:
        return tensor.float()
    # Whole numbers are indices only for a network that looks something up.
    looks_up = any(isinstance(part, nn.Embedding) for part in module.modules())
    if tensor.is_floating_point() or not looks_up:
        tensor = tensor.to(parameter.dtype)
    return tensor.to(parameter.device)
