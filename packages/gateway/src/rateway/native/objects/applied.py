"""The result of applying an event, and the record of a session in a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

__all__ = ["INCARNATION", "Applied", "Cause", "SessionRecord"]

# Between Discord's id of a session and the number that tells it from others with that id.
INCARNATION = "~"

Cause = Literal["start", "join", "available", "left", "outage"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What only the cache knows about an event. ``apply`` returns None when there is nothing to say."""

    cause: Cause | None = None
    """The header of GUILD_CREATE (``start``, ``join``, ``available``) and GUILD_DELETE (``left``, ``outage``)."""
    before: bytes | None = None
    """The entity as it was, as JSON, when the policy's ``before`` names the event and the entity was known."""
    left: tuple[int, ...] = ()
    """READY only: guilds of this shard that Discord no longer lists. They are gone from the cache already."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's session as it is written down. ``wall`` is Unix seconds; sequence numbers start at 0 with READY."""

    shard_id: int
    shard_count: int
    session_id: str
    resume_url: str
    settled: int
    applied: int = 0
    """Filled in by the store from its own books when it is read; what is written counts only with the cache off."""
    intents: int
    token_hash: str
    """A hash of the token, never the token: another token's sessions do not carry over."""
    wall: float
    pending_gap: bytes | None = None
    """Bodies of RATEWAY_GAP that are not confirmed yet, one a line."""
    pending_left: tuple[tuple[str, int], ...] = ()
    """Guilds whose RATEWAY_GUILD_LEFT is not confirmed yet, each with the session that still had it."""
    compression: str = ""
    """What the session was begun with and has to be resumed with; empty: not known."""
    presence: bytes | None = None
    """The last presence that a worker set, as JSON: the next identify shows it, after a restart too."""
    presence_setting: str = ""
    """A digest of the setting ``PRESENCE`` that this presence replaced; a changed setting counts more than it."""
    failed_at: int = 0
    """The sequence after which a message could not be read, 0 for none: at the second time there the session is given
    up."""
    number: int = 0
    """Above 0 where ``session_id`` was the id of an earlier session of this shard as well."""
    repeats: int = 0
    """How many sessions of this shard had the id of an earlier one: the greatest ``number`` so far."""
    earlier: tuple[str, ...] = ()
    """Short hashes of the ids of this shard's latest sessions."""

    @property
    def name(self) -> str:
        """The session as workers see it in ids of messages: Discord's id, and a number where that is not its own."""
        return f"{self.session_id}{INCARNATION}{self.number}" if self.number else self.session_id
