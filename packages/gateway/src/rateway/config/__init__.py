"""File and environment become one frozen :class:`Settings`, or a list of everything that is wrong with them."""

from __future__ import annotations

from rateway.config.load import VARIABLES, load
from rateway.config.settings import Compression, ConfigurationError, Problem, Settings

__all__ = ["VARIABLES", "Compression", "ConfigurationError", "Problem", "Settings", "load"]
