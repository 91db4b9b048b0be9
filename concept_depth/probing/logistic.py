"""L2-regularised logistic regression, solved for many problems that share one matrix at once.

Problem b minimises over (w, c), with s_i = 2 y_ib - 1,

    ½ ‖w‖² + C_b Σ_i a_ib log(1 + exp(-s_i (x_i · w + c))),

which is scikit-learn's objective; the intercept c is not penalised and a_ib is the weight of example i (0: the row
is not part of problem b, exactly as if it were absent). No scaling happens here.

How: one rotation V per matrix (the eigenvectors of its Gram matrix; of the examples' row space where there are
more features than examples) makes the Hessians of all problems nearly diagonal. In that basis, scaled by
1/sqrt(1 + C a s²/4), batched L-BFGS (`lbfgs.py`) needs few rounds, and a round is two matrix products for all
problems together. float32 does the bulk; problems that need more digits are finished in float64.

Shapes: N examples, D features, R rotated features (min(N, D)), B problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concept_depth.errors import InputError
from concept_depth.probing.lbfgs import Minimum, minimise

_CHUNK_ELEMENTS = 1 << 22  # logits held at once: larger batches are solved in chunks


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

    Returns:
        The solutions, in the order of the columns of Y.

    Raises:
        InputError: shapes disagree, labels are not 0 or 1, weights are negative, C is not positive, X not finite.
    """
    as_numpy = not isinstance(X, Tensor)
    X_ND = torch.as_tensor(X, device=device)
    if X_ND.dtype not in (torch.float32, torch.float64):
        X_ND = X_ND.float()
    Y_BN, weight_BN, C_B = _checked(X_ND, Y, C, sample_weight)
    fits = []
    basis = _Basis.of(X_ND, rotation)
    step = max(1, _CHUNK_ELEMENTS // max(1, X_ND.shape[0]))
    for start in range(0, C_B.numel(), step):
        part = slice(start, start + step)
        fits.append(_Problems(basis, Y_BN[part], weight_BN[part], C_B[part]).solve(tol, max_iter))
    merged = [torch.cat([fit[k] for fit in fits]) for k in range(6)]
    coef, intercept, objective, grad_norm, n_iter, converged = merged
    values = [coef.T.contiguous(), intercept, objective, grad_norm, n_iter, converged]
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
    X_ND = torch.as_tensor(X)
    centred = X_ND - X_ND.mean(0)
    V = torch.linalg.eigh(centred.T @ centred)[1]
    return V if isinstance(X, Tensor) else V.numpy()


def _checked(X: Tensor, Y: Any, C: Any, sample_weight: Any) -> tuple[Tensor, Tensor, Tensor]:
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
    if not bool(((Y_BN == 0) | (Y_BN == 1)).all()):
        raise InputError("labels must be 0 or 1; encode other labels first, or use LogisticProbe")
    return Y_BN, weight_BN, C_B


@dataclass(frozen=True, eq=False)
class _Basis:
    """X in rotated coordinates: X - mean = Z V', with s² the squared singular values."""

    X_ND: Tensor
    offset: Tensor
    V_DR: Tensor
    Z_NR: Tensor
    squares: Tensor

    @staticmethod
    def of(X_ND: Tensor, rotation: Any) -> _Basis:
        N, D = X_ND.shape
        offset = X_ND.mean(0)
        centred = X_ND - offset
        if rotation is not None:
            V = torch.as_tensor(rotation, dtype=X_ND.dtype, device=X_ND.device)
        elif N < D:
            Q, _ = torch.linalg.qr(centred.T)
            small = centred @ Q
            V = Q @ torch.linalg.eigh(small.T @ small)[1]
        else:
            V = torch.linalg.eigh(centred.T @ centred)[1]
        Z = centred @ V
        return _Basis(X_ND, offset, V, Z, (Z * Z).sum(0))

    def double(self) -> _Basis:
        """The same rotation, with the coordinates computed in float64."""
        X, V = self.X_ND.double(), self.V_DR.double()
        mean = X.mean(0)
        Z = (X - mean) @ V
        return _Basis(X, mean, V, Z, (Z * Z).sum(0))


class _Problems:
    """A chunk of problems in one basis."""

    def __init__(self, basis: _Basis, Y_BN: Tensor, weight_BN: Tensor, C_B: Tensor) -> None:
        self.basis, self.C_B = basis, C_B
        self.sign_BN = 2 * Y_BN - 1
        self.weight_BN = weight_BN
        self.total_B = weight_BN.sum(1, dtype=torch.float64)

    def solve(self, tol: float, max_iter: int) -> tuple[Tensor, ...]:
        basis = self.basis
        start = torch.zeros(
            self.C_B.numel(), basis.Z_NR.shape[1] + 1, dtype=basis.Z_NR.dtype, device=self.C_B.device
        )
        wanted = tol
        single = basis.Z_NR.dtype == torch.float32
        scale = self._scale(0.25)
        result = self._minimise(basis, start, scale, max(wanted, 1e-7) if single else wanted, max_iter)
        theta = (result.x * scale).double()
        n_iter, converged = result.n_iter.long(), result.converged.clone()
        if single and (wanted < 1e-7 or not bool(converged.all())):
            todo = (~converged if wanted >= 1e-7 else torch.ones_like(converged)).nonzero()[:, 0]
            rest = _Problems(basis.double(), (self.sign_BN[todo].double() + 1) / 2, self.weight_BN[todo].double(),
                             self.C_B[todo])  # fmt: skip
            scale64 = rest._scale(0.25)
            more = rest._minimise(rest.basis, theta[todo] / scale64, scale64, wanted, max_iter)
            theta[todo] = more.x * scale64
            n_iter[todo] += more.n_iter.long()
            converged[todo] = more.converged
        return self._finish(theta, n_iter, converged)

    def _scale(self, curvature: float) -> Tensor:
        """(B, R + 1): 1 / sqrt of the Hessian's diagonal, where the loss curves by `curvature` per example."""
        share_B = self.C_B * self.total_B / self.basis.Z_NR.shape[0]
        w = 1 / torch.sqrt(1 + curvature * share_B[:, None] * self.basis.squares.double())
        c = 1 / torch.sqrt((curvature * self.C_B * self.total_B).clamp_min(1e-300))
        return torch.cat([w, c[:, None]], 1).to(self.basis.Z_NR.dtype)

    def _minimise(self, basis: _Basis, start: Tensor, scale: Tensor, tol: float, max_iter: int) -> Minimum:
        Z_NR, Z_RN = basis.Z_NR, basis.Z_NR.T

        def evaluate(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            scaled = x * scale[index]
            w, c = scaled[:, :-1], scaled[:, -1:]
            C = self.C_B[index]
            margin = torch.addmm(c, w, Z_RN).mul_(self.sign_BN[index])
            weight = self.weight_BN[index]
            loss = torch.nn.functional.softplus(-margin).mul_(weight).sum(1, dtype=torch.float64)
            pull = torch.sigmoid(-margin).mul_(weight).mul_(self.sign_BN[index]).mul_(-C[:, None].to(x.dtype))
            objective = 0.5 * w.double().square().sum(1) + C * loss
            g = torch.cat([torch.addmm(w, pull, Z_NR), pull.sum(1, keepdim=True)], 1).mul_(scale[index])
            return objective, g

        noise = 1e-6 if _is_single(start) else 1e-14
        return minimise(evaluate, start, tol=tol, max_iter=max_iter, noise=noise)

    def _finish(self, theta: Tensor, n_iter: Tensor, converged: Tensor) -> tuple[Tensor, ...]:
        """Back to the features' coordinates; objective and gradient in float64 on X itself."""
        basis = self.basis
        X = basis.X_ND.double()
        coef = theta[:, :-1] @ basis.V_DR.double().T
        intercept = theta[:, -1] - coef @ X.mean(0)
        sign, weight = self.sign_BN.double(), self.weight_BN.double()
        margin = sign * (coef @ X.T + intercept[:, None])
        objective = 0.5 * coef.square().sum(1) + self.C_B * (weight * torch.nn.functional.softplus(-margin)).sum(1)
        pull = -self.C_B[:, None] * weight * sign * torch.sigmoid(-margin)
        grad = torch.cat([coef + pull @ X, pull.sum(1, keepdim=True)], 1)
        grad_norm = grad.abs().amax(1) / (self.C_B * self.total_B).clamp_min(1e-300)
        dtype = basis.X_ND.dtype
        return coef.to(dtype), intercept.to(dtype), objective, grad_norm, n_iter, converged


def _is_single(x: Tensor) -> bool:
    """Whether `x` is float32."""
    return x.dtype == torch.float32
