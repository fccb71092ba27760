r"""The upper tail of a weighted sum of squared normals, $T = \sum_i \lambda_i Z_i^2$ with $\lambda_i > 0$.

The saddlepoint approximation of Lugannani and Rice in the form of Barndorff-Nielsen: with
$K(s) = -\tfrac12 \sum \log (1 - 2 \lambda_i s)$ and $K'(s) = t$,

$$ P(T > t) \approx \Phi\bigl( -w - \tfrac1w \log \tfrac vw \bigr), \qquad
   w = \operatorname{sign}(s) \sqrt{2 (s t - K(s))}, \quad v = s \sqrt{K''(s)} . $$

Its error is relative, a few per cent however small the probability.

References: [kuonen1999].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEAR = 1e-4  # of the mean, in standard deviations, where the formula is 0/0


def upper_tail(weights: Tensor, t: float) -> float:
    r"""$P(\sum \lambda_i Z_i^2 > t)$ for positive weights λ, shape (m,)."""
    from scipy.optimize import brentq

    lam = weights.double() / float(weights.max())
    t = t / float(weights.max())
    if t <= 0.0:
        return 1.0
    mean, sd = float(lam.sum()), math.sqrt(2.0 * float(lam.square().sum()))
    if abs(t - mean) < _NEAR * sd:
        return 0.5 * (upper_tail(lam, mean + 2 * _NEAR * sd) + upper_tail(lam, mean - 2 * _NEAR * sd))

    def excess(s: float) -> float:
        return float((lam / (1.0 - 2.0 * s * lam)).sum()) - t

    # K' at 1/2 − 1/2t is at least t, by its greatest weight alone; at −m/2t it is at most t.
    low, high = -0.5 * len(lam) / t - 1.0, 0.5 - 0.5 / (t + 1.0)
    s = brentq(excess, low, high, xtol=1e-14, rtol=1e-14)
    rest = 1.0 - 2.0 * s * lam
    w = math.copysign(math.sqrt(max(2.0 * s * t + float(torch.log(rest).sum()), 0.0)), s)
    v = s * math.sqrt(2.0 * float((lam / rest).square().sum()))
    return 0.5 * math.erfc((w + math.log(v / w) / w) * math.sqrt(0.5))
