"""A plain reader of Discord's gateway, of many connections: it identifies or resumes, and counts frames by their heads.

A process of its own: ``python -m benchmarks.proxy.client``. It reads a line of JSON for each command and answers each
with one; see :class:`Reader`. One thread and plain sockets: its cost is nobody's figure.
"""

from __future__ import annotations

import gc
import json
import os
import re
import select
import socket
import struct
import sys
import time
from typing import Any

from benchmarks.rig.streams import INTENTS, TOKEN

# A proxy that has just been started does not listen yet, or has no layout: seconds.
PATIENCE = 60.0
AGAIN = 0.05
_ASK = (
    b"GET /?v=10&encoding=json HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_S = re.compile(rb'"s":(\d+)')
# Of a dispatch's beginning, in which its number stands.
_HEAD = 96
_TEXT, _CLOSE = 1, 8
# What answers a heartbeat is no longer; every dispatch is.
_SHORT = 34
# Seconds between two heartbeats of every connection: less than a proxy asks for.
BEAT = 20.0


class Refused(RuntimeError):
    """The proxy closed the connection, with these words."""


class Bot:
    """One connection: frame by frame until it is live, then counted."""

    def __init__(self, port: int, shard: list[int]) -> None:
        self.shard = shard
        self.session = ""
        self.seq = 0
        self.count = 0
        # When each frame has come, in ns of the monotonic clock; None while nobody wants to know.
        self.times: list[int] | None = None
        self.live_at = 0.0
        self.plug = _connected(port)
        # GUILD_CREATEs that are still to come, once READY has said how many.
        self.waits_for = -1
        self._resuming = False
        self._inbox = b""
        self._left = 0
        self._begin = b""

    def say(self, payload: dict[str, Any]) -> None:
        """Send a payload, masked with zeros."""
        data = json.dumps(payload).encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self.plug.sendall(b"\x81" + size + bytes(4) + data)

    def identify(self) -> None:
        properties = {"os": "linux", "browser": "benchmark", "device": "benchmark"}
        self.say(
            {
                "op": 2,
                "d": {"token": TOKEN, "intents": INTENTS, "shard": self.shard, "properties": properties},
            }
        )

    def resume(self, of: Bot) -> None:
        self.session, self.seq, self._resuming = of.session, of.seq, True
        self.say({"op": 6, "d": {"token": TOKEN, "session_id": of.session, "seq": of.seq}})

    def is_live(self) -> bool:
        """Whether all that begins the session has come."""
        return self.live_at > 0

    def take(self, data: bytes | memoryview) -> None:
        """What one read has brought."""
        if self.is_live():
            self._tally(data)
            return
        self._inbox += data
        while True:
            found = _frame(self._inbox)
            if found is None:
                return
            opcode, payload, end = found
            self._inbox = self._inbox[end:]
            if opcode == _CLOSE:
                raise Refused(payload.decode("utf-8", "replace"))
            if opcode == _TEXT:
                self._hear(payload)
            if self.is_live():
                rest, self._inbox = self._inbox, b""
                self._tally(rest)
                return

    def _hear(self, payload: bytes) -> None:
        head = payload[:_HEAD]
        number = _S.search(head)
        if number is not None:
            self.count += 1
            self.seq = int(number[1])
        if b'"READY"' in head:
            ready = json.loads(payload)["d"]
            self.session = ready["session_id"]
            self.waits_for = len(ready["guilds"])
        elif b'"GUILD_CREATE"' in head:
            self.waits_for -= 1
        if (b'"RESUMED"' in head and self._resuming) or self.waits_for == 0:
            self.live_at = time.monotonic()
        elif head.startswith(b'{"op":9'):
            raise Refused("op 9")

    def _tally(self, data: bytes | memoryview) -> None:
        if self._begin:
            data = self._begin + bytes(data)
            self._begin = b""
        at, end, before, last = self._left, len(data), self.count, -1
        while at + 2 <= end:
            size, body = data[at + 1] & 0x7F, at + 2
            if size == 126:
                body += 2
                size = int.from_bytes(data[at + 2 : body], "big")
            elif size == 127:
                body += 8
                size = int.from_bytes(data[at + 2 : body], "big")
            if body > end:
                break
            opcode = data[at] & 0x0F
            if opcode == _TEXT and size > _SHORT:
                self.count += 1
                # The number of one whose body is here in full: it is what a bot has.
                last = body if body + size <= end else last
            elif opcode == _CLOSE:
                raise Refused(bytes(data[body : body + size]).decode("utf-8", "replace"))
            at = body + size
        if at < end:
            self._begin, at = bytes(data[at:]), end
        self._left = at - end
        if last >= 0 and (number := _S.search(bytes(data[last : last + _HEAD]))) is not None:
            self.seq = int(number[1])
        if self.times is not None:
            self.times += [time.monotonic_ns()] * (self.count - before)


def _frame(inbox: bytes) -> tuple[int, bytes, int] | None:
    """(opcode, payload, end) of the first whole frame."""
    if len(inbox) < 2:
        return None
    size, body = inbox[1] & 0x7F, 2
    if size >= 126:
        body += 2 if size == 126 else 8
        size = int.from_bytes(inbox[2:body], "big")
    if len(inbox) < body + size:
        return None
    return inbox[0] & 0x0F, inbox[body : body + size], body + size


def _connected(port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            plug = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN)
            continue
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plug.sendall(_ASK % port)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = plug.recv(1)
            if not more:
                break
            head += more
        if b" 101 " in head.partition(b"\r\n")[0]:
            return plug
        plug.close()
        if time.monotonic() > deadline:
            raise Refused(head.decode("latin-1"))
        time.sleep(AGAIN)


class Reader:
    """The commands: each is a method, its words the arguments; each returns the answer's facts."""

    def __init__(self) -> None:
        self.bots: list[Bot] = []
        self._buffer = memoryview(bytearray(1 << 20))
        self._poll = select.epoll()
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._gone = 0
        # Why the last of them was closed.
        self._words = ""
        self._beat_at = time.monotonic() + BEAT

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            for number in self._turn(BEAT):
                told = os.read(number, 65536)
                if not told:
                    return
                for line in told.splitlines():
                    words = json.loads(line)
                    try:
                        answer = getattr(self, words.pop("do"))(**words)
                    except Refused as refused:
                        answer = {"refused": str(refused)}
                    print(json.dumps(answer), flush=True)

    def _turn(self, timeout: float) -> list[int]:
        """Read what there is; return standard input's number when there is something."""
        mine = {bot.plug.fileno(): bot for bot in self.bots}
        commands = []
        if time.monotonic() > self._beat_at:
            self._beat_at = time.monotonic() + BEAT
            for each in self.bots:
                if each.is_live() and each.plug.fileno() >= 0:
                    each.say({"op": 1, "d": each.seq})
        for number, _ in self._poll.poll(timeout):
            bot: Bot | None = mine.get(number)
            if bot is None:
                commands.append(number)
                continue
            try:
                size = bot.plug.recv_into(self._buffer)
                if not size:
                    raise Refused("it hung up")
                bot.take(self._buffer[:size])
            except (ConnectionError, Refused) as gone:
                # Its session is still known.
                self._words = str(gone)
                self._gone += 1
                self._poll.unregister(number)
                bot.plug.close()
        return commands

    # The commands.

    def identify(self, port: int, shards: list[list[int]]) -> dict[str, Any]:
        """Make a connection for each shard in place of those before; answer when all are live, with the seconds."""
        self._leave()
        return self._begin([(Bot(port, shard), None) for shard in shards])

    def resume(self, port: int) -> dict[str, Any]:
        """Resume every session on a new connection; answer when all have RESUMED."""
        former = self.bots
        self._leave()
        return self._begin([(Bot(port, bot.shard), bot) for bot in former])

    def leave(self) -> dict[str, Any]:
        """Drop the connections, and know their sessions still."""
        self._leave()
        return {"left": len(self.bots)}

    def count(self) -> dict[str, Any]:
        """Frames that have come on the connections of now."""
        return {"count": sum(bot.count for bot in self.bots), "gone": self._gone}

    def note(self) -> dict[str, Any]:
        """Note the time of each frame from now on."""
        for bot in self.bots:
            bot.times = []
        return {"noting": len(self.bots)}

    def times(self) -> dict[str, Any]:
        """When frames have come, by shard."""
        return {"times": {bot.shard[0]: bot.times for bot in self.bots}}

    def _leave(self) -> None:
        self._gone = 0
        for bot in self.bots:
            if bot.plug.fileno() >= 0:
                self._poll.unregister(bot.plug)
                bot.plug.close()

    def _begin(self, bots: list[tuple[Bot, Bot | None]]) -> dict[str, Any]:
        began = time.monotonic()
        self.bots = [bot for bot, _ in bots]
        before = []
        for bot, former in bots:
            self._poll.register(bot.plug, select.EPOLLIN)
            if former is None:
                bot.identify()
            else:
                before.append(bot)
                bot.resume(former)
        while not all(bot.is_live() for bot in self.bots):
            self._turn(1.0)
            if self._gone:
                raise Refused(f"{self._gone} connections were closed: {self._words}")
            if time.monotonic() > began + PATIENCE:
                raise Refused(f"{sum(bot.is_live() for bot in self.bots)} of {len(self.bots)} are live")
        seconds = sorted(bot.live_at - began for bot in self.bots)
        # Of a resume: the dispatches before RESUMED.
        return {"live": len(self.bots), "seconds": seconds, "replayed": sum(bot.count - 1 for bot in before)}


def main() -> None:
    """Serve until standard input ends."""
    gc.disable()
    Reader().run()


if __name__ == "__main__":
    main()
