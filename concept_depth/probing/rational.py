"""Linear separability of small samples decided in rational arithmetic, without rounding.

Floats are rational numbers, so that the answer is about the very numbers given. One phase of the simplex method
(with Bland's rule, which cannot cycle) answers both ways: it finds weights by which the convex hulls meet, or its
dual variables are a separating hyperplane (Farkas 1902). Meant for samples of a few hundred numbers.

Shapes: N examples, D features; lists, not arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Row = list[Fraction]
Rows = list[Row]


def to_fractions(X: Any) -> Rows:
    """The rows of a matrix of numbers as fractions, exactly."""
    return [[Fraction(float(value)) for value in row] for row in X]


def decide(X: Rows, positive: Sequence[bool]) -> tuple[Row, Fraction] | Row:
    """Whether two classes are strictly separable, with the proof.

    Args:
        X: N rows of D fractions.
        positive: which rows are of the second class; both classes must occur.

    Returns:
        (normal, offset) with normal · x + offset > 0 on the second class and < 0 on the first; or N non-negative
        weights, summing to 1 in either class, by which the two classes have the same weighted mean.
    """
    D = len(X[0])
    columns = [
        [*(value if plus else -value for value in row), Fraction(1 if plus else -1), Fraction(int(plus))]
        for row, plus in zip(X, positive, strict=True)
    ]
    weights, dual = _phase_one(columns, [Fraction(0)] * (D + 1) + [Fraction(1)])
    if weights is not None:
        return weights
    # dual · column <= 0 for all, dual[-1] > 0: the second class lies at or below -dual[-1], the first not below 0.
    return [-value for value in dual[:D]], -dual[D] - dual[D + 1] / 2


def _phase_one(columns: Rows, right: Row) -> tuple[Row | None, Row]:
    """Non-negative weights with Σ weight · column = right (right >= 0), or None; and the dual variables."""
    M, N = len(right), len(columns)
    table = [
        [*(columns[j][i] for j in range(N)), *(Fraction(int(i == k)) for k in range(M)), right[i]]
        for i in range(M)
    ]
    cost = [-sum((table[i][j] for i in range(M)), Fraction(0)) for j in range(N + M + 1)]
    for k in range(M):
        cost[N + k] += 1
    basis = list(range(N, N + M))
    while True:
        entering = next((j for j in range(N) if cost[j] < 0), None)
        if entering is None:
            break
        leaving = min(
            (i for i in range(M) if table[i][entering] > 0),
            key=lambda i: (table[i][-1] / table[i][entering], basis[i]),
        )
        _pivot(table, cost, leaving, entering)
        basis[leaving] = entering
    dual = [1 - cost[N + k] for k in range(M)]
    if cost[-1] != 0:
        return None, dual
    weights = [Fraction(0)] * N
    for i, j in enumerate(basis):
        if j < N:
            weights[j] = table[i][-1]
    return weights, dual


def _pivot(table: Rows, cost: Row, leaving: int, entering: int) -> None:
    pivot = table[leaving][entering]
    row = table[leaving] = [value / pivot for value in table[leaving]]
    for other in [*(r for i, r in enumerate(table) if i != leaving), cost]:
        factor = other[entering]
        if factor:
            other[:] = [value - factor * base if base else value for value, base in zip(other, row, strict=True)]


def dot(first: Row, second: Row) -> Fraction:
    """The inner product, exactly."""
    return sum((a * b for a, b in zip(first, second, strict=True)), Fraction(0))


def separates(X: Rows, positive: Sequence[bool], normal: Row, offset: Fraction) -> bool:
    """Whether normal · x + offset is positive on the second class and negative on the first, exactly."""
    for row, plus in zip(X, positive, strict=True):
        value = dot(row, normal) + offset
        if (value <= 0) if plus else (value >= 0):
            return False
    return True


def hulls_meet(X: Rows, positive: Sequence[bool], weights: Row) -> bool:
    """Whether the weights are non-negative, sum to 1 in either class, and give both one mean, exactly."""
    signed = [weight if plus else -weight for weight, plus in zip(weights, positive, strict=True)]
    return (
        all(weight >= 0 for weight in weights)
        and sum(signed) == 0
        and sum(weights) == 2
        and all(sum(s * row[j] for s, row in zip(signed, X, strict=True)) == 0 for j in range(len(X[0])))
    )
