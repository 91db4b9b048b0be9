"""How far a solution is from its minimum at least: Newton's decrement from below, by conjugate gradients.

L-BFGS stops by the decrement g'Hg, H being near the inverse Hessian where it started. A few rows that are a
thousand times larger than the rest rule that matrix, and cease to curve the loss once they stand on their right
side: then H is far too small, and a point far from the minimum looks finished. With f the objective, ½ g'F⁻¹g
(F the Hessian at the point itself) tells; conjugate gradients approach it from below, in few steps where the
preconditioner is wrong in few directions.

Shapes: N rows, P parameters, B problems, in the objective Σ_i a_bi log(1 + exp(−s_bi z_i · θ_b)) + ½ Σ_p r_bp θ_bp².
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, linalg
from torch.nn.functional import softplus

_STEPS = 6
_DOUBT = 10.0  # times the tolerance: what the usual test is right about


def doubtful(
    Z: Tensor,
    weight: Tensor,
    minus_sign: Tensor,
    ridge: Tensor,
    theta: Tensor,
    preconditioner: Callable[[Tensor], Callable[[Tensor], Tensor]],
    tol: float,
) -> Tensor:
    """(B,) whether a point's relative distance from the minimum is surely more than about `tol`.

    Args:
        Z: (N, P).
        weight: (B, N) a.
        minus_sign: (B, N) −s.
        ridge: (B, P) r.
        theta: (B, P) the points.
        preconditioner: from curvatures (B, N): how a residual (B, P) is multiplied by a positive definite matrix.
        tol: relative distance of the objective.
    """
    margin = torch.mm(theta, Z.T).mul_(minus_sign)
    objective = linalg.vecdot(softplus(margin), weight) + 0.5 * linalg.vecdot(ridge * theta, theta)
    p = margin.sigmoid_()
    curvature = p * (1 - p) * weight
    residual = torch.addmm(ridge * theta, p.mul_(weight).mul_(minus_sign), Z)
    allowed = _DOUBT * tol * objective
    # The penalty alone bounds the distance from above by ½ Σ g² / r, but for the intercept, which has its curvature.
    floor = torch.where(ridge > 0, ridge, curvature.sum(1, keepdim=True)).clamp_min(1e-30)
    doubted: Tensor = 0.5 * (residual.square() / floor).sum(1) > allowed
    if bool(doubted.any()):
        curvature, ridge, residual = curvature[doubted], ridge[doubted], residual[doubted]
        decrement = _decrement(Z, curvature, ridge, residual, preconditioner(curvature))
        doubted[doubted.clone()] = 0.5 * decrement > allowed[doubted]
    return doubted


def _decrement(
    Z: Tensor,
    curvature: Tensor,
    ridge: Tensor,
    residual: Tensor,
    precondition: Callable[[Tensor], Tensor],
) -> Tensor:
    """(B,) g'F⁻¹g from below, g being the `residual` at the start."""
    pointing = precondition(residual)
    direction, power = pointing, linalg.vecdot(residual, pointing)
    decrement = torch.zeros_like(power)
    for _ in range(_STEPS):
        image = torch.addmm(ridge * direction, (direction @ Z.T).mul_(curvature), Z)
        length = (power / linalg.vecdot(direction, image)).nan_to_num(0.0, 0.0, 0.0)
        decrement += length * power
        residual = residual - length[:, None] * image
        pointing = precondition(residual)
        before, power = power, linalg.vecdot(residual, pointing)
        direction = pointing + (power / before).nan_to_num(0.0, 0.0, 0.0)[:, None] * direction
    return decrement
