"""What the cache keeps: the ``[cache]`` settings as one frozen record, and the fingerprint that the store carries."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields

import msgspec
from rateway.cache.slim import EVERYTHING, Choice, FieldChoices, Slim, slim_of
from rateway.cache.storage import Reading, Table

__all__ = ["DEFAULT_KINDS", "KINDS", "CachePolicy", "WrittenPolicy", "written_policy", "written_since"]

# Every kind of entity that can be switched off by itself. Guilds and the bot's own user have no switch: without them
# nothing else could be found.
KINDS = frozenset(
    {
        "channels", "threads", "thread_members", "roles", "emojis", "stickers", "members", "users", "presences",
        "voice_states", "stage_instances", "scheduled_events", "soundboard_sounds", "messages", "integrations",
    }
)  # fmt: skip

# Off unless asked for: presences cost the most of all, integrations have no snapshot in GUILD_CREATE and are partial
# by nature (https://docs.discord.com/developers/events/gateway-events#guilds).
DEFAULT_KINDS = KINDS - {"integrations"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What the cache keeps and says. Another policy is another fingerprint: kinds switched on are then incomplete."""

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
    fields: FieldChoices = ()
    """Which fields of guilds, members, users, presences and messages are kept; of what is not named here, all."""
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
        """The kinds that are kept."""
        return frozenset(kind for kind in KINDS if self.keeps(kind))

    @property
    def slim(self) -> Slim | None:
        """What takes fields out; None when all are kept."""
        return slim_of(self.fields)

    def choice(self, kind: str) -> Choice:
        """Which fields of a kind are kept."""
        return self.slim.choices.get(kind, EVERYTHING) if self.slim is not None else EVERYTHING

    def fingerprint(self) -> str:
        """A short text that differs whenever something that decides what is kept differs."""
        parts = []
        for field in fields(self):
            if field.name in ("before", "members_from_events"):
                continue  # they change what is said or how fresh a row is, not what is kept
            value = getattr(self, field.name)
            if field.name == "fields":
                value = sorted((kind, sorted(names)) for kind, names in value)
            parts.append(f"{field.name}={sorted(value) if isinstance(value, frozenset) else value}")
        return hashlib.blake2b(";".join(parts).encode(), digest_size=8).hexdigest()


class WrittenPolicy(msgspec.Struct):
    """The policy that a store was written under."""

    fingerprint: str
    kinds: list[str]
    activities: bool
    fields: dict[str, list[str]] = {}
    """Fields chosen of a kind, as :attr:`CachePolicy.fields` has them."""
    since: dict[str, int] = {}
    """Kind → the stamp before which guilds came without it, or with less of it."""

    def choice(self, kind: str) -> Choice:
        """Which fields of a kind were kept."""
        return Choice.of(kind, frozenset(self.fields.get(kind, ())))

    @classmethod
    def of(cls, policy: CachePolicy, since: dict[str, int] | None = None) -> WrittenPolicy:
        """What is written of a policy."""
        chosen = {kind: sorted(names) for kind, names in policy.fields}
        return cls(
            policy.fingerprint(), sorted(policy.kept()), policy.activities, fields=chosen, since=since or {}
        )


@functools.lru_cache(64)
def _since(raw: bytes | None) -> Mapping[str, int]:
    return msgspec.msgpack.decode(raw, type=WrittenPolicy).since if raw else {}


def written_since(reading: Reading) -> Mapping[str, int]:
    """:attr:`WrittenPolicy.since` of a store; asked for with every query, so it is decoded once."""
    return _since(reading.get(Table.META, b"policy"))


def written_policy(reading: Reading) -> WrittenPolicy | None:
    """What a store says of the policy that it was written under; None when nothing was written yet."""
    raw = reading.get(Table.META, b"policy")
    return msgspec.msgpack.decode(raw, type=WrittenPolicy) if raw else None
