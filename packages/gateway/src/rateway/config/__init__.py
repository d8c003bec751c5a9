"""File and environment become one frozen :class:`Settings`, or a list of everything that is wrong with them."""

from __future__ import annotations

from rateway.config.load import VARIABLES, load
from rateway.config.settings import ConfigurationError, Problem, Settings

__all__ = ["VARIABLES", "ConfigurationError", "Problem", "Settings", "load"]
