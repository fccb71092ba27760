r"""Tableaus of Rößler's weak Runge–Kutta methods: any Itô noise at weak order 2, at a cost linear in the noises.

With m noises, three-point variables $\hat I_k$, $\pm\sqrt{3h}$ with probability ⅙ each and else 0, and two-point
variables $\tilde I_k = \pm\sqrt h$,

$$ \hat I_{(k,l)} = \tfrac12 (\hat I_k \hat I_l - \sqrt h\,\tilde I_k),\; k < l; \qquad
   \tfrac12 (\hat I_k \hat I_l + \sqrt h\,\tilde I_l),\; k > l; \qquad \tfrac12 (\hat I_k^2 - h),\; k = l, $$

$$ H^0_i = x + h \textstyle\sum_j A^0_{ij} f(H^0_j) + \sum_k \sum_j B^0_{ij}\, g_k(H^k_j)\,\hat I_k, $$

$$ H^k_i = x + h \textstyle\sum_j A^1_{ij} f(H^0_j) + \sqrt h \sum_j B^1_{ij}\, g_k(H^k_j), $$

$$ \hat H^k_i = x + h \textstyle\sum_j A^2_{ij} f(H^0_j) + \sum_{l \ne k} \sum_j B^2_{ij}\, g_l(H^l_j)\,
   \hat I_{(k,l)}/\sqrt h, $$

$$ x \leftarrow x + h \textstyle\sum_i \alpha_i f(H^0_i)
   + \sum_k \sum_i \bigl(\beta^1_i \hat I_k + \beta^2_i \hat I_{(k,k)}/\sqrt h\bigr)\,g_k(H^k_i)
   + \sum_k \sum_i \bigl(\beta^3_i \hat I_k + \beta^4_i \sqrt h\bigr)\,g_k(\hat H^k_i), $$

at the nodes $c^0 = A^0 e$, $c^1 = A^1 e$, $c^2 = A^2 e$.

References: [rossler2009]; [debrabant2009] for DRI1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sdekit.steppers.coefficients import Matrix, Vector, matrix, root, vector


@dataclass(frozen=True)
class WeakTableau:
    r"""Coefficients of a weak method.

    Attributes:
        A0: Drifts in a stage of the drift.
        A1: Drifts in a stage $H^k$.
        A2: Drifts in a stage $\hat H^k$.
        B0: Noises in a stage of the drift.
        B1: Noise k in a stage $H^k$.
        B2: The other noises in a stage $\hat H^k$.
        alpha: Weights of the drifts.
        beta1: Weights of $\hat I_k$ at $H^k$.
        beta2: Weights of $\hat I_{(k,k)}/\sqrt h$ at $H^k$.
        beta3: Weights of $\hat I_k$ at $\hat H^k$.
        beta4: Weights of $\sqrt h$ at $\hat H^k$.
        ode: Order on an ODE.
    """

    A0: Matrix
    A1: Matrix
    A2: Matrix
    B0: Matrix
    B1: Matrix
    B2: Matrix
    alpha: Vector
    beta1: Vector
    beta2: Vector
    beta3: Vector
    beta4: Vector
    ode: int


_ZERO = matrix("", "", "")
_ONE = matrix("", "1", "-1")
_ROOT6, _D1, _D2 = root("6"), root("38/491"), root("221/4955")
_MIXED = tuple(_D2 * v for v in vector("1070/513 491/513 491/513"))

TABLEAUS: dict[str, WeakTableau] = {
    "ri1": WeakTableau(
        A0=matrix("", "2/3", "-1/3 1"),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", "1", ""),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/4 1/2 1/4"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri3": WeakTableau(
        A0=matrix("", "1", "1/4 1/4"),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", [(3 - 2 * _ROOT6) / 5], [(6 + _ROOT6) / 10]),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/6 1/6 2/3"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri5": WeakTableau(
        A0=matrix("", "1", "25/144 35/144"),
        A1=matrix("", "1/4", "1/4"),
        A2=_ZERO,
        B0=matrix("", "1/3", "-5/6"),
        B1=matrix("", "1/2", "-1/2"),
        B2=_ONE,
        alpha=vector("1/10 3/14 24/35"),
        beta1=vector("1 -1 -1"),
        beta2=vector("0 1 -1"),
        beta3=vector("1/2 -1/4 -1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=3,
    ),
    "ri6": WeakTableau(
        A0=matrix("", "1", ""),
        A1=matrix("", "1", "1"),
        A2=_ZERO,
        B0=matrix("", "1", ""),
        B1=_ONE,
        B2=_ONE,
        alpha=vector("1/2 1/2 0"),
        beta1=vector("1/2 1/4 1/4"),
        beta2=vector("0 1/2 -1/2"),
        beta3=vector("-1/2 1/4 1/4"),
        beta4=vector("0 1/2 -1/2"),
        ode=2,
    ),
    "dri1": WeakTableau(
        A0=matrix("", "1/2", "-1 2"),
        A1=matrix("", "342/491", "342/491"),
        A2=_ZERO,
        B0=matrix("", [(6 - _ROOT6) / 10], [(3 + 2 * _ROOT6) / 5]),
        B1=matrix("", [3 * _D1], [-3 * _D1]),
        B2=matrix("", [-v for v in _MIXED], _MIXED),
        alpha=vector("1/6 2/3 1/6"),
        beta1=vector("193/684 491/1368 491/1368"),
        beta2=(Fraction(0), 1 / (6 * _D1), -1 / (6 * _D1)),
        beta3=vector("-4955/7072 4955/14144 4955/14144"),
        beta4=(Fraction(0), -1 / (8 * _D2), 1 / (8 * _D2)),
        ode=3,
    ),
}
"""Name → published tableau. Methods that take them draw two-point variables beside the three-point ones."""
