"""How figures look: one restrained style, colours that all readers can tell apart, labels beside the lines.

Figures are made without pyplot, so that no global state is touched, at a size that stays legible on a phone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

INK, SOFT, FAINT, PALE = "#1f2430", "#5b6472", "#c3c9d2", "#e9ecf1"
BLUE, RED, GREEN, WINE, INDIGO, OCHRE, TEAL = (
    "#0067a8",
    "#c23b12",
    "#117733",
    "#882255",
    "#4b3fa7",
    "#8a6100",
    "#00777a",
)
_SOLVERS = {
    "euler-maruyama": (RED, "o"),
    "euler": (OCHRE, "s"),
    "ddim": (BLUE, "D"),
    "heun": (GREEN, "^"),
    "rk4": (WINE, "v"),
    "dpmpp-2m": (INDIGO, "P"),
    "exact-linear": (SOFT, "x"),
    "milstein": (RED, "o"),
    "sra1": (TEAL, "h"),
    "sri1w1": ("#a0428a", "<"),
    "edm-heun": ("#7a9a2e", "^"),
    "deis-3": ("#3d5a80", "d"),
    "unipc-2": ("#c2571a", "X"),
    "seeds2": ("#8c6d31", "p"),
    "predictor-corrector": ("#5f6b7a", ">"),
}
_OTHERS = (("#6b6b00", ">"), ("#3d5a80", "d"))
_DASHES = {0.0: "-", 0.5: (0, (4, 1.6)), 1.0: "-"}

WIDTH, DPI = 4.2, 190
TEXT, SMALL = 9.5, 8.5


class Look(NamedTuple):
    """Colour, marker and dashes of a line."""

    colour: str
    marker: str
    dashes: Any


def look(solver: str, eta: float = 0.0) -> Look:
    """The same for a solver in every figure; its η shows in the dashes."""
    colour, marker = _SOLVERS.get(solver) or _OTHERS[sum(map(ord, solver)) % len(_OTHERS)]
    return Look(colour, marker, _DASHES.get(eta, (0, (1.5, 1.2))))


def new_figure(height: float, width: float = WIDTH) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def dress(axes: Any, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Titles, thin spines, quiet ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=SMALL, labelcolor=INK, length=3, which="both", width=0.6)
    if grid:
        axes.grid(True, color=PALE, linewidth=0.7)
        axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontsize=TEXT, color=INK, fontweight="bold", pad=7)
    axes.set_xlabel(x, fontsize=TEXT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT, color=INK)


def png(figure: Any) -> bytes:
    """The figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


class Label(NamedTuple):
    """A label for a line that ends at (x, y) in data coordinates."""

    text: str
    x: float
    y: float
    colour: str


def label_ends(axes: Any, labels: Sequence[Label], gap: float = 0.072) -> None:
    """Labels to the right of the axes, at the heights of their lines, moved apart where they would touch.

    Args:
        axes: With its limits and scales already set.
        labels: In any order.
        gap: Least distance between two labels, as a fraction of the height of the axes.
    """
    heights = [_height(axes, label.y) for label in labels]
    order = sorted(range(len(labels)), key=lambda i: heights[i])
    places = spread([heights[i] for i in order], gap)
    for i, place in zip(order, places, strict=True):
        label = labels[i]
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xycoords="data",
            xytext=(1.06, place),
            textcoords="axes fraction",
            fontsize=SMALL,
            color=label.colour,
            va="center",
            ha="left",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": label.colour, "lw": 0.5, "alpha": 0.55, "shrinkA": 1, "shrinkB": 3},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little as may be so that neighbours are at least ``gap`` apart, within [0, 1]."""
    if not heights:
        return []
    # Isotonic regression of heights − i·gap: pools of touching labels are centred on their mean.
    pools: list[list[float]] = []
    for i, height in enumerate(heights):
        pools.append([height - i * gap, 1.0])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    flat = [mean for mean, count in pools for _ in range(int(count))]
    top = 1.0 - (len(heights) - 1) * gap
    return [min(max(base, 0.0), max(top, 0.0)) + i * gap for i, base in enumerate(flat)]


def _height(axes: Any, y: float) -> float:
    low, high = map(float, axes.get_ylim())
    if axes.get_yscale() == "log":
        low, high, y = math.log(low), math.log(high), math.log(y)
    return (y - low) / (high - low)


def tile(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Grey images (n, H, W) side by side on white, (rows·(H + gap) + gap, …)."""
    n, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = image
    return sheet


def grey_png(pixels: Tensor, scale: int = 1) -> bytes:
    """Grey values 0 … 255 as a file, every pixel as a square of ``scale`` pixels."""
    from PIL import Image

    big = pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    buffer = io.BytesIO()
    Image.fromarray(big.numpy(), mode="L").save(buffer, format="png", optimize=True)
    return buffer.getvalue()
