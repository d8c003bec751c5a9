"""A worker that notes when it got what, and asks RabbitMQ beside it how long a confirm takes.

A process of its own: ``python -m benchmarks.rig.worker AMQP_URI [slow]``. It prints ``ready``; then for each line
of its input: ``clear`` forgets, ``tell`` prints [[shard, seq, ns], …], ``confirms`` prints its own confirms' times
in ms since the last such question. A *slow* one takes a hundred messages a second and asks nothing.
"""

from __future__ import annotations

import gc
import json
import re
import socket
import struct
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from pamqp import commands as spec
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from rateway_protocol.discord.events import DOCUMENTED

MESSAGE_ID = re.compile(rb"[0-9a-f]{32}:(\d+):(\d+)")
# Between two messages of its own.
EVERY_S = 0.005
# A slow worker acknowledges so many at a time, and then thinks.
SLOW_MOST = 10
SLOW_S = 0.1
# The method basic.deliver; JSON has no control characters.
DELIVER = b"\x00\x3c\x00\x3c"
BODY = b'{"filler":"' + bytes(b"x" * 680) + b'"}'


class Line:
    """A blocking AMQP connection with one channel."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.plug = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self.plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plug.sendall(b"AMQP\x00\x00\x09\x01")
        self._next()
        response = f"\0{parts.username}\0{parts.password}"
        self.say(spec.Connection.StartOk({}, "PLAIN", response, "en_US"), 0)
        tune: Any = self._next()
        self.say(spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self.say(spec.Connection.Open("/"), 0)
        self._next()
        self.call(spec.Channel.Open())

    def say(self, method: Any, channel: int = 1) -> None:
        """A method."""
        self.plug.sendall(frame.marshal(method, channel))

    def _next(self) -> Any:
        head = self.plug.recv(7, socket.MSG_WAITALL)
        rest = self.plug.recv(struct.unpack(">BHI", head)[2] + 1, socket.MSG_WAITALL)
        return frame.unmarshal(head + rest)[2]

    def call(self, method: Any) -> Any:
        """A method and its reply."""
        self.say(method)
        return self._next()

    def confirmed(self, key: str) -> float:
        """Milliseconds until one persistent message is confirmed."""
        properties = spec.Basic.Properties(delivery_mode=2, content_type="application/json")
        parts = [
            frame.marshal(spec.Basic.Publish(0, "rateway-1", key), 1),
            frame.marshal(ContentHeader(0, len(BODY), properties), 1),
            frame.marshal(ContentBody(BODY), 1),
        ]
        began = time.monotonic_ns()
        self.plug.sendall(b"".join(parts))
        self._next()
        return (time.monotonic_ns() - began) / 1e6


class Worker:
    """One queue bound to everything, read without acknowledgements."""

    def __init__(self, uri: str, slow: bool) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.confirms: list[float] = []
        line = Line(uri)
        line.call(spec.Exchange.Declare(0, "rateway-1", "direct", durable=True))
        line.call(spec.Queue.Declare(0, "bench", durable=True))
        for name in sorted(DOCUMENTED):
            line.call(spec.Queue.Bind(0, "bench", "rateway-1", name))
        line.call(spec.Queue.Declare(0, "bench-own", durable=True, arguments={"x-max-length": 1000}))
        line.call(spec.Queue.Bind(0, "bench-own", "rateway-1", "BENCH"))
        if slow:
            line.call(spec.Basic.Qos(0, SLOW_MOST))
        line.call(spec.Basic.Consume(0, "bench", "", no_ack=not slow))
        self._line = line
        self._publisher = Line(uri)
        self._publisher.call(spec.Confirm.Select())

    def read(self) -> None:
        """Note what arrives, for ever."""
        kept = b""
        while data := self._line.plug.recv(1 << 20):
            now = time.monotonic_ns()
            data = kept + data
            end = 0
            for found in MESSAGE_ID.finditer(data):
                # A number may be cut at the end of a read.
                if found.end() == len(data):
                    break
                self.seen.append((int(found[1]), int(found[2]), now))
                end = found.end()
            kept = data[max(end, len(data) - 64) :]

    def think(self) -> None:
        """Take a few messages, then nothing for a while, for ever."""
        taken, kept = 0, b""
        while data := self._line.plug.recv(1 << 20):
            data = kept + data
            taken += data.count(DELIVER)
            kept = data[-len(DELIVER) + 1 :]
            time.sleep(SLOW_S)
            if taken:
                self._line.say(spec.Basic.Ack(taken, multiple=True))

    def ask(self) -> None:
        """Publish and wait, over and over."""
        while True:
            self.confirms.append(self._publisher.confirmed("BENCH"))
            time.sleep(EVERY_S)


def main() -> None:
    """Answer until the input ends."""
    # A collection over all that was noted would look like a slow gateway.
    gc.disable()
    slow = sys.argv[2:] == ["slow"]
    worker = Worker(sys.argv[1], slow)
    for work in (worker.think,) if slow else (worker.read, worker.ask):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "confirms":
            confirms, worker.confirms = worker.confirms, []
            print(json.dumps(confirms), flush=True)
        elif word == "tell":
            print(json.dumps(worker.seen), flush=True)
        else:
            worker.seen, worker.confirms = [], []
            print("cleared", flush=True)


if __name__ == "__main__":
    main()
