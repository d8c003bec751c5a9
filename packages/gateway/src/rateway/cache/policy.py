"""The policy of the cache: the ``[cache]`` settings as one frozen record, and the fingerprint that the
store carries.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rateway.cache.kinds import ENTITY_KINDS
from rateway.cache.storage import Reading, Table

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "CachePolicy",
    "CacheSettings",
    "WrittenPolicy",
    "written_policy",
    "written_since",
]

# Guilds and the bot's own user have no switch: without them nothing else could be found.
KINDS = frozenset(row.name for row in ENTITY_KINDS)
DEFAULT_KINDS = frozenset(row.name for row in ENTITY_KINDS if row.by_default)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """The choice of what the cache keeps and returns. Kinds that a new policy adds are incomplete until each guild
    comes again.
    """

    enabled: bool = True
    kinds: frozenset[str] = DEFAULT_KINDS
    """Names out of :data:`KINDS`; messages are kept only with ``messages_per_channel`` > 0 as well."""
    messages_per_channel: int = 0
    activities: bool = True
    """Whether presences keep their ``activities`` (they are most of a presence's bytes)."""
    members_from_events: bool = True
    """Whether members and users that come inside messages, typing, reactions … are taken."""
    before: frozenset[str] = frozenset()
    """Event names for which the entity as it was is wanted (:attr:`Applied.before`)."""
    message_content: bool = True
    """Whether the MESSAGE_CONTENT intent is on; without it an empty content in MESSAGE_UPDATE erases nothing."""

    def __post_init__(self) -> None:
        unknown = sorted(self.kinds - KINDS)
        if unknown:
            raise ValueError(
                f"unknown kinds of entities: {', '.join(unknown)}; there are {', '.join(sorted(KINDS))}"
            )

    def keeps(self, kind: str) -> bool:
        """Whether entities of that kind are kept."""
        if kind == "messages":
            return self.enabled and kind in self.kinds and self.messages_per_channel > 0
        if kind == "users":
            return self.enabled and "members" in self.kinds
        return self.enabled and kind in self.kinds

    def kept(self) -> frozenset[str]:
        """Return the kinds that are kept."""
        return frozenset(kind for kind in KINDS if self.keeps(kind))

    def fingerprint(self) -> str:
        """Return a short text that is another for every other choice of what is kept.

        ``before`` and ``members_from_events`` decide what is published and how fresh a row is, not what is kept.
        Stores hold this text: what it is made of stays as it is, or every cache is taken for one of other settings.
        """
        parts = (
            f"enabled={self.enabled}",
            f"kinds={sorted(self.kinds)}",
            f"messages_per_channel={self.messages_per_channel}",
            f"activities={self.activities}",
            # Stores of 5b63bf9 and later have it: the choice of single fields, which there is no more.
            "fields=[]",
            f"message_content={self.message_content}",
        )
        return hashlib.blake2b(";".join(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """The settings of the cache."""

    enabled: bool
    messages_per_channel: int
    kinds: frozenset[str] | None
    """Names out of :data:`KINDS`; None: :data:`DEFAULT_KINDS`."""
    activities: bool
    members_from_events: bool
    before: frozenset[str]
    """Event names for which the entity as it was is published."""
    renew: bool
    path: Path | None
    """The folder of the stores; None: in the state folder."""

    def policy(self, *, message_content: bool) -> CachePolicy:
        """Return the policy of these settings, with or without the MESSAGE_CONTENT intent."""
        return CachePolicy(
            enabled=self.enabled,
            kinds=DEFAULT_KINDS if self.kinds is None else self.kinds,
            messages_per_channel=self.messages_per_channel,
            activities=self.activities,
            members_from_events=self.members_from_events,
            before=self.before,
            message_content=message_content,
        )


class WrittenPolicy(msgspec.Struct):
    """The policy that a store was written under."""

    fingerprint: str
    kinds: list[str]
    activities: bool
    fields: dict[str, list[str]] = {}
    """Kind → fields that were chosen of it, in a store of a version that had such settings: others may be missing."""
    since: dict[str, int] = {}
    """Kind → the stamp before which guilds came without it, or with less of it."""

    @classmethod
    def of(cls, policy: CachePolicy, since: dict[str, int] | None = None) -> WrittenPolicy:
        """Return the record of a policy for the store."""
        return cls(policy.fingerprint(), sorted(policy.kept()), policy.activities, since=since or {})


@functools.lru_cache(64)
def _since(raw: bytes | None) -> Mapping[str, int]:
    return msgspec.msgpack.decode(raw, type=WrittenPolicy).since if raw else {}


def written_since(reading: Reading) -> Mapping[str, int]:
    """:attr:`WrittenPolicy.since` of a store; asked for with every query, so it is decoded once."""
    return _since(reading.get(Table.META, b"policy"))


def written_policy(reading: Reading) -> WrittenPolicy | None:
    """Return the policy that a store was written under; None when nothing was written yet."""
    raw = reading.get(Table.META, b"policy")
    return msgspec.msgpack.decode(raw, type=WrittenPolicy) if raw else None
