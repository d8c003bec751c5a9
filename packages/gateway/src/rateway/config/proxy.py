"""What is set of the gateway proxy, which is a process of its own (``rateway.proxy``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rateway.secret import Secret

__all__ = ["DEFAULT_PROXY_ADDRESS", "ProxySettings"]

# Where `rateway proxy` listens when PROXY_ADDRESS does not say: the port that gateway proxies have by custom.
DEFAULT_PROXY_ADDRESS = "127.0.0.1:7878"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Where bots connect to the proxy, and the addresses and numbers that it gives them."""

    address: str | None
    """``host:port``; None: the gateway starts no proxy, and ``rateway proxy`` takes the default."""
    token: Secret | None
    """What bots may show in place of the bot's token."""
    url: str | None
    """The address that bots get, ws or wss; None: the one of their request's Host header."""
    shards: int | None
    """The number of shards that bots get; None: the gateway's."""
    rest_url: str | None
    """Where REST requests go, without ``/api/v10``; None: to the host of ``DISCORD_API_URL``."""
    cert: Path | None
    """The certificate in PEM, with those between it and its authority; None: no TLS."""
    key: Path | None
    """The certificate's key; None: it stands in the certificate's file."""
    behind_tls: bool
    """Whether another server does TLS in front of it."""
    replay: frozenset[str]
    """Names of events that a bot gets after an IDENTIFY when its former connection missed them."""
    connections: int
    """Gateway connections of bots at a time."""
