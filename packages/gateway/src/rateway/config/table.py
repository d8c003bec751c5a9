"""The table of settings, one row each; reading, ``docs/settings.md`` and ``rateway check`` derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rateway.cache.policy import KINDS
from rateway.config import values
from rateway.config.values import Reader
from rateway.fleet.layout import MOST_SHARDS

__all__ = ["GROUPS", "REMOVED", "REQUIRED", "ROWS", "Removed", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. ``key`` is its place in the TOML file, with dots for sections."""

    name: str
    fills: str
    """The field that it fills: a part of :class:`~rateway.config.settings.Settings`, a dot, a field of the part."""
    env: str
    key: str
    read: Reader
    form: str
    """The form of its value, in words."""
    default: object
    """The value when it is not set; ``REQUIRED`` when it must be, a function of the environment when it depends."""
    help: str
    group: str
    shown_default: str | None = None
    secret: bool = False
    """A secret may also come from a file: ``<env>_FILE`` and ``<key>_file``."""
    also: tuple[str, ...] = ()
    """Other keys for the same setting."""
    empty_is_off: bool = False
    """An empty variable means off. For others it is the same as one that is not set."""
    reloads: bool = False
    """Whether SIGHUP applies a changed value; any other setting is changed by a restart only."""

    @property
    def default_words(self) -> str:
        """The default as documentation shows it."""
        if self.shown_default is not None:
            return self.shown_default
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        return str(self.default)


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where systemd says, else where the XDG specification says."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "rateway"
    home = environ.get("HOME")
    return (Path(home) if home else Path("/var/lib")) / (".local/state/rateway" if home else "rateway")


DISCORD, SHARDS, BROKER, EVENTS, CACHE, PROXY, PROCESS = (
    "Discord", "Shards and clusters", "The broker", "Events", "The cache", "The gateway proxy", "This process",
)  # fmt: skip
GROUPS = (DISCORD, SHARDS, BROKER, EVENTS, CACHE, PROXY, PROCESS)

ROWS: tuple[Row, ...] = (
    Row("token", "session.token", "DISCORD_TOKEN", "token", values.token, "text", REQUIRED,
        "The bot's token. A `Bot ` in front of it is taken off.", DISCORD, secret=True),
    Row("intents", "session.intents", "INTENTS", "intents", values.intents_of, "number, or names", REQUIRED,
        "The intents: a number, or names such as `GUILDS,GUILD_MESSAGES` (in TOML also a list), `ALL_NON_PRIVILEGED` "
        "or `ALL`. Privileged ones have to be switched on in Discord's developer portal.", DISCORD),
    Row("api_url", "rest.api_url",
        "DISCORD_API_URL", "api_url", values.api_url, "address", "https://discord.com/api/v10",
        "The base of Discord's REST. Point it at `rateway simulate` to try things.", DISCORD),
    Row("gateway_hosts", "rest.hosts", "GATEWAY_HOSTS", "gateway_hosts", values.domains, "names", frozenset(),
        "Domains that gateway addresses may have beside the API's own and Discord's. The token goes to no other host, "
        "and never without TLS where the API has it.", DISCORD, "none"),
    Row("compression", "session.compression",
        "COMPRESSION", "compression", values.choice("zstd-stream", "zlib-stream", "none"),
        "`zstd-stream`, `zlib-stream` or `none`", None,
        "How Discord compresses what it sends. zstd takes least CPU in a flood, but up to 2 MB of memory a shard; "
        "zlib takes 40 KB. `rateway check` estimates it.", DISCORD, "zstd-stream; zlib-stream above 100 shards"),
    Row("large_threshold", "session.large_threshold",
        "LARGE_THRESHOLD", "large_threshold", values.integer(50, 250), "50 to 250", 250,
        "Guilds with more members come without their offline members.", DISCORD),
    Row("presence", "process.presence",
        "PRESENCE", "presence", values.presence, "JSON, in TOML also a table", None,
        "The presence that shards start with, as Discord's `{\"status\", \"activities\"}` or short: "
        "`{\"status\": \"online\", \"activity\": {\"type\": \"watching\", \"name\": \"shard {shard} of {shards}\"}}`. "
        "`{shard}`, `{shards}` and `{cluster}` are filled in.", DISCORD, "none", reloads=True),
    Row("resume_patience", "session.resume_patience",
        "RESUME_PATIENCE", "resume_patience", values.duration(1), "time", 180.0,
        "A session is given up after three resumes and this time without an answer, not before.", DISCORD, "180s"),
    Row("session_max_age", "session.max_age",
        "SESSION_MAX_AGE", "session_max_age", values.optional(values.duration(3600)),
        "time of at least 1h, or `off`", None,
        "Renew sessions that are older, one by one, within the day's identifies.", DISCORD, "off"),
    Row("max_message_bytes", "session.max_message_bytes",
        "MAX_MESSAGE_BYTES", "max_message_bytes", values.size(1 << 20), "size", 256 << 20,
        "A message from Discord that unpacks to more is refused, as a bomb. On the wire one has at most 64 MiB.",
        DISCORD, "256MiB"),
    Row("identify_buckets", "identify.buckets",
        "IDENTIFY_BUCKETS", "identify_buckets", values.buckets, "numbers and ranges", None,
        "The identify buckets (shard modulo `max_concurrency`) that this gateway may use. Several gateways of one bot, "
        "each with its own `CLUSTERS`, need disjoint ones, unless `FLEET` makes them one.", DISCORD, "all"),
    Row("crash_loop_identifies", "identify.crash_loop",
        "CRASH_LOOP_IDENTIFIES", "crash_loop_identifies", values.integer(0), "number", 10,
        "A shard whose identifies fail so often within an hour (no READY, or dead within a minute after it) is stopped "
        "and reported; it gets another one six hours later. Not while many shards fail alike. 0: never.", DISCORD),

    Row("shards", "layout.shards",
        "SHARDS", "shards.total", values.optional(values.integer(1, MOST_SHARDS)), "number", None,
        "The total number of shards, in place of Discord's recommendation and `EXTRA_SHARDS`.", SHARDS, "recommended"),
    Row("extra_shards", "layout.extra",
        "EXTRA_SHARDS", "shards.extra", values.integer(0, MOST_SHARDS), "number", 8,
        "Shards on top of those that Discord recommends.", SHARDS),
    Row("shards_per_cluster", "layout.per_cluster",
        "SHARDS_PER_CLUSTER", "shards.per_cluster", values.integer(1, 100_000), "number", 8,
        "Shards in a cluster. Each cluster has one exchange, `rateway-<number>`.", SHARDS),
    Row("clusters", "layout.clusters",
        "CLUSTERS", "shards.clusters", values.clusters, "numbers and ranges, from 1", None,
        "The clusters that this gateway runs, such as `1-4,7`. With a subset, other gateways run the others, "
        "and their identifies are not counted here: see `IDENTIFY_BUCKETS`. Needs `SHARDS`, the same for all of "
        "them, or `FLEET`.",
        SHARDS, "all"),
    Row("reshard", "layout.reshard", "RESHARD", "shards.reshard", values.boolean, "`true` or `false`", False,
        "Take the number of shards that Discord recommends now, though stored sessions have another: they end.",
        SHARDS),
    Row("fleet", "fleet.name", "FLEET", "fleet", values.optional(values.fleet_name), "name", None,
        "Gateways with the same name, token and broker are one bot: they share the clusters, the day's identifies and "
        "the layout, and one takes over from another that stops or dies. The broker has to be RabbitMQ with quorum "
        "queues, three nodes of it where it must not be a single point of failure.", SHARDS, "off"),
    Row("processes", "process.processes",
        "PROCESSES", "processes", values.optional(values.integer(1, 1024)), "number", None,
        "Runners: processes that run clusters; never more than clusters.", SHARDS, "one for each core"),

    Row("amqp", "broker.address", "AMQP_URI", "amqp", values.amqp, "address, in TOML also a list", REQUIRED,
        "RabbitMQ's address: `amqp://user:password@host:5672/vhost`, or `amqps://` with `cacertfile`, `certfile`, "
        "`keyfile`, `verify`, `server_name_indication` in its query. One that ends in `/` means the default virtual "
        "host. The nodes of a cluster are named with commas: `amqp://user:password@a,b,c:5673/vhost`. An address in "
        "a file (`AMQP_URI_FILE`) is read again for each attempt to connect.", BROKER, secret=True),
    Row("persistent", "broker.persistent",
        "PERSISTENT", "persistent", values.boolean, "`true` or `false`", True,
        "Publish events as persistent messages, which durable queues keep over a restart of the broker.", BROKER),
    Row("unconfirmed_events", "delivery.events",
        "UNCONFIRMED_EVENTS", "unconfirmed_events", values.integer(100), "number", 100_000,
        "Events kept in memory until the broker confirms them, per cluster.", BROKER),
    Row("unconfirmed_bytes", "delivery.bytes",
        "UNCONFIRMED_BYTES", "unconfirmed_bytes", values.size(1 << 20), "size", 256 << 20,
        "The same in bytes. All clusters of a process together keep 16 MiB; beyond that, reading from Discord waits "
        "until the broker confirms or the spool takes events.", BROKER, "256MiB"),
    Row("spool_bytes", "broker.spool_bytes",
        "SPOOL_BYTES", "spool_bytes", values.size(1 << 20, zero=True), "size, or 0 for off", 1 << 30,
        "Events kept on disk beyond that while the broker is away, per cluster.", BROKER, "1GiB"),
    Row("worker_queues", "broker.queues", "WORKER_QUEUES", "worker_queues", values.queue_names, "names", frozenset(),
        "Workers' queues that the gateway looks after: status and page say when nobody reads one.", BROKER, "none"),
    Row("management_url", "broker.management", "MANAGEMENT_URL", "management_url", values.management, "address", None,
        "RabbitMQ's management API, such as `http://user:password@host:15672`: with it every queue that is bound to "
        "the bot's exchanges is looked after, and a name that no worker's queue takes is seen beside an event log. Its "
        "user needs the tag `monitoring`.", BROKER, "none", secret=True),
    Row("urgent", "broker.urgent", "URGENT", "urgent", values.events, "names", frozenset(),
        "Events that do not wait behind those that wait for the broker, such as `INTERACTION_CREATE`: within three "
        "seconds of their arrival they are published ahead, marked `ahead`. One more connection for each cluster.",
        BROKER, "none"),
    Row("event_log", "event_log.form",
        "EVENT_LOG", "event_log", values.choice("stream", "off"), "`stream` or `off`", "off",
        "Keep the published events of each cluster for some minutes in a stream of RabbitMQ 3.9 or newer, from which "
        "gateway proxies resume. It takes disk at the broker: `EVENT_LOG_BYTES` for each cluster and replica.", BROKER),
    Row("event_log_age", "event_log.age",
        "EVENT_LOG_AGE", "event_log_age", values.duration(60, 30 * 86_400), "time of at least 1m", 900.0,
        "Events older than that leave the event log, a sixteenth of it at a time: some stay longer.", BROKER, "15m"),
    Row("event_log_bytes", "event_log.bytes",
        "EVENT_LOG_BYTES", "event_log_bytes", values.size(16 << 20), "size of at least 16MiB", 1 << 30,
        "The size of a cluster's event log, beyond which the oldest events leave it. A changed value begins another "
        "log.", BROKER, "1GiB"),
    Row("nack_patience", "delivery.refused_patience",
        "NACK_PATIENCE", "nack_patience", values.optional(values.duration(1)), "time, or `off`", None,
        "Give an event up that the broker has refused for this long, with `RATEWAY_REFUSED`.", BROKER, "off"),
    Row("lag_warning", "process.lag_warning", "LAG_WARNING", "lag_warning", values.duration(1), "time", 10.0,
        "Warn when an event has waited so long for its confirm.", BROKER, "10s"),
    Row("command_queue", "session.command_queue",
        "COMMAND_QUEUE", "command_queue", values.integer(1), "number", 500,
        "Commands that may wait for one shard; more are answered `queue_full`.", BROKER),
    Row("command_queue_total", "session.command_queue_total",
        "COMMAND_QUEUE_TOTAL", "command_queue_total", values.integer(1), "number", 20_000,
        "Commands that may wait for all shards together.", BROKER),
    Row("command_deadline", "requests.command_deadline",
        "COMMAND_DEADLINE", "command_deadline", values.duration(0.1, 1200), "time", 60.0,
        "How long a command may wait, unless its `expiration` says otherwise; then it is answered `expired`.",
        BROKER, "60s"),
    Row("command_deadline_max", "requests.command_deadline_max",
        "COMMAND_DEADLINE_MAX", "command_deadline_max", values.duration(1, 1200), "time", 600.0,
        "The most that a command waits, whatever its `expiration` and `COMMAND_DEADLINE` say. It has to be well below "
        "RabbitMQ's `consumer_timeout` (30 minutes unless set), at which RabbitMQ takes the inbound queue away.",
        BROKER, "10m"),
    Row("query_deadline", "requests.query_deadline",
        "QUERY_DEADLINE", "query_deadline", values.duration(0.05, 60), "time", 5.0,
        "How long a query may wait, unless its `expiration` says otherwise; a minute is the most.", BROKER, "5s"),
    Row("query_queue", "requests.query_queue",
        "QUERY_QUEUE", "query_queue", values.integer(1), "number", 10_000,
        "Queries that may wait in one process; more are answered `queue_full`.", BROKER),

    Row("events", "published.only", "EVENTS", "events", values.events, "names", None,
        "Publish these events only. What is filtered still feeds the cache.", EVENTS, "all", reloads=True),
    Row("events_except", "published.never",
        "EVENTS_EXCEPT", "events_except", values.events, "names", frozenset(),
        "Publish all events but these, such as `TYPING_START,PRESENCE_UPDATE`.", EVENTS, "none", reloads=True),
    Row("before", "cache.before", "BEFORE", "before", values.events, "names", frozenset(),
        "Before these events, publish the entity as the cache had it, as `<EVENT>.before`.", EVENTS, "none"),

    Row("cache_enabled", "cache.enabled",
        "CACHE_ENABLED", "cache_enabled", values.boolean, "`true` or `false`", True,
        "Keep what Discord tells, for queries.", CACHE, also=("cache.enabled",)),
    Row("message_cache_size", "cache.messages_per_channel",
        "MESSAGE_CACHE_SIZE", "message_cache_size", values.integer(0), "number", 0,
        "Messages kept per channel.", CACHE, also=("cache.messages",)),
    Row("cache_kinds", "cache.kinds", "CACHE_KINDS", "cache.kinds", values.kinds(*sorted(KINDS)), "names", None,
        f"Keep these kinds of entities only: {', '.join(sorted(KINDS))}.", CACHE, "all"),
    Row("cache_activities", "cache.activities",
        "CACHE_ACTIVITIES", "cache.activities", values.boolean, "`true` or `false`", True,
        "Keep presences with their activities.", CACHE),
    Row("cache_members_from_events", "cache.members_from_events",
        "CACHE_MEMBERS_FROM_EVENTS", "cache.members_from_events", values.boolean,
        "`true` or `false`", True,
        "Keep members and users also from messages, reactions, typing, interactions and voice states.", CACHE),
    Row("cache_renew", "cache.renew", "CACHE_RENEW", "cache.renew", values.boolean, "`true` or `false`", False,
        "When the cache is incomplete, spend identifies to fill it, never the day's last: in a fleet, after a death, "
        "by a second session beside each shard's; for a kind that was switched on later by new sessions.", CACHE),
    Row("cache_path", "cache.path", "CACHE_PATH", "cache.path", values.path, "folder", None,
        "Where sessions and cache are stored.", CACHE, "in the state folder"),

    Row("proxy_address", "proxy.address",
        "PROXY_ADDRESS", "proxy.address", values.optional(values.address), "`host:port`, or empty for off", None,
        "Where bots of any library connect as if to Discord. The gateway starts a proxy there; without it none, and "
        "`rateway proxy`, which may run any number of times on any machine, takes `127.0.0.1:7878`.", PROXY, "off",
        empty_is_off=True),
    Row("proxy_token", "proxy.token", "PROXY_TOKEN", "proxy.token", values.bearer, "text", None,
        "What bots may show to the proxy in place of the bot's token, at least 16 characters, so that they need not "
        "hold it; required when the proxy listens on more than loopback.", PROXY, "none", secret=True),
    Row("proxy_url", "proxy.url", "PROXY_URL", "proxy.url", values.optional(values.gateway_url), "address", None,
        "The address that `GET /gateway`, `GET /gateway/bot` and READY tell bots, such as `wss://bots.example.org`.",
        PROXY, "the one that the bot asked under"),
    Row("proxy_shards", "proxy.shards",
        "PROXY_SHARDS", "proxy.shards", values.optional(values.integer(1, MOST_SHARDS)), "number", None,
        "The number of shards that `GET /gateway/bot` recommends to bots. They may connect with any other.", PROXY,
        "as many as the gateway has"),
    Row("proxy_rest_url", "proxy.rest_url",
        "PROXY_REST_URL", "proxy.rest_url", values.optional(values.rest_base), "address", None,
        "Where the proxy sends REST requests, such as a proxy for REST: `http://nirn-proxy:8080`.", PROXY,
        "the host of `DISCORD_API_URL`"),
    Row("proxy_cert", "proxy.cert", "PROXY_CERT", "proxy.cert", values.path, "file", None,
        "The proxy's certificate for TLS in PEM, followed by those of the authorities between.", PROXY, "none"),
    Row("proxy_key", "proxy.key", "PROXY_KEY", "proxy.key", values.path, "file", None,
        "The certificate's key in PEM.", PROXY, "in `PROXY_CERT`"),
    Row("proxy_behind_tls", "proxy.behind_tls",
        "PROXY_BEHIND_TLS", "proxy.behind_tls", values.boolean, "`true` or `false`", False,
        "Another server does TLS in front of the proxy, or its network is a private one: it may listen on more than "
        "loopback without a certificate.", PROXY),
    Row("proxy_replay", "proxy.replay", "PROXY_REPLAY", "proxy.replay", values.events, "names", frozenset(),
        "A bot that identifies again after a restart is sent the events of these names that it missed, such as "
        "`MESSAGE_CREATE`, as far as the event log reaches.", PROXY, "none"),
    Row("proxy_connections", "proxy.connections",
        "PROXY_CONNECTIONS", "proxy.connections", values.integer(1, 100_000), "number", 4096,
        "Gateway connections that bots may hold at a time, and as many requests of REST.", PROXY),

    Row("state_dir", "process.state_dir", "STATE_DIR", "state_dir", values.path, "folder", state_dir,
        "What must outlive a restart: sessions, the cache, the count of identifies. One gateway at a time.", PROCESS,
        "`$STATE_DIRECTORY`, `$XDG_STATE_HOME/rateway` or `~/.local/state/rateway`"),
    Row("stop_timeout", "process.stop_timeout",
        "STOP_TIMEOUT", "stop_timeout", values.duration(0, 600), "time", 10.0,
        "How long a stop waits for the broker to confirm what is still out.", PROCESS, "10s"),
    Row("log_level", "log.level", "LOG_LEVEL", "log_level", values.choice("debug", "info", "warning", "error"),
        "`debug`, `info`, `warning` or `error`", "info", "What is logged.", PROCESS, reloads=True),
    Row("log_format", "log.format",
        "LOG_FORMAT", "log_format", values.choice("text", "json"), "`text` or `json`", "text",
        "Lines for a person, or for a machine.", PROCESS),
    Row("http_address", "http.address", "HTTP_ADDRESS", "http_address", values.optional(values.address),
        "`host:port`, or empty for off", "127.0.0.1:8650", "Where health, metrics and the page are served.", PROCESS,
        empty_is_off=True),
    Row("http_token", "http.token", "HTTP_TOKEN", "http_token", values.bearer, "text", None,
        "The bearer token for HTTP, at least 16 characters; required when it listens on more than loopback.", PROCESS,
        "none", secret=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Removed:
    """A setting that there is no more: a start that finds it ends, because what it asked for would not happen."""

    env: str
    key: str
    instead: str
    """The text to write in its place."""


REMOVED: tuple[Removed, ...] = tuple(
    Removed(
        f"CACHE_{kind.upper()}_FIELDS",
        f"cache.{kind}_fields",
        "take it out: CACHE_KINDS chooses which kinds of entities are kept, CACHE_ACTIVITIES whether presences keep "
        'their activities; queries choose fields with "fields"',
    )
    for kind in ("guilds", "members", "messages", "presences", "users")
)
