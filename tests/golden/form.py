r"""Arithmetic of golden laws: affine forms with coefficients of 40 digits.

On affine problems a state is $x = c + \sum_i a_i\,x_{0,i} + \sum_{k,i} b_{ki}\,z_{ki}$ throughout a run, with the
start $x_0$ and standard normals $z_{ki}$, one for every step k and noise i, and another for its Lévy area. A
:class:`Form` holds these coefficients and knows sums and multiples, so that a scheme is written as the paper prints
it and its law is read off at the end.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from mpmath import MPContext

mp = MPContext()
mp.dps = 40


class Form:
    """An affine form: coefficients by symbol; the symbol ``1`` is the constant."""

    def __init__(self, coefficients: dict[Hashable, object]) -> None:
        self.coefficients = coefficients

    def __add__(self, other):
        other = other.coefficients if isinstance(other, Form) else {1: other}
        mine = self.coefficients
        return Form({key: mine.get(key, mp.zero) + other.get(key, mp.zero) for key in mine | other})

    def __mul__(self, number):
        return Form({key: number * value for key, value in self.coefficients.items()})

    def __truediv__(self, number):
        return self * (1 / mp.mpf(number))

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, key):
        return self.coefficients.get(key, mp.zero)


def start(i: int) -> Form:
    """Coordinate i of the initial state."""
    return Form({("start", i): mp.one})


def noise(k: int, i: int) -> Form:
    """Standard normal i of step k."""
    return Form({("noise", k, i): mp.one})


def levy(k: int, i: int) -> Form:
    """Standard normal i of the Lévy areas of step k."""
    return Form({("levy", k, i): mp.one})


@dataclass(frozen=True)
class Map:
    r"""What a run does to a law: $N(m, C) \mapsto N(c + A m,\; A C A^\top + S)$."""

    c: mp.matrix
    A: mp.matrix
    S: mp.matrix

    @classmethod
    def of(cls, forms: Iterable[Form]) -> Map:
        """Read off the last state, one form per coordinate."""
        x = list(forms)
        d = len(x)
        draws = sorted({key for form in x for key in form.coefficients if key != 1 and key[0] != "start"})
        B = mp.matrix(d, max(1, len(draws)))
        for i, form in enumerate(x):
            for j, key in enumerate(draws):
                B[i, j] = form[key]
        A = mp.matrix([[form[("start", j)] for j in range(d)] for form in x])
        return cls(mp.matrix([form[1] for form in x]), A, B * B.T)

    def turned(self, Q: mp.matrix) -> Map:
        """The same map in the coordinates x = Q y."""
        return Map(Q * self.c, Q * self.A * Q.T, Q * self.S * Q.T)

    def push(self, mean: mp.matrix, covariance: mp.matrix) -> tuple[mp.matrix, mp.matrix]:
        """Mean and covariance of the end, from those of the start."""
        return self.c + self.A * mean, self.A * covariance * self.A.T + self.S
