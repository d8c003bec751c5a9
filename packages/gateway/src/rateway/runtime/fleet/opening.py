"""Make what this gateway needs of its fleet: the only place that connects it to the broker."""

from __future__ import annotations

import socket

from rateway.config import Settings
from rateway.config.broker import broker_address
from rateway.fleet.membership import Membership
from rateway.runtime.fleet.line import FleetLine
from rateway.runtime.fleet.member import FleetMember, MemberGateway, RunningElections
from rateway.transports.amqp.fleet_line import FleetWire
from rateway.transports.amqp.fleet_queues import FleetQueues
from rateway.transports.rest import DiscordRest
from rateway.transports.state import StateDir

__all__ = ["open_elections", "open_member"]


def open_elections(settings: Settings, membership: Membership) -> RunningElections:
    """Return the elections of one process of a member."""
    return FleetQueues(address=broker_address(settings), fleet=membership.fleet, member=membership.member)


def open_member(
    settings: Settings, state: StateDir, rest: DiscordRest, gateway: MemberGateway
) -> FleetMember:
    """Return this gateway as a member of the fleet that the settings name. Raises StateError."""
    assert settings.fleet.name is not None
    membership = Membership(settings.fleet.name, state.member(socket.gethostname()))
    line = FleetLine(FleetWire(broker_address(settings), membership), membership.member)
    elections = open_elections(settings, membership)
    return FleetMember(settings, state, rest, gateway, membership, line, elections)
