"""Coefficients of tableaus, as exact fractions, written as they are printed.

A square root is rounded to 40 digits; a decimal is the double that it prints, which is what its authors computed
with. So order conditions are sums and products of fractions, and their residuals carry no rounding of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import isqrt
from typing import TypeAlias

from torch import Tensor

Vector: TypeAlias = tuple[Fraction, ...]
Matrix: TypeAlias = tuple[Vector, ...]
Terms: TypeAlias = tuple[tuple[int, float], ...]

_DIGITS = 10**40


def vector(entries: str | Iterable[Fraction]) -> Vector:
    """Numbers, or how they are printed: ``"1/3 -0.25"``."""
    if isinstance(entries, str):
        entries = [Fraction(float(entry)) if "." in entry else Fraction(entry) for entry in entries.split()]
    return tuple(map(Fraction, entries))


def matrix(*rows: str | Iterable[Fraction]) -> Matrix:
    """A square matrix from its rows, which may break off where the rest is zero."""
    size = len(rows)
    filled = (vector(row) for row in rows)
    return tuple(row + (Fraction(0),) * (size - len(row)) for row in filled)


def root(square: str) -> Fraction:
    r"""$\sqrt q$ of a fraction, to 40 digits."""
    q = Fraction(square)
    return Fraction(isqrt(q.numerator * q.denominator * _DIGITS**2), q.denominator * _DIGITS)


def row_sums(a: Matrix) -> Vector:
    """A e, the nodes of a matrix of weights."""
    return tuple(sum(row, Fraction(0)) for row in a)


def terms(row: Vector) -> Terms:
    """The entries of a row that are not zero, as floats with their places."""
    return tuple((j, float(entry)) for j, entry in enumerate(row) if entry)


def node(t0: float, t1: float, c: float) -> float:
    """The time t₀ + c (t₁ − t₀); the last node is t₁ itself, for the sum may round past the end of the interval."""
    return t1 if c == 1.0 else t0 + c * (t1 - t0)


def combine(x: Tensor, parts: Iterable[tuple[float, Tensor]]) -> Tensor:
    r"""$x + \sum_j a_j k_j$, one new tensor; x itself if there are no parts."""
    moved = None
    for alpha, k in parts:
        moved = x.add(k, alpha=alpha) if moved is None else moved.add_(k, alpha=alpha)
    return x if moved is None else moved
