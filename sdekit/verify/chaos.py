r"""The Wiener chaos of a linear SDE over one step, and how much of it a step cannot see; in whole numbers.

In the clock of a step of length h, with $A$ for $hA$ and $B_i$ for $\sqrt h\,B_i$, the solution is $X \mapsto \Phi X$,
$d\Phi = A \Phi\,du + \sum_i B_i \Phi\,dW_i$ on [0, 1]. A step knows of the path no more than

$$ z_i = \int dW_i \quad\text{and, with Lévy areas,}\quad z'_i = \int \sqrt3\,(1 - 2u)\,dW_i , $$

independent standard normals. The theorem of Cameron and Martin moves the Hermite coefficients of Φ to an ordinary
equation, whose solution is a power series in u and λ:

$$ E[\Phi\,\mathrm{He}_a(z, z')] = \partial_\lambda^a \Phi_\lambda(1) \big|_{\lambda = 0}, \qquad
   \Phi_\lambda' = \Bigl(A + \sum_i \bigl(\lambda_i + \lambda'_i \sqrt3\,(1 - 2u)\bigr) B_i\Bigr) \Phi_\lambda . $$

With $\mathrm{He}_a/\sqrt{a!}$ as basis, the coefficients $\Phi_a$ leave of the second moment

$$ E[\Phi \otimes \Phi] - \sum_a \Phi_a \otimes \Phi_a , \qquad
   E[\Phi \otimes \Phi] = e^{A \oplus A + \sum_i B_i \otimes B_i} . $$

That rest makes the strong error, and it is far smaller than what it is the difference of: in floating point it
would cost half the digits of the error. The series are therefore summed in fixed point, in Python's integers with at
least 192 binary digits behind the point, and only what is left is rounded.

References: [cameronmartin1944], [cameronmartin1947].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, comb, factorial, prod

import numpy as np

Index = tuple[int, ...]
"""Degrees of the Hermite polynomials: of the z of every noise, then, with Lévy areas, of the z'."""

_BITS = 192  # behind the binary point, beyond what cancels within the series
_DEGREES = (4, 6, 8, 10, 13, 17, 22)  # up to which the coefficients are summed for the optimum
_MOST = 1001  # coefficients
_RELATIVE, _ABSOLUTE = 1e-10, 1e-29  # what the optimum may neglect of a mean square


@dataclass(frozen=True)
class Chaos:
    """Second moments of the solution over one step, (n², n²) in Kronecker's order, and its chaos coefficients.

    Attributes:
        coefficients: Φ_a for the indices that were asked for, shape (indices, n, n).
        square: $E[Φ ⊗ Φ]$.
        rest: What the coefficients leave of it.
    """

    coefficients: np.ndarray
    square: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True)
class LinearStep:
    """A linear SDE over one step in the step's own clock: hA, shape (n, n), and √h B, shape (m, n, n)."""

    A: np.ndarray
    B: np.ndarray
    levy: bool

    @property
    def normals(self) -> int:
        """How many standard normals a step can see."""
        return len(self.B) * (2 if self.levy else 1)

    def chaos(self, indices: Sequence[Index]) -> Chaos:
        """The coefficients for ``indices``, with every index all lower ones, and what they leave."""
        point = self._point
        series = self._coefficients(indices, point)
        total = self._square(point)
        rest = total - self._squares(indices, series, point)
        root = np.array([self._weight(a) ** 0.5 for a in indices])
        return Chaos(root[:, None, None] * _floats(series, point), _floats(total, point), _floats(rest, point))

    def hidden(self) -> np.ndarray | None:
        r"""$E[\Phi \otimes \Phi] - E[\bar\Phi \otimes \bar\Phi]$ with $\bar\Phi = E[\Phi \mid z, z']$, shape (n², n²).

        It is the sum over degrees k of what the coefficients of degree k leave of the k-th chaos, and beyond the last
        degree at most the chaos itself. None where that is not small with a thousand coefficients.
        """
        point, total = self._point, self._square(self._point)
        for degree in _DEGREES:
            if comb(degree + self.normals, degree) > _MOST:
                return None
            indices = [a for a in product(range(degree + 1), repeat=self.normals) if sum(a) <= degree]
            known = self._square(point, degree)
            hidden = known - self._squares(indices, self._coefficients(indices, point), point)
            beyond, found, size = (_size(x, point) for x in (total - known, hidden, total))
            if beyond <= max(_RELATIVE * found, _ABSOLUTE * size):
                return _floats(hidden, point)
        return None

    @property
    def length(self) -> float:
        """A bound of log |Φ_λ(1)| for λ in the unit polydisc: how long the series are."""
        return _norm(self.A) + 4.0 * sum(map(_norm, self.B))

    @property
    def _point(self) -> int:
        """Binary digits behind the point: more where the series cancel."""
        return _BITS + 3 * ceil(self.length)

    def _weight(self, index: Index) -> int:
        """The factor a!, with the squares of the √3 that the series leaves out."""
        factor: int = prod(map(factorial, index)) * 3 ** sum(index[len(self.B) :])
        return factor

    def _coefficients(self, indices: Sequence[Index], point: int) -> np.ndarray:
        return _series(_whole(self.A, point), [_whole(b, point) for b in self.B], indices, point)

    def _squares(self, indices: Iterable[Index], series: np.ndarray, point: int) -> np.ndarray:
        pairs = zip(indices, series, strict=True)
        return _sum([self._weight(a) * _kron(phi, phi) >> point for a, phi in pairs])

    def _square(self, point: int, degree: int | None = None) -> np.ndarray:
        """E[Φ ⊗ Φ], or its part in the chaos up to ``degree``, as the power series in u and λ of A ⊕ A + λ Σ B ⊗ B."""
        A, one = _whole(self.A, point), _identity(len(self.A), 0)
        drift = _kron(A, one) + _kron(one, A)
        noise = 0 * drift
        for b in self.B:
            noise = noise + (_kron(_whole(b, point), _whole(b, point)) >> point)
        if degree is None:
            return _sum(_series(drift + noise, [], [()], point))
        return _sum(_series(drift, [noise], [(k,) for k in range(degree + 1)], point))


def _series(A: np.ndarray, B: Sequence[np.ndarray], indices: Sequence[Index], point: int) -> np.ndarray:
    r"""Coefficients of $\lambda^a$ in Φ_λ(1), fixed point, shape (indices, n, n), without the √3.

    With $\Phi_\lambda(u) = \sum_{a,l} c_{a,l} \lambda^a u^l$ the equation reads
    $(l + 1) c_{a,l+1} = A c_{a,l} + \sum_i B_i (c_{a-e_i,l} + c_{a-e'_i,l} - 2 c_{a-e'_i,l-1})$.
    """
    place = {a: j for j, a in enumerate(indices)}
    normals = len(indices[0])
    links = [[(place[a], place[_lower(a, j)]) for a in indices if a[j]] for j in range(normals)]
    upper, lower = ([[pair[side] for pair in link] for link in links] for side in (0, 1))
    term = np.stack([_identity(len(A), point if sum(a) == 0 else None) for a in indices])
    total, before_last, driven_before = term, term, [0 * term for _ in B]
    power, ratio = 0, _norm(A / 2**point) + 4.0 * sum(_norm(b / 2**point) for b in B)
    while power <= 2 * ratio or max(np.abs(before_last).max(), np.abs(term).max()) > 2**20:
        moved = A @ term >> point
        for i, b in enumerate(B):
            driven = b @ term >> point
            moved[upper[i]] += driven[lower[i]]
            if normals > len(B):
                j = len(B) + i
                moved[upper[j]] += driven[lower[j]] - 2 * driven_before[i][lower[j]]
            driven_before[i] = driven
        power += 1
        before_last, term = term, moved // power
        total = total + term
    return total


def _lower(index: Index, j: int) -> Index:
    return (*index[:j], index[j] - 1, *index[j + 1 :])


def _identity(n: int, point: int | None) -> np.ndarray:
    """The identity in fixed point; zero for None."""
    return np.array([[0 if point is None else (i == j) << point for j in range(n)] for i in range(n)], dtype=object)


def _whole(x: np.ndarray, point: int) -> np.ndarray:
    """Floats in fixed point."""
    ratios = [float(v).as_integer_ratio() for v in x.flat]
    return np.array([(p << point) // q for p, q in ratios], dtype=object).reshape(x.shape)


def _floats(x: np.ndarray, point: int) -> np.ndarray:
    return np.array([v / (1 << point) for v in x.flat], dtype=np.float64).reshape(x.shape)


def _kron(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    n = len(a) * len(b)
    product: np.ndarray = (a[:, None, :, None] * b[None, :, None, :]).reshape(n, n)
    return product


def _sum(parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    total: np.ndarray = np.add.reduce(parts)
    return total


def _size(x: np.ndarray, point: int) -> float:
    """Σ E[M_ij²], of E[M ⊗ M]."""
    n = round(len(x) ** 0.5)
    own = range(0, n * n, n + 1)
    return float(_floats(x[np.ix_(own, own)], point).sum())


def _norm(x: np.ndarray) -> float:
    return float(np.abs(x).sum(-1).max(initial=0))
