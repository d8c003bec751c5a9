"""Sessions and cache on disk: one LMDB environment per cluster; it holds sessions with the cache off, too.

For the runtime::

    store = Store.open(path, cluster=1, policy=CachePolicy(), wall=time.time())
    if isinstance(store, StoreFault): ...       # say `store.words`; `read_sessions(path)`, and try again later
    for line in store.words: log.info(line)     # thrown away after a crash of the machine, incomplete kinds, ...
    for record in store.sessions(): ...

    applied = store.apply(shard_id, seq, name, d)      # per event; begins a transaction when something changes
    store.put_session(record)                          # at least once a second, when changed
    fault = store.commit()                             # once per wake-up, before the events are written to the broker
    store.close()                                      # in order: the next start trusts it

Queries of any cluster's workers::

    queries = Queries({1: store.reader(), 2: StoreReader.open(other_path)}, policy, situation)
    answer = queries.answer(query)                     # Answer(status, body), or a Fault

Nothing here raises for a full or broken disk: such faults are values, and :attr:`Store.fault` says what is wrong now.
"""

from rateway.native.objects.applied import Applied, SessionRecord
from rateway.transports.store.leftover import read_sessions, read_sessions_beside
from rateway.transports.store.opening import StoreFault
from rateway.transports.store.queries import Answer, LongAnswer, Moment, Queries
from rateway.transports.store.reader import StoreReader, StoreUnreadable
from rateway.transports.store.snapshot import SnapshotEnd, SnapshotHead, SnapshotLoader, StoreSnapshot
from rateway.transports.store.writer import Store

__all__ = [
    "Answer",
    "Applied",
    "LongAnswer",
    "Moment",
    "Queries",
    "SessionRecord",
    "SnapshotEnd",
    "SnapshotHead",
    "SnapshotLoader",
    "Store",
    "StoreFault",
    "StoreReader",
    "StoreSnapshot",
    "StoreUnreadable",
    "read_sessions",
    "read_sessions_beside",
]
