"""One layer's matrix, and logistic problems on weighted rows of it, as `masks.py` solves them.

In mean form, problem b minimises Σ_i a_bi log(1 + exp(−s_bi (x_i · v + c))) + ½ λ Σ_j d_bj² v_j², Σ_i a_bi = 1,
d being the deviations of its training part.

Shapes: N rows, P parameters (D features and the intercept, last), S splits, B problems.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, linalg
from torch.nn.functional import softplus

from concept_depth.probing.design import lower_gram

IntArray = npt.NDArray[np.int64]


class MaskedLayer:
    """One layer's matrix, standardised over all rows, with a last column of ones.

    Attributes:
        X: (N, P).
    """

    def __init__(self, X: Tensor, standardize: bool | str | None, centre: Tensor | None = None) -> None:
        """Standardise `X` (N, D), from whose columns `centre` (D,) has been subtracted, so that their mean is 0.

        None takes X as it is, coordinates of rows that were standardised before.
        """
        self.dtype, X64 = X.dtype, X.double()
        self.centre = torch.zeros_like(X64[0]) if centre is None else centre.double()
        scale = torch.ones_like(self.centre)
        if standardize:
            deviation = X64.square().mean(0).sqrt()
            scale = torch.where(deviation > 0, deviation, 1.0)
        if standardize == "scale":
            total = deviation.square().mean().sqrt()
            scale = torch.where(total > 0, total, 1.0).expand(scale.shape)
        self.standardize, self.scale = standardize, scale
        self.X = torch.cat([(X64 / scale).to(X.dtype), torch.ones_like(X[:, :1])], 1)
        self._gram: Tensor | None = None
        self._inverses: dict[float, Tensor] = {}

    def squares(self, trains: Sequence[IntArray]) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """(S, P) squared deviations d² of training parts: 0 for the intercept, 1 for constant features.

        And which (S, D) features are constant, with their means (S, D); None where none are.
        """
        squares = self.X.new_ones(len(trains), self.X.shape[1])
        squares[:, -1] = 0.0
        if self.standardize is None:
            return squares, None
        X64 = self.X.to(torch.float64, copy=True)
        member = torch.zeros(len(trains), len(X64), dtype=torch.float64)
        for t, train in enumerate(trains):
            member[t, torch.as_tensor(train)] = 1.0 / len(train)
        member = member.to(X64.device)
        mean = (member @ X64)[:, :-1]
        found = (member @ X64.square_())[:, :-1] - mean.square()  # in place: new memory costs more than squaring
        # What hardly varies in a part, a unit active elsewhere alone, say, leaves a difference that is all rounding.
        hardly = (found < 1e-6 * mean.square()).any(0).nonzero()[:, 0]
        for t, train in enumerate(trains if len(hardly) else ()):
            rows = torch.as_tensor(train, device=X64.device)
            found[t, hardly] = self.X[rows[:, None], hardly].double().var(0, unbiased=False)
        moved = mean * self.scale
        size = torch.maximum((self.centre + moved).abs(), moved.abs())
        constant = found <= (rounding(size, self.dtype) / self.scale).square()
        if self.standardize == "scale":
            found[:] = found.mean(1, keepdim=True)
        if self.standardize is not False:
            squares[:, :-1] = torch.where(constant, 1.0, found)
        return squares, (constant, mean.to(self.X.dtype)) if bool(constant.any()) else None

    def inverse(self, penalty: float) -> Tensor:
        """(P, P): inverse of the whole sample's Hessian at zero."""
        if self._gram is None:
            self._gram = lower_gram(self.X) / (4 * self.X.shape[0])
        if penalty not in self._inverses:
            self._inverses[penalty] = inverse_hessian(self._gram, penalty)
        return self._inverses[penalty]


def rounding(mean: Tensor, dtype: torch.dtype) -> Tensor:
    """What a feature of this mean may deviate from it by the rounding of its values alone."""
    return 10 * torch.finfo(dtype).eps * mean.abs() + 1e-30


def inverse_hessian(gram: Tensor, penalty: float) -> Tensor:
    """Inverse of gram + λ I (not for the intercept), of which the lower triangle is read.

    A multiple of the identity should rounding forbid it.
    """
    hessian = gram.clone()
    diagonal = hessian.diagonal()
    diagonal[:-1] += penalty
    diagonal += 1e-6 * diagonal.mean()
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if bool(failed):
        return torch.eye(len(gram), dtype=gram.dtype, device=gram.device) / diagonal.mean()
    return torch.cholesky_inverse(factor)


class WeightedProblems:
    """Logistic problems of one λ on one matrix, as `lbfgs.minimise` takes them.

    Rows of weight 0 are evaluated too, so the loss on the held-out rows comes with the objective: `held_at` gives
    it for points that were evaluated last, and computes it for others.
    """

    def __init__(
        self, X: Tensor, weight: Tensor, penalty: Tensor, minus_sign: Tensor, inverse: Tensor, held: Tensor | None
    ) -> None:
        self.X, self.X_T, self.inverse = X, X.T, inverse
        self.weight, self.penalty, self.minus_sign, self.held = weight, penalty, minus_sign, held
        self.all = (minus_sign, held)
        self.index = torch.arange(len(weight), device=X.device)
        self.point = torch.full_like(penalty, torch.nan)
        self.loss = torch.zeros_like(penalty[:, 0])

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Objective in float64 and gradient."""
        margin = torch.mm(x, self.X_T).mul_(self.minus_sign)
        losses = softplus(margin)
        penalised = self.penalty * x
        objective = linalg.vecdot(losses, self.weight).double() + 0.5 * linalg.vecdot(penalised, x)
        if self.held is not None:
            self.point[self.index] = x
            self.loss[self.index] = linalg.vecdot(losses, self.held)
        pull = margin.sigmoid_().mul_(self.weight).mul_(self.minus_sign)
        return objective, torch.addmm(penalised, pull, self.X)

    def precondition(self, g: Tensor) -> Tensor:
        """The shared inverse Hessian times g."""
        return g @ self.inverse

    def keep(self, mask: Tensor) -> None:
        """Forget the problems outside `mask`."""
        self.weight, self.penalty, self.minus_sign = self.weight[mask], self.penalty[mask], self.minus_sign[mask]
        self.held = None if self.held is None else self.held[mask]
        self.index = self.index[mask]

    def held_at(self, x: Tensor) -> Tensor:
        """(B,) summed loss on the held-out rows at the points x of all problems."""
        minus_sign, held = self.all
        assert held is not None
        other = (self.point != x).any(1).nonzero()[:, 0]
        if len(other):
            margin = torch.mm(x[other], self.X_T).mul_(minus_sign[other])
            self.loss[other] = linalg.vecdot(softplus(margin), held[other])
        return self.loss.double()
