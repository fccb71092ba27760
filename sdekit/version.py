"""The version, single-sourced."""

__version__ = "0.1.0"
