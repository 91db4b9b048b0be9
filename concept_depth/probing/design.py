"""A matrix prepared for many fits: rotated so that the Hessians of logistic problems on it are nearly diagonal.

`Problems` are the logistic losses of B label vectors on one `Design`, in the form that `lbfgs.minimise` takes.

Shapes: N examples, D features, P parameters in rotated coordinates (min(N, D), then the intercept), B problems.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, linalg
from torch.nn.functional import softplus


def eigenvectors(X_ND: Tensor) -> Tensor:
    """Orthonormal basis of the centred rows' space, (D, min(N, D)): the principal directions."""
    centred = X_ND - X_ND.mean(0)
    if X_ND.shape[0] >= X_ND.shape[1]:
        gram: Tensor = centred.T @ centred
        return _eigenvectors_of(gram)
    # Through QR, not through the Gram matrix of the examples: dividing by small singular values loses digits.
    Q = torch.linalg.qr(centred.T)[0]
    small = centred @ Q
    basis: Tensor = Q @ _eigenvectors_of(small.T @ small)
    return basis


def _eigenvectors_of(gram: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix; of rounding noise, where LAPACK gives up, the unit vectors.

    Every orthonormal basis is exact; eigenvectors only make fits fast.
    """
    unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    peak = gram.diagonal().max() if len(gram) else gram.new_zeros(())
    if not bool(peak > 0):
        return unit
    try:
        vectors: Tensor = torch.linalg.eigh(gram / peak)[1]
    except RuntimeError:
        return unit
    return vectors


@dataclass(frozen=True, eq=False)
class Design:
    """X in rotated coordinates: X - offset = Z V', Z with a last column of ones for the intercept."""

    X: Tensor  # (N, D)
    offset: Tensor  # (D,)
    V: Tensor  # (D, P - 1), orthonormal columns
    Z: Tensor  # (N, P)
    squares: Tensor  # (P,) float64, sums of squares of Z's columns

    @cached_property
    def transposed(self) -> Tensor:
        """(P, N), laid out so that products with few problems run faster than with a view of Z."""
        return self.Z.T.contiguous()

    @staticmethod
    def of(X_ND: Tensor, rotation: Tensor | None = None) -> Design:
        """Prepare X; `rotation` (D, D) saves the decomposition, and any orthogonal matrix is exact."""
        V = eigenvectors(X_ND) if rotation is None else rotation.to(X_ND)
        offset = X_ND.mean(0)
        Z = torch.cat([(X_ND - offset) @ V, X_ND.new_ones(X_ND.shape[0], 1)], 1)
        return Design(X_ND, offset, V, Z, Z.square().sum(0).double())

    def take(self, rows: Tensor) -> Design:
        """Some rows, in the same coordinates."""
        Z = self.Z[rows]
        return Design(self.X[rows], self.offset, self.V, Z, Z.square().sum(0).double())

    def double(self) -> Design:
        """The same basis with coordinates computed in float64."""
        X, V = self.X.double(), self.V.double()
        ones = X.new_ones(X.shape[0], 1)
        Z = torch.cat([(X - self.offset.double()) @ V, ones], 1)
        return Design(X, self.offset.double(), V, Z, Z.square().sum(0))

    def to_features(self, theta_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (B, D) and intercepts (B,) in float64."""
        coef = theta_BP[:, :-1].double() @ self.V.double().T
        return coef, theta_BP[:, -1].double() - coef @ self.offset.double()

    def from_features(self, coef_BD: Tensor, intercept_B: Tensor) -> Tensor:
        """Parameters (B, P) of given coefficients; the part outside the rows' space is dropped."""
        coef, V = coef_BD.to(self.Z), self.V
        return torch.cat([coef @ V, (intercept_B.to(self.Z) + coef @ self.offset)[:, None]], 1)


class Problems:
    """Logistic problems on one design, in coordinates scaled so that their Hessians are near the identity."""

    def __init__(
        self, design: Design, sign_BN: Tensor, weight_BN: Tensor, C_B: Tensor, theta_BP: Tensor | None
    ) -> None:
        """`sign_BN` is -1 or +1; `weight_BN` is without C; C is float64; `theta_BP` is the start, None at zero."""
        self.Z, self.Z_T = design.Z, design.transposed
        self.minus_sign = -sign_BN
        self.cost = weight_BN * C_B[:, None].to(weight_BN)
        self.signed_cost = self.minus_sign * self.cost
        self.at_zero = theta_BP is None  # whether the first evaluation is, which needs no product
        curved = 0.25 * self.cost if theta_BP is None else self._curvature(theta_BP)
        total = curved.sum(1, dtype=torch.float64)
        curvature = total[:, None] / max(1, design.Z.shape[0]) * design.squares
        penalty = torch.ones_like(design.squares)
        penalty[-1] = 0.0
        self.scale = (penalty + curvature).clamp_min(1e-300).rsqrt().clamp_max(1e30).to(self.Z)
        self.penalty = penalty.to(self.Z)
        self.hessian: Hessians | None = None

    def _curvature(self, theta_BP: Tensor) -> Tensor:
        """(B, N): the second derivatives of the examples' losses at `theta`; at most a quarter of their costs."""
        p = torch.sigmoid(torch.mm(theta_BP, self.Z_T))
        return p.mul_(1 - p).mul_(self.cost)

    def evaluate(self, x_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Objective in float64 and gradient, at scaled parameters."""
        if self.at_zero:
            self.at_zero = False
            objective = math.log(2.0) * self.cost.sum(1, dtype=torch.float64)
            return objective, torch.mm(0.5 * self.signed_cost, self.Z).mul_(self.scale)
        theta = x_BP * self.scale
        margin = torch.mm(theta, self.Z_T).mul_(self.minus_sign)  # negated: what the loss rises with
        loss = linalg.vecdot(softplus(margin), self.cost)
        penalised = theta * self.penalty
        objective = loss.double() + 0.5 * linalg.vecdot(penalised, theta)
        pull = margin.sigmoid_().mul_(self.signed_cost)
        return objective, torch.addmm(penalised, pull, self.Z).mul_(self.scale)

    def precondition(self, g_BP: Tensor) -> Tensor:
        """The inverse of the problems' Hessians times g, where `hessian` is set; else g itself."""
        if self.hessian is None:
            return g_BP
        ratio = self.hessian.scale / self.scale
        scaled = g_BP * ratio
        factor = self.hessian.factor
        # Not cholesky_solve: it copies the factors at every call, which costs as much as the solution.
        columns = scaled.T if factor.shape[0] == 1 else scaled[:, :, None]
        lower = linalg.solve_triangular(factor, columns, upper=False)
        solved: Tensor = linalg.solve_triangular(factor.mT, lower, upper=True)
        return (solved[0].T if factor.shape[0] == 1 else solved[:, :, 0]) * ratio

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""
        self.minus_sign, self.signed_cost = self.minus_sign[mask], self.signed_cost[mask]
        self.cost, self.scale = self.cost[mask], self.scale[mask]
        if self.hessian is not None:
            self.hessian = self.hessian[mask]

    def hessians(self, theta_BP: Tensor, *, shared: bool) -> Hessians:
        """The Hessian of each problem at `theta`, or their mean, factorised.

        Rows that bear next to no weight are left out: it is a preconditioner, not the solution.
        """
        weight = self._curvature(theta_BP)
        scale = self.scale
        if shared:
            weight, scale = weight.mean(0, keepdim=True), scale.mean(0, keepdim=True)
        B, P = scale.shape
        factor = scale.new_empty(B, P, P)
        for b in range(B):
            rows = weight[b] > 1e-4 * weight[b].max()
            root = self.Z[rows].mul_(weight[b, rows].sqrt_()[:, None])
            torch.mul(lower_gram(root), scale[b] * scale[b][:, None], out=factor[b])
        diagonal = factor.diagonal(dim1=1, dim2=2)
        # The jitter is float32's rounding of a matrix whose entries are about 1 in these coordinates.
        diagonal += self.penalty * scale.square() + 1e-6
        factor, failed = torch.linalg.cholesky_ex(factor)
        bad = failed != 0
        factor[bad] = torch.eye(P, dtype=factor.dtype, device=factor.device)
        return Hessians(factor, scale)


@dataclass(frozen=True, eq=False)
class Hessians:
    """Cholesky factors (B, P, P) of Hessians in coordinates scaled by `scale` (B, P); one for all: B = 1."""

    factor: Tensor
    scale: Tensor

    def __getitem__(self, mask: Tensor) -> Hessians:
        return self if self.factor.shape[0] == 1 else Hessians(self.factor[mask], self.scale[mask])


def lower_gram(A: Tensor, blocks: int = 3) -> Tensor:
    """The lower triangle of A'A, by blocks of columns: a third less work than the whole product.

    numpy would do it in half, but its threads and torch's then fight for the cores after each call.
    """
    P = A.shape[1]
    out = A.new_zeros(P, P)
    edges = [P * k // blocks for k in range(blocks + 1)]
    for left, right in itertools.pairwise(edges):
        torch.mm(A[:, left:right].T, A[:, :right], out=out[left:right, :right])
    return out
