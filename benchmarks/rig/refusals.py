"""Publish messages that a gateway refuses, at a rate: one line ``MESSAGES RATE`` a run, answered when all are out.

``python -m benchmarks.rig.refusals AMQP_URI CLUSTER [--taken]``. With ``--taken`` the cluster's exchange and queue are
made here and this process takes and acknowledges the messages itself: the broker's part of the work without a gateway.
"""

from __future__ import annotations

import asyncio
import struct
import sys

import pamqp.commands as spec
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract import topology

# Between two writes, seconds.
TICK = 0.01


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def message(exchange: str, key: bytes, properties: bytes, body: bytes) -> bytes:
    """The frames of a message; *properties* are the content header from the flags on."""
    name = exchange.encode()
    method = b"\0\x3c\0\x28\0\0" + bytes((len(name),)) + name + bytes((len(key),)) + key + b"\0"
    content = struct.pack(">HHQ", 60, 0, len(body)) + properties
    return _frame(1, method) + _frame(2, content) + (_frame(3, body) if body else b"")


def refusals(exchange: str) -> list[bytes]:
    """What is refused in each way that there is; one in a hundred has 70 KB of headers."""
    reply = b"\x07nowhere"
    asks = b"\x06\x00\x01c" + reply
    large = struct.pack(">I", 70_009) + b"\x01xA" + struct.pack(">I", 70_002) + b"V" * 70_002
    slip = b'{"type":"GuildMember","arguments":[1]}'
    many = b'{"queries":[' + b",".join([b'{"type":"Gild"}'] * 20) + b"]}"
    usual = [
        message(exchange, b"cache", asks, slip),
        message(exchange, b"cache", asks, b'{"type":"Guild","arguments":["x"]}'),
        message(exchange, b"cache", asks, b"{"),
        message(exchange, b"cache", asks, many),
        message(exchange, b"cache", b"\x06\x00\x02\xff\xfe" + reply, slip),
        message(exchange, b"cache", b"\x02\x00\x12rateway-incoming-1", slip),
        message(exchange, b"cache", b"\0\0", b'{"type":"Guild","arguments":[1]}'),
        message(exchange, b"gateway", asks, b'{"op":4,"d":{}}'),
        message(exchange, b"gateway", b"\0\0", b'{"op":3,"d":{}}'),
        message(exchange, b"gateway", b"\x20\x00" + struct.pack(">I", 4) + b"\x01a\xff\x00", b"{}"),
    ]
    # RabbitMQ itself refuses an unknown type in a table, and the connection with it.
    return usual[:-1] * 11 + [message(exchange, b"gateway", b"\x20\x00" + large, b"{}")]


async def publish(connection: Connection, messages: list[bytes], count: int, rate: float) -> None:
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    while sent < count:
        due = min(count, int((loop.time() - began) * rate))
        connection.write(b"".join(messages[number % len(messages)] for number in range(sent, due)))
        sent = due
        await asyncio.sleep(TICK)


async def take(connection: Connection, cluster: int) -> None:
    """Declare the cluster's exchange and queue, and acknowledge all that comes."""
    channel = await connection.channel(1)
    exchange, queue = topology.exchange(cluster), topology.incoming(cluster)
    await channel.call(spec.Exchange.Declare(0, exchange, "direct", durable=True), spec.Exchange.DeclareOk)
    await channel.call(spec.Queue.Declare(0, queue, durable=True), spec.Queue.DeclareOk)
    for key in (topology.CACHE_KEY, topology.GATEWAY_KEY):
        await channel.call(spec.Queue.Bind(0, queue, exchange, key), spec.Queue.BindOk)
    channel.on_delivery = lambda delivery, properties, body: channel.send(spec.Basic.Ack(delivery.tag))
    await channel.call(spec.Basic.Qos(0, 5_000), spec.Basic.QosOk)
    await channel.call(spec.Basic.Consume(0, queue), spec.Basic.ConsumeOk)


async def main() -> None:
    uri, cluster, *taken = sys.argv[1:]
    connection = await dial(parse(uri), name="refusals")
    await connection.channel(1)
    if taken:
        await take(await dial(parse(uri), name="refusals, taken"), int(cluster))
    messages = refusals(topology.exchange(int(cluster)))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count, rate = line.split()
        await publish(connection, messages, int(count), float(rate))
        print("connection lost" if connection.closed.done() else "sent", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
