"""The settings of a gateway: one frozen record, complete and checked before anything starts.

Each field is one row of the table in ``rateway.config.table``: its environment variable, its key in the file, its
type, its default and its help come from there, ``docs/settings.md`` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rateway.config.presence import PresenceTemplate
from rateway.secret import Secret

__all__ = ["Compression", "ConfigurationError", "Problem", "Settings"]

Compression = Literal["zstd-stream", "zlib-stream", "none"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of a configuration: where it stands, what is wrong, what to write instead."""

    where: str
    wrong: str
    instead: str

    def __str__(self) -> str:
        return f"{self.where}: {self.wrong}" + (f"; {self.instead}" if self.instead else "")


class ConfigurationError(Exception):
    """The configuration cannot be used. ``problems`` holds every mistake in it, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Times are seconds, sizes bytes, unless the name says otherwise."""

    # Discord
    token: Secret
    """Bare, without the ``Bot `` prefix."""
    intents: int
    api_url: str
    """Base of Discord's REST, with the version, without a slash at the end."""
    gateway_hosts: frozenset[str]
    """Domains beside the API's own that the token may be sent to."""
    compression: Compression
    large_threshold: int
    presence: PresenceTemplate | None
    resume_patience: float
    session_max_age: float | None
    max_message_bytes: int
    identify_buckets: frozenset[int] | None
    crash_loop_identifies: int
    """Failing identifies of one shard within an hour after which it is stopped; 0 never."""

    # shards and clusters
    shards: int | None
    """A total in place of the recommended number and ``extra_shards``."""
    extra_shards: int
    shards_per_cluster: int
    clusters: frozenset[int] | None
    """Clusters that this gateway runs; ``None`` means all."""
    reshard: bool
    processes: int | None
    """``None`` means as many as the cores that are left to this process."""

    # the broker
    amqp: Secret
    """The broker's address, with user and password; several nodes with commas."""
    persistent: bool
    events: frozenset[str] | None
    """Names published; ``None`` means all."""
    events_except: frozenset[str]
    before: frozenset[str]
    unconfirmed_events: int
    unconfirmed_bytes: int
    spool_bytes: int
    """0 means no spool."""
    nack_patience: float | None
    command_queue: int
    """Commands that may wait for one shard."""
    command_queue_total: int
    command_deadline: float
    command_deadline_max: float
    """However long a command's own ``expiration`` is."""
    query_deadline: float
    query_queue: int
    lag_warning: float

    # the cache
    cache_enabled: bool
    message_cache_size: int
    cache_kinds: frozenset[str] | None
    cache_activities: bool
    cache_members_from_events: bool
    cache_renew: bool
    cache_path: Path | None

    # this process
    state_dir: Path
    stop_timeout: float
    log_level: str
    """One of ``debug``, ``info``, ``warning``, ``error``."""
    log_format: Literal["text", "json"]
    http_address: str | None
    """``host:port``; ``None`` means off."""
    http_token: Secret | None

    amqp_file: Path | None = None
    """Where the broker's address was read from, when it stands in a file of its own: it is read there again."""
    source: Path | None = None
    """The file that was read, if any."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each setting came from: a variable's name, ``file:key`` or ``default``."""

    def publishes(self, event: str) -> bool:
        """Whether events of that name are published. What is not still feeds the cache and counts as settled."""
        return (self.events is None or event in self.events) and event not in self.events_except

    def bot_parts(self) -> tuple[str, ...]:
        """What tells one bot from another, for a hash: the part of the token that names the bot, and where it lives."""
        return (self.token.reveal().partition(".")[0], self.api_url)

    def fatal_parts(self) -> tuple[str, ...]:
        """What Discord's fatal answers depend on, for a hash: with one of these changed, a start may go otherwise."""
        shards = f"+{self.extra_shards}" if self.shards is None else str(self.shards)
        return (self.token.reveal(), self.api_url, str(self.intents), shards)

    def secrets(self) -> tuple[Secret, ...]:
        """Every secret of the configuration, for ``rateway.logs`` to hide."""
        return tuple(secret for secret in (self.token, self.amqp, self.http_token) if secret)
