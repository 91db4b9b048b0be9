"""L2-regularised multinomial logistic regression on a `Design`, several label vectors at once.

Problem b minimises over (W, c), one row w_k and one intercept c_k for each of K classes,

    ½ Σ_k ‖w_k‖² + C_b Σ_i a_ib (log Σ_k exp(x_i · w_k + c_k) - (x_i · w_y + c_y)),   y the class of example i,

which is scikit-learn's objective for more than two classes; intercepts are not penalised, and since only their
differences matter they are given with mean 0.

Shapes: N examples, P rotated parameters (the intercept last), K classes, B problems.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, linalg

from concept_depth.probing.design import Design
from concept_depth.probing.lbfgs import minimise

_SINGLE_TOL = 1e-7
# L-BFGS stops by a decrement that its own few pairs estimate; at weak penalties it is far too small. What conjugate
# gradients find on the Hessian itself is a lower bound of the distance, and where it shows a point to be this many
# tolerances above its minimum, the search goes on, up to so many times, each with a tolerance 30 times smaller.
_DOUBT, _CG_STEPS, _ROUNDS, _TIGHTER = 5.0, 25, 4, 1 / 30


class _Multinomial:
    """The objective, in coordinates scaled so that the Hessians' diagonals are about 1."""

    def __init__(self, design: Design, labels_BN: Tensor, cost_BN: Tensor, n_classes: int) -> None:
        self.Z, self.Z_T, self.labels, self.cost, self.K = design.Z, design.Z.T, labels_BN, cost_BN, n_classes
        penalty = torch.ones_like(design.squares)
        penalty[-1] = 0.0
        # At equal probabilities a class's logit bears the curvature (1 - 1/K) / K.
        curvature = (
            (1 - 1 / n_classes) / n_classes * cost_BN.mean(1, dtype=torch.float64)[:, None] * design.squares
        )
        self.penalty = penalty.to(self.Z)
        self.scale = (penalty + curvature).clamp_min(1e-300).rsqrt().clamp_max(1e30).to(self.Z)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Objective in float64 and gradient at scaled parameters (B, K·P)."""
        B, P = self.scale.shape
        theta_BKP = x.reshape(B, self.K, P) * self.scale[:, None]
        logits_BKN = torch.mm(theta_BKP.reshape(-1, P), self.Z_T).reshape(B, self.K, -1)
        log_p = logits_BKN.log_softmax(1)
        index = self.labels[:, None]
        loss = -linalg.vecdot(log_p.gather(1, index)[:, 0], self.cost)
        penalised = theta_BKP * self.penalty
        objective = loss.double() + 0.5 * (penalised * theta_BKP).sum((1, 2)).double()
        pull = log_p.exp_()
        pull.scatter_add_(1, index, -torch.ones_like(index, dtype=pull.dtype))
        pull *= self.cost[:, None]
        gradient = torch.mm(pull.reshape(B * self.K, -1), self.Z).reshape(B, self.K, P) + penalised
        return objective, (gradient * self.scale[:, None]).reshape(B, -1)

    def curvature(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The product of the Hessian at x with directions, both (B, K·P)."""
        B, P = self.scale.shape
        theta_BKP = x.reshape(B, self.K, P) * self.scale[:, None]
        p_BKN = torch.mm(theta_BKP.reshape(-1, P), self.Z_T).reshape(B, self.K, -1).softmax(1)

        def times(v: Tensor) -> Tensor:
            v_BKP = v.reshape(B, self.K, P) * self.scale[:, None]
            moved = torch.mm(v_BKP.reshape(-1, P), self.Z_T).reshape(B, self.K, -1)
            moved = p_BKN * (moved - (p_BKN * moved).sum(1, keepdim=True)) * self.cost[:, None]
            image = torch.mm(moved.reshape(B * self.K, -1), self.Z).reshape(B, self.K, P) + self.penalty * v_BKP
            return (image * self.scale[:, None]).reshape(B, -1)

        return times

    def doubtful(self, x: Tensor, tol: float) -> Tensor:
        """(B,) whether points are surely more than a few `tol` above their minima, relative to the objectives."""
        objective, residual = self.evaluate(x)
        times, direction = self.curvature(x), residual
        power = linalg.vecdot(residual, residual)
        decrement = torch.zeros_like(power)
        for _ in range(_CG_STEPS):
            image = times(direction)
            length = (power / linalg.vecdot(direction, image)).nan_to_num(0.0, 0.0, 0.0)
            decrement += length * power
            residual = residual - length[:, None] * image
            before, power = power, linalg.vecdot(residual, residual)
            direction = residual + (power / before).nan_to_num(0.0, 0.0, 0.0)[:, None] * direction
        doubted: Tensor = 0.5 * decrement > _DOUBT * tol * objective
        return doubted

    def precondition(self, g: Tensor) -> Tensor:
        """The scaling is all."""
        return g

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""
        self.labels, self.cost, self.scale = self.labels[mask], self.cost[mask], self.scale[mask]


def fit_multinomial(
    design: Design,
    labels_BN: Tensor,
    weight_BN: Tensor,
    C_B: Tensor,
    *,
    n_classes: int,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve B multinomial problems on one design.

    Args:
        design: the prepared matrix.
        labels_BN: class indices 0 … K − 1, int64.
        weight_BN: weights of the examples.
        C_B: float64.
        n_classes: K.
        tol: relative distance of the objectives from their minima.
        max_iter: most evaluations per problem, precision and round.

    Returns:
        theta (B, K, P) in rotated coordinates, float64 where float32 did not suffice; evaluations (B,);
        convergence (B,).
    """
    B, P = C_B.numel(), design.Z.shape[1]
    single = design.Z.dtype == torch.float32
    theta = torch.zeros(B, n_classes, P, dtype=design.Z.dtype, device=design.Z.device)
    problems = _Multinomial(design, labels_BN, weight_BN * C_B[:, None].to(weight_BN), n_classes)
    scale = problems.scale[:, None]
    first_tol = max(tol, _SINGLE_TOL) if single else tol
    found = minimise(
        problems, theta.reshape(B, -1), tol=first_tol, max_iter=max_iter, noise=1e-6 if single else 1e-14
    )
    theta = found.x.reshape(theta.shape) * scale
    n_iter, converged = found.n_iter, found.converged
    fine, fine_weight = (design.double(), weight_BN.double()) if single else (design, weight_BN)
    again = torch.ones(B, dtype=torch.bool, device=theta.device)
    if single and tol >= _SINGLE_TOL:
        again = ~converged
    if not bool(again.all()):
        again |= _doubted(fine, labels_BN, fine_weight * C_B[:, None], n_classes, theta, tol)
    for number in range(_ROUNDS if bool(again.any()) else 0):
        cost = fine_weight[again] * C_B[again, None]
        problems = _Multinomial(fine, labels_BN[again], cost, n_classes)
        scale = problems.scale[:, None]
        start = (theta[again].double() / scale).reshape(len(cost), -1)
        tighter = tol * _TIGHTER**number
        found = minimise(problems, start, tol=tighter, max_iter=max_iter, noise=1e-14)
        theta = theta.double()
        theta[again] = found.x.reshape(len(cost), n_classes, P) * scale
        n_iter[again] += found.n_iter
        doubted = _doubted(fine, labels_BN[again], cost, n_classes, theta[again], tol)
        converged[again] = found.converged & ~doubted
        again[again.clone()] = doubted
        if not bool(again.any()):
            break
    theta[..., -1] -= theta[..., -1].mean(1, keepdim=True)
    return theta, n_iter, converged


def _doubted(
    design: Design, labels_BN: Tensor, cost_BN: Tensor, n_classes: int, theta_BKP: Tensor, tol: float
) -> Tensor:
    problems = _Multinomial(design, labels_BN, cost_BN, n_classes)
    x = (theta_BKP.to(problems.scale) / problems.scale[:, None]).reshape(len(cost_BN), -1)
    return problems.doubtful(x, tol)
