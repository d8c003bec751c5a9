"""Fill the cold cache of a cluster's shards, one after the other, by a second session beside each shard's own.

Nothing of a second session is published, written down or resumed by another process: it lives for some seconds, and is
closed with 1000, which ends this session and no other. What its events do to the cache is decided in
``cache/second_view.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rateway.backoff import Backoff
from rateway.cache.second_view import SecondView
from rateway.fleet.identify import beside
from rateway.native.fast_path import EventPipeline, PublishState
from rateway.native.ledger import Batch, Cursor
from rateway.runtime.identify.permits import IdentifyPermits, Refusal
from rateway.runtime.runner.cluster_cache import ClusterCache
from rateway.runtime.runner.shard import Shard
from rateway.runtime.runner.shard_factory import ShardTools
from rateway.session.actions import CommandDone, Fatal, SessionLost, SessionStarted, State, StateChanged
from rateway.session.conversation import Conversation
from rateway.transports.store import Applied
from rateway_protocol.discord.envelope import Envelope

__all__ = ["SecondSessions"]

log = logging.getLogger(__name__)

# Between two looks at whether guilds stand still in both sessions, and whether a shard is live that waits for its turn.
LOOK_S: Final = 1.0
# Without READY, or without an end, for so long a second session is given up.
READY_WITHIN_S: Final = 60.0
ENDS_WITHIN_S: Final = 600.0
# After one that failed, or a permit that was refused without a time: a minute, doubled up to an hour.
PAUSE_S: Final = Backoff(60.0, 3600.0)


@dataclass(slots=True)
class SecondSessionFigures:
    """What is shown of a cluster's second sessions."""

    identifies: int = 0
    """Sent by second sessions."""
    renewed: int = 0
    """Shards whose guilds are known again since the cluster's cache began cold."""
    failed: int = 0
    """Second sessions that ended before."""
    of: int = 0
    """Shards that were cold."""
    note: str = ""
    """Why nothing is renewed just now."""


class _Permits:
    """The permits of a second session: it asks after all shards that need a session, and never out of the reserve."""

    def __init__(
        self,
        permits: IdentifyPermits,
        on_refused: Callable[[Refusal], None],
        on_spending: Callable[[], None],
    ) -> None:
        self._permits = permits
        self._on_refused = on_refused
        self._on_spending = on_spending

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        refusal = await self._permits.acquire(beside(shard_id), lost=False)
        if refusal is not None:
            self._on_refused(refusal)
        return refusal

    async def spent(self, shard_id: int) -> Refusal | None:
        self._on_spending()
        refusal = await self._permits.spent(beside(shard_id))
        if refusal is not None:
            self._on_refused(refusal)
        return refusal

    def finished(self, shard_id: int, outcome: Any) -> None:
        self._permits.finished(beside(shard_id), outcome)


class _NoStream:
    """Stands for the stream of a shard whose events are not published."""

    settled = 0
    received = 0

    def __init__(self) -> None:
        # No template: every event takes the general path.
        self.publish_state = PublishState(Cursor(-1), Batch(lambda: None))
        self.position = Cursor(-1)

    def begin(self, session_id: str) -> None: ...

    def restore(self, session_id: str, settled: int) -> None: ...

    def publish(
        self,
        name: str,
        body: Any,
        seq: int | None,
        replayed: bool,
        repeat: int = 0,
        cause: str | None = None,
    ) -> None: ...

    def message_id(self, seq: int | None) -> str | None: ...

    def skip(self, seq: int) -> None: ...

    def pass_over(self, name: str, seq: int | None, why: str) -> None: ...


class _SecondSession:
    """One second session. The events of a shard that is its own go into a view, and nowhere else (``EventTaker``), and
    what happens to it is its own business (``ShardObserver``).
    """

    def __init__(
        self,
        own: Shard,
        tools: ShardTools,
        cache: ClusterCache,
        permits: IdentifyPermits,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        use_views: Callable[[bool], None],
    ) -> None:
        self.pipeline = EventPipeline()
        self.own = own
        self.view: SecondView | None = None
        self.refusal: Refusal | None = None
        self.fault = ""
        self._cache = cache
        self._use_views = use_views
        self._is_committing = False
        # Its session is nobody's to resume elsewhere.
        options = replace(tools.options, resume_from_settled=False)
        conversation = Conversation(
            shard_id=own.shard_id,
            shard_count=tools.layout.shards,
            options=options,
            gateway_url=own.conversation.gateway_url,
            session=None,
            chance=random.Random(),
            # Discord shows what the newest session says.
            presence=own.conversation.presence,
        )
        self.shard = Shard(
            conversation=conversation,
            shard_id=own.shard_id,
            stream=_NoStream(),
            events=self,
            observer=self,
            dialer=tools.dialer,
            permits=_Permits(permits, self._refused, self._begin_view),
            clock=own.clock,
            spawn=spawn,
        )

    @property
    def is_steady(self) -> bool:
        """Whether both sessions are live and are read."""
        ours, own = self.shard, self.own
        states = (ours.conversation.state, own.conversation.state)
        return states == (State.LIVE, State.LIVE) and not own.held

    def _begin_view(self) -> None:
        """Have the view see the shard's own events before Discord can take the identify, and no earlier: how long the
        permit takes is not known.
        """
        if self.view is None:
            self.view = self._cache.store.begin_beside(self.own.shard_id)
            self._use_views(True)

    def end(self, why: str) -> None:
        """End the session at Discord, and go on without it."""
        self.shard.stop(end_session=True)
        self._use_views(False)
        if self.view is not None:
            self._cache.store.end_beside(self.view, why)
            self._cache.commit()

    def _refused(self, refusal: Refusal) -> None:
        self.refusal = refusal

    # Its events.

    def dispatch(self, shard_id: int, stream: Any, envelope: Envelope, replayed: bool, repeat: int) -> None:
        if self.view is not None and envelope.t:
            self._cache.store.take_beside(self.view, envelope.t, envelope.d, self.shard.clock())
            if envelope.s is not None:
                self.shard.conversation.settle(envelope.s)
            self._commit_soon()

    def publish_applied(
        self, shard_id: int, stream: Any, name: str, body: Any, seq: int | None, applied: Applied
    ) -> None: ...

    def skip(self, stream: Any, seq: int | None) -> None: ...

    def _commit_soon(self) -> None:
        """Once for all that comes in this turn of the loop."""
        if not self._is_committing:
            self._is_committing = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        self._is_committing = False
        self._cache.commit()

    # What happens to it.

    def session_started(self, shard: Shard, order: SessionStarted) -> None: ...

    def session_lost(self, shard: Shard, order: SessionLost) -> None:
        self.fault = f"its second session was lost ({order.reason})"

    def session_resumed(self, shard: Shard) -> None: ...

    def state_changed(self, shard: Shard, order: StateChanged) -> None: ...

    def command_done(self, shard: Shard, order: CommandDone) -> None: ...

    def fatal(self, shard: Shard, order: Fatal) -> None:
        self.fault = f"Discord refuses its second session: {order.meaning}"

    def barred(self, shard: Shard, why: str) -> None:
        self.fault = why


class SecondSessions:
    """Renews the cold shards of one cluster, one at a time; :meth:`run` ends when none is cold."""

    def __init__(
        self,
        number: int,
        shards: Mapping[int, Shard],
        tools: ShardTools,
        permits: IdentifyPermits,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        use_views: Callable[[bool], None],
    ) -> None:
        """*permits* are the cluster's own, with the right of its owner. *use_views* is told whether the events of the
        shards go through the store's views.
        """
        self.figures = SecondSessionFigures()
        self._number = number
        self._shards = shards
        self._tools = tools
        self._permits = permits
        self._spawn = spawn
        self._use_views = use_views
        self._failures = 0
        self._session: _SecondSession | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, cache: ClusterCache) -> None:
        """Renew what is cold now."""
        self.stop()
        self.figures = SecondSessionFigures(identifies=self.figures.identifies, failed=self.figures.failed)
        self._failures = 0
        if cache.store.cold_shards:
            self._task = self._spawn(self._run(cache))

    def stop(self) -> None:
        """End the session that is under way. What followed it is forgotten before this returns."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self._session is not None:
            self._close(self._session, "the cluster is left")

    async def _run(self, cache: ClusterCache) -> None:
        figures = self.figures
        while cold := cache.store.cold_shards & self._shards.keys():
            figures.of = max(figures.of, figures.renewed + len(cold))
            live = [each for each in sorted(cold) if self._is_ready(self._shards[each])]
            if not live or cache.store.fault is not None:
                await asyncio.sleep(LOOK_S)
                continue
            pause = await self._renew(self._shards[live[0]], cache)
            if pause:
                await asyncio.sleep(pause)
        figures.note = ""
        if figures.renewed:
            log.info(
                "the cache is complete again: %d shards were renewed by a second session each",
                figures.renewed,
                extra={"cluster": self._number, "action": "renew"},
            )

    @staticmethod
    def _is_ready(shard: Shard) -> bool:
        return shard.conversation.state is State.LIVE and not shard.held

    async def _renew(self, own: Shard, cache: ClusterCache) -> float:
        """Renew one shard; return how long to wait before the next try, 0 after success."""
        extra = {"cluster": self._number, "shard": own.shard_id, "action": "renew"}
        session = self._session = _SecondSession(
            own, self._tools, cache, self._permits, self._spawn, self._use_views
        )
        clock, began = own.clock, own.clock()
        session.shard.start()
        why, identified_at = "", None
        while not (why or (session.view is not None and session.view.is_over)):
            await asyncio.sleep(LOOK_S)
            now = clock()
            if session.shard.identifies and identified_at is None:
                identified_at = now
                self.figures.note = ""
            if session.refusal is not None:
                why = session.refusal.why
            elif session.fault or session.shard.identifies > 1:
                why = session.fault or "its second session was replaced"
            elif own.conversation.state in (State.STOPPED, State.FATAL):
                why = "the shard has stopped"
            elif session.view is None:
                pass  # it waits for its turn
            elif (
                identified_at is not None
                and session.view.listed is None
                and now - identified_at > READY_WITHIN_S
            ):
                why = "no READY came"
            elif identified_at is not None and now - identified_at > ENDS_WITHIN_S:
                why = "its guilds do not come"
            else:
                cache.store.look_beside(session.view, now, is_steady=session.is_steady)
                cache.commit()
        view, took = session.view, clock() - began
        refusal, fault = session.refusal, why or ("" if view is None else view.fault)
        self._close(session, why)
        if not fault or own.shard_id not in cache.store.cold_shards:
            self.figures.renewed += 1
            self._failures = 0
            words = "%d guilds came by a second session in %.0f s; its cache is complete again (CACHE_RENEW)"
            log.info(words, 0 if view is None else view.came, took, extra=extra)
            return 0.0
        pause = PAUSE_S.delay(self._failures)
        if refusal is not None:
            if refusal.until is not None:
                pause = max(PAUSE_S.delay(0), refusal.until - clock())
            pause = min(pause, PAUSE_S.delay(100))
        else:
            self.figures.failed += 1
            self._failures += 1
        self.figures.note = (
            f"the cache of shard {own.shard_id} is not renewed: {fault}; tried again in {pause:.0f} s"
        )
        log.warning("%s", self.figures.note, extra=extra)
        return pause

    def _close(self, session: _SecondSession, why: str) -> None:
        if self._session is not session:
            return
        self._session = None
        self.figures.identifies += session.shard.identifies
        session.end(why)
