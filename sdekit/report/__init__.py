"""The report of a study: figures and one self-contained page, made from its records and arrays alone."""

from sdekit.report.page import build, check_installed

__all__ = ["build", "check_installed"]
