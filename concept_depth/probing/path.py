"""The walk along C: which logistic problems are solved together, where each starts, what preconditions it.

One rotation per matrix makes the Hessians of all problems nearly diagonal (`design.py`); in that basis batched
L-BFGS (`lbfgs.py`) needs few rounds, and a round is two matrix products for all of them together. Problems that
differ in C alone are solved from the smallest C upwards, each starting on the line through the last two solutions;
where rounds are many, the few problems of one C (the folds) are preconditioned by the mean of their Hessians, or
by each its own. float32 does the bulk; problems that need more digits are finished in float64.

The objective stands in `logistic.py`. Shapes: N examples, P rotated parameters, B problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_depth.probing.decrement import doubtful
from concept_depth.probing.design import Design, Hessians, Problems
from concept_depth.probing.lbfgs import minimise

_CHUNK_ELEMENTS = 1 << 20  # logits held at once, so that they stay in the processor's cache
_CHUNK_ELEMENTS_GPU = 1 << 24  # which a GPU does not have: it is the faster the more it has to do at once
_SINGLE_TOL = 1e-7  # what float32 can tell apart
_EASY_ROUNDS = 10  # rounds of one wave below which all the rest is solved in the next
_NARROW = 12  # so few problems leave the processor idle, so that Hessians of their own cost little
_PATIENCE_WITHOUT = 20  # rounds after which narrow waves get Hessians
_PATIENCE_SHARED = 20  # rounds after which a shared Hessian gives way to their own
_PATIENCE_WITH = 15  # rounds after which they get new ones
_HESSIAN_ELEMENTS = 1 << 27  # what Hessians of their own may hold
_ONE_CLASS_LOGIT = 36.0  # where the loss of a right answer is float64's rounding
_DOUBTED = 1e-3  # of the tolerance: to what problems are solved that only seemed to be
_STALE_ROUNDS = 10  # rounds of the previous wave from which Hessians are not used again


@dataclass
class Fits:
    """Solutions in a design's rotated coordinates: parameters (B, P), evaluations and convergence (B,)."""

    theta: Tensor
    n_iter: Tensor
    converged: Tensor


def fit_path(
    design: Design, sign_BN: Tensor, weight_BN: Tensor, C_B: Tensor, *, tol: float, max_iter: int
) -> Fits:
    """Solve problems on one design, those with the same labels and weights from the smallest C upwards.

    Args:
        design: the prepared matrix.
        sign_BN: labels, -1 or +1.
        weight_BN: weights of the examples.
        C_B: float64.
        tol: relative distance of the objectives from their minima.
        max_iter: most evaluations per problem.

    Returns:
        Solutions in rotated coordinates; float64 where float32 did not suffice.
    """
    lean_B = (sign_BN * weight_BN).sum(1)
    plain = lean_B.abs() == weight_BN.sum(1)
    if bool(plain.any()):
        return _around_plain(design, sign_BN, weight_BN, C_B, lean_B, plain, tol=tol, max_iter=max_iter)
    single = design.Z.dtype == torch.float32
    path = _Path(design, sign_BN, weight_BN, C_B, max(tol, _SINGLE_TOL) if single else tol, max_iter)
    path.walk()
    fits = path.fits
    if single:
        todo = torch.ones_like(fits.converged) if tol < _SINGLE_TOL else ~fits.converged
        fits = _finish(design, sign_BN, weight_BN, C_B, fits, todo, tol, max_iter)
    doubted = fits.converged & _doubtful(design, sign_BN, weight_BN, C_B, fits, tol)
    if bool(doubted.any()):
        fits = _finish(design, sign_BN, weight_BN, C_B, fits, doubted, _DOUBTED * tol, max_iter)
        fits.converged &= ~(doubted & _doubtful(design.double(), sign_BN, weight_BN, C_B, fits, tol))
    return fits


def _doubtful(design: Design, sign: Tensor, weight: Tensor, C: Tensor, fits: Fits, tol: float) -> Tensor:
    """(B,) whether solutions are surely farther from their minima than `tol` allows."""
    Z = design.Z
    cost = weight.to(Z) * C[:, None].to(Z)
    ridge = torch.ones_like(Z[:1]).expand(len(C), -1).clone()
    ridge[:, -1] = 0.0
    squares, penalty = Z.square(), ridge[:1]

    def preconditioner(curvature: Tensor) -> Callable[[Tensor], Tensor]:
        inverse = (penalty + curvature @ squares).clamp_min(1e-30).reciprocal()
        return lambda residual: residual * inverse

    return doubtful(Z, cost, -sign.to(Z), ridge, fits.theta.to(Z), preconditioner, tol)


def _around_plain(
    design: Design,
    sign: Tensor,
    weight: Tensor,
    C: Tensor,
    lean: Tensor,
    plain: Tensor,
    *,
    tol: float,
    max_iter: int,
) -> Fits:
    """Solve the problems outside `plain`; those inside hold one class or no example, and need no solving.

    With one class the infimum 0 is approached as the intercept grows: it is set where the loss is rounding.
    """
    theta = torch.zeros(len(C), design.Z.shape[1], dtype=design.Z.dtype, device=design.Z.device)
    theta[plain, -1] = _ONE_CLASS_LOGIT * lean[plain].sign().to(theta)
    out = Fits(theta, torch.zeros_like(plain, dtype=torch.long), plain.clone())
    rest = ~plain
    if bool(rest.any()):
        found = fit_path(design, sign[rest], weight[rest], C[rest], tol=tol, max_iter=max_iter)
        out.theta = out.theta.to(found.theta.dtype)
        out.theta[rest], out.n_iter[rest], out.converged[rest] = found.theta, found.n_iter, found.converged
    return out


class _Path:
    """The walk along C: which problems are solved together, where each starts, and which Hessians it borrows."""

    def __init__(self, design: Design, sign: Tensor, weight: Tensor, C: Tensor, tol: float, max_iter: int) -> None:
        self.design, self.sign, self.weight, self.C = design, sign, weight, C
        self.tol, self.max_iter = tol, max_iter
        # A Hessian costs rounds in proportion to the number of parameters, the more as it outgrows the cache.
        self.patience = max(1.0, design.Z.shape[1] / 600) ** 1.5
        B = C.numel()
        zero = torch.zeros(B, dtype=torch.long, device=C.device)
        self.fits = Fits(design.Z.new_zeros(B, design.Z.shape[1]), zero, zero > 0)
        self.hessians: Hessians | None = None
        self.sharing = len(C) > 1
        self.n_series = 0  # set by `walk`
        self.owners: list[int] = []  # whose Hessians they are: the first problem of each series

    def walk(self) -> None:
        """Solve everything: easy values of C many at once; where rounds are many, one by one with Hessians."""
        series = _series(self.sign * self.weight, self.C)
        self.n_series, length = len(series), max(len(one) for one in series)
        narrow = len(series) <= _NARROW
        first, step = 0, -(-length // 2)
        while first < length:
            members = [one for one in series if len(one) > first]
            wave = torch.tensor([b for one in members for b in one[first : first + step]], device=self.C.device)
            parts = [self._start(one, first, min(first + step, len(one))) for one in members] if first else None
            start = None if parts is None else torch.cat(parts)
            rounds = self._minimise(
                wave, start, None, round(_PATIENCE_WITHOUT * self.patience) if narrow else self.max_iter
            )
            if narrow and not bool(self.fits.converged[wave].all()):
                break
            first += step
            step = length if rounds < _EASY_ROUNDS else 1
        rounds = 0
        for rank in range(first, length):
            left = [one for one in series if len(one) > rank and not bool(self.fits.converged[one[rank]])]
            if left:
                wave = torch.tensor([one[rank] for one in left], device=self.C.device)
                start = torch.cat([self._start(one, rank, rank + 1) for one in left])
                rounds = self.solve_narrow(
                    wave, start, [one[0] for one in left], rounds > _STALE_ROUNDS * self.patience
                )

    def _start(self, one: list[int], first: int, last: int) -> Tensor:
        """Where the members first…last of a series start: on the line in log C through the last two solutions.

        On separable data the parameters grow with log C, and elsewhere they settle, so the line is a good guess.
        """
        theta = self.fits.theta
        if first < 2:
            return theta[one[max(0, first - 1)]].expand(last - first, -1)
        older, newer = theta[one[first - 2]], theta[one[first - 1]]
        log_C = self.C[one].log()
        gap = (log_C[first - 1] - log_C[first - 2]).clamp_min(1e-12)
        ahead = ((log_C[first:last] - log_C[first - 1]) / gap).clamp_max(2.0).to(theta)
        return newer + ahead[:, None] * (newer - older)

    def solve_narrow(self, wave: Tensor, start: Tensor, owners: list[int], renew: bool) -> int:
        """Few problems: with the mean of their Hessians while that serves, else each with its own.

        Hessians are kept for the next value of C, whose problems want nearly the same up to a factor.
        """
        fits, P = self.fits, self.design.Z.shape[1]
        before = int(fits.n_iter[wave].max())
        fits.theta[wave], fits.converged[wave] = start, False
        if self.hessians is not None and not renew and (self.sharing or self.owners == owners):
            self._minimise(wave, start, self.hessians, round(_PATIENCE_WITH * self.patience))
        while True:
            left = wave[~fits.converged[wave]]
            if left.numel() > 0:
                start = fits.theta[left]
                shared = self.sharing or left.numel() * P * P > _HESSIAN_ELEMENTS
                hessians = self._problems(left, start).hessians(start, shared=shared)
                # The mean of some series alone would mislead the next value of C, which all of them take.
                if left.numel() == wave.numel() and (not shared or left.numel() == self.n_series):
                    self.hessians, self.owners = hessians, owners
                patience = round((_PATIENCE_SHARED if shared else _PATIENCE_WITH) * self.patience)
                rounds = self._minimise(left, start, hessians, patience)
            # One round is no step: the rest is rounding, which float64 may settle, or max_iter is used up.
            if left.numel() == 0 or rounds <= 1:
                return int(fits.n_iter[wave].max()) - before
            if self.sharing and rounds >= patience:
                self.sharing, self.hessians = False, None

    def _problems(self, which: Tensor, start: Tensor | None) -> Problems:
        return Problems(self.design, self.sign[which], self.weight[which], self.C[which], start)

    def _minimise(self, which: Tensor, start: Tensor | None, hessians: Hessians | None, patience: int) -> int:
        """At most `patience` rounds on the problems `which`, in chunks; returns the most that one of them took.

        `start` is None at zero.
        """
        patience = min(patience, self.max_iter - int(self.fits.n_iter[which].max()))
        if patience < 2:  # a step takes two evaluations
            return 0
        elements = _CHUNK_ELEMENTS if which.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
        size = max(_NARROW, elements // max(1, self.design.Z.shape[0]))
        most = 0
        for k in range(0, which.numel(), size):
            chunk = which[k : k + size]
            near = None if start is None else start[k : k + size]
            problems = self._problems(chunk, near)
            problems.hessian = hessians
            scale = problems.scale
            x = torch.zeros_like(scale) if near is None else near / scale
            noise = 1e-6 if scale.dtype == torch.float32 else 1e-14
            found = minimise(problems, x, tol=self.tol, max_iter=patience, noise=noise, rescale=hessians is None)
            self.fits.theta[chunk] = found.x * scale
            self.fits.n_iter[chunk] += found.n_iter
            self.fits.converged[chunk] = found.converged
            most = max(most, int(found.n_iter.max()))
        return most

    def finish(self, todo: Tensor) -> None:
        """Go on from the present parameters until the problems of the mask `todo` are solved, if they can be."""
        self.fits.converged[todo] = False
        for value in torch.unique(self.C[todo]).tolist():
            wave = (todo & (value == self.C)).nonzero()[:, 0]
            start = self.fits.theta[wave]
            if wave.numel() <= _NARROW:
                self.solve_narrow(wave, start, [], renew=True)
            else:
                self._minimise(wave, start, None, self.max_iter)


def _series(values_BN: Tensor, C_B: Tensor) -> list[list[int]]:
    """Problems with equal rows of `values`, each series by ascending C."""
    # The rows themselves are the keys: those of a product with them would differ by rounding, as equal rows may stand
    # in different blocks of it.
    rows = (values_BN + 0.0).cpu().numpy()  # -0 and 0 are equal
    series: dict[bytes, list[int]] = {}
    for problem in torch.argsort(C_B, stable=True).tolist():
        series.setdefault(rows[problem].tobytes(), []).append(problem)
    return list(series.values())


def _finish(
    design: Design, sign: Tensor, weight: Tensor, C: Tensor, fits: Fits, todo: Tensor, tol: float, max_iter: int
) -> Fits:
    """Go on in float64 with the problems of the mask `todo`."""
    if not bool(todo.any()):
        return fits
    path = _Path(design.double(), sign.double(), weight.double(), C, tol, max_iter)
    path.fits = Fits(fits.theta.double(), fits.n_iter, fits.converged.clone())
    path.finish(todo)
    return path.fits
