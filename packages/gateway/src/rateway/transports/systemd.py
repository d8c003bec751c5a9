"""Notify the service manager: one datagram to the socket it named, as sd_notify(3) writes it.

No library: the protocol is lines of ``NAME=value``. Without ``NOTIFY_SOCKET`` nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]

log = logging.getLogger(__name__)

# One line of `systemctl status`.
MOST_WORDS = 200


class Notifier:
    """The socket of the service manager. ``watchdog_s``: how often it wants to hear from us at least, if at all."""

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        self.watchdog_s = watchdog_s
        # A leading @ is a name in Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> Notifier | None:
        """From the variables that systemd sets; None when it did not start us so."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        watchdog = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", "") in ("", str(pid if pid is not None else os.getpid()))
        return cls(address, int(watchdog) / 1e6 if watchdog.isdecimal() and meant else None)

    def tell(self, **fields: str) -> bool:
        """Send ``NAME=value`` lines; whether they went out. Never raises, never waits."""
        lines = [f"{name}={value[:MOST_WORDS]}" for name, value in fields.items()]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.debug("the service manager could not be told: %s", error, extra={"action": "service_manager"})
            return False
        return True
