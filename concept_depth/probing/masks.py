"""Two-class fits of all training parts of a layer on one matrix, the parts being weights of its rows.

Everything that `fits.py` asks of a layer, faster: one matrix, standardised once over all rows, serves every
training part, permutation and penalty. A training part's own standardisation (its features divided by its
deviations d) becomes a penalty: with v = w / d, the logit is x · v + c' and ½ λ ‖w‖² is ½ λ Σ_j d_j² v_j². So
nothing is approximated, and all problems of one λ share a preconditioner, the inverse of the whole sample's
Hessian at zero. For problems in more features than a training part has rows this is no gain, and `fits.py` takes
its other way.

The objective in mean form stands in `masked_layer.py`.

Shapes: N rows, P parameters (D features and the intercept, last), S splits, I inner folds, M label vectors, B
problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from concept_depth.probing.decrement import doubtful
from concept_depth.probing.design import lower_gram
from concept_depth.probing.lbfgs import minimise
from concept_depth.probing.masked_layer import MaskedLayer, WeightedProblems, inverse_hessian
from concept_depth.probing.plan import PENALTIES, TOL_INNER, Choice, FitPlan

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_MEMORY = 6
_NARROW = 200  # problems that a CPU solves together on all rows; more it solves split by split on their rows
_JOINED_GPU = 1 << 25  # problems × rows that a GPU takes together: few large batches keep it from waiting
_WIDE_ROUNDS = 3  # evaluations after which the problems of a split that are left wait for those of the others
_WIDE_LEAVE = 0.1  # share of a split's problems that wait for those of the others at once
_KEPT = 1 << 23  # numbers of all training parts of a layer up to which they are kept
_HARD = 8  # rounds from which the next λ gets a preconditioner at its starting point


class Masks:
    """The training parts of a plan as weights of rows: the same for all layers.

    Attributes:
        trains: for each split, the rows that it trains on; `rows` on the device.
        sign: for each split (M, n): −1 for class 1 and +1 for class 0.
        weight: for each split (I, n): weights of each inner training part on those rows.
        held: for each split (I, n): 1 on the rows of each inner test part.
    """

    def __init__(self, plan: FitPlan, dtype: torch.dtype, device: str) -> None:
        self.trains = [train for train, _ in plan.pairs]
        self.rows = [torch.as_tensor(train, device=device) for train in self.trains]
        minus_sign = 1.0 - 2.0 * plan.labelings
        self.sign = [torch.as_tensor(minus_sign[:, train], dtype=dtype, device=device) for train in self.trains]
        self.weight, self.held = [], []
        for train, parts in zip(self.trains, plan.inner, strict=False):
            weight = np.stack([np.isin(train, part) / len(part) for part, _ in parts])
            held = np.stack([np.isin(train, part) for _, part in parts])
            self.weight.append(torch.as_tensor(weight, dtype=dtype, device=device))
            self.held.append(torch.as_tensor(held, dtype=dtype, device=device))
        self.folds = len(self.weight[0]) if self.weight else 0


@dataclass(frozen=True, eq=False)
class _Part:
    """Problems of one split: inner folds × label vectors, or label vectors alone."""

    split: int
    which: Tensor
    weight: Tensor
    sign: Tensor
    ridge: Tensor  # λ d²
    theta: Tensor | None  # where they start
    held: Tensor | None


class MaskedFits:
    """All fits of one layer.

    Attributes:
        choice: the penalties chosen for every split and label vector.
        n_fits: problems solved so far.
    """

    def __init__(self, layer: MaskedLayer, masks: Masks, tol: float, max_iter: int) -> None:
        self.layer, self.masks, self.tol, self.max_iter = layer, masks, tol, max_iter
        S, M, P = len(masks.rows), len(masks.sign[0]), layer.X.shape[1]
        self.squares, self._resting = layer.squares(masks.trains)
        self.choice = Choice((S, M), 2)
        self._start: Tensor | None = None  # (S, M, P): mean of the inner solutions at the chosen penalty
        self._last = layer.X.new_zeros(S, masks.folds, M, P)
        self._rounds = self.n_fits = 0
        self._parts: dict[int, Tensor] = {}
        self._together = _most_together(layer.X)

    def run(self, plan: FitPlan) -> tuple[FloatArray, Tensor, npt.NDArray[np.bool_]]:
        """Choose penalties unless the plan fixes C, and fit: λ (S, M), parameters (S, M, P), convergence (S, M)."""
        if plan.C is None:
            penalties = np.asarray(PENALTIES)[self.choose()]
        else:
            fixed = [[1 / (plan.C * len(train))] for train, _ in plan.pairs]
            penalties = np.tile(fixed, len(plan.labelings))
        theta, converged = self.outer(penalties)
        return penalties, theta, converged

    def choose(self) -> IntArray:
        """(S, M) index into PENALTIES. Inner parts keep their outer part's standardisation, which no example that
        is held out there has entered.
        """
        self._start = self._last[:, 0].clone()
        before = None
        for index, penalty in enumerate(PENALTIES):
            better = self.choice.update(index, self._inner(penalty, before))
            mask = torch.as_tensor(better, device=self._last.device)
            self._start = torch.where(mask[:, :, None], self._last.mean(1), self._start)
            before = penalty
            if not self.choice.walking.any():
                break
        return self.choice.chosen

    def _inner(self, penalty: float, before: float | None) -> FloatArray:
        """Solve λ for all that walk; (S, M) inner log-loss, NaN for the others."""
        walking = self.choice.walking
        loss = np.full(walking.shape, np.nan)
        parts = self._inner_parts(penalty, walking, before is None)
        self.n_fits += _size(parts)
        wide = _size(parts) > _NARROW
        ahead = 0.0 if before is None else before - penalty
        left = self._pass(parts, penalty, ahead, loss, wide)
        if left.any():
            # What takes more rounds, as real labels do, is gathered from all splits, and begins where it stands.
            self._pass(self._inner_parts(penalty, left, False), penalty, 0.0, loss, False)
        return loss

    def _pass(
        self, parts: Sequence[_Part], penalty: float, ahead: float, loss: FloatArray, wide: bool
    ) -> npt.NDArray[np.bool_]:
        """Solve inner problems, write their solutions and losses; (S, M) which did not converge."""
        left = np.zeros(loss.shape, bool)
        for X, batch in self._batches(parts):
            whole = _joined(batch)
            start = whole.theta
            local = _size(parts) <= _NARROW and start is not None and (ahead == 0 or self._rounds >= _HARD)
            inverse = self._local_inverse(batch, penalty) if local else self.layer.inverse(penalty)
            if start is not None and ahead:
                # To first order in λ: where the last solution's gradient vanished, only the penalty's changes.
                start = start + (ahead / penalty * whole.ridge * start) @ inverse
            effort = (_WIDE_ROUNDS, _WIDE_LEAVE) if wide else (self.max_iter, 0.0)
            problems, x, solved = self._solve(X, whole, start, inverse, TOL_INNER, *effort)
            total, fine = problems.held_at(x).cpu().numpy(), solved.cpu().numpy()
            begin = 0
            for part in batch:
                here = slice(begin, begin + len(part.weight))
                begin += len(part.weight)
                which, folds = part.which.cpu().numpy(), self.masks.folds
                self._last[part.split][:, part.which] = x[here].reshape(folds, len(which), -1)
                summed = total[here].reshape(folds, -1).sum(0)
                loss[part.split, which] = summed / len(self.masks.trains[part.split])
                left[part.split, which] = ~fine[here].reshape(folds, -1).all(0)
        return left

    def outer(self, penalties: FloatArray) -> tuple[Tensor, npt.NDArray[np.bool_]]:
        """Fit every split and label vector on its whole training part.

        Args:
            penalties: (S, M) λ.

        Returns:
            parameters (S, M, P) in this layer's coordinates, convergence (S, M).
        """
        theta = self.layer.X.new_zeros(*penalties.shape, self.layer.X.shape[1])
        converged = np.zeros(penalties.shape, bool)
        for penalty, parts in self._outer_parts(penalties):
            self.n_fits += _size(parts)
            for X, batch in self._batches(parts):
                local = _size(parts) <= _NARROW and batch[0].theta is not None
                inverse = self._local_inverse(batch, penalty) if local else self.layer.inverse(penalty)
                whole = _joined(batch)
                _, x, solved = self._solve(X, whole, whole.theta, inverse, self.tol, self.max_iter)
                fine, begin = solved.cpu().numpy(), 0
                for part in batch:
                    here = slice(begin, begin + len(part.weight))
                    begin += len(part.weight)
                    theta[part.split, part.which] = x[here]
                    converged[part.split, part.which.cpu().numpy()] = fine[here]
        converged[:, 0] &= ~self._doubtful(theta[:, 0], penalties[:, 0])
        return theta, converged

    def _doubtful(self, theta: Tensor, penalties: FloatArray) -> npt.NDArray[np.bool_]:
        """(S,) whether fits of the real labels, at parameters (S, P) and λ (S,), only seem to have converged."""
        X, first = self.layer.X, np.arange(len(self.masks.sign[0])) == 0
        parts = [
            replace(self._outer_part(s, first, penalty), theta=theta[s : s + 1])
            for s, penalty in enumerate(penalties.tolist())
        ]
        parts = [_spread(part, self.masks.rows[part.split], len(X)) for part in parts]
        inverse = self._local_inverse(parts, float(np.exp(np.log(penalties).mean())))
        whole = _joined(parts)

        def preconditioner(_: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda residual: residual @ inverse

        found = doubtful(X, whole.weight, whole.sign, whole.ridge, theta, preconditioner, self.tol)
        return np.asarray(found.cpu().numpy())

    def decisions(self, theta: Tensor, split: int, test: IntArray) -> FloatArray:
        """(M, n_test) log-odds of the outer fits of a split.

        What its training part knows as a constant is part of the intercept, whatever it is elsewhere.
        """
        X, point = self.layer.X[torch.as_tensor(test, device=theta.device)], theta[split]
        if self._resting is not None:
            constant, mean = (values[split] for values in self._resting)
            point = point.clone()
            point[:, -1] += point[:, :-1] @ (constant * mean)
            point[:, :-1] *= ~constant
        return np.asarray((point @ X.T).double().cpu().numpy())

    def _inner_parts(self, penalty: float, walking: npt.NDArray[np.bool_], first: bool) -> list[_Part]:
        """The inner problems of those that are walking (S, M), a part a split."""
        masks, folds, parts = self.masks, self.masks.folds, []
        for split in np.flatnonzero(walking.any(1)).tolist():
            which = torch.as_tensor(np.flatnonzero(walking[split]), device=self._last.device)
            k = len(which)
            part = _Part(
                split,
                which,
                masks.weight[split].repeat_interleave(k, 0),
                masks.sign[split][which].repeat(folds, 1),
                (penalty * self.squares[split]).expand(folds * k, -1),
                None if first else self._last[split][:, which].reshape(folds * k, -1),
                masks.held[split].repeat_interleave(k, 0),
            )
            parts.append(part)
        return parts

    def _outer_parts(self, penalties: FloatArray) -> Iterator[tuple[float, list[_Part]]]:
        """The outer problems with the λ that preconditions them: a λ of many problems alone, others together.

        A preconditioner for another λ costs a few problems less than one more preconditioner does.
        """
        few: list[_Part] = []
        logs: list[float] = []
        for penalty in np.unique(penalties).tolist():
            wanted = penalties == penalty
            parts = [self._outer_part(s, wanted[s], penalty) for s in np.flatnonzero(wanted.any(1)).tolist()]
            if _size(parts) > _NARROW:
                yield penalty, parts
                continue
            if few and _size(few) + _size(parts) > _NARROW:
                yield float(np.exp(np.mean(logs))), few
                few, logs = [], []
            few += parts
            logs.append(np.log(penalty))
        if few:
            yield float(np.exp(np.mean(logs))), few

    def _outer_part(self, split: int, wanted: npt.NDArray[np.bool_], penalty: float) -> _Part:
        which = torch.as_tensor(np.flatnonzero(wanted), device=self._last.device)
        sign = self.masks.sign[split][which]
        start = None if self._start is None else self._start[split][which]
        ridge = (penalty * self.squares[split]).expand(len(which), -1)
        return _Part(split, which, torch.full_like(sign, 1 / sign.shape[1]), sign, ridge, start, None)

    def _batches(self, parts: Sequence[_Part]) -> Iterator[tuple[Tensor, list[_Part]]]:
        """Parts with the matrix they are solved on: all together on all rows, or more than suits, split by split."""
        if _size(parts) > self._together:
            for part in parts:
                yield self._rows(part.split), [part]
            return
        n = len(self.layer.X)
        yield self.layer.X, [_spread(part, self.masks.rows[part.split], n) for part in parts]

    def _rows(self, split: int) -> Tensor:
        """The rows of a training part, kept for its next λ where all of them take little memory."""
        found = self._parts.get(split)
        if found is None:
            found = self.layer.X[self.masks.rows[split]]
            if len(self.masks.rows) * found.numel() <= _KEPT:
                self._parts[split] = found
        return found

    def _solve(
        self,
        X: Tensor,
        part: _Part,
        start: Tensor | None,
        inverse: Tensor,
        tol: float,
        max_iter: int,
        leave: float = 0.0,
    ) -> tuple[WeightedProblems, Tensor, Tensor]:
        """The problems, their solutions (B, P), and whether they converged."""
        if start is None:
            start = -(0.5 * (part.weight * part.sign) @ X) @ inverse  # Newton's step from zero
        problems = WeightedProblems(X, part.weight, part.ridge, part.sign, inverse, part.held)
        found = minimise(problems, start, tol=tol, max_iter=max_iter, memory=_MEMORY, noise=1e-6, leave=leave)
        self._rounds = int(found.n_iter.max())
        return problems, found.x, found.converged

    def _local_inverse(self, parts: Sequence[_Part], penalty: float) -> Tensor:
        """(P, P): inverse of the mean Hessian of problems where they start."""
        X, curved = self.layer.X, torch.zeros_like(self.layer.X[:, 0])
        for part in parts:
            assert part.theta is not None
            p = torch.sigmoid(part.theta @ X.T)
            curved += (p * (1 - p) * part.weight).sum(0)
        curved /= _size(parts)
        rows = curved > 1e-3 * curved.max()
        root = X[rows] * curved[rows].sqrt()[:, None]
        return inverse_hessian(lower_gram(root), penalty)


def _most_together(X: Tensor) -> int:
    """How many problems are solved on all rows of X at once rather than split by split."""
    return _NARROW if X.device.type == "cpu" else max(_NARROW, _JOINED_GPU // len(X))


def _size(parts: Sequence[_Part]) -> int:
    return sum(len(part.weight) for part in parts)


def _joined(parts: Sequence[_Part]) -> _Part:
    """Problems of several splits, on the same rows, as one batch."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str) -> Tensor | None:
        tensors = [getattr(part, name) for part in parts]
        return None if tensors[0] is None else torch.cat(tensors)

    names = ("weight", "sign", "ridge", "theta", "held")
    return _Part(-1, parts[0].which, **{name: together(name) for name in names})  # type: ignore[arg-type]


def _spread(part: _Part, rows: Tensor, n: int) -> _Part:
    """The same problems on n rows, of which `rows` are theirs; the others weigh nothing."""

    def spread(matrix: Tensor) -> Tensor:
        out = matrix.new_zeros(len(matrix), n)
        out[:, rows] = matrix
        return out

    held = None if part.held is None else spread(part.held)
    return replace(part, weight=spread(part.weight), sign=spread(part.sign), held=held)
