"""Brownian paths: noise as data, an argument of every solver."""

from sdekit.brownian.clock import Clock, snr_clock
from sdekit.brownian.grid import BrownianGrid, GridPath
from sdekit.brownian.increment import BrownianPath, Increment, Interval, Levy, Noise, levy_for
from sdekit.brownian.recorded import RecordedBrownian
from sdekit.brownian.steps import PathNoise, StepNoise
from sdekit.brownian.tree import BrownianTree
from sdekit.brownian.walk import Walk

__all__ = [
    "BrownianGrid",
    "BrownianPath",
    "BrownianTree",
    "Clock",
    "GridPath",
    "Increment",
    "Interval",
    "Levy",
    "Noise",
    "PathNoise",
    "RecordedBrownian",
    "StepNoise",
    "Walk",
    "levy_for",
    "snr_clock",
]
