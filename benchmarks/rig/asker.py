"""Who asks: queries over one connection to the broker, in a process of its own so that it is not in anybody's way.

``python -m benchmarks.rig.asker AMQP-URI``; reads a line of JSON for each run and prints a line with what it found.
``{"bodies": […], "count": 1000, "at_once": 100}`` keeps so many under way; with ``"rate": 5000`` it sends so many a
second instead, and a query's time counts from the moment that it was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

import uvloop
from pamqp import commands as spec
from pamqp import frame
from pamqp.header import ContentHeader
from rateway.transports.amqp.wire import uri
from rateway.transports.amqp.wire.channel import Channel
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway_protocol.contract.header_table import fields_of

# The contract's exchange and key of queries for cluster 1.
EXCHANGE, KEY, REPLIES = "rateway-1", "cache", "bench-replies"
# Between two looks at what is due, seconds.
TICK = 0.0005
PATIENCE = 60.0


class Run:
    """One run of queries."""

    def __init__(self, channel: Channel, connection: Connection, said: dict[str, Any]) -> None:
        self._write = connection.write
        self._bodies = [self._framed(body.encode()) for body in said["bodies"]]
        self._count: int = said["count"]
        self._sent = 0
        self._out: list[bytes] = []
        self._due: dict[str, float] = {}
        self._done = asyncio.Event()
        self._at_once: int | None = said.get("at_once")
        self._rate: float = said.get("rate", 0.0)
        self.times: list[float] = []
        self.bytes = 0
        self.failed: dict[str, int] = {}
        channel.on_delivery = self._answered

    async def go(self) -> float:
        """Seconds until the last answer."""
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await self._all(began)
        if self._due:
            self.failed["unanswered"] = len(self._due)
        return time.monotonic() - began

    async def _all(self, began: float) -> None:
        async with asyncio.timeout(PATIENCE):
            if self._at_once is not None:
                for _ in range(min(self._at_once, self._count)):
                    self._send(began)
                self._flush()
            else:
                while self._sent < self._count:
                    now = time.monotonic()
                    while self._sent < self._count and (due := began + self._sent / self._rate) <= now:
                        self._send(due)
                    self._flush()
                    await asyncio.sleep(TICK)
            await self._done.wait()

    @staticmethod
    def _framed(body: bytes) -> tuple[bytes, bytes]:
        """A query's frames up to its correlation id and from there: who asks cheaply leaves others the machine."""
        told = spec.Basic.Properties(reply_to=REPLIES, correlation_id="q0000000")
        header = frame.marshal(ContentHeader(0, len(body), told), 1)
        first, _, last = header.partition(b"q0000000")
        method = frame.marshal(spec.Basic.Publish(0, EXCHANGE, KEY), 1)
        return method + first, last + b"\x03\x00\x01%b%b\xce" % (len(body).to_bytes(4, "big"), body)

    def _send(self, due: float) -> None:
        first, last = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        name = f"q{self._sent:07}"
        self._due[name] = due
        self._out.append(b"%b%b%b" % (first, name.encode(), last))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out:
            self._write(b"".join(out))

    def _answered(self, delivery: Delivery, told: Properties, body: bytes) -> None:
        now = time.monotonic()
        self.times.append(now - self._due.pop((told.correlation_id or b"").decode()))
        self.bytes += len(body)
        status = fields_of(told.headers, {b"status"})["status"].decode()
        if status != "ok":
            why = json.loads(body)["error"]["code"] if body else status
            self.failed[why] = self.failed.get(why, 0) + 1
        if len(self.times) == self._count:
            self._done.set()
        elif self._at_once is not None and self._sent < self._count:
            if not self._out:
                asyncio.get_running_loop().call_soon(self._flush)
            self._send(now)


async def main(address: str) -> None:
    connection = await connect(uri.parse(address), name="benchmark: queries")
    channel = await connection.channel(1)
    await channel.call(spec.Queue.Declare(0, REPLIES, exclusive=True), spec.Queue.DeclareOk)
    await channel.call(spec.Basic.Consume(0, REPLIES, "", no_ack=True), spec.Basic.ConsumeOk)
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        run = Run(channel, connection, json.loads(line))
        seconds = await run.go()
        times = sorted(run.times)
        found = {
            "seconds": seconds,
            "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[int(len(times) * 0.99)] * 1000,
            "bytes": run.bytes,
            "failed": run.failed,
        }
        print(json.dumps(found), flush=True)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
