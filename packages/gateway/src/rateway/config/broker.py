"""The broker's address, from the settings."""

from __future__ import annotations

from rateway import logs
from rateway.config.settings import Settings
from rateway.transports.amqp.wire import uri
from rateway.transports.amqp.wire.address_file import AddressFile

# A member of a fleet that is cut off from the broker is dropped by it, and its clusters go to another one, after two
# to three of these and RIGHT_S: 13 to 18 s, where the 60 of RabbitMQ's default take 157. A shorter one would give up
# members that merely stand still for some seconds.
FLEET_HEARTBEAT_S = 5

__all__ = ["broker_address"]


def broker_address(settings: Settings) -> uri.AddressSource:
    """Return the broker's address, read again from its file for each attempt to connect if it stands in one."""
    text = settings.broker.address.reveal()
    source: uri.AddressSource = uri.parse(text)
    if settings.amqp_file is not None:
        source = AddressFile(settings.amqp_file, text, logs.hide)
    return source if settings.fleet.name is None else uri.HastenedAddress(source, FLEET_HEARTBEAT_S)
