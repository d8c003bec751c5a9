"""The records of the status behind ``rateway status``, health, metrics and the page.

Plain numbers taken from the counters of shards, publishers and stores; nothing here touches an event. Times are
seconds, ages count from now, sizes are bytes. The JSON form is documented in ``docs/operating.md``.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
from rateway.delivery.port import QueueCount
from rateway.transports.proxy_line import ProxyStatus

Phase = Literal["starting", "running", "stopping"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class ShardStatus(msgspec.Struct, frozen=True):
    shard: int
    cluster: int
    state: str
    since_s: float
    """How long it has been in this state."""
    why: str
    """The reason that it is away, or was the last time; empty when it never was."""
    session: str | None
    received: int
    settled: int
    latency_ms: float | None
    """Round trip of the last heartbeat."""
    closes: dict[str, int]
    """Ends of its connections, by close code (``none``: TCP ended without one)."""
    last_close: str | None
    resumes_tried: int
    resumes_succeeded: int
    identifies: int
    waiting_commands: int
    ignored: int = 0
    """Messages that were read and mean nothing: no numeric op, or an undocumented one."""
    away_s: float = 0.0
    """Seconds since it was live; 0 while it is."""
    session_s: float = 0.0
    """Age of its session in seconds, as far as this process knows."""
    bytes_in: int = 0
    """Bytes received, as they came over the wire."""
    bytes_inflated: int = 0
    """The same, decompressed."""
    incomplete_since: int = 0
    """Guilds of this shard came before something that the cache keeps now was kept: from which stamp of the store on
    (milliseconds); 0 when the cache is complete."""
    dispatch_s: float | None = None
    """Seconds since its last event, to the second; None before the first in this process."""
    unknown_guild_events: int = 0
    """Events of its session that were about guilds which the cache does not know: guilds that never came."""


class PublisherStatus(msgspec.Struct, frozen=True):
    connected: bool
    blocked: bool
    why: str
    paused: bool
    published: int
    confirmed: int
    nacked: int
    republished: int
    unconfirmed: int
    unconfirmed_bytes: int
    lag_s: float
    """Age of the oldest event that the broker has not confirmed."""
    oldest: str | None
    """Its name."""
    spool_events: int
    spool_bytes: int
    unrouted: list[str]
    """Event names that no queue was bound for when last looked."""
    bytes_out: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    latency_buckets: dict[str, int]
    """Socket to confirm, cumulative counts by upper bound in seconds."""
    written_buckets: dict[str, int]
    """Socket to the write to the broker, so."""
    address: str = ""
    """The node of the broker that it is connected to; empty while it is not."""
    server: str = ""
    """Product and version of that node."""
    nodes: int = 1
    """Hosts that the broker's address names."""
    held_up_s: float = 0.0
    """For how long the broker has taken and confirmed nothing, though connected, unblocked and with events to take."""
    routed: list[str] = []
    """Event names that a queue took when last looked."""
    ahead: int = 0
    """Events that were published ahead of those that waited (URGENT)."""
    unrouted_events: int = 0
    """Events that came back because no queue was bound for their name (a sample: only some are sent so)."""


class EventLogStatus(msgspec.Struct, frozen=True):
    state: str
    """``idle``: none is begun yet; ``waiting``: events wait for it; ``kept``: events go into it; ``without``: events go
    out without it."""
    since_s: float
    """How long it has been in this state."""
    name: str | None
    """The stream."""
    why: str
    """The reason that events wait, or are published without it; else empty."""
    begun: int
    """Logs that were begun since the process started. Each beyond a cluster's first ends what proxies could resume."""
    names: int
    """Names that are bound to it."""


class CacheRenewalStatus(msgspec.Struct, frozen=True):
    """Second sessions, which fill the cache of a cluster that another gateway had before (``CACHE_RENEW``)."""

    shards: int
    """Shards whose guilds were not known when this gateway took the cluster."""
    renewed: int
    """Of these, whose guilds are known again."""
    identifies: int
    """Sent by second sessions; a shard's own ``identifies`` do not count them."""
    failed: int
    """Second sessions that were given up before all guilds were known."""
    note: str
    """Why none is under way; empty while one is, or none is needed."""


class LeftoversStatus(msgspec.Struct, frozen=True):
    """Events that could not be published before another member of the fleet owned their cluster."""

    kept: int
    """Events that are kept on disk, until it is known what later owners have published."""
    dropped: int
    """Events that a later owner had published, since the process started."""
    published: int
    """Events that no later owner has, and that were published."""


class ClusterStatus(msgspec.Struct, frozen=True):
    cluster: int
    exchange: str
    owned: bool
    shards_ready: int
    shards: int
    events: dict[str, int]
    """Events received, by name."""
    received: int
    replayed: int
    filtered: int
    gaps: int
    commands: dict[str, int]
    """Commands by outcome."""
    queries: dict[str, int]
    """Queries by outcome."""
    publisher: PublisherStatus
    cache: dict[str, int] | None
    store: str
    """``ok``, or what is wrong with the store."""
    repeated: int = 0
    """Events whose sequence number Discord used twice."""
    oversize: int = 0
    refused: int = 0
    """Events given up, with RATEWAY_OVERSIZE or RATEWAY_REFUSED in their place."""
    unreadable: int = 0
    """Dispatches that could not be forwarded, with RATEWAY_UNREADABLE in their place."""
    events_other: int = 0
    """Events of names that have no place in ``events``: it holds those that Discord documents and 200 others."""
    query_kinds: dict[str, int] = {}
    """Queries by type and outcome, separated by a space: ``Guild ok``."""
    query_buckets: dict[str, int] = {}
    """Query taken to answer given, cumulative counts by upper bound in seconds."""
    query_seconds: float = 0.0
    """The sum of all these times."""
    events_per_s: float = 0.0
    """Events received, over the last five seconds."""
    unknown_guild_events: int = 0
    """Events that were about guilds which the cache does not know."""
    refused_messages: dict[str, int] = {}
    """Queries and commands that were refused before they were looked at, by reason (docs/metrics.md)."""
    event_log: EventLogStatus | None = None
    """The event log; None without the setting EVENT_LOG."""
    leftovers: LeftoversStatus | None = None
    """What was kept from earlier tenures; None without a fleet."""
    cache_unread: dict[str, int] = {}
    """Events that the cache could not read in full: how many lack a part there (``left_out``), how many are not in it
    at all (``not_applied``)."""
    cache_cold: int = 0
    """Shards of which not even the guilds are known, because another gateway had the cluster before."""
    cache_renewal: CacheRenewalStatus | None = None
    """None without ``CACHE_RENEW``."""


class ProcessStatus(msgspec.Struct, frozen=True):
    pid: int
    role: str
    clusters: list[int]
    cpu_s: float
    memory_bytes: int
    loop_lag_ms: float
    uptime_s: float
    silent_s: float = 0.0
    """Seconds since its event loop last woke up."""
    cpu_share: float = 0.0
    """Cores that it kept busy, over the last five seconds."""
    dials_failed: dict[str, int] = {}
    """Connections to Discord that did not open, by reason (docs/metrics.md)."""
    unread_s: float = 0.0
    """Seconds since its start in which connections to Discord were not read, because the broker had yet to confirm too
    much of what was read before."""
    messages_unread: int = 0
    """Messages of this gateway's other processes that it could not read or carry out, and passed over."""


class Note(msgspec.Struct, frozen=True):
    """A note of one process for the operator. ``{seconds}`` in the text stands for *seconds*.

    Several clusters with the same finding have the same text.
    """

    text: str
    cluster: int | None = None
    seconds: float = 0.0


class BudgetStatus(msgspec.Struct, frozen=True):
    """Identifies: what Discord allows a day and what is left of it, as far as known."""

    total: int | None
    remaining: int | None
    resets_in_s: float | None
    max_concurrency: int | None
    spent_here: int
    failed: dict[str, int] = {}
    """Identifies that got no READY, by how they ended: ``invalid`` (op 9), ``closed``, ``timeout``."""
    failing_shards: int = 0
    """Shards whose identifies fail alike just now, which is Discord's fault; 0 when there is no such fault."""
    rest_failed: dict[str, int] = {}
    """Questions to GET /gateway/bot without a usable answer, by HTTP status (``none``: without one)."""
    spent_beside: int = 0
    """Of ``spent_here`` those of second sessions, which only fill a cold cache."""


class FleetMemberStatus(msgspec.Struct, frozen=True):
    """One member of the fleet, as this gateway knows it."""

    member: str
    version: str
    uptime_s: float
    heard_s: float
    """Seconds since it announced itself last: it does so each second."""
    clusters: list[int]
    """Clusters that it owns."""
    leaving: bool = False
    deaf: bool = False
    """It does not reach Discord."""


class FleetClusterStatus(msgspec.Struct, frozen=True):
    """A cluster of the fleet and the member that owns it."""

    cluster: int
    owner: str | None = None
    """None: no member says that it owns it. The rest is the owner's word."""
    epoch: int = 0
    """Counts its owners: each has a greater one than those before."""
    since_s: float = 0.0
    how: str = ""
    """``first``, ``released`` (the former owner handed it over) or ``inherited`` (it died, or was cut off)."""
    former: str = ""
    """The owner before."""
    shards: int = 0
    live: int = 0
    record_age_s: float | None = None
    """Since the newest confirmed record was sent; None: none is confirmed."""
    moving: bool = False
    """It is being handed over."""


class FleetStatus(msgspec.Struct, frozen=True):
    name: str
    member: str
    """This gateway."""
    governor: str | None
    """The member that grants identifies; None: none says so."""
    governor_epoch: int
    generation: int
    """Of the layout that this gateway runs, from 1; 0: none yet."""
    connected: bool
    """Whether this gateway hears the others now. If not, nothing is known of what they do."""
    members: list[FleetMemberStatus]
    clusters: list[FleetClusterStatus]
    """All of the layout's."""
    unreadable: int = 0
    """Messages of members that could not be read or carried out, and were passed over."""


class GatewayStatus(msgspec.Struct, frozen=True):
    version: str
    state: str
    """One of :data:`PHASES`."""
    uptime_s: float
    shard_count: int
    clusters: list[ClusterStatus]
    shards: list[ShardStatus]
    processes: list[ProcessStatus]
    budget: BudgetStatus
    notes: list[str]
    """Notes for the operator, most important first."""
    proxy: ProxyStatus | None = None
    """The gateway proxy that PROXY_ADDRESS starts; None without that setting, or while it is down."""
    wants_proxy: bool = False
    """Whether PROXY_ADDRESS is set."""
    shards_here: int = 0
    """Shards that this gateway runs. ``shards`` leaves out those of a process that does not answer."""
    unread_queues: list[QueueCount] = []
    """Workers' queues without consumers, as far as is known (WORKER_QUEUES, MANAGEMENT_URL)."""
    unheld: list[int] = []
    """Clusters that this gateway was told to give up, and that no gateway holds."""
    resume_patience_s: float = 180.0
    """Seconds that a shard may take to resume before it counts as away (RESUME_PATIENCE)."""
    fleet: FleetStatus | None = None
    """The fleet; None without the setting FLEET."""
