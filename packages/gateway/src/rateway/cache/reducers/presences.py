"""Presences: the newest of each member; offline is nothing to keep.

Their fields are not validated by Discord: anything but ``user.id`` may be missing, null or odd
(https://docs.discord.com/developers/events/gateway-events#presence-update).
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.writer import CacheWriter
from rateway.native.objects import field, read_presence
from rateway.native.objects.decoders import id_of
from rateway.native.objects.fields import NULL, Fields, fields, join, same_value

__all__ = ["presence_update", "take_presence"]

_MEMBER = int(Kind.MEMBER)
_OFFLINE = msgspec.Raw(b'"offline"')


def presence_update(writer: CacheWriter, d: bytes) -> None:
    """Replaces; its bytes are kept as they came. It never makes a member, and its user only changes a known one."""
    guild_id, user_id, offline, named = read_presence(d)
    number = writer.number_of(guild_id)
    if number is None:
        return
    if "presences" in writer.kept:
        if offline:
            writer.entity_store.remove(number, Kind.PRESENCE, user_id)
        elif writer.policy.activities:
            writer.entity_store.put(number, Kind.PRESENCE, user_id, d)
        else:
            _put(writer, number, user_id, fields(d))
    # Nearly every presence names its user by id alone.
    if named:
        merge_known(writer, user_id, field(d, b"user") or b"{}")


def _put(writer: CacheWriter, number: int, user_id: int, found: Fields) -> None:
    if not writer.policy.activities:
        found.pop("activities", None)
    writer.entity_store.put(number, Kind.PRESENCE, user_id, join(found))


def merge_known(writer: CacheWriter, user_id: int, user: bytes) -> None:
    """A partial user into a user that is known."""
    if (
        "users" in writer.kept
        and not writer.fingerprints.knows_user(user_id, user)
        and writer.entity_store.homes(_MEMBER, user_id, 1)
    ):
        writer.take_user(user_id, user)


def take_presence(writer: CacheWriter, number: int, found: Fields) -> None:
    """A presence inside another event (a chunk, a thread's new members)."""
    user_id = id_of(found["user"])
    if "presences" not in writer.kept:
        return
    if same_value(found.get("status", NULL), _OFFLINE):
        writer.entity_store.remove(number, Kind.PRESENCE, user_id)
    else:
        _put(writer, number, user_id, found)
