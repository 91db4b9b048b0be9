"""Limited-memory BFGS on many small convex problems at once; every step is one evaluation of the whole batch.

There is no inner line search: in each round every unfinished problem evaluates one trial point. A problem whose
trial point is good moves there; one whose trial point is not keeps its direction and tries a shorter step in the
next round. Finished problems leave the batch when enough of them have gathered.

Knows nothing of logistic regression. Shapes: B problems, R parameters of each, M pairs of history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_BR, index of the problems (B,) in the original batch) -> objective (B,) float64, gradient_BR."""

_ARMIJO = 1e-4
_COMPACT_BELOW = 0.75  # share of unfinished problems below which the batch is compacted


@dataclass
class Minimum:
    """Where every problem of the batch ended: `x` (B, R), objective (B,), and how it came there."""

    x: Tensor
    objective: Tensor
    decrement: Tensor  # estimate of twice the distance of the objective from its minimum
    n_iter: Tensor
    converged: Tensor


class _Batch:
    """The unfinished problems: their points, gradients, directions and histories."""

    def __init__(self, x: Tensor, f: Tensor, g: Tensor, memory: int) -> None:
        B, R = x.shape
        self.index = torch.arange(B, device=x.device)
        self.x, self.f, self.g = x, f, g
        self.steps_BMR = x.new_zeros(B, memory, R)
        self.changes_BMR = x.new_zeros(B, memory, R)
        self.rho_BM = x.new_zeros(B, memory)
        self.gamma = x.new_ones(B)
        self.alpha = x.new_ones(B)
        self.direction = -g
        self.slope = -(g * g).sum(1)

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""
        for name, value in list(vars(self).items()):
            setattr(self, name, value[mask])

    def remember(self, slot: int, moved: Tensor, step: Tensor, change: Tensor) -> None:
        """Write one pair of history; problems that did not move write an empty pair."""
        curvature = (step * change).sum(1)
        size = (change * change).sum(1)
        good = moved & (curvature > 1e-10 * size)
        self.steps_BMR[:, slot] = step
        self.changes_BMR[:, slot] = change
        self.rho_BM[:, slot] = torch.where(good, 1.0 / curvature.clamp_min(1e-30), 0.0)
        self.gamma = torch.where(good, curvature / size.clamp_min(1e-30), self.gamma)

    def point(self, newest: int) -> None:
        """New directions by the two-loop recursion, newest pair in slot `newest`."""
        memory = self.rho_BM.shape[1]
        order = [(newest - k) % memory for k in range(memory)]
        q = -self.g
        saved = []
        for slot in order:
            a = self.rho_BM[:, slot] * (self.steps_BMR[:, slot] * q).sum(1)
            q = torch.addcmul(q, a[:, None], self.changes_BMR[:, slot], value=-1)
            saved.append(a)
        q *= self.gamma[:, None]
        for slot, a in zip(reversed(order), reversed(saved), strict=True):
            b = self.rho_BM[:, slot] * (self.changes_BMR[:, slot] * q).sum(1)
            q = torch.addcmul(q, (a - b)[:, None], self.steps_BMR[:, slot])
        slope = (self.g * q).sum(1)
        uphill = slope >= 0  # rounding only: the matrix is positive definite by construction
        self.direction = torch.where(uphill[:, None], -self.g, q)
        self.slope = torch.where(uphill, -(self.g * self.g).sum(1), slope)


def minimise(
    evaluate: Evaluate, x_BR: Tensor, *, tol: float, max_iter: int, memory: int = 10, noise: float = 1e-7
) -> Minimum:
    """Minimise every row's convex function, starting from `x_BR`.

    Args:
        evaluate: objective and gradient of a sub-batch.
        x_BR: starting points, in coordinates in which the Hessians are near the identity.
        tol: a problem is finished when the decrement g'Hg (about twice its distance from the minimum) is at most
            `tol` times its objective.
        max_iter: most rounds.
        memory: pairs of history.
        noise: relative rounding error of the objective; a step is not refused for less.

    Returns:
        The points reached; `converged` is false for a problem that stalled or ran out of rounds.
    """
    f, g = evaluate(x_BR, torch.arange(x_BR.shape[0], device=x_BR.device))
    batch = _Batch(x_BR.clone(), f, g, memory)
    out = Minimum(x_BR.clone(), f.clone(), (g * g).sum(1).double(), torch.zeros_like(f), torch.zeros_like(f) > 0)
    done = -batch.slope.double() <= tol * f
    stalled = torch.zeros_like(done)
    for round_ in range(1, max_iter + 1):
        finished = done | stalled
        if finished.any() and (finished.all() or finished.double().mean() > 1 - _COMPACT_BELOW):
            _write(out, batch, done)
            batch.keep(~finished)
            done, stalled, finished = done[~finished], stalled[~finished], finished[~finished]
        if batch.index.numel() == 0:
            return out
        trial = torch.addcmul(batch.x, batch.alpha[:, None], batch.direction)
        f, g = evaluate(trial, batch.index)
        slope = (g * batch.direction).sum(1)
        armijo = f <= batch.f + _ARMIJO * (batch.alpha * batch.slope).double()
        # Near the minimum the objective's change drowns in rounding; the slope still tells (Hager and Zhang 2005).
        flat = (f <= batch.f + noise * batch.f.abs()) & (slope <= -0.8 * batch.slope)
        moved = (armijo | flat) & torch.isfinite(f) & ~finished
        out.n_iter[batch.index] += (~finished).to(out.n_iter.dtype)
        slot = round_ % memory
        batch.remember(slot, moved, trial - batch.x, g - batch.g)
        batch.x = torch.where(moved[:, None], trial, batch.x)
        batch.g = torch.where(moved[:, None], g, batch.g)
        batch.f = torch.where(moved, f, batch.f)
        # Minimum of the parabola through both values and the first slope, kept within [0.1, 0.5] of the step.
        fall = (batch.alpha * batch.slope).double()
        shrink = (-fall / (2 * (f - batch.f - fall)).clamp_min(1e-300)).nan_to_num(0.1).clamp(0.1, 0.5)
        shorter = batch.alpha * shrink.to(batch.alpha.dtype)
        direction, slope_before = batch.direction, batch.slope
        batch.point(slot)
        batch.direction = torch.where(moved[:, None], batch.direction, direction)
        batch.slope = torch.where(moved, batch.slope, slope_before)
        batch.alpha = torch.where(moved, 1.0, shorter)
        done = done | (-batch.slope.double() <= tol * batch.f)
        stalled = batch.alpha < 1e-6
    _write(out, batch, done)
    return out


def _write(out: Minimum, batch: _Batch, done: Tensor) -> None:
    out.x[batch.index] = batch.x
    out.objective[batch.index] = batch.f
    out.decrement[batch.index] = -batch.slope.double()
    out.converged[batch.index] = done
