"""The events that this process could not publish before it lost their cluster: kept, judged, dropped or published.

They lie in spools of their own beside the cluster's (``spool-left-<n>``), each of one tenure or former process, so that
a later tenure's events do not wait for them. What the next owner has is asked of whoever owns the cluster
(``fleet/leftovers.py`` decides).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from rateway.delivery.message import Publish
from rateway.delivery.port import EventSink
from rateway.fleet.leftovers import Judgement, SessionKey, SessionPosition, event_named
from rateway.transports.amqp.wire.frames import message_id_of
from rateway.transports.spool import Spool, SpoolFull
from rateway_protocol.contract.messages import ShardStatus

__all__ = ["Ask", "Leftovers", "leftover_folders"]

log = logging.getLogger(__name__)

_PREFIX: Final = "spool-left-"
# Between two questions.
_ASK_AGAIN_S: Final = 1.0
# Read, judged and published at a time; the next once these are confirmed.
_MOST_EVENTS: Final = 2_000
_MOST_BYTES: Final = 512 * 1024
_STATUS: Final = ShardStatus.key.encode()

Ask = Callable[[], Awaitable[Sequence[SessionPosition] | None]]


def leftover_folders(spool: Path) -> list[Path]:
    """Return the folders of kept events beside a cluster's spool, oldest first."""
    found = [
        path
        for path in spool.parent.glob(f"{_PREFIX}*")
        if path.is_dir() and not path.is_symlink() and path.name.removeprefix(_PREFIX).isdecimal()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


class Leftovers:
    """One cluster's, over all tenures of this process."""

    def __init__(
        self, number: int, sink: EventSink, spool: Spool | None, ask: Ask | None, clock: Callable[[], float]
    ) -> None:
        """*spool* is the cluster's own; what it holds was left by a former process. *ask* returns how far the owner of
        the cluster has come; None when none answers. Without *ask* there is no fleet, and everything is published.
        """
        self.dropped = 0
        """Events that a later owner has published."""
        self.published = 0
        """Events that no other owner has, and that were published."""
        self._number = number
        self._sink = sink
        self._spool = spool
        self._limit = 0 if spool is None else spool.limit
        self._ask = ask
        self._clock = clock
        self._kept: list[Spool] = []
        # What no spool took.
        self._memory: list[Publish] = []
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        if spool is not None:
            for folder in leftover_folders(spool.folder):
                try:
                    self._kept.append(Spool.open(folder, self._limit))
                except OSError as error:
                    self._say_unusable(folder, error)
            if ask is not None:
                self._split_off()
        self._look()

    @property
    def events(self) -> int:
        """Events that are kept."""
        return sum(spool.events for spool in self._kept) + len(self._memory)

    def set_aside(self) -> None:
        """Keep what the sink has not published: the tenure is over, and another owner may have had it sent."""
        if self._work is not None:
            self._work.cancel()
        self._memory += self._sink.leave_behind()
        for spool in self._kept:
            spool.rewind()
        self._split_off()
        self._look()

    def close(self) -> None:
        """Give the files back. What is in them stays, and what is in memory goes to them as far as there is room."""
        if self._spool is not None and self._memory:
            try:
                self._spool.append(self._memory)
                self._memory = []
            except (SpoolFull, OSError) as error:
                log.error(
                    "%d events that were kept in memory are lost: %s. SPOOL_BYTES is the room for them on disk",
                    len(self._memory),
                    str(error) or "the spool is full",
                    extra={"cluster": self._number, "action": "leftovers"},
                )
        for spool in self._kept:
            spool.close()

    async def run(self) -> None:
        """Ask, drop and publish whenever something is kept, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._work = asyncio.ensure_future(self._settle())
            try:
                await asyncio.wait({self._work})
                if not self._work.cancelled():
                    self._work.result()
            finally:
                self._work.cancel()

    def _split_off(self) -> None:
        spool = self._spool
        if spool is None or not spool.events:
            return
        used = [int(folder.name.removeprefix(_PREFIX)) for folder in leftover_folders(spool.folder)]
        folder = spool.folder.with_name(f"{_PREFIX}{max(used, default=0) + 1}")
        try:
            self._kept.append(spool.split_off(folder))
        except OSError as error:
            self._say_unusable(folder, error)

    def _look(self) -> None:
        """Go to work if there is some."""
        self._share()
        if self._kept or self._memory:
            self._changed.set()

    def _share(self) -> None:
        """Leave the cluster's spool what the kept ones do not take of the bound on disk."""
        if self._spool is not None:
            self._spool.limit = max(0, self._limit - sum(spool.bytes for spool in self._kept))

    async def _settle(self) -> None:
        count, before = self.events, (self.dropped, self.published)
        if count:
            log.info(
                "%d events were kept from before: what the cluster's owner has published of them is dropped, the rest "
                "is published",
                count,
                extra={"cluster": self._number, "action": "leftovers"},
            )
        judgement = await self._judge()
        while self._kept:
            await self._carry_out(self._kept[0], judgement)
            spool = self._kept.pop(0)
            if spool.lost:
                log.error(
                    "%d events that were kept cannot be read back and are lost: a file in %s was damaged. Look at the "
                    "disk",
                    spool.lost,
                    spool.folder,
                    extra={"cluster": self._number, "action": "spool_damaged"},
                )
            spool.remove()
            self._share()
        await self._publish_memory(judgement)
        if count:
            log.info(
                "of %d events that were kept from before %d had been published by a later owner and are dropped, %d "
                "are published",
                count,
                self.dropped - before[0],
                self.published - before[1],
                extra={"cluster": self._number, "action": "leftovers"},
            )

    async def _read(self, spool: Spool) -> list[tuple[int, Publish]]:
        """Return the next events of a kept spool; none at its end. Waits while it cannot be read."""
        is_said = False
        while not (found := spool.read(_MOST_EVENTS, _MOST_BYTES)) and spool.unread:
            if not is_said:
                is_said = True
                log.error(
                    "events that were kept cannot be read from %s for now, and wait: %s. Is the limit of open files "
                    "too low (ulimit -n)?",
                    spool.folder,
                    spool.trouble,
                    extra={"cluster": self._number, "action": "spool_unreadable"},
                )
            await asyncio.sleep(_ASK_AGAIN_S)
        return found

    # Judging.

    async def _judge(self) -> Judgement:
        judgement = Judgement({} if self._ask is None else await self._highest(), self._clock())
        while self._ask is not None and judgement.waits_for:
            positions = await self._ask()
            if positions is not None:
                judgement.hear(positions, self._clock())
            if not judgement.waits_for:
                break
            if not self._sink.connected:
                judgement.wait(self._clock())
            if judgement.is_exhausted(self._clock()):
                log.warning(
                    "it cannot be learned how far the cluster's owner has come: what is left of %d events that were "
                    "kept is published, and may come twice",
                    self.events,
                    extra={"cluster": self._number, "action": "leftovers"},
                )
                break
            await asyncio.sleep(_ASK_AGAIN_S)
        return judgement

    async def _highest(self) -> dict[SessionKey, int]:
        """Return the highest sequence of each session that is kept."""
        highest: dict[SessionKey, int] = {}

        def note(publish: Publish) -> None:
            named = event_named(message_id_of(publish.properties))
            if named is not None and named[1] > highest.get(named[0], 0):
                highest[named[0]] = named[1]

        for publish in self._memory:
            note(publish)
        for spool in self._kept:
            while found := await self._read(spool):
                for number, publish in found:
                    if number >= spool.unsettled_from:
                        note(publish)
                # It may be a gigabyte, and other clusters have events meanwhile.
                await asyncio.sleep(0)
            spool.rewind()
        return highest

    # Dropping and publishing.

    async def _carry_out(self, spool: Spool, judgement: Judgement) -> None:
        while found := await self._read(spool):
            only: list[tuple[int, Publish]] = []
            gone: list[int] = []
            for number, publish in found:
                if number >= spool.unsettled_from and self._is_superfluous(publish, judgement):
                    gone.append(number)
                else:
                    only.append((number, publish))
            self.dropped += len(gone)
            spool.confirm(gone)
            await self._publish([publish for _, publish in only])
            spool.confirm(number for number, _ in only)
            self._share()
            await asyncio.sleep(0)

    async def _publish_memory(self, judgement: Judgement) -> None:
        while self._memory:
            some = self._memory[:_MOST_EVENTS]
            only = [publish for publish in some if not self._is_superfluous(publish, judgement)]
            await self._publish(only)
            del self._memory[: len(some)]
            self.dropped += len(some) - len(only)

    def _is_superfluous(self, publish: Publish, judgement: Judgement) -> bool:
        """Whether a later owner has published it, or has said later what it says."""
        if self._ask is not None and publish.key == _STATUS:
            return True
        return judgement.is_elsewhere(message_id_of(publish.properties))

    async def _publish(self, publishes: Sequence[Publish]) -> None:
        """Publish and wait for the confirm."""
        if not publishes:
            return
        while not self._sink.connected:  # noqa: ASYNC110  # the sink announces it to the status alone
            await asyncio.sleep(_ASK_AGAIN_S)
        confirmed = asyncio.Event()
        self._sink.publish_again(publishes, confirmed.set)
        await confirmed.wait()
        self.published += len(publishes)

    def _say_unusable(self, folder: Path, error: OSError) -> None:
        log.error(
            "events that were kept cannot be moved to, or read from, %s: %s",
            folder,
            error,
            extra={"cluster": self._number, "action": "leftovers"},
        )
