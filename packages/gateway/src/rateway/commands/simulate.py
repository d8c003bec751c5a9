"""`rateway simulate`: the command of the package rateway-simulator, where that is installed."""

from __future__ import annotations

from rateway_simulator.command import DESCRIPTION, EPILOG, SUMMARY, configure, run

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "configure", "run"]
