"""Limited-memory BFGS on many small convex problems at once; every round is one evaluation of the whole batch.

There is no inner line search: in each round every unfinished problem evaluates one trial point. A problem whose
trial point is good moves there; one whose trial point is not keeps its direction and tries a shorter step in the
next round. Finished problems leave the batch when enough of them have gathered.

The direction comes from the compact form of the inverse matrix (Byrd, Nocedal and Schnabel 1994, theorem 2.2): two
batched products with the history instead of a loop over its pairs. Pairs are stored with s'y = 1, which keeps the
small triangular systems well scaled in float32.

Knows nothing of logistic regression. Shapes: B problems, R parameters of each, M pairs of history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, linalg

_ARMIJO = 1e-4
_CERTAIN = 0.1  # share of the tolerance at which the fixed matrix alone is believed
_COMPACT_BELOW = 0.85  # share of unfinished problems below which the batch is compacted


class Objective(Protocol):
    """A batch of convex functions that can forget its finished members."""

    def evaluate(self, x_BR: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (B,) in float64 and gradient (B, R) of the remaining problems."""

    def precondition(self, g_BR: Tensor) -> Tensor:
        """H g with a fixed positive definite H near the inverse Hessian."""

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""


@dataclass
class Minimum:
    """Where every problem of the batch ended."""

    x: Tensor  # (B, R)
    objective: Tensor  # (B,) float64
    decrement: Tensor  # (B,) float64, g'Hg: about twice the distance of the objective from its minimum
    n_iter: Tensor  # (B,) int64, evaluations
    converged: Tensor  # (B,) bool


class _Batch:
    """The unfinished problems: points, gradients, directions and histories."""

    def __init__(self, x: Tensor, f: Tensor, g: Tensor, hg: Tensor, memory: int, rescale: bool) -> None:
        B, R = x.shape
        self.index = torch.arange(B, device=x.device)
        self.rescale = rescale
        self.x, self.f, self.g, self.hg = x, f, g, hg
        # Steps s and H0 y; made with the first pair, when the easy problems have left. Empty slots are never read.
        self.pairs = x.new_empty(B, 0, 2, R)
        self.unroll = torch.eye(memory, dtype=x.dtype, device=x.device).repeat(B, 1, 1)
        self.yhy = x.new_zeros(B, memory, memory)
        self.gamma = x.new_ones(B)
        self.alpha = x.new_ones(B)
        self.n_iter = torch.ones_like(self.index)
        self.direction = -hg
        self.fixed = linalg.vecdot(g, hg)  # what the fixed matrix alone makes of the decrement
        self.slope = -self.fixed

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value[mask])

    def near(self, tol: float) -> Tensor:
        """Whether the objective is within about `tol` of its minimum, relatively.

        Twice the distance is g'Hg. A short history in a badly scaled problem makes H too small (its first factor,
        from one pair, is that of the steepest direction), so the fixed matrix must agree within a factor of 10.
        """
        allowed = tol * self.f
        near: Tensor = torch.maximum(-self.slope, 0.1 * self.fixed) <= allowed
        return near

    def accept(self, f: Tensor, g: Tensor, finished: Tensor, noise: float) -> Tensor:
        """Which trial points are good; the steps of the others are shortened."""
        fall = self.alpha.double() * self.slope
        rise = f - self.f
        good: Tensor = rise <= _ARMIJO * fall
        if not bool(good.all()):
            # Near the minimum the objective's change drowns in rounding; the slope still tells (Hager, Zhang 2005).
            good |= (rise <= noise * f.abs()) & (linalg.vecdot(g, self.direction) <= -0.8 * self.slope)
        if bool(good.all()):
            self.alpha.fill_(1.0)
            return good
        # Minimum of the parabola through both values and the first slope, kept within [0.1, 0.5] of the step.
        shrink = (-fall / (2 * (rise - fall)).clamp_min(1e-300)).nan_to_num(0.1).clamp(0.1, 0.5)
        shorter = torch.where(finished, self.alpha, self.alpha * shrink.to(self.alpha.dtype))
        self.alpha = torch.where(good & ~finished, 1.0, shorter)
        return good

    def step(
        self, number: int, moved: Tensor, trial: Tensor, f: Tensor, g: Tensor, hg: Tensor, fixed: Tensor
    ) -> None:
        """Move the problems of `moved`, write a pair of history (empty for the rest), find new directions."""
        memory = self.yhy.shape[1]
        slot, used = number % memory, min(number + 1, memory)
        if number == 0:
            self.pairs = self.x.new_empty(self.x.shape[0], memory, 2, self.x.shape[1])
        s, y, hy = trial - self.x, g - self.g, hg - self.hg
        curvature = linalg.vecdot(s, y)
        size = linalg.vecdot(y, hy)
        good = moved & (curvature > 1e-12 * size)
        # A pair enters with s'y = 1, so that the compact form's diagonal matrix is the identity.
        unit = torch.where(good, curvature.clamp_min(1e-37).rsqrt(), 0.0)[:, None]
        torch.mul(s, unit, out=self.pairs[:, slot, 0])
        torch.mul(hy, unit, out=self.pairs[:, slot, 1])
        if self.rescale:
            self.gamma = torch.where(good, curvature / size.clamp_min(1e-37), self.gamma)
        before = None if bool(moved.all()) else (moved[:, None], self.direction, self.slope)
        if before is None:
            self.x, self.f, self.g, self.hg, self.fixed = trial, f, g, hg, fixed
        else:
            self.f = torch.where(moved, f, self.f)
            self.fixed = torch.where(moved, fixed, self.fixed)
            self.x = torch.where(before[0], trial, self.x)
            self.g = torch.where(before[0], g, self.g)
            self.hg = torch.where(before[0], hg, self.hg)
        self._direct(slot, used, y * unit)
        if before is not None:
            self.direction = torch.where(before[0], self.direction, before[1])
            self.slope = torch.where(moved, self.slope, before[2])

    def _direct(self, slot: int, used: int, y: Tensor) -> None:
        """Directions from the histories, whose newest pair is in `slot`; the first `used` slots are filled.

        `unroll` is the inverse of the unit upper triangle of s_i'y_j (i not younger than j): dropping the oldest
        pair deletes its row and column, and a new pair adds one column, so it is never factorised.
        """
        B, _, _, R = self.pairs.shape
        pairs = self.pairs[:, :used].reshape(B, 2 * used, R)
        dots = torch.bmm(pairs, torch.stack([y, self.g], 2)).reshape(B, used, 2, 2)
        unroll, yhy = self.unroll[:, :used, :used], self.yhy[:, :used, :used]
        yhy[:, :, slot] = yhy[:, slot, :] = dots[:, :, 1, 0]
        unroll[:, slot, :] = 0.0
        unroll[:, :, slot] = 0.0
        column = torch.bmm(unroll, dots[:, :, 0, :1])
        unroll[:, :, slot] = -column[:, :, 0]
        unroll[:, slot, slot] = 1.0
        gamma = self.gamma[:, None, None]
        u = torch.bmm(unroll, dots[:, :, 0, 1:])
        v = torch.bmm(unroll.mT, u + gamma * (torch.bmm(yhy, u) - dots[:, :, 1, 1:]))
        weights = torch.stack([v, -gamma * u], 2).reshape(B, 1, 2 * used)
        direction = torch.baddbmm(self.hg[:, None] * gamma, weights, pairs)[:, 0].neg_()
        slope = linalg.vecdot(self.g, direction)
        right = slope < 0  # false by rounding only: the matrix is positive definite by construction
        if not bool(right.all()):
            direction = torch.where(right[:, None], direction, -self.hg)
            slope = torch.where(right, slope, -self.fixed)
        self.direction, self.slope = direction, slope


def minimise(
    problems: Objective,
    x_BR: Tensor,
    *,
    tol: float,
    max_iter: int,
    memory: int = 10,
    noise: float = 1e-7,
    rescale: bool = True,
    leave: float = 0.0,
) -> Minimum:
    """Minimise every row's convex function, starting from `x_BR`.

    Args:
        problems: objective, gradient and preconditioner of the batch; finished problems are removed from it.
        x_BR: starting points.
        tol: a problem is finished when the decrement g'Hg (about twice its distance from the minimum) is at most
            `tol` times its objective.
        max_iter: most rounds.
        memory: pairs of history.
        noise: relative rounding error of the objective; a step is not refused for less.
        rescale: whether the newest pair scales the fixed matrix, which one near the inverse Hessian does not need.
        leave: share of the problems that may be left where they stand, unconverged, once the others are finished.

    Returns:
        The points reached; `converged` is false for a problem that stalled or ran out of rounds.
    """
    f, g = problems.evaluate(x_BR)
    batch = _Batch(x_BR, f, g, problems.precondition(g), memory, rescale)
    out = Minimum(
        x_BR.clone(), f.clone(), f.clone(), torch.ones_like(batch.index), torch.zeros_like(batch.index) > 0
    )
    done = batch.near(tol)
    finished = done | ~torch.isfinite(f)
    for number in range(max_iter - 1):
        left = finished.numel() - int(finished.sum())
        if left <= leave * len(x_BR):
            break
        if left < _COMPACT_BELOW * finished.numel():
            _write(out, batch, done)
            going = ~finished
            batch.keep(going)
            problems.keep(going)
            done, finished = done[going], finished[going]
        trial = torch.addcmul(batch.x, batch.alpha[:, None], batch.direction)
        f, g = problems.evaluate(trial)
        hg = problems.precondition(g)
        batch.n_iter += ~finished
        moved = batch.accept(f, g, finished, noise) & ~finished
        fixed = linalg.vecdot(g, hg)
        early = moved & (fixed <= _CERTAIN * tol * f)
        if int(early.sum()) > (1 - _COMPACT_BELOW) * early.numel():
            # Certain already by the fixed matrix: out, before the costlier direction is made.
            where = batch.index[early]
            out.x[where], out.objective[where], out.n_iter[where] = trial[early], f[early], batch.n_iter[early]
            out.converged[where] = True
            rest = ~early
            batch.keep(rest)
            problems.keep(rest)
            trial, f, g, hg, fixed = trial[rest], f[rest], g[rest], hg[rest], fixed[rest]
            moved, done, finished = moved[rest], done[rest], finished[rest]
        batch.step(number, moved, trial, f, g, hg, fixed)
        done = done | batch.near(tol)
        finished = done | (batch.alpha < 1e-6)
    _write(out, batch, done)
    return out


def _write(out: Minimum, batch: _Batch, done: Tensor) -> None:
    out.x[batch.index] = batch.x
    out.objective[batch.index] = batch.f
    out.decrement[batch.index] = -batch.slope.double()
    out.n_iter[batch.index] = batch.n_iter
    out.converged[batch.index] = done
