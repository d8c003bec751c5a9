"""Which reports of lost sessions are published, under which ids, and until when they are remembered."""

from __future__ import annotations

from collections.abc import Callable

from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.session_records import SessionRecords
from rateway.session.actions import SessionLost
from rateway_protocol.contract import messages
from tests.runtime.runner.memory_store import MemoryStore


class Broker:
    """Keeps what is published; :meth:`confirm` confirms all of it."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []
        self._unconfirmed: list[Callable[[], None]] = []

    def publish_own(
        self,
        key: str,
        body: bytes,
        message_id: str | None = None,
        *,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:
        self.ids.append(message_id)
        if on_confirmed is not None:
            self._unconfirmed.append(on_confirmed)

    def confirm(self) -> None:
        told, self._unconfirmed = self._unconfirmed, []
        for each in told:
            each()


class Scene:
    """One cluster's reports, on a store that lives longer than the process."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.records = SessionRecords(self.store, shard_count=4, intents=513, token_hash="bot")
        self.broker = Broker()
        self.changes = 0
        self.reports = GapReports(self.records, self.broker, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def live(self, shard_id: int, session: str) -> None:
        self.records.started(shard_id, session, "wss://resume", 1)
        self.records.write([(shard_id, 5)], wall=1.0)

    def lose(self, shard_id: int, session: str) -> None:
        self.reports.lose(shard_id, SessionLost(session, 9, "op 9"), 5, 2.0)


def test_a_gap_is_written_down_at_once_and_published_with_the_name_of_the_next_session() -> None:
    scene = Scene()
    scene.live(3, "old")
    scene.lose(3, "old")
    assert scene.broker.ids == [] and scene.reports.count == 1
    pending = scene.store.committed[3].pending_gap
    assert pending is not None and messages.gap_id(pending) == "gap:old:3"
    scene.records.started(3, "new", "wss://resume", 1)
    scene.reports.begin_session(3, "new")
    assert scene.broker.ids == ["gap:old:3"]
    assert b'"new_session":"new"' in scene.records.pending_gaps(3)[0]


def test_a_report_is_published_again_under_its_id_until_it_is_confirmed() -> None:
    scene = Scene()
    scene.live(0, "old")
    scene.lose(0, "old")
    scene.records.started(0, "new", "wss://resume", 1)
    scene.reports.begin_session(0, "new")
    scene.reports.leave_guilds(0, iter([7, 8]))
    again = scene.reports.publish_pending
    again(0)
    wanted = ["gap:old:0", "left:old:7", "left:old:8"]
    assert scene.broker.ids == wanted * 2
    scene.broker.confirm()
    assert scene.changes == 6
    again(0)
    assert scene.broker.ids == wanted * 2


def test_a_shard_outside_the_layout_is_forgotten_once_its_gap_is_confirmed() -> None:
    scene = Scene()
    scene.live(9, "old")
    record = scene.store.committed[9]
    later = Scene(scene.store)
    later.reports.give_up(record, "the number of shards changed from 12 to 4")
    later.reports.set_former([9])
    later.reports.publish_former()
    assert later.broker.ids == ["gap:old:9"] and later.reports.count == 1
    later.broker.confirm()
    later.records.commit()
    assert 9 not in later.store.committed


def test_a_takeover_is_committed_for_every_shard_and_names_the_session_that_follows_it() -> None:
    scene = Scene()
    scene.live(0, "ours")
    scene.reports.take_over([0, 1], "another gateway ran this cluster meanwhile", 3.0)
    assert [scene.store.committed[shard].session_id for shard in (0, 1)] == ["", ""]
    scene.records.started(1, "new", "wss://resume", 1)
    scene.reports.begin_session(1, "new")
    assert scene.broker.ids == ["gap:none:1:new"] and scene.reports.count == 2
