"""This gateway as one of the members of a fleet: the fleet's name and the member's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

__all__ = [
    "MOST_NAME",
    "FleetSettings",
    "Membership",
    "is_fleet_name",
    "is_member_name",
    "is_member_of_host",
    "member_name",
]

# Characters of a fleet's name: with a subject behind it, it is part of the names of queues.
MOST_NAME = 40
# Characters of a host's name that stand in a member's.
MOST_HOST = 40

_MEMBER = re.compile(r"[a-z0-9-]{1,60}\Z", re.ASCII)
_NAME = re.compile(rf"[a-z0-9-]{{1,{MOST_NAME}}}\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Whether this gateway is one of several that are one bot."""

    name: str | None
    """None: it is alone."""


class Membership(msgspec.Struct, frozen=True):
    """A member of a fleet, for each of its processes."""

    fleet: str
    member: str
    """The host's name and a random part: no other gateway has it."""


def is_fleet_name(text: str) -> bool:
    """Return whether *text* can be a fleet's name."""
    return _NAME.match(text) is not None


def is_member_name(text: str) -> bool:
    """Return whether *text* can be a member's name."""
    return _MEMBER.match(text) is not None


def member_name(host: str, random_part: str) -> str:
    """Return the name of the member on *host*, which differs from others on that host by *random_part*."""
    return f"{_host_part(host)}-{random_part}"


def is_member_of_host(name: str, host: str) -> bool:
    """Return whether *name* was given on *host*: a state folder that was copied to another machine needs another."""
    return name.startswith(f"{_host_part(host)}-")


def _host_part(host: str) -> str:
    plain = re.sub(r"[^a-z0-9-]+", "-", host.partition(".")[0].lower()).strip("-")
    return plain[:MOST_HOST] or "host"
