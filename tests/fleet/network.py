"""A network of its own for each member of a fleet: Linux network namespaces on one bridge, which a test makes itself
and removes.

A member that is unplugged sends into a network that answers nothing, and no packet of it arrives: neither side learns
that the connection is gone, as with a machine that has lost its power. Needs root and iproute2.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

__all__ = ["Network", "network", "why_impossible"]

_numbers = itertools.count(1)
# Addresses that are private (RFC 1918); one /24 of these for each network, by its process: other runs have theirs.
PREFIX = "10.213"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _quietly(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=False, capture_output=True)


def why_impossible() -> str:
    """Return why this process cannot make network namespaces, empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "network namespaces need iproute2 and nsenter"
    name = f"rateway-try-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", name[-15:], "type", "bridge")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {str(error.stderr).strip()}"
    finally:
        _quietly("link", "del", name[-15:])
        _quietly("netns", "del", name)
    return ""


@dataclass(slots=True)
class Network:
    """A bridge with this machine's end at `host`; `join` adds a namespace to it."""

    bridge: str
    host: str
    exits: ExitStack
    _wires: dict[str, str] = field(default_factory=dict)

    def join(self, name: str) -> list[str]:
        """Make a namespace with one interface on the bridge; the command that starts a program in it."""
        number = len(self._wires) + 2
        space, wire = f"{self.bridge}-{name}", f"{self.bridge}v{number}"
        self.exits.callback(_quietly, "netns", "del", space)
        _ip("netns", "add", space)
        self.exits.callback(_quietly, "link", "del", wire)
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", wire, "master", self.bridge, "up")
        address = f"{self.host.rpartition('.')[0]}.{number}/24"
        _ip("-n", space, "addr", "add", address, "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        self._wires[name] = wire
        return ["nsenter", f"--net=/run/netns/{space}"]

    def unplug(self, name: str) -> None:
        """From now on nothing passes in either direction, and nothing says so."""
        _ip("link", "set", self._wires[name], "nomaster")

    def plug(self, name: str) -> None:
        _ip("link", "set", self._wires[name], "master", self.bridge)


@contextmanager
def network() -> Iterator[Network]:
    """A bridge, removed at the end with all that joined it."""
    with ExitStack() as exits:
        # Names of interfaces have at most 15 characters.
        bridge = f"rw{os.getpid() % 100_000}x{next(_numbers)}"
        exits.callback(_quietly, "link", "del", bridge)
        _ip("link", "add", bridge, "type", "bridge")
        host = _address(bridge)
        _ip("link", "set", bridge, "up")
        yield Network(bridge, host, exits)


def _address(bridge: str) -> str:
    taken = subprocess.run(["ip", "-4", "addr"], check=True, capture_output=True, text=True).stdout
    free = [host for third in range(256) if f"{(host := f'{PREFIX}.{third}.1')}/" not in taken]
    # Another process that looks at the same moment begins elsewhere.
    host = free[os.getpid() % len(free)]
    _ip("addr", "add", f"{host}/24", "dev", bridge)
    return host
