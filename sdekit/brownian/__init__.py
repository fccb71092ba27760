"""Brownian paths: noise as data, an argument of every solver."""

from sdekit.brownian.clock import Clock, snr_clock
from sdekit.brownian.grid import BrownianGrid, GridPath
from sdekit.brownian.increment import BrownianPath, Increment, Interval, Levy, Noise, levy_for
from sdekit.brownian.recorded import RecordedBrownian
from sdekit.brownian.steps import PathNoise, StepNoise

__all__ = [
    "BrownianGrid",
    "BrownianPath",
    "Clock",
    "GridPath",
    "Increment",
    "Interval",
    "Levy",
    "Noise",
    "PathNoise",
    "RecordedBrownian",
    "StepNoise",
    "levy_for",
    "snr_clock",
]
