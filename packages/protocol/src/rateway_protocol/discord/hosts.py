"""Decide which gateway addresses the bot's token may be sent to.

Discord names them itself (``GET /gateway/bot``, ``resume_gateway_url`` of READY), so a wrong or forged answer could
name any. The token goes to Discord's own domains, to the domain of the API that is configured, and to those that are
configured beside it; never without TLS where the API, or the address before, has it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["TokenHosts", "is_host_name"]

# Domains that belong to Discord: the API's, the gateway's, and the former name of both.
DISCORD = ("discord.com", "discord.gg", "discordapp.com")
# Three names of one machine: this one.
SELF = ("localhost", "127.0.0.1", "::1")
# In "co.uk" and its like the label before the country is no owner's: at most so many letters.
SHORT_LABEL = 3


# RFC 1035, 2.3.4, without the last dot.
LONGEST_NAME = 253


def is_host_name(host: str) -> bool:
    """Return whether a host's name or address can be looked up at all: resolvers raise for a label that is empty or
    longer than 63 bytes (RFC 1035, 2.3.4).
    """
    if not 0 < len(host) <= LONGEST_NAME + 1 or not host.isprintable() or " " in host:
        return False
    try:
        return bool(host.encode("idna").strip(b"."))
    except UnicodeError:
        return False


class TokenHosts:
    """For one API, given by its base address, and further domains that a person has allowed."""

    __slots__ = ("_domains", "_tls")

    def __init__(self, api_url: str, allowed: Iterable[str] = ()) -> None:
        parts = urlsplit(api_url)
        self._tls = parts.scheme == "https"
        own = _domain(parts.hostname or "")
        self._domains = {*DISCORD, own, *(SELF if own in SELF else ()), *(each.lower() for each in allowed)}

    def fault(self, url: str, before: str = "") -> str:
        """Return why the token is not sent to the gateway at *url*; empty when it is. *before*: the address that it
        replaces, if there was one.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".")
        except ValueError:
            return "it is no address"
        if not self._known(host):
            return f"{host or 'it'} is not of the API's domain (GATEWAY_HOSTS can allow it)"
        if parts.scheme == "wss":
            return ""
        if parts.scheme != "ws":
            return "it is no address of a gateway"
        return "it is without TLS" if self._tls or before.startswith("wss:") or _of_discord(host) else ""

    def _known(self, host: str) -> bool:
        if host in self._domains:
            return True
        if _is_number(host):
            return False
        # Each domain that the host is in: a.b.c, b.c, c.
        labels = host.split(".")
        parents = (".".join(labels[at:]) for at in range(1, len(labels)))
        return any(parent in self._domains and not _is_number(parent) for parent in parents)


def _of_discord(host: str) -> bool:
    return any(host == each or host.endswith(f".{each}") for each in DISCORD)


def _domain(host: str) -> str:
    """Return the domain that a host's owner has: ``example.org`` for ``api.example.org``, and for itself."""
    host = host.lower().rstrip(".")
    labels = host.split(".")
    if _is_number(host) or len(labels) < 3:
        return host
    parent = labels[1:]
    # Below "co.uk" everybody may have a name.
    shared = len(parent) == 2 and len(parent[0]) <= SHORT_LABEL and len(parent[1]) == 2
    return host if shared else ".".join(parent)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
