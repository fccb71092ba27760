r"""A piece of Brownian motion in two parts: what the parts do given the whole, and the whole given the parts.

Let an interval of length h fall into parts of lengths a and b, a + b = h. Since the weight of H is linear in time,

$$ W = W_l + W_r, \qquad H = \frac{a H_l + b H_r}{h} + \frac{b W_l - a W_r}{2h} . \tag{1} $$

Two of the four numbers of the parts are free, given (W, H). For halves, $D = W_l - W_r$ and $S = H_l + H_r$ are
independent of one another, of variances h and h/12, and (1) says $H = \tfrac12 S + \tfrac14 D$. Given H, therefore,
$D = 3H + \tfrac12 \sqrt h\, X$ and $S = 2H - \tfrac12 D$, while $H_l - H_r = \sqrt{h/12}\, Y$ is free of both, so that

$$ W_{l,r} = \tfrac12 W \pm \bigl(\tfrac32 H + \tfrac14 \sqrt h\, X\bigr), \qquad
   H_{l,r} = \tfrac14 H - \tfrac18 \sqrt h\, X \pm \sqrt{h/48}\; Y $$

with independent standard normals X and Y. A path that knows W alone has
$W_{l,r} = \tfrac12 W \pm \tfrac12 \sqrt h\, X$, and $W_l = \tfrac a h W + \sqrt{ab/h}\, X$ where the parts are unequal,
as they are in another clock.

Here a piece is a tensor (n, 1, E) that holds W, or (n, 2, E) that holds W and H. Its parts, left and right, are
(n, 2, 1 or 2, E).

References: [foster2024], [jelincic2024].
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROOT_48TH = 48.0**-0.5


def halves(piece: Tensor, root: Tensor, z: Tensor) -> Tensor:
    """The halves of pieces, given the wholes.

    Args:
        piece: W, or W and H, shape (n, 1 or 2, E).
        root: √h of the whole, shape (n, 1).
        z: Normals X and Y, shape (2, n, E).

    Returns:
        Left and right, shape (n, 2, 1 or 2, E).
    """
    # Into the answer's own memory: a temporary of a large state costs more than its arithmetic. All factors but those
    # of the normals are sums of powers of two, so that fused operations round as others do.
    parts = piece.new_empty(len(piece), 2, *piece.shape[1:])
    w, left, right = piece[:, 0], parts[:, 0, 0], parts[:, 1, 0]
    if piece.shape[1] == 1:
        torch.mul(z[0], -0.5 * root, out=right).add_(w, alpha=0.5)
    else:
        h, left_h, right_h = piece[:, 1], parts[:, 0, 1], parts[:, 1, 1]
        torch.mul(z[0], -0.25 * root, out=right).add_(w, alpha=0.5).sub_(h).add_(h, alpha=-0.5)
        torch.mul(z[0], -0.125 * root, out=left_h).add_(h, alpha=0.25)
        torch.mul(z[1], _ROOT_48TH * root, out=right_h)
        left_h.add_(right_h)
        torch.sub(left_h, right_h, alpha=2, out=right_h)
    torch.sub(w, right, out=left)
    return parts


def halved(w: Tensor, h: Tensor | None, root: Tensor, z: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """:func:`halves` as expressions, for a compiler to fuse.

    Args:
        w: W, shape (n, E).
        h: H, likewise; None where it is not known.
        root: √h of the whole, shape (n, 1).
        z: Normals X and Y, shape (2, n, E).

    Returns:
        W, or W and H, of the left and of the right part.
    """
    if h is None:
        right = 0.5 * w - 0.5 * root * z[0]
        return [w - right], [right]
    right = 0.5 * w - 1.5 * h - 0.25 * root * z[0]
    both, apart = 0.25 * h - 0.125 * root * z[0], _ROOT_48TH * root * z[1]
    return [w - right, both + apart], [right, both - apart]


def unequal(piece: Tensor, a: Tensor, b: Tensor, z: Tensor) -> Tensor:
    """The parts, of variances a and b, of pieces that know W alone; shapes as for :func:`halves`, a and b like √h."""
    whole = a + b
    # Where a clock does not tell the ends apart there is nothing to share out.
    share = torch.where(whole > 0, a / whole, 0.5)
    left = share.to(piece) * piece[:, 0] + (share * b).sqrt().to(piece) * z[0]
    return torch.stack((left, piece[:, 0] - left), 1)[:, :, None]


def joined(left: Tensor, a: Tensor, right: Tensor, b: Tensor) -> Tensor:
    """The whole that two adjacent pieces make, by (1); their lengths have shape (n,), and one of them may be 0."""
    if left.shape[1] == 1:
        return left + right
    a, b = ((length / (a + b)).to(left)[:, None] for length in (a, b))
    h = a * left[:, 1] + b * right[:, 1] + 0.5 * (b * left[:, 0] - a * right[:, 0])
    return torch.stack((left[:, 0] + right[:, 0], h), 1)
