"""The settings of a gateway: one frozen record, complete and checked before anything starts.

Each part of it is the record of the module that it sets in motion. A row of the table in ``rateway.config.table`` names
the part and the field that it fills; no field stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rateway.cache.policy import CacheSettings
from rateway.config.process import ProcessSettings
from rateway.config.proxy import ProxySettings
from rateway.delivery.filter import EventFilter
from rateway.delivery.limits import DeliveryLimits
from rateway.fleet.identify import IdentifySettings
from rateway.fleet.layout import LayoutSettings
from rateway.fleet.membership import FleetSettings
from rateway.logs import LogSettings
from rateway.secret import Secret
from rateway.session.options import SessionSettings
from rateway.transports.amqp.settings import BrokerSettings, EventLogSettings, RequestSettings
from rateway.transports.http.settings import HttpSettings
from rateway.transports.rest import RestSettings

__all__ = ["ConfigurationError", "Problem", "Settings"]


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
    """Everything that can be set, by part. Times are seconds, sizes bytes, unless the name says otherwise."""

    session: SessionSettings
    rest: RestSettings
    identify: IdentifySettings
    layout: LayoutSettings
    fleet: FleetSettings
    broker: BrokerSettings
    event_log: EventLogSettings
    delivery: DeliveryLimits
    requests: RequestSettings
    published: EventFilter
    cache: CacheSettings
    proxy: ProxySettings
    http: HttpSettings
    log: LogSettings
    process: ProcessSettings

    amqp_file: Path | None = None
    """The file of the broker's address, if it has one of its own: it is read there again."""
    source: Path | None = None
    """The file that was read, if any."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The source of each setting: a variable's name, ``file:key`` or ``default``."""

    def secrets(self) -> tuple[Secret, ...]:
        """Return every secret of the configuration, for ``rateway.logs`` to hide."""
        given = (
            self.session.token,
            self.broker.address,
            self.broker.management,
            self.http.token,
            self.proxy.token,
        )
        return tuple(secret for secret in given if secret)
