"""Between the gateway and the proxy that it starts: settings go one way, the proxy's status the other.

One JSON document a line, over a socket pair. :data:`STOP` lets the proxy send its bots away and end. So does the end of
the line, which is the gateway's death, after a while in which the next gateway may have started another proxy.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import msgspec
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["STOP", "BotRow", "ProxyLine", "ProxyStatus"]

STOP: Final = msgspec.Raw(b'"stop"')

# A status with MOST_ROWS bots is some 100 KB, settings are some 10 KB.
MAX_LINE_BYTES: Final = 4 << 20


class BotRow(msgspec.Struct, frozen=True):
    """One connection of a bot."""

    library: str
    """The ``browser`` of its properties, as the library names itself; empty before IDENTIFY and RESUME."""
    shard: int
    count: int
    """As the bot identified: ``[shard, count]``; 0 of 0 before."""
    state: str
    """``unidentified``, ``starting``, ``resuming`` or ``live``."""
    since_s: float
    """How long it has been connected."""
    lag_events: int
    """Entries of the log that a RESUME has still to bring."""
    lag_s: int
    """Seconds between the last of them that it was brought and the newest."""
    waiting_bytes: int
    """Bytes that were sent to it and that its socket has not taken."""
    sent: int
    """Events that it was sent."""


class ProxyStatus(msgspec.Struct, frozen=True):
    """What one proxy does. Counters count from its start."""

    pid: int
    address: str
    connections: int
    bots: list[BotRow]
    """The connections, the oldest first; of many only some."""
    states: dict[str, int]
    """Connections by state."""
    identifies: int
    resumes: int
    """RESUMEs that were answered with RESUMED."""
    refused: int
    """RESUMEs that were answered with op 9."""
    sent: int
    """Events that were sent to bots."""
    replayed: int
    """Of those, events that a RESUME or PROXY_REPLAY brought."""
    closes: dict[str, int]
    """Connections that the proxy closed, by code."""
    turned_away: dict[str, int]
    """Connections that were refused or ended, by why."""
    rest: dict[str, int]
    """Requests of REST, by what became of them: ``passed``, ``answered``, ``refused``, ``failed``."""
    cpu_s: float
    memory_bytes: int
    notes: list[str]
    """What a person should know now."""


class ProxyLine:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> ProxyLine:
        """Take over one end."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES))

    def send(self, record: msgspec.Raw | ProxyStatus) -> None:
        """Send a record. A peer that does not read is not waited for: what it has not taken yet is enough for it."""
        if not self._writer.is_closing() and self._writer.transport.get_write_buffer_size() < MAX_LINE_BYTES:
            self._writer.write(msgspec.json.encode(record) + b"\n")

    async def read(self) -> msgspec.Raw | None:
        """Return the next record; None once the other end is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return None
            except ValueError:
                # Longer than any record: it is passed over.
                continue
            return msgspec.Raw(line) if line.endswith(b"\n") else None

    async def read_status(self) -> ProxyStatus | None:
        """Return the next status; None once the proxy is gone. A line that is none is passed over."""
        while (line := await self.read()) is not None:
            try:
                return msgspec.json.decode(line, type=ProxyStatus)
            except FAILURES:
                continue
        return None

    def close(self) -> None:
        """End the line."""
        self._writer.close()
