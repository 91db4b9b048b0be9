"""L2-regularised logistic regression, solved for many problems that share one matrix at once.

Problem b minimises over (w, c), with s_i = 2 y_ib - 1,

    ½ ‖w‖² + C_b Σ_i a_ib log(1 + exp(-s_i (x_i · w + c))),

which is scikit-learn's objective; the intercept c is not penalised and a_ib is the weight of example i (0: the row
is not part of problem b, exactly as if it were absent). No scaling happens here.

How: one rotation per matrix makes the Hessians of all problems nearly diagonal (`design.py`); in that basis
batched L-BFGS (`lbfgs.py`) needs few rounds, and a round is two matrix products for all of them together. Problems
that differ in C alone are solved from the smallest C upwards, each starting on the line through the last two
solutions; where rounds are many, the few problems of one C (the folds) are preconditioned by the mean of their
Hessians, or by each its own. float32 does the bulk; problems that need more digits are finished in float64.

Shapes: N examples, D features, R rotated features (min(N, D)), B problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concept_depth.errors import InputError
from concept_depth.probing.design import Design, Hessians, Problems, eigenvectors
from concept_depth.probing.lbfgs import minimise
from concept_depth.probing.multinomial import fit_multinomial

_CHUNK_ELEMENTS = 1 << 20  # logits held at once, so that they stay in the processor's cache
_SINGLE_TOL = 1e-7  # what float32 can tell apart
_EASY_ROUNDS = 10  # rounds of one wave below which all the rest is solved in the next
_NARROW = 12  # so few problems leave the processor idle, so that Hessians of their own cost little
_PATIENCE_WITHOUT = 20  # rounds after which narrow waves get Hessians
_PATIENCE_SHARED = 20  # rounds after which a shared Hessian gives way to their own
_PATIENCE_WITH = 15  # rounds after which they get new ones
_HESSIAN_ELEMENTS = 1 << 27  # what Hessians of their own may hold
_STALE_ROUNDS = 10  # rounds of the previous wave from which Hessians are not used again


@dataclass(frozen=True, eq=False)
class LogisticSolution:
    """Solutions of B problems; numpy arrays if X was one, else tensors on X's device.

    Attributes:
        coef: (D, B) weights of the features.
        intercept: (B,).
        objective: (B,) float64, of the written objective.
        grad_norm: (B,) float64, largest entry of the gradient of objective / (C Σ a), as scikit-learn has it.
        n_iter: (B,) evaluations of objective and gradient.
        converged: (B,) whether the tolerance was reached.
    """

    coef: Any
    intercept: Any
    objective: Any
    grad_norm: Any
    n_iter: Any
    converged: Any


def solve_logistic(
    X: Any,
    Y: Any,
    *,
    C: Any = 1.0,
    sample_weight: Any = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    rotation: Any = None,
    device: Any = None,
    n_classes: int = 2,
) -> LogisticSolution:
    """Solve B logistic regressions that share the rows of X.

    To standardise per fold, give each fold's own standardised rows in a call of their own, all its label vectors
    and values of C in one batch, and pass the layer's `rotation` (`rotation_of`): a rotation leaves the penalty
    as it is, so it costs no exactness, and no fold pays for a decomposition of its own.

    Args:
        X: (N, D) array or tensor; float32 or float64 (float16 and bfloat16 are computed in float32).
        Y: (N, B) or (N,) labels in {0, 1}; entries of rows with weight 0 are ignored.
        C: (B,) or one number; inverse penalty, > 0.
        sample_weight: (N, B) or (N,), non-negative; None is all ones.
        tol: relative distance of the objective from its minimum at which a problem counts as solved.
        max_iter: most evaluations per problem.
        rotation: (D, D) orthogonal matrix whose columns nearly diagonalise X'X; None computes it.
        device: where to compute; None is X's own device (CPU for arrays).
        n_classes: K; above 2, Y holds class indices 0 … K − 1 and the objective is the multinomial one
            (`multinomial.py`): coef is (D, B, K) and intercept (B, K).

    Returns:
        The solutions, in the order of the columns of Y.

    Raises:
        InputError: shapes disagree, labels are not 0 or 1, weights are negative, C is not positive, X not finite.
    """
    as_numpy = not isinstance(X, Tensor)
    X_ND = torch.as_tensor(X, device=device)
    if X_ND.dtype not in (torch.float32, torch.float64):
        X_ND = X_ND.float()
    Y_BN, weight_BN, C_B = _checked(X_ND, Y, C, sample_weight, n_classes)
    design = Design.of(X_ND, None if rotation is None else torch.as_tensor(rotation))
    if n_classes > 2:
        many = fit_multinomial(
            design, Y_BN.long(), weight_BN, C_B, n_classes=n_classes, tol=tol, max_iter=max_iter
        )
        values = _many_in_features(design, Y_BN.long(), weight_BN, C_B, *many)
    else:
        fits = fit_path(design, 2 * Y_BN - 1, weight_BN, C_B, tol=tol, max_iter=max_iter)
        values = _in_features(design, 2 * Y_BN - 1, weight_BN, C_B, fits)
    if as_numpy:
        return LogisticSolution(*(value.cpu().numpy() for value in values))
    return LogisticSolution(*values)


def rotation_of(X: Any) -> Any:
    """The (D, D) eigenvectors of X's centred Gram matrix: a rotation for `solve_logistic` on X or on parts of it.

    Args:
        X: (N, D) array or tensor; may be standardised otherwise than the parts will be.

    Returns:
        An orthogonal matrix of X's kind and dtype.
    """
    V = eigenvectors(torch.as_tensor(X))
    return V if isinstance(X, Tensor) else V.numpy()


def _checked(X: Tensor, Y: Any, C: Any, sample_weight: Any, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, N), weights (B, N) in X's dtype, and C (B,) float64."""
    if X.ndim != 2 or not torch.isfinite(X).all():
        raise InputError(
            f"X must be a finite (n, d) matrix; got shape {tuple(X.shape)}, or it holds NaN or infinity"
        )
    Y_BN = torch.as_tensor(np.asarray(Y) if not isinstance(Y, Tensor) else Y, device=X.device)
    Y_BN = (Y_BN[:, None] if Y_BN.ndim == 1 else Y_BN).T.to(X.dtype)
    if Y_BN.shape[1] != X.shape[0]:
        raise InputError(f"Y has {Y_BN.shape[1]} rows and X has {X.shape[0]}; give one row of labels per row of X")
    C_B = torch.as_tensor(C, dtype=torch.float64, device=X.device).reshape(-1).expand(Y_BN.shape[0])
    if sample_weight is None:
        weight_BN = torch.ones((1, 1), dtype=X.dtype, device=X.device).expand(Y_BN.shape)
    else:
        weight = torch.as_tensor(sample_weight, device=X.device).to(X.dtype)
        weight_BN = (weight[:, None] if weight.ndim == 1 else weight).T.expand(Y_BN.shape)
    if not bool((C_B > 0).all() and torch.isfinite(C_B).all()):
        raise InputError("every C must be a positive finite number; give C=1.0, for instance")
    if not bool((weight_BN >= 0).all() and torch.isfinite(weight_BN).all()):
        raise InputError("sample weights must be finite and not negative; use 0 to leave a row out")
    Y_BN = torch.where(weight_BN > 0, Y_BN, 0.0)
    classes = torch.arange(n_classes, dtype=X.dtype, device=X.device)
    if not bool(torch.isin(Y_BN, classes).all()):
        allowed = "0 or 1" if n_classes == 2 else f"0 … {n_classes - 1}"
        raise InputError(f"labels must be {allowed}; encode other labels first, or use LogisticProbe")
    return Y_BN, weight_BN, C_B


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
    single = design.Z.dtype == torch.float32
    path = _Path(design, sign_BN, weight_BN, C_B, max(tol, _SINGLE_TOL) if single else tol, max_iter)
    path.walk()
    return _polish(design, sign_BN, weight_BN, C_B, path.fits, tol, max_iter) if single else path.fits


class _Path:
    """The walk along C: which problems are solved together, where each starts, and which Hessians it borrows."""

    def __init__(self, design: Design, sign: Tensor, weight: Tensor, C: Tensor, tol: float, max_iter: int) -> None:
        self.design, self.sign, self.weight, self.C = design, sign, weight, C
        self.tol, self.max_iter = tol, max_iter
        B = C.numel()
        zero = torch.zeros(B, dtype=torch.long, device=C.device)
        self.fits = Fits(design.Z.new_zeros(B, design.Z.shape[1]), zero, zero > 0)
        self.hessians: Hessians | None = None
        self.sharing = len(C) > 1
        self.owners: list[int] = []  # whose Hessians they are: the first problem of each series

    def walk(self) -> None:
        """Solve everything: easy values of C many at once; where rounds are many, one by one with Hessians."""
        series = _series(self.sign * self.weight, self.C)
        length = max(len(one) for one in series)
        narrow = len(series) <= _NARROW
        first, step = 0, -(-length // 2)
        while first < length:
            members = [one for one in series if len(one) > first]
            wave = torch.tensor([b for one in members for b in one[first : first + step]], device=self.C.device)
            parts = [self._start(one, first, min(first + step, len(one))) for one in members] if first else None
            start = None if parts is None else torch.cat(parts)
            rounds = self._minimise(wave, start, None, _PATIENCE_WITHOUT if narrow else self.max_iter)
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
                rounds = self.solve_narrow(wave, start, [one[0] for one in left], rounds > _STALE_ROUNDS)

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
            self._minimise(wave, start, self.hessians, _PATIENCE_WITH)
        while True:
            left = wave[~fits.converged[wave]]
            if left.numel() > 0:
                start = fits.theta[left]
                shared = self.sharing or left.numel() * P * P > _HESSIAN_ELEMENTS
                hessians = self._problems(left, start).hessians(start, shared=shared)
                if left.numel() == wave.numel():
                    self.hessians, self.owners = hessians, owners
                patience = _PATIENCE_SHARED if shared else _PATIENCE_WITH
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
        size = max(_NARROW, _CHUNK_ELEMENTS // max(1, self.design.Z.shape[0]))
        most = 0
        for k in range(0, which.numel(), size):
            chunk = which[k : k + size]
            near = None if start is None else start[k : k + size]
            problems = self._problems(chunk, near)
            problems.hessian = hessians
            scale = problems.scale
            x = torch.zeros_like(scale) if near is None else near / scale
            noise = 1e-6 if scale.dtype == torch.float32 else 1e-14
            found = minimise(problems, x, tol=self.tol, max_iter=patience, noise=noise)
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
    """Problems with equal rows of `values`, each series by ascending C; rows are told apart by a projection."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(values_BN.shape[1], dtype=torch.float64, generator=generator).to(values_BN.device)
    keys = (values_BN.double() @ mix).tolist()
    series: dict[float, list[int]] = {}
    for problem in torch.argsort(C_B, stable=True).tolist():
        series.setdefault(keys[problem], []).append(problem)
    return list(series.values())


def _polish(
    design: Design, sign: Tensor, weight: Tensor, C: Tensor, fits: Fits, tol: float, max_iter: int
) -> Fits:
    """Finish in float64 what float32 could not."""
    todo = torch.ones_like(fits.converged) if tol < _SINGLE_TOL else ~fits.converged
    if not bool(todo.any()):
        return fits
    path = _Path(design.double(), sign.double(), weight.double(), C, tol, max_iter)
    path.fits = Fits(fits.theta.double(), fits.n_iter, fits.converged)
    path.finish(todo)
    return path.fits


def _in_features(design: Design, sign: Tensor, weight: Tensor, C: Tensor, fits: Fits) -> list[Tensor]:
    """The fields of `LogisticSolution`; objective and gradient in float64 on X itself."""
    coef, intercept = design.to_features(fits.theta)
    X, sign, weight = design.X.double(), sign.double(), weight.double()
    margin = sign * (coef @ X.T + intercept[:, None])
    objective = 0.5 * coef.square().sum(1) + C * (weight * torch.nn.functional.softplus(-margin)).sum(1)
    pull = -C[:, None] * weight * sign * torch.sigmoid(-margin)
    grad = torch.cat([coef + pull @ X, pull.sum(1, keepdim=True)], 1)
    grad_norm = grad.abs().amax(1) / (C * weight.sum(1)).clamp_min(1e-300)
    dtype = design.X.dtype
    return [coef.T.contiguous().to(dtype), intercept.to(dtype), objective, grad_norm, fits.n_iter, fits.converged]


def _many_in_features(
    design: Design, labels: Tensor, weight: Tensor, C: Tensor, theta: Tensor, n_iter: Tensor, converged: Tensor
) -> list[Tensor]:
    """The fields of `LogisticSolution` for more than two classes."""
    B, K, P = theta.shape
    flat, offset = design.to_features(theta.reshape(B * K, P))
    coef, intercept = flat.reshape(B, K, -1), offset.reshape(B, K)
    X, cost = design.X.double(), weight.double() * C[:, None]
    log_p = (coef @ X.T + intercept[:, :, None]).log_softmax(1)
    index = labels[:, None]
    objective = 0.5 * coef.square().sum((1, 2)) - (cost * log_p.gather(1, index)[:, 0]).sum(1)
    pull = log_p.exp().scatter_add(1, index, -torch.ones_like(index, dtype=torch.float64)) * cost[:, None]
    grad = torch.cat([coef + pull @ X, pull.sum(2, keepdim=True)], 2)
    grad_norm = grad.abs().amax((1, 2)) / cost.sum(1).clamp_min(1e-300)
    dtype = design.X.dtype
    return [
        coef.permute(2, 0, 1).contiguous().to(dtype),
        intercept.to(dtype),
        objective,
        grad_norm,
        n_iter,
        converged,
    ]
