"""What the owner of a cluster writes into its fleet record, and what a new owner takes of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from rateway.fleet.port import MOST_BODY, Owned
from rateway.native.objects.applied import SessionRecord

__all__ = [
    "Adoption", "ClusterRecord", "EndedSession", "LastTenure", "Source", "adopt", "decode", "encode", "has_been_run",
    "with_ended",
]  # fmt: skip

# Lost sessions that a record goes on to name: for the spool of an owner that returns.
MOST_ENDED: Final = 256

Source = Literal["fleet", "local"]
"""Where the sessions of a new tenure come from: the fleet's record, or this member's own store."""


class EndedSession(msgspec.Struct, frozen=True):
    """A session that was lost."""

    shard_id: int
    name: str
    through: int
    """The sequence up to which its owners have settled it: what they have received beyond may be in a spool."""


class ClusterRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a cluster's fleet record, as msgpack."""

    sessions: tuple[SessionRecord, ...] = ()
    """What a resume of each shard needs; of a shard without a session what must still be reported."""
    ended: tuple[EndedSession, ...] = ()
    """The latest lost sessions, oldest first."""
    cache: str = ""
    """The name of the cache that the next owner has been sent; empty when it has none."""


class LastTenure(msgspec.Struct, frozen=True):
    """What a member's state folder notes of its latest tenure of a cluster, in JSON."""

    fleet: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a tenure begins with."""

    sessions: tuple[SessionRecord, ...]
    ended: tuple[EndedSession, ...]
    source: Source
    follows_own: bool
    """Whether this member's state folder was the last owner, so that its cache is as the sessions say."""
    cache: str = ""
    """The name of the cache that the owner before has sent."""


def encode(record: ClusterRecord) -> bytes:
    """Return the body of a fleet record. It names fewer ended sessions where there is no room for all."""
    body = msgspec.msgpack.encode(record)
    if len(body) > MOST_BODY and record.ended:
        body = msgspec.msgpack.encode(msgspec.structs.replace(record, ended=()))
    return body


def decode(body: bytes) -> ClusterRecord:
    """Return a record; an empty one where *body* is none, as of an owner that had not written yet."""
    try:
        return msgspec.msgpack.decode(body, type=ClusterRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ClusterRecord()


def with_ended(ended: Iterable[EndedSession], new: EndedSession) -> tuple[EndedSession, ...]:
    """Return *ended* with one more, the latest MOST_ENDED of them."""
    return (*(each for each in ended if each.name != new.name), new)[-MOST_ENDED:]


def has_been_run(owned: Owned) -> bool:
    """Return whether a member of the fleet has written the cluster's sessions down before this tenure. The record of
    one that gave the cluster back at once has no body.
    """
    return owned.record is not None and owned.record.body != b""


def adopt(
    owned: Owned, local: Sequence[SessionRecord], last: LastTenure | None, *, fleet: str, member: str
) -> Adoption:
    """Return the sessions that a tenure begins with.

    The record counts, as the newest that its successor may rely on. The member's own store counts where there never was
    a record (a gateway that was started without ``FLEET`` and now has it keeps its sessions), and where nobody else has
    owned the cluster since this folder's last tenure: then of each shard the newer of both counts, which is the store's
    if it ran without ``FLEET`` meanwhile.

    Args:
        owned: The tenure, as the election gave it.
        local: The sessions in this member's store.
        last: This folder's latest tenure of the cluster; None when it had none.
        fleet: The fleet's name.
        member: This member's id.
    """
    record = owned.record
    if record is None or not has_been_run(owned):
        return Adoption(tuple(local), (), "local", follows_own=True)
    found = decode(record.body)
    is_own = (
        last is not None and last.fleet == fleet and record.owner == member and record.epoch == last.epoch
    )
    if is_own and local:
        return Adoption(_newest(local, found.sessions), found.ended, "local", follows_own=True)
    return Adoption(found.sessions, found.ended, "fleet", follows_own=is_own, cache=found.cache)


def _newest(local: Sequence[SessionRecord], recorded: Sequence[SessionRecord]) -> tuple[SessionRecord, ...]:
    """Return what was written last of each shard. The store is behind by a moment, since the two are not written at
    once, or by more, where its disk was full.
    """
    newest = {each.shard_id: each for each in recorded}
    for mine in local:
        other = newest.get(mine.shard_id, mine)
        if other.name == mine.name:
            newest[mine.shard_id] = msgspec.structs.replace(mine, settled=max(mine.settled, other.settled))
        elif not mine.wall or mine.wall >= other.wall:
            newest[mine.shard_id] = mine
    return tuple(newest.values())
