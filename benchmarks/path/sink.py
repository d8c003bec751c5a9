"""A broker that takes everything: AMQP 0-9-1 as far as a publisher with confirms needs it, at well under 1 µs
an event.

It counts ``basic.publish`` methods by their bytes (JSON has no control characters, so no body holds them) and
confirms what a read brought with one ``basic.ack``. Nothing is routed or kept. ``python -m
benchmarks.path.sink`` prints its port and serves one connection after another until its standard input ends.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from typing import Final

from pamqp import commands as spec
from pamqp import frame

_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_ACK: Final = struct.Struct(">BHIHHQBB")
_REPLIES: Final = {
    spec.Channel.Open: spec.Channel.OpenOk,
    spec.Exchange.Declare: spec.Exchange.DeclareOk,
    spec.Confirm.Select: spec.Confirm.SelectOk,
}


def serve(connection: socket.socket) -> None:
    """One connection from handshake to end."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(8, socket.MSG_WAITALL)
    connection.sendall(frame.marshal(spec.Connection.Start(0, 9, {"product": "sink"}, "PLAIN", "en_US"), 0))
    _method(connection)
    connection.sendall(frame.marshal(spec.Connection.Tune(2047, 131072, 0), 0))
    _method(connection)
    _method(connection)
    connection.sendall(frame.marshal(spec.Connection.OpenOk(), 0))
    while True:
        method = _method(connection)
        connection.sendall(frame.marshal(_REPLIES[type(method)](), 1))
        if isinstance(method, spec.Confirm.Select):
            break
    _swallow(connection)


def _method(connection: socket.socket) -> object:
    head = connection.recv(7, socket.MSG_WAITALL)
    rest = connection.recv(struct.unpack(">BHI", head)[2] + 1, socket.MSG_WAITALL)
    return frame.unmarshal(head + rest)[2]


def _swallow(connection: socket.socket) -> None:
    buffer = bytearray(4 * 1024 * 1024)
    keep = len(_PUBLISH) - 1
    view = memoryview(buffer)
    tag = said = 0
    while True:
        size = connection.recv_into(view[keep:])
        if not size:
            return
        tag += buffer.count(_PUBLISH, 0, keep + size)
        # The last bytes again in front: a method may be cut between two reads.
        buffer[:keep] = buffer[size : size + keep]
        if tag != said:
            said = tag
            connection.sendall(_ACK.pack(1, 1, 13, 60, 80, tag, 1, 0xCE))


def _always(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                serve(connection)
            except (ConnectionError, struct.error):
                continue


def main() -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_always, args=(listener,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
