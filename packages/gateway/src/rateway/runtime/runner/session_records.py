"""Write a cluster's session records (docs/delivery.md, "What is written down").

Only the *settled* sequence is: a session is stored as soon as its READY is confirmed, rewritten within a second of
every change, and dropped when it is lost, in one transaction with the gap that must then be told. Guilds that a new
session no longer has leave the cache in one transaction with the note that this is still to be told. A heartbeat's
``d`` is what was written here, so that Discord is never told more than a restart would know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from rateway.runtime.resumable import misfit
from rateway.transports.store import SessionRecord, StoreFault
from rateway_protocol.contract import messages

# Ids that a shard's new session is compared with. A server that repeats ids repeats the latest.
MOST_EARLIER = 8


class SessionStore(Protocol):
    """The part of ``transports.store.Store`` that sessions need."""

    def put_session(self, record: SessionRecord) -> None: ...
    def drop_session(self, shard_id: int) -> None: ...
    def commit(self) -> StoreFault | None: ...


@dataclass(slots=True)
class _Kept:
    """One shard's session as it is now, beside what the store holds of it."""

    record: SessionRecord
    ready_seq: int
    before: str = ""
    """The session before this one, if one was lost."""
    stored: SessionRecord | None = None


class SessionRecords:
    """The sessions of one cluster. Pure but for the store that it is given; the cluster calls :meth:`write`."""

    def __init__(
        self,
        store: SessionStore | None,
        *,
        shard_count: int,
        intents: int,
        token_hash: str,
        presence_setting: str = "",
    ) -> None:
        self._store = store
        self._presence_setting = presence_setting
        self._shard_count = shard_count
        self._intents = intents
        self._token_hash = token_hash
        self._kept: dict[int, _Kept] = {}
        # Shards whose session is not in the store yet; asked for with every confirm, hence no search.
        self._unwritten: set[int] = set()

    def restore(self, record: SessionRecord) -> None:
        """What the store held at the start: a session that is being resumed, or what is to be told of a lost one."""
        record = _with_own_id(record)
        gaps = (record.pending_gap or b"").splitlines()
        before = messages.lost_session(gaps[-1]) if gaps and not record.session_id else ""
        self._kept[record.shard_id] = _Kept(record, ready_seq=0, before=before, stored=record)

    def take_store(self, store: SessionStore) -> None:
        """There was none that could be written; what it should hold by now goes into it with the next :meth:`write`."""
        self._store = store

    def misfit(self, record: SessionRecord) -> str:
        """Return why a stored session cannot be resumed with this bot, these intents and this number of shards; empty
        when it can.
        """
        return misfit(
            record, shard_count=self._shard_count, intents=self._intents, token_hash=self._token_hash
        )

    def with_presence_that_counts(self, record: SessionRecord) -> SessionRecord:
        """A stored record without its presence, if that is another bot's, or of another layout or setting."""
        counts = (
            record.token_hash == self._token_hash
            and record.shard_count == self._shard_count
            and record.presence_setting == self._presence_setting
        )
        return record if counts or record.presence is None else _replaced(record, presence=None)

    def presence_set(self, shard_id: int, presence: bytes | None) -> None:
        """A worker's presence went out (None: the configured one); written with the next :meth:`write`."""
        kept = self._kept.get(shard_id)
        if kept is not None:
            kept.record = _replaced(kept.record, presence=presence, presence_setting=self._presence_setting)

    def presence_setting_changed(self, presence_setting: str) -> bool:
        """Take in the digest of the setting ``PRESENCE`` as it was read again.

        Returns:
            Whether the setting replaces the presences that workers have set: it has changed, and is not empty.
        """
        replaces = presence_setting not in ("", self._presence_setting)
        self._presence_setting = presence_setting
        for shard_id, kept in self._kept.items():
            self.presence_set(shard_id, None if replaces else kept.record.presence)
        return replaces

    def give_up(self, record: SessionRecord, gap: bytes) -> None:
        """A stored session that does not fit: it stays written down until the next one's READY takes its place,
        and the gap is told then, also by a later start that finds it again.
        """
        record = _with_own_id(record)
        blank = _replaced(
            record, session_id="", number=0, settled=0, pending_gap=_join(record.pending_gap, gap)
        )
        self._kept[record.shard_id] = _Kept(blank, ready_seq=0, before=record.name, stored=record)

    def started(
        self, shard_id: int, session_id: str, resume_url: str, ready_seq: int, compression: str = ""
    ) -> str:
        """READY came: a new session, and the name that it has from now on (:attr:`SessionRecord.name`).

        What must still be told of those before stays with the shard. Not every server gives each session an id of its
        own; by its name no session is taken for an earlier one.
        """
        before = self._kept.get(shard_id)
        blank = self._blank(shard_id, before.record if before else None)
        known = _hash_of(session_id)
        repeats = blank.repeats + (known in blank.earlier)
        record = _replaced(
            blank,
            session_id=session_id,
            resume_url=resume_url,
            compression=compression,
            number=repeats if known in blank.earlier else 0,
            repeats=repeats,
            earlier=(*[each for each in blank.earlier if each != known], known)[-MOST_EARLIER:],
        )
        former = before.record.name or before.before if before else ""
        self._kept[shard_id] = _Kept(record, ready_seq, former, before.stored if before else None)
        self._unwritten.add(shard_id)
        return record.name

    def session(self, shard_id: int) -> str:
        """The name of a shard's session; empty when it has none."""
        kept = self._kept.get(shard_id)
        return kept.record.name if kept else ""

    def failed(self, shard_id: int, failed_at: int) -> None:
        """A message could not be read after that sequence (0: none). Written down at once: a restart has to know."""
        kept = self._kept.get(shard_id)
        if kept is None or not kept.record.session_id or kept.record.failed_at == failed_at:
            return
        kept.record = _replaced(kept.record, failed_at=failed_at)
        stored = kept.stored
        if stored is None or stored.session_id != kept.record.session_id:
            return
        self._put(kept, _replaced(stored, failed_at=failed_at))
        if self.commit() is not None:
            kept.stored = None
            self._unwritten.add(shard_id)

    def lost(self, shard_id: int, gap: bytes, wall: float) -> None:
        """The session is over and events may be missing: forget it and remember the gap, in one transaction.

        Gaps of sessions before it that are not confirmed yet stay remembered as well.
        """
        known = self._kept.get(shard_id)
        former = self._blank(shard_id, known.record if known else None)
        blank = _replaced(former, wall=wall, pending_gap=_join(former.pending_gap, gap))
        self._kept[shard_id] = _Kept(blank, ready_seq=0, before=known.record.name if known else "")
        self._put(self._kept[shard_id], blank)
        if self.commit() is not None:
            self._kept[shard_id].stored = None

    def superseded(self, shard_id: int, gap: bytes) -> None:
        """Another gateway has had sessions of this shard: forget ours, and remember the gap; the caller commits.

        A gap of that kind that is not told yet stands for this one as well.
        """
        known = self._kept.get(shard_id)
        blank = self._blank(shard_id, known.record if known else None)
        pending = (blank.pending_gap or b"").splitlines()
        if not pending or not messages.is_takeover(pending[-1]):
            blank = _replaced(blank, pending_gap=_join(blank.pending_gap, gap))
        before = known.record.name or known.before if known else ""
        self._kept[shard_id] = _Kept(blank, ready_seq=0, before=before)
        self._put(self._kept[shard_id], blank)

    def pending_gaps(self, shard_id: int) -> list[bytes]:
        """Bodies of RATEWAY_GAP that the shard's worker has not surely heard, oldest first."""
        kept = self._kept.get(shard_id)
        return (kept.record.pending_gap or b"").splitlines() if kept else []

    def before(self, shard_id: int) -> str:
        """The session that this shard had before its present one; empty when there was none."""
        kept = self._kept.get(shard_id)
        return kept.before if kept else ""

    def remember_gaps(self, shard_id: int, gaps: list[bytes]) -> None:
        """The bodies are complete (they name the new session); written with the next :meth:`write`."""
        kept = self._kept.get(shard_id)
        if kept is not None:
            kept.record = _replaced(kept.record, pending_gap=b"\n".join(gaps) or None)

    def gap_confirmed(self, shard_id: int, gap: bytes) -> None:
        """The broker has this one, or the spool; another session may have been lost meanwhile."""
        self.remember_gaps(shard_id, [each for each in self.pending_gaps(shard_id) if each != gap])

    def leaving(self, shard_id: int, guild_ids: Iterable[int]) -> None:
        """READY of the present session no longer lists these: that they must be told goes into the transaction that
        takes them out of the cache, which the caller commits. What else the store holds of the shard stays.
        """
        kept = self._kept[shard_id]
        pending = kept.record.pending_left + tuple((kept.before, guild_id) for guild_id in guild_ids)
        kept.record = _replaced(kept.record, pending_left=pending)
        kept.stored = _replaced(kept.stored or self._blank(shard_id, kept.record), pending_left=pending)
        if self._store is not None:
            self._store.put_session(kept.stored)

    def pending_left(self, shard_id: int) -> tuple[tuple[str, int], ...]:
        """(Session that had it, guild) of each RATEWAY_GUILD_LEFT that the worker has not surely heard."""
        kept = self._kept.get(shard_id)
        return kept.record.pending_left if kept else ()

    def left_confirmed(self, shard_id: int, session: str, guild_id: int) -> None:
        """The broker has this one, or the spool; written with the next :meth:`write`."""
        kept = self._kept.get(shard_id)
        if kept is not None:
            left = tuple(each for each in kept.record.pending_left if each != (session, guild_id))
            kept.record = _replaced(kept.record, pending_left=left)

    @property
    def has_unwritten(self) -> bool:
        """Whether a session is not in the store yet: until it is, a crash would lose it."""
        return bool(self._unwritten)

    def write(self, settled: Iterable[tuple[int, int]], wall: float) -> list[tuple[int, int]]:
        """Write what changed. ``settled``: (shard, settled sequence) as it is now.

        Returns the (shard, settled) that are safely written now, for heartbeats. Nothing when the store is at fault.
        """
        written: list[tuple[int, int]] = []
        for shard_id, seq in settled:
            kept = self._kept.get(shard_id)
            if kept is None or not kept.record.session_id or seq < max(1, kept.ready_seq):
                continue
            stored = kept.stored
            if seq == kept.record.settled and stored is not None and _same(stored, kept.record):
                continue
            kept.record = _replaced(kept.record, settled=seq, wall=wall)
            self._put(kept, kept.record)
            written.append((shard_id, seq))
        if not written:
            return []
        if self.commit() is not None:
            # Nothing of it is written: the next call puts it again.
            for shard_id, _ in written:
                self._kept[shard_id].stored = None
                self._unwritten.add(shard_id)
            return []
        return written

    def forget(self, shard_id: int) -> None:
        """A shard that is none of ours in this layout, and of which nothing is left to tell."""
        if self._kept.pop(shard_id, None) is not None and self._store is not None:
            self._store.drop_session(shard_id)

    def forget_all(self) -> None:
        """The sessions were ended on purpose: nothing is left to resume."""
        for shard_id, kept in self._kept.items():
            if self._store is None:
                continue
            if kept.record.repeats:
                # What is known of a server that repeats ids outlives them.
                self._store.put_session(
                    _replaced(self._blank(shard_id, kept.record), pending_gap=None, pending_left=())
                )
            else:
                self._store.drop_session(shard_id)
        self._kept.clear()
        self._unwritten.clear()
        self.commit()

    def commit(self) -> StoreFault | None:
        return self._store.commit() if self._store is not None else StoreFault("there is no store")

    def _blank(self, shard_id: int, former: SessionRecord | None) -> SessionRecord:
        """No session, and what is still to be told of former ones."""
        return SessionRecord(
            shard_id=shard_id,
            shard_count=self._shard_count,
            session_id="",
            resume_url="",
            settled=0,
            intents=self._intents,
            token_hash=self._token_hash,
            wall=0.0,
            pending_gap=former.pending_gap if former else None,
            pending_left=former.pending_left if former else (),
            presence=former.presence if former else None,
            presence_setting=former.presence_setting if former else "",
            repeats=former.repeats if former else 0,
            earlier=former.earlier if former else (),
        )

    def _put(self, kept: _Kept, record: SessionRecord) -> None:
        if self._store is not None:
            self._store.put_session(record)
        kept.stored = record
        self._unwritten.discard(record.shard_id)


def _with_own_id(record: SessionRecord) -> SessionRecord:
    """A record that knows its own session's id, which those of version 0.3.0 and before do not."""
    known = _hash_of(record.session_id)
    if not record.session_id or known in record.earlier:
        return record
    return _replaced(record, earlier=(*record.earlier, known)[-MOST_EARLIER:])


def _hash_of(session_id: str) -> str:
    """Enough of a hash to recognise an id; two ids with the same one cost a number behind the second."""
    return hashlib.blake2b(session_id.encode(), digest_size=4).hexdigest()


def _join(gaps: bytes | None, gap: bytes) -> bytes:
    """One JSON document a line: they have no line breaks of their own."""
    return gap if not gaps else gaps + b"\n" + gap


def _replaced(record: SessionRecord, **changes: object) -> SessionRecord:
    return msgspec.structs.replace(record, **changes)


def _same(stored: SessionRecord, record: SessionRecord) -> bool:
    """Alike but for the time of writing."""
    return _replaced(stored, wall=0.0) == _replaced(record, wall=0.0)


__all__ = ["SessionRecords", "SessionStore"]
