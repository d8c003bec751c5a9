"""Write a cluster's session records (docs/delivery.md, "What is written down").

Only the *settled* sequence is: a session is stored as soon as its READY is confirmed, rewritten within a second of
every change, and dropped when it is lost, in one transaction with the gap that must then be reported. Guilds that a new
session no longer has leave the cache in one transaction with the note that this must be reported. A heartbeat's ``d``
is the sequence that was written here: Discord then still has what a restart would ask for.
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
    """One shard's session as it is now, and its record in the store."""

    record: SessionRecord
    ready_seq: int
    before: str = ""
    """The session before this one, if one was lost."""
    stored: SessionRecord | None = None


class SessionRecords:
    """The sessions of one cluster. Pure but for its store; the caller decides when to :meth:`write`."""

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
        """Take in a record of the store's: a session that is resumed, or the reports of a lost one that are not
        confirmed.
        """
        record = _with_own_id(record)
        gaps = (record.pending_gap or b"").splitlines()
        before = messages.lost_session(gaps[-1]) if gaps and not record.session_id else ""
        self._kept[record.shard_id] = _Kept(record, ready_seq=0, before=before, stored=record)

    def replace_all(self, records: Iterable[SessionRecord]) -> None:
        """Forget everything, and have the store hold *records*, which :meth:`restore` takes in after that: another
        owner has had the cluster's sessions meanwhile, or has them now.
        """
        if self._store is not None:
            for shard_id in self._kept:
                self._store.drop_session(shard_id)
            for record in records:
                self._store.put_session(record)
        self._kept.clear()
        self._unwritten.clear()
        self.commit()

    def snapshot(self, settled: Iterable[tuple[int, int]], wall: float) -> list[SessionRecord]:
        """Return what a store would hold of all shards after :meth:`write`, whether it takes that or not."""
        settled_of = dict(settled)
        found = []
        for shard_id, kept in self._kept.items():
            seq = settled_of.get(shard_id, 0)
            if kept.record.session_id and seq >= max(1, kept.ready_seq):
                found.append(_replaced(kept.record, settled=seq, wall=wall))
            elif kept.stored is not None or not kept.record.session_id:
                found.append(kept.stored or kept.record)
            else:
                found.append(self._blank(shard_id, kept.record))
        return found

    def take_store(self, store: SessionStore) -> None:
        """Write to *store* from the next :meth:`write` on, which writes everything."""
        self._store = store

    def misfit(self, record: SessionRecord) -> str:
        """Return why a stored session cannot be resumed with this bot, these intents and this number of shards; empty
        when it can.
        """
        return misfit(
            record, shard_count=self._shard_count, intents=self._intents, token_hash=self._token_hash
        )

    def with_presence_that_counts(self, record: SessionRecord) -> SessionRecord:
        """Return a record without its presence, if that is another bot's, or of another layout or setting."""
        counts = (
            record.token_hash == self._token_hash
            and record.shard_count == self._shard_count
            and record.presence_setting == self._presence_setting
        )
        return record if counts or record.presence is None else _replaced(record, presence=None)

    def presence_set(self, shard_id: int, presence: bytes | None) -> None:
        """Note the presence that a worker has set (None: the configured one), for the next :meth:`write`."""
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
        """Give up a stored session that cannot be resumed. Its record stays until the next session's READY replaces it;
        the gap is reported then, also by a later start that finds the record again.
        """
        record = _with_own_id(record)
        blank = _replaced(
            record, session_id="", number=0, settled=0, pending_gap=_join(record.pending_gap, gap)
        )
        self._kept[record.shard_id] = _Kept(blank, ready_seq=0, before=record.name, stored=record)

    def started(
        self, shard_id: int, session_id: str, resume_url: str, ready_seq: int, compression: str = ""
    ) -> str:
        """Begin a new session at its READY, and return its name (:attr:`SessionRecord.name`).

        Unconfirmed reports of earlier sessions stay with the shard. Some servers repeat session ids; names are never
        repeated.
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
        """Return the name of a shard's session; empty when it has none."""
        kept = self._kept.get(shard_id)
        return kept.record.name if kept else ""

    def failed(self, shard_id: int, failed_at: int) -> None:
        """Write down at once that a message could not be read after that sequence (0: none)."""
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
        """Forget a lost session and remember its gap, in one transaction.

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
        """Forget the shard's session, because another gateway has had sessions of it, and remember the gap. The caller
        commits.

        An unconfirmed gap of that kind stands for this one as well.
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
        """Return the bodies of RATEWAY_GAP that are not confirmed, oldest first."""
        kept = self._kept.get(shard_id)
        return (kept.record.pending_gap or b"").splitlines() if kept else []

    def before(self, shard_id: int) -> str:
        """Return the name of the session before the present one; empty when there was none."""
        kept = self._kept.get(shard_id)
        return kept.before if kept else ""

    def remember_gaps(self, shard_id: int, gaps: list[bytes]) -> None:
        """Replace the bodies of pending gaps, for the next :meth:`write`."""
        kept = self._kept.get(shard_id)
        if kept is not None:
            kept.record = _replaced(kept.record, pending_gap=b"\n".join(gaps) or None)

    def gap_confirmed(self, shard_id: int, gap: bytes) -> None:
        """Drop a gap that the broker or the spool has. Another session may have been lost meanwhile."""
        self.remember_gaps(shard_id, [each for each in self.pending_gaps(shard_id) if each != gap])

    def leaving(self, shard_id: int, guild_ids: Iterable[int]) -> None:
        """Remember guilds that READY no longer lists, in the transaction that removes them from the cache. The caller
        commits it. The rest of the shard's stored record stays.
        """
        kept = self._kept[shard_id]
        pending = kept.record.pending_left + tuple((kept.before, guild_id) for guild_id in guild_ids)
        kept.record = _replaced(kept.record, pending_left=pending)
        kept.stored = _replaced(kept.stored or self._blank(shard_id, kept.record), pending_left=pending)
        if self._store is not None:
            self._store.put_session(kept.stored)

    def pending_left(self, shard_id: int) -> tuple[tuple[str, int], ...]:
        """Return (session that had it, guild) of each RATEWAY_GUILD_LEFT that is not confirmed."""
        kept = self._kept.get(shard_id)
        return kept.record.pending_left if kept else ()

    def left_confirmed(self, shard_id: int, session: str, guild_id: int) -> None:
        """Drop a RATEWAY_GUILD_LEFT that the broker or the spool has, for the next :meth:`write`."""
        kept = self._kept.get(shard_id)
        if kept is not None:
            left = tuple(each for each in kept.record.pending_left if each != (session, guild_id))
            kept.record = _replaced(kept.record, pending_left=left)

    @property
    def has_unwritten(self) -> bool:
        """Whether a session is not in the store yet, so that a crash would lose it."""
        return bool(self._unwritten)

    def write(self, settled: Iterable[tuple[int, int]], wall: float) -> list[tuple[int, int]]:
        """Write the records that changed. *settled*: (shard, settled sequence) as it is now.

        Returns the (shard, settled) that were written, for heartbeats; empty when the store is at fault.
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
        """Drop the record of a shard outside this layout, all of whose reports are confirmed."""
        if self._kept.pop(shard_id, None) is not None and self._store is not None:
            self._store.drop_session(shard_id)

    def forget_all(self) -> None:
        """Drop all sessions: they were ended on purpose."""
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
        """Return a record without a session, with the unconfirmed reports of *former*."""
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
    """Return a record that has its own session's id among *earlier*; records of version 0.3.0 and before do not."""
    known = _hash_of(record.session_id)
    if not record.session_id or known in record.earlier:
        return record
    return _replaced(record, earlier=(*record.earlier, known)[-MOST_EARLIER:])


def _hash_of(session_id: str) -> str:
    """Return a hash that recognises an id. Two ids with the same hash cost a number behind the second one's name."""
    return hashlib.blake2b(session_id.encode(), digest_size=4).hexdigest()


def _join(gaps: bytes | None, gap: bytes) -> bytes:
    """Append a JSON document as a line; documents have no line breaks of their own."""
    return gap if not gaps else gaps + b"\n" + gap


def _replaced(record: SessionRecord, **changes: object) -> SessionRecord:
    return msgspec.structs.replace(record, **changes)


def _same(stored: SessionRecord, record: SessionRecord) -> bool:
    """Return whether two records are equal but for the time of writing."""
    return _replaced(stored, wall=0.0) == _replaced(record, wall=0.0)


__all__ = ["SessionRecords", "SessionStore"]
