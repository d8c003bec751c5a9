"""Records that members of a fleet send one another, beside permits (``runtime.fleet.permits``)."""

from __future__ import annotations

import msgspec
from rateway.fleet.charter import Charter

__all__ = [
    "CanReachDiscord",
    "CharterSays",
    "DeadTokenSays",
    "Done",
    "DrainOrder",
    "Farewell",
    "FaultSays",
    "LayoutRefused",
    "MoveOrder",
    "MoveWish",
    "ReshardWish",
]  # fmt: skip


class Farewell(msgspec.Struct, frozen=True):
    """To all: the sender ends, and holds nothing any more."""


class CharterSays(msgspec.Struct, frozen=True):
    """The governor to all: what the fleet runs."""

    epoch: int
    charter: Charter


class FaultSays(msgspec.Struct, frozen=True):
    """The governor to all: identifies of many shards fail alike, or succeed again."""

    lasts: bool


class DeadTokenSays(msgspec.Struct, frozen=True):
    """The governor to all: Discord refuses the token, and no session lives with it."""

    status: int
    text: str


class LayoutRefused(msgspec.Struct, frozen=True):
    """To the governor: Discord refuses the layout of that generation, with this close code."""

    generation: int
    code: int
    meaning: str
    help: str


class MoveOrder(msgspec.Struct, frozen=True):
    """The governor to the owner of a cluster: hand it over to that member."""

    cluster: int
    to: str


class MoveWish(msgspec.Struct, frozen=True):
    """A question to the governor: a person wants the cluster at that member. Its answer is a Done."""

    cluster: int
    to: str


class ReshardWish(msgspec.Struct, frozen=True):
    """A question to the governor: a person wants another number of shards. Its answer is a Done."""

    shards: int | None
    """As the member's settings say; None: what Discord recommends and *extra*."""
    extra: int
    per_cluster: int


class DrainOrder(msgspec.Struct, frozen=True):
    """A question to a member: hand all clusters over and take none, or (not *leaving*) take part again. Its answer is
    a Done."""

    leaving: bool


class CanReachDiscord(msgspec.Struct, frozen=True):
    """A question to a member that is to take clusters of one that cannot. Its answer is a Done."""


class Done(msgspec.Struct, frozen=True):
    """Whether it is done, or begun, and what to tell the person that asked."""

    done: bool
    words: str
