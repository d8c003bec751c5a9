"""Report lost sessions to workers: RATEWAY_GAP and RATEWAY_GUILD_LEFT.

What must be reported is part of the session records (docs/delivery.md, "What is written down") until the broker has
confirmed it, and is published again under the same id until then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Protocol

from rateway.runtime.runner.session_records import SessionRecords
from rateway.session.actions import SessionLost
from rateway.transports.store import SessionRecord
from rateway_protocol.contract import messages

__all__ = ["GapReports", "ReportPublisher"]


class ReportPublisher(Protocol):
    """The part of ``transports.amqp.publisher.EventPublisher`` that reports need."""

    def publish_own(
        self,
        key: str,
        body: bytes,
        message_id: str | None = None,
        *,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None: ...


class GapReports:
    """The reports of one cluster. *on_change* is called when the session records must be written again."""

    def __init__(
        self, session_records: SessionRecords, publisher: ReportPublisher, on_change: Callable[[], None]
    ) -> None:
        self.count = 0
        """Gaps since the start."""
        self._session_records = session_records
        self._publisher = publisher
        self._on_change = on_change
        # Shards outside the present layout with reports that are not confirmed yet.
        self._former: list[int] = []

    def give_up(self, record: SessionRecord, reason: str) -> None:
        """Remember the gap of a stored session that cannot be resumed with the present settings."""
        gap = messages.Gap(
            shard=record.shard_id,
            old_session=record.name,
            settled=record.settled,
            received=record.settled,
            reason=reason,
            since=record.wall,
        )
        self.count += 1
        self._session_records.give_up(record, messages.encode(gap))

    def set_former(self, shard_ids: Iterable[int]) -> None:
        """Name the shards outside the present layout whose reports may be unconfirmed."""
        self._former = list(shard_ids)

    def take_over(self, shard_ids: Iterable[int], reason: str, wall: float) -> None:
        """Remember a gap for each shard, whose last session was another gateway's, and commit."""
        for shard_id in shard_ids:
            gap = messages.Gap(
                shard=shard_id, old_session=None, settled=0, received=0, reason=reason, since=wall
            )
            self.count += 1
            self._session_records.superseded(shard_id, messages.encode(gap))
        self._session_records.commit()

    def lose(self, shard_id: int, lost: SessionLost, settled: int, wall: float) -> None:
        """Write down that a session is lost. Its gap is published once the next session has a name."""
        gap = messages.Gap(
            shard=shard_id,
            old_session=self._session_records.session(shard_id) or lost.session_id,
            settled=settled,
            received=lost.received_seq,
            new_session=None,
            reason=lost.reason,
            since=wall,
        )
        self.count += 1
        self._session_records.lost(shard_id, messages.encode(gap), wall)

    def begin_session(self, shard_id: int, session: str) -> None:
        """Publish what is pending for a shard, with the name of its new session in each gap that has none."""
        gaps = [
            messages.with_new_session(gap, session) for gap in self._session_records.pending_gaps(shard_id)
        ]
        self._session_records.remember_gaps(shard_id, gaps)
        self.publish_pending(shard_id)

    def leave_guilds(self, shard_id: int, guild_ids: Iterable[int]) -> None:
        """Report guilds of the lost session that the present one no longer has."""
        guild_ids = tuple(guild_ids)
        self._session_records.leaving(shard_id, guild_ids)
        before = self._session_records.before(shard_id) or "none"
        for guild_id in guild_ids:
            self._publish_left(shard_id, before, guild_id)

    def publish_former(self) -> None:
        """Publish what is pending for the shards outside the present layout."""
        for shard_id in self._former:
            self.publish_pending(shard_id)

    def publish_pending(self, shard_id: int) -> None:
        """Publish every report of a shard that is not confirmed yet."""
        for gap in self._session_records.pending_gaps(shard_id):
            self._publisher.publish_own(
                messages.Gap.key,
                gap,
                messages.gap_id(gap),
                on_confirmed=functools.partial(self._gap_confirmed, shard_id, gap),
            )
        for session, guild_id in self._session_records.pending_left(shard_id):
            self._publish_left(shard_id, session, guild_id)

    def _publish_left(self, shard_id: int, session: str, guild_id: int) -> None:
        left = messages.GuildLeft(shard=shard_id, guild_id=str(guild_id))
        self._publisher.publish_own(
            left.key,
            messages.encode(left),
            messages.guild_left_id(session, guild_id),
            on_confirmed=functools.partial(self._left_confirmed, shard_id, session, guild_id),
        )

    def _gap_confirmed(self, shard_id: int, gap: bytes) -> None:
        self._session_records.gap_confirmed(shard_id, gap)
        if shard_id in self._former and not self._session_records.pending_gaps(shard_id):
            self._session_records.forget(shard_id)
        self._on_change()

    def _left_confirmed(self, shard_id: int, session: str, guild_id: int) -> None:
        self._session_records.left_confirmed(shard_id, session, guild_id)
        self._on_change()
