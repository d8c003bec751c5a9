"""A broker that takes every event, as ``benchmarks/path/sink.py`` does, and asks: queries made by hand, answers timed.

What a gateway adds to a query, without RabbitMQ, which would take more of the machine than it. A process of its own:
``python -m benchmarks.rig.inquirer`` prints its port; the lines that it reads and prints then are those of
``benchmarks/rig/asker.py``. A query's time counts from the moment that it was due until its answer has been read here,
where events are confirmed as well: what this process is late by counts against the gateway.
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
from typing import Any, Final

from pamqp import commands as spec
from pamqp import frame
from pamqp.header import ContentHeader

from benchmarks.path.sink import Client

PATIENCE: Final = 30.0
# Between two looks at what is due while nothing else comes, seconds.
TICK: Final = 0.001
# An answer's headers, delivery mode and correlation id: JSON has no control characters, so that no body looks like it.
_ANSWER: Final = re.compile(rb"\x06statusS\0\0\0.([a-z_]+)\x01\x09q(\d{8})")
_CODE: Final = re.compile(rb'"code":"([a-z_]+)"')
_LONGEST: Final = 64
CLOSE: Final = b"\x00\x0a\x00\x32"
_BODY: Final = struct.Struct(">BHI")


class Broker:
    """The connections, and what is asked over the one that consumes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.buffer = bytearray(1024 * 1024)
        self.view = memoryview(self.buffer)
        self.clients: dict[int, Client] = {}
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.poll.register(sys.stdin, select.EPOLLIN)
        self.tag = 0
        self.run: Run | None = None
        # Who has been asked answers and acknowledges from then on, and nothing else.
        self.asked: Client | None = None

    def look(self, timeout: float) -> bool:
        """Take what has come; whether standard input has something to say."""
        told = False
        for number, _ in self.poll.poll(timeout):
            client = self.clients.get(number)
            if client is not None:
                if not self._read(client):
                    del self.clients[number]
                    self.poll.unregister(number)
                    client.plug.close()
            elif number == self.listener.fileno():
                plug, _ = self.listener.accept()
                self.clients[plug.fileno()] = Client(plug, None)
                self.poll.register(plug, select.EPOLLIN)
            else:
                told = True
        return told

    def _read(self, client: Client) -> bool:
        try:
            if client is not self.asked:
                return client.read(self.buffer, self.view)
            data = client.plug.recv(1 << 20)
            if self.run is not None:
                self.run.read(data)
            elif CLOSE in data:
                client.plug.sendall(frame.marshal(spec.Connection.CloseOk(), 0))
            return bool(data)
        except ConnectionError:
            return False

    def ask(self, said: dict[str, Any]) -> dict[str, Any]:
        """One run of queries."""
        client = self.asked = next(each for each in self.clients.values() if each.consumer)
        self.run = Run(client, said, self.tag)
        run = self.run
        began = time.monotonic()
        while run.missing and time.monotonic() < began + PATIENCE:
            run.send(began)
            self.look(TICK)
        self.run = None
        self.tag += run.count
        times = sorted(run.times)
        failed = dict(run.failed)
        if run.missing:
            failed["unanswered"] = run.missing
        return {
            "seconds": time.monotonic() - began,
            "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[int(len(times) * 0.99)] * 1000,
            "bytes": run.bytes,
            "failed": failed,
        }


class Run:
    """Queries that are due, under way and answered."""

    def __init__(self, client: Client, said: dict[str, Any], tag: int) -> None:
        self._plug = client.plug
        self._consumer = client.consumer
        self._bodies = [self._framed(body.encode()) for body in said["bodies"]]
        self.count: int = said["count"]
        self._at_once: int | None = said.get("at_once")
        self._rate: float = said.get("rate", 0.0)
        self._tag = tag
        self._sent = 0
        self._due = [0.0] * self.count
        self._kept = b""
        self.missing = self.count
        self.times: list[float] = []
        self.failed: dict[str, int] = {}
        self.bytes = 0

    def _framed(self, body: bytes) -> tuple[bytes, bytes, bytes]:
        """A delivery's frames up to its tag, from there to its correlation id, and what is behind that."""
        method = frame.marshal(spec.Basic.Deliver(self._consumer, 0, False, "rateway-1", "cache"), 1)
        told = spec.Basic.Properties(correlation_id="q00000000", reply_to="answers")
        header = frame.marshal(ContentHeader(0, len(body), told), 1)
        at = 7 + 4 + 1 + len(self._consumer)
        first, _, last = header.partition(b"00000000\x07answers")
        behind = b"\x07answers" + last + _BODY.pack(3, 1, len(body)) + body + b"\xce"
        return method[:at], method[at + 8 :] + first, behind

    def send(self, began: float) -> None:
        """All that is due now, in one write."""
        now = time.monotonic()
        if self._at_once is not None:
            until = min(self.count, self.count - self.missing + self._at_once)
        else:
            until = min(self.count, int((now - began) * self._rate) + 1)
        out = []
        for number in range(self._sent, until):
            first, second, third = self._bodies[number % len(self._bodies)]
            self._due[number] = now if self._at_once is not None else began + number / self._rate
            out.append(
                b"%b%b%b%08d%b" % (first, (self._tag + number + 1).to_bytes(8, "big"), second, number, third)
            )
        if out:
            self._sent = until
            self._plug.sendall(b"".join(out))

    def read(self, data: bytes) -> None:
        """Answers, whole or torn, and acknowledgements."""
        now = time.monotonic()
        self.bytes += len(data)
        searched = self._kept + data
        end = 0
        for found in _ANSWER.finditer(searched):
            end = found.end()
            self.times.append(now - self._due[int(found[2])])
            self.missing -= 1
            if found[1] != b"ok":
                code = _CODE.search(searched, end, end + _LONGEST)
                why = (code or found)[1].decode()
                self.failed[why] = self.failed.get(why, 0) + 1
        self._kept = searched[max(end, len(searched) - _LONGEST) :]


def main() -> None:
    """Serve until standard input ends."""
    # A collection over all that was noted would look like a slow gateway.
    gc.disable()
    broker = Broker()
    print(broker.listener.getsockname()[1], flush=True)
    lines = b""
    while True:
        if not broker.look(-1):
            continue
        data = os.read(sys.stdin.fileno(), 1 << 20)
        if not data:
            return
        lines += data
        while b"\n" in lines:
            line, _, lines = lines.partition(b"\n")
            print(json.dumps(broker.ask(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
