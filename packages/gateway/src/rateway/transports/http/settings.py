"""What is set of the HTTP server."""

from __future__ import annotations

from dataclasses import dataclass

from rateway.secret import Secret

__all__ = ["HttpSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where health, metrics and the page are served, and to whom."""

    address: str | None
    """``host:port``; None: off."""
    token: Secret | None
