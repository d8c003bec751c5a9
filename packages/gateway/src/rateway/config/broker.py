"""The broker's address, from the settings."""

from __future__ import annotations

from rateway import logs
from rateway.config.settings import Settings
from rateway.transports.amqp import uri
from rateway.transports.amqp.address_file import AddressFile

__all__ = ["broker_address"]


def broker_address(settings: Settings) -> uri.AddressSource:
    """Return the broker's address, read again from its file for each attempt to connect if it stands in one."""
    text = settings.broker.address.reveal()
    if settings.amqp_file is None:
        return uri.parse(text)
    return AddressFile(settings.amqp_file, text, logs.hide)
