"""L2-regularised logistic regression, solved for many problems that share one matrix at once.

Problem b minimises over (w, c), with s_i = 2 y_ib - 1,

    ½ ‖w‖² + C_b Σ_i a_ib log(1 + exp(-s_i (x_i · w + c))),

which is scikit-learn's objective; the intercept c is not penalised and a_ib is the weight of example i (0: the row
is not part of problem b, exactly as if it were absent). No scaling happens here.

How stands in `path.py`: many problems at a time, along C, in coordinates where their Hessians are nearly diagonal.

Shapes: N examples, D features, R rotated features (min(N, D)), B problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concept_depth.errors import InputError
from concept_depth.probing.design import Design, eigenvectors
from concept_depth.probing.multinomial import fit_multinomial
from concept_depth.probing.path import Fits, fit_path

__all__ = ["LogisticSolution", "fit_path", "rotation_of", "solve_logistic"]


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
        rotation: (D, D) orthogonal matrix whose columns nearly diagonalise X'X; None computes a thinner one, which
            is faster where N < D.
        device: where to compute; None is X's own device (CPU for arrays).
        n_classes: K; above 2, Y holds class indices 0 … K − 1 and the objective is the multinomial one
            (`multinomial.py`): coef is (D, B, K) and intercept (B, K).

    Returns:
        The solutions, in the order of the columns of Y. A problem whose rows of positive weight hold a single
        class has no minimum, only the infimum 0: it is given coefficients 0 and an intercept of ±36. Separable
        classes have a minimum at every C, but its weights grow without bound with C.

    Raises:
        InputError: shapes disagree, labels are not 0 or 1, weights are negative, C is not positive, X not finite,
            the rotation is none, or there is no such device.
    """
    _check_effort(tol, max_iter)
    with torch.inference_mode():  # a tenth faster than with autograd's bookkeeping
        X_ND = _matrix(X, device)
        Y_BN, weight_BN, C_B = _checked(X_ND, Y, C, sample_weight, n_classes)
        design = Design.of(X_ND, None if rotation is None else _checked_rotation(X_ND, rotation))
        if n_classes > 2:
            many = fit_multinomial(
                design, Y_BN.long(), weight_BN, C_B, n_classes=n_classes, tol=tol, max_iter=max_iter
            )
            values = _many_in_features(design, Y_BN.long(), weight_BN, C_B, *many)
        else:
            fits = fit_path(design, 2 * Y_BN - 1, weight_BN, C_B, tol=tol, max_iter=max_iter)
            values = _in_features(design, 2 * Y_BN - 1, weight_BN, C_B, fits)
    if not isinstance(X, Tensor):
        return LogisticSolution(*(value.cpu().numpy() for value in values))
    return LogisticSolution(*(value.clone() for value in values))  # a clone may take part in autograd again


def rotation_of(X: Any) -> Any:
    """The (D, D) eigenvectors of X's centred Gram matrix: a rotation for `solve_logistic` on X or on parts of it.

    Args:
        X: (N, D) array or tensor; may be standardised otherwise than the parts will be.

    Returns:
        An orthogonal matrix of X's kind and dtype.
    """
    V = eigenvectors(_matrix(X, None))
    if V.shape[1] < V.shape[0]:
        # Parts standardised otherwise leave the space of the rows, so the basis must be one of the whole space.
        V = torch.cat([V, torch.linalg.qr(V, mode="complete")[0][:, V.shape[1] :]], 1)
    return V if isinstance(X, Tensor) else V.numpy()


def _matrix(X: Any, device: Any) -> Tensor:
    """X as float32 or float64 on the device."""
    try:
        X_ND = torch.as_tensor(X)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"X must be a matrix of numbers ({error})") from error
    try:
        X_ND = X_ND if device is None else X_ND.to(device)
    except (AssertionError, RuntimeError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"device={device!r} cannot be used ({why}); give 'cpu', or leave it out") from error
    return X_ND if X_ND.dtype in (torch.float32, torch.float64) else X_ND.float()


def _numbers(values: Any, name: str, X: Tensor) -> Tensor:
    """What was given as numbers on X's device."""
    try:
        return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values), device=X.device)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers ({error})") from error


def _by_problem(values: Tensor, what: str, B: int, N: int) -> Tensor:
    """(B, N) of what was given as (N, B) or (N,)."""
    columns = values[:, None] if values.ndim == 1 else values
    if columns.ndim != 2 or columns.shape[0] != N or columns.shape[1] not in (1, B):
        raise InputError(
            f"{what} of the shape {tuple(values.shape)} do not fit {N} rows of X and {B} problems; give one row of "
            f"{what} per row of X, ({N},) or ({N}, {B})"
        )
    # Copied, so that a problem's numbers lie side by side: the solver takes and drops whole problems.
    return columns.T.expand(B, N).contiguous()


def _check_effort(tol: Any, max_iter: Any) -> None:
    if not isinstance(tol, Real) or not 0 <= float(tol) < np.inf:
        raise InputError(f"tol={tol!r} is not allowed; give a number of 0 or more, 1e-6 by default")
    if not isinstance(max_iter, Integral) or max_iter < 1:
        raise InputError(
            f"max_iter={max_iter!r} is not allowed; give a whole number of 1 or more, 1000 by default"
        )


def _checked_rotation(X: Tensor, rotation: Any) -> Tensor:
    """The rotation on X's device. A thin basis, or none, would give the optimum of another problem in silence."""
    V, D = _numbers(rotation, "rotation", X).to(X), X.shape[1]
    fine = V.shape == (D, D)
    if fine:
        # V'V r = r for a generic r is as good as V'V = 1, and costs two products with a vector.
        r = torch.randn(D, dtype=X.dtype, generator=torch.Generator().manual_seed(0)).to(X)
        fine = bool(torch.linalg.vector_norm(V.T @ (V @ r) - r) <= 1e-4 * torch.linalg.vector_norm(r))
    if not fine:
        raise InputError(
            f"rotation must be an orthogonal ({D}, {D}) matrix, as rotation_of(X) gives it; got one of the shape "
            f"{tuple(V.shape)}; leave it out to have it computed"
        )
    return V


def _checked(X: Tensor, Y: Any, C: Any, sample_weight: Any, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, N), weights (B, N) in X's dtype, and C (B,) float64."""
    # NaN is passed on by the extremes, which take a tenth of what a test of every number does.
    if X.ndim != 2 or (X.numel() and not torch.isfinite(torch.stack(torch.aminmax(X))).all()):
        raise InputError(
            f"X must be a finite (n, d) matrix; got shape {tuple(X.shape)}, or it holds NaN or infinity"
        )
    labels = _numbers(Y, "Y", X).to(X.dtype)
    B = 1 if labels.ndim < 2 else labels.shape[1]
    Y_BN = _by_problem(labels, "labels", B, X.shape[0])
    C_B = _numbers(C, "C", X).to(torch.float64).reshape(-1)
    if C_B.shape[0] not in (1, B) or not bool((C_B > 0).all() and torch.isfinite(C_B).all()):
        raise InputError(
            f"C must be one positive finite number or {B}, one per column of Y; give C=1.0, for instance"
        )
    weight = torch.ones(X.shape[:1]) if sample_weight is None else _numbers(sample_weight, "sample_weight", X)
    weight_BN = _by_problem(weight.to(X), "weights", B, X.shape[0])
    if not bool((weight_BN >= 0).all() and torch.isfinite(weight_BN).all()):
        raise InputError("sample weights must be finite and not negative; use 0 to leave a row out")
    Y_BN = torch.where(weight_BN > 0, Y_BN, 0.0)
    if not torch.equal(Y_BN.round().clamp(0, n_classes - 1), Y_BN):
        allowed = "0 or 1" if n_classes == 2 else f"0 … {n_classes - 1}"
        raise InputError(f"labels must be {allowed}; encode other labels first, or use LogisticProbe")
    return Y_BN, weight_BN, C_B.expand(B)


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
