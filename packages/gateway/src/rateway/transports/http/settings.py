"""The settings of the HTTP server."""

from __future__ import annotations

from dataclasses import dataclass

from rateway.secret import Secret

__all__ = ["HttpSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """The address of health, metrics and page, and the access to them."""

    address: str | None
    """``host:port``; None: off."""
    token: Secret | None
