"""Step methods on dx = f(t, x) dt + g(t) dW, in either direction of time: h = t − s has its sign.

``x`` is a form, or an array of forms; ``kick(k, t)`` is g(t) z_k, and ``kick(k, t, levy)`` the same with the normals of
the Lévy areas. Noise that does not depend on the state is all that golden laws know.
"""

from __future__ import annotations

from itertools import pairwise

from golden.form import levy, mp


def euler_maruyama(f, kick, times, x):
    """Maruyama 1955: Y + f h + g ΔW, both fields at the start of the step."""
    for k, (s, t) in enumerate(pairwise(times)):
        x = x + (t - s) * f(s, x) + mp.sqrt(abs(t - s)) * kick(k, s)
    return x


def milstein(f, kick, times, x):
    """Milstein 1975: g g′ (ΔW² − h)/2 is zero where g does not depend on the state."""
    return euler_maruyama(f, kick, times, x)


def area(kick, k, h):
    """g(t) I_(1,0)/h over a step, as a function of t: I_(1,0) = h (ΔW/2 + H), Var H = h/12."""
    return lambda t: mp.sqrt(abs(h)) * (kick(k, t) / 2 + kick(k, t, levy) / mp.sqrt(12))


def sra1(f, kick, times, x):
    """Rößler 2010, SRA1: drifts at 0 and 3/4, the diffusion at 1 and 0."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        first = f(s, x)
        second = f(s + 3 * h / 4, x + 3 * h / 4 * first + 3 * Z(t) / 2)
        x = x + h / 3 * (first + 2 * second) + mp.sqrt(abs(h)) * kick(k, t) - Z(t) + Z(s)
    return x


def sri1w1(f, kick, times, x):
    """Rößler 2010, SRI1W1: drifts at 0 and 3/4, the diffusion at 0, 1/4 and 1; I_(1,1) and I_(1,1,1) are zero here."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        W = lambda t, k=k, h=h: mp.sqrt(abs(h)) * kick(k, t)  # noqa: E731
        quarter = s + h / 4
        first = f(s, x)
        second = f(s + 3 * h / 4, x + 3 * h / 4 * first + 3 * Z(s) / 2)
        x = x + h / 3 * (first + 2 * second)
        x = x - W(s) + 4 * W(quarter) / 3 + 2 * W(t) / 3 + 2 * Z(s) - 4 * Z(quarter) / 3 - 2 * Z(t) / 3
    return x


def milstein_free(f, kick, times, x):
    """Kloeden and Platen 1992, (11.1.3): g at x + f h + g √h less g is zero where g does not depend on the state."""
    return euler_maruyama(f, kick, times, x)


def milstein_general(f, kick, times, x):
    """Kloeden and Platen 1992, (10.3.3): it is golden without noise, where it is Euler's rule."""
    return euler(f, kick, times, x)


def platen15(f, kick, times, x):
    """Kloeden and Platen 1992, (11.2.1): values at the end of the step, x + f h ± √3 g I_(1,0)/h for the drift."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z, W = t - s, area(kick, k, t - s), mp.sqrt(abs(t - s)) * kick(k, t)
        first, shift = f(s, x), mp.sqrt(3) * Z(s)
        up, down = f(t, x + h * first + shift), f(t, x + h * first - shift)
        x = x + h / 4 * (up + 2 * first + down) + h / (2 * mp.sqrt(3)) * (up - down) + W + Z(s) - Z(t)
    return x


def sra3(f, kick, times, x):
    """Rößler 2010, SRA3: drifts at 0, 1 and 1/2, the diffusion at 1 and 0."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        first = f(s, x)
        second = f(t, x + h * first)
        third = f(s + h / 2, x + h / 4 * (first + second) + Z(t) + Z(s) / 2)
        x = x + h / 6 * (first + second + 4 * third) + mp.sqrt(abs(h)) * kick(k, t) - Z(t) + Z(s)
    return x


def sri2w1(f, kick, times, x):
    """Rößler 2010, SRI2W1: drifts at 0, 1 and 1/2, the diffusion at 0, 1/4 and 1."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, Z = t - s, area(kick, k, t - s)
        W = lambda t, k=k, h=h: mp.sqrt(abs(h)) * kick(k, t)  # noqa: E731
        quarter = s + h / 4
        first = f(s, x)
        second = f(t, x + h * first)
        third = f(s + h / 2, x + h / 4 * (first + second) + Z(s) + Z(quarter) / 2)
        x = x + h / 6 * (first + second + 4 * third)
        x = x - W(s) + 4 * W(quarter) / 3 + 2 * W(t) / 3 + 2 * Z(s) - 4 * Z(quarter) / 3 - 2 * Z(t) / 3
    return x


def decimals(*rows):
    """Coefficients as they are printed."""
    return [[mp.mpf(float(entry)) for entry in row.split()] for row in rows]


def stages(A, B, c, diffusion, alpha, beta, gamma):
    """A method with drifts at the nodes c, diffusions at others, and weights of f h, g ΔW and g I_(1,0)/h."""

    def law(f, kick, times, x):
        for k, (s, t) in enumerate(pairwise(times)):
            h, Z = t - s, area(kick, k, t - s)
            at, slopes = [s + node * h for node in diffusion], []
            for i, node in enumerate(c):
                inner = sum(A[i][j] * h * slopes[j] + B[i][j] * Z(at[j]) for j in range(i))
                slopes.append(f(s + node * h, x + inner))
            for i, slope in enumerate(slopes):
                x = x + h * alpha[i] * slope + beta[i] * mp.sqrt(abs(h)) * kick(k, at[i]) + gamma[i] * Z(at[i])
        return x

    return law


_SOSRA = decimals(
    "0.2889874966892885 0.6859880440839937 0.025024459226717772",
    "-16.792534242221663 17.514995785380226 0.27753845684143835",
    "0.4237535769069274 0.6010381474428539 -1.0247917243497813",
)
sosra = stages(
    decimals("", "0.6923962376159507", "-3.1609142252828395 4.1609142252828395"),
    decimals("", "1.3371632704399763", "1.442371048468624 1.8632741501139225"),
    (0, mp.mpf(0.6923962376159507), 1),
    (0, mp.mpf(0.041248171110700504), 1),
    *_SOSRA,
)
"""Rackauckas and Nie 2020, SOSRA."""

_SOSRI = decimals(
    "1.140099274172029 -0.6401334255743456 0.4736296532772559 0.026404498125060714",
    "-1.8453464565104432 2.688764531100726 -0.2523866501071323 0.40896857551684956",
    "2.8453464565104425 -2.688764531100725 0.2523866501071322 -0.40896857551684945",
)
_LATE = 1 / (2 * (_SOSRI[0][2] + _SOSRI[0][3]))
sosri = stages(
    decimals(
        "",
        "-0.04199224421316468",
        "2.842612915017106 -2.0527723684000727",
        "4.338237071435815 -2.8895936137439793 2.3017575594644466",
    ),
    decimals(
        "",
        "-0.21641093549612528",
        "1.5336352863679572 0.26066223492647056",
        "-1.0536037558179159 1.7015284721089472 -0.20725685784180017",
    ),
    (0, 0, _LATE, _LATE),
    [
        mp.mpf(v)
        for v in (
            0,
            0.26204282091330466,
            0.20903646383505375 - 0.1502377115150361,
            0.05836595312746999 + 0.6149440396332373 + 0.08535117634046772,
        )
    ],
    *_SOSRI,
)
"""Rackauckas and Nie 2020, SOSRI, but for the times at which it asks the drift: both ends, at weights ½ and ½."""


def normals(kick, k, h):
    """g(t) ΔW and g(t) H over a step, as functions of t."""
    root = mp.sqrt(abs(h))
    return lambda t: root * kick(k, t), lambda t: root * kick(k, t, levy) / mp.sqrt(12)


def euler_heun(f, kick, times, x):
    """Euler for the drift, the mean of the diffusions at both ends for the noise."""
    for k, (s, t) in enumerate(pairwise(times)):
        W, _ = normals(kick, k, t - s)
        x = x + (t - s) * f(s, x) + (W(s) + W(t)) / 2
    return x


def heun_strat(f, kick, times, x):
    """Rümelin 1982: the means of both fields at both ends, the second at the point of Euler and Maruyama."""
    for k, (s, t) in enumerate(pairwise(times)):
        W, _ = normals(kick, k, t - s)
        first = f(s, x)
        second = f(t, x + (t - s) * first + W(s))
        x = x + (t - s) / 2 * (first + second) + (W(s) + W(t)) / 2
    return x


def midpoint_strat(f, kick, times, x):
    """Half a step of Euler and Maruyama, and both fields there."""
    for k, (s, t) in enumerate(pairwise(times)):
        W, _ = normals(kick, k, t - s)
        middle = (s + t) / 2
        x = x + (t - s) * f(middle, x + (t - s) / 2 * f(s, x) + W(s) / 2) + W(middle)
    return x


def linear_noise(W, H, s, t):
    """∫ g dW for g linear between the ends: ∫ (u − s)/h dW = ΔW/2 − H."""
    return (W(s) + W(t)) / 2 + H(s) - H(t)


def sea(f, kick, times, x):
    """Foster, dos Reis and Strange 2024, (5.8): the drift at the mean of the path, ΔW/2 + H."""
    for k, (s, t) in enumerate(pairwise(times)):
        W, H = normals(kick, k, t - s)
        x = x + (t - s) * f(s, x + W(s) / 2 + H(s)) + linear_noise(W, H, s, t)
    return x


def shark(f, kick, times, x):
    """Foster, dos Reis and Strange 2024, (6.1): Y + H, then 5/6 of the step, at weights 2/5 and 3/5."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, (W, H) = t - s, normals(kick, k, t - s)
        first = f(s, x + H(s))
        second = f(s + 5 * h / 6, x + H(s) + 5 * (h * first + W(s)) / 6)
        x = x + h / 5 * (2 * first + 3 * second) + linear_noise(W, H, s, t)
    return x


def slowrk(f, kick, times, x):
    """Foster, dos Reis and Strange 2024, (6.2): all stages of the noise but the last stand at the midpoint."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, (W, H) = t - s, normals(kick, k, t - s)
        middle = s + h / 2
        first = f(s, x)
        second = f(s + 3 * h / 4, x + 3 * (h * first + W(middle) + 2 * H(middle)) / 4)
        x = x + h / 3 * (first + 2 * second) + W(middle) + 2 * (H(middle) - H(t))
    return x


def spark(f, kick, times, x):
    """Foster and Jelinčič 2023, Definition 1.6."""
    outer, inner = (3 - mp.sqrt(3)) / 6, 1 / mp.sqrt(3)
    for k, (s, t) in enumerate(pairwise(times)):
        h, (W, H) = t - s, normals(kick, k, t - s)
        middle = s + h / 2
        first = f(s, x)
        second = f(middle, x + (h * first + W(s)) / 2 + mp.sqrt(3) * H(s))
        third = f(t, x + h * second + W(middle))
        x = x + outer * (h * first + W(s)) + inner * (h * second + W(middle)) + outer * (h * third + W(t))
        x = x + H(s) - H(t)
    return x


def reversible_heun(f, kick, times, x):
    """Kidger, Foster, Li and Lyons 2021, Algorithm 1: a second state, from which the fields are seen."""
    other = x
    for k, (s, t) in enumerate(pairwise(times)):
        h, (W, _) = t - s, normals(kick, k, t - s)
        first = f(s, other)
        other = 2 * x - other + h * first + W(s)
        x = x + h / 2 * (first + f(t, other)) + (W(s) + W(t)) / 2
    return x


def platen_weak2(f, kick, times, x):
    """Kloeden and Platen (15.1.3): the trapezoidal rule for the drift and for additive noise, f at the Euler point."""
    for k, (s, t) in enumerate(pairwise(times)):
        h, first = t - s, f(s, x)
        here, there = (mp.sqrt(abs(h)) * kick(k, u) for u in (s, t))
        x = x + h / 2 * (first + f(t, x + h * first + here)) + here / 2 + there / 2
    return x


def dri1(f, kick, times, x):
    """Debrabant and Rößler 2009, DRI1: Kutta's drifts at 0, 1/2 and 1, additive noise at 0 and 342/491."""
    root = mp.sqrt(6)
    for k, (s, t) in enumerate(pairwise(times)):
        h = t - s
        here, there = (mp.sqrt(abs(h)) * kick(k, u) for u in (s, s + 342 * h / 491))
        first = f(s, x)
        second = f(s + h / 2, x + h / 2 * first + (6 - root) / 10 * here)
        third = f(t, x - h * first + 2 * h * second + (3 + 2 * root) / 5 * here)
        x = x + h / 6 * (first + 4 * second + third) + 193 * here / 684 + 491 * there / 684
    return x


def euler(f, kick, times, x):
    """Euler 1768."""
    for s, t in pairwise(times):
        x = x + (t - s) * f(s, x)
    return x


def heun(f, kick, times, x):
    """The explicit trapezoidal rule (Heun 1900): the mean of the slopes at both ends, the second at the Euler point."""
    for s, t in pairwise(times):
        first = f(s, x)
        second = f(t, x + (t - s) * first)
        x = x + (t - s) / 2 * (first + second)
    return x


def rk4(f, kick, times, x):
    """Kutta 1901: the classical rule of order four."""
    for s, t in pairwise(times):
        h, middle = t - s, (s + t) / 2
        k1 = f(s, x)
        k2 = f(middle, x + h / 2 * k1)
        k3 = f(middle, x + h / 2 * k2)
        k4 = f(t, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def midpoint(f, kick, times, x):
    """Runge 1895: a step with the slope in its middle."""
    for s, t in pairwise(times):
        x = x + (t - s) * f((s + t) / 2, x + (t - s) / 2 * f(s, x))
    return x


def bosh3(f, kick, times, x):
    """Bogacki and Shampine 1989: slopes at 0, 1/2 and 3/4."""
    for s, t in pairwise(times):
        h = t - s
        k1 = f(s, x)
        k2 = f(s + h / 2, x + h / 2 * k1)
        k3 = f(s + 3 * h / 4, x + 3 * h / 4 * k2)
        x = x + h / 9 * (2 * k1 + 3 * k2 + 4 * k3)
    return x


def staged(f, times, x, nodes, rows):
    """Stages at the nodes, each a row of weights of those before; the last row is the step."""
    for s, t in pairwise(times):
        slopes, inside = [], x
        for c, row in zip([*nodes, None], [[], *rows], strict=True):
            inside = x + (t - s) * sum((mp.mpf(a) * k for a, k in zip(row, slopes, strict=True)), 0 * x)
            if c is not None:
                slopes.append(f(s + mp.mpf(c) * (t - s), inside))
        x = inside
    return x


def dopri5(f, kick, times, x):
    """Dormand and Prince 1980, RK5(4)7M, over the common denominators of Hairer, Nørsett and Wanner's table 5.2."""
    q = lambda *pairs: [mp.mpf(a) / b for a, b in pairs]  # noqa: E731
    rows = [
        q((1, 5)),
        q((3, 40), (9, 40)),
        q((44, 45), (-56, 15), (32, 9)),
        q((19372, 6561), (-25360, 2187), (64448, 6561), (-212, 729)),
        q((9017, 3168), (-355, 33), (46732, 5247), (49, 176), (-5103, 18656)),
        q((35, 384), (0, 1), (500, 1113), (125, 192), (-2187, 6784), (11, 84)),
    ]
    return staged(f, times, x, q((0, 1), (1, 5), (3, 10), (4, 5), (8, 9), (1, 1)), rows)


def tsit5(f, kick, times, x):
    """Tsitouras 2011, table 1, with thirty digits from the solution of its order conditions."""
    rows = [
        ["0.161"],
        ["-0.00848065549235698854442687425023", "0.335480655492356988544426874250"],
        ["2.89715305710549343213043259419", "-6.35944848997507484314815991238", "4.36229543286958141101772731819"],
        [
            *("5.32586482843925660442887792084", "-11.7488835640628278777471703398"),
            *("7.49553934288983620830460478456", "-0.0924950663617552492565020793321"),
        ],
        [
            *("5.86145544294642002865925148698", "-12.9209693178471092917061186818", "8.15936789857615864318040079454"),
            *("-0.0715849732814009972245305425258", "-0.0282690503940683829090030572127"),
        ],
        [
            *("0.0964607668180652295181673131651", "0.01", "0.479889650414499574775249532291"),
            *("1.37900857410374189319227482186", "-3.29006951543608067990104758571", "2.32471052409977398241535591840"),
        ],
    ]
    return staged(f, times, x, ["0", "0.161", "0.327", "0.9", "0.980025540904509685729810286287", "1"], rows)


def dopri8(f, kick, times, x):
    """Hairer, Nørsett and Wanner's DOP853, as scipy prints it; nodes are the sums of its rows."""
    from scipy.integrate._ivp import dop853_coefficients as code

    rows = [[mp.mpf(float(code.A[i, j])) for j in range(i)] for i in range(1, 13)]
    nodes = [sum(row, mp.mpf(0)) for row in ([], *rows[:-1])]
    return staged(f, times, x, nodes, rows)
