"""A broker that takes everything: AMQP 0-9-1 as far as a gateway needs it, at well under 1 µs an event.

It counts ``basic.publish`` methods by their bytes (JSON has no control characters, so no body holds them) and
confirms what a read brought with one ``basic.ack``. Nothing is routed or kept, nothing is ever delivered to
consumers. A process of its own: ``python -m benchmarks.path.sink`` prints its port, then for each line of its
standard input how many messages it has confirmed so far, and ends with it. With the argument ``trace`` it notes
when each event came; the lines ``clear`` and ``tell`` are then as in ``benchmarks/rig/worker.py``.
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
from typing import Final

from pamqp import commands as spec
from pamqp import frame
from pamqp.base import Frame

_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_CLOSE: Final = b"\x00\x0a\x00\x32"
_ACK: Final = struct.Struct(">BHIHHQBB")
_HEAD: Final = struct.Struct(">BHI")
_MESSAGE_ID: Final = re.compile(rb"[0-9a-f]{32}:(\d+):(\d+)\x00")
# A read that may hold connection.close is as short as this.
_SHORT: Final = 100


def _answer(method: object) -> Frame | None:
    match method:
        case spec.Connection.StartOk():
            return spec.Connection.Tune(2047, 131072, 0)
        case spec.Connection.Open():
            return spec.Connection.OpenOk()
        case spec.Connection.Close():
            return spec.Connection.CloseOk()
        case spec.Channel.Open():
            return spec.Channel.OpenOk()
        case spec.Channel.Close():
            return spec.Channel.CloseOk()
        case spec.Exchange.Declare():
            return spec.Exchange.DeclareOk()
        case spec.Confirm.Select():
            return spec.Confirm.SelectOk()
        case spec.Queue.Declare():
            return spec.Queue.DeclareOk(method.queue or "sink", 0, 0)
        case spec.Queue.Bind():
            return spec.Queue.BindOk()
        case spec.Queue.Unbind():
            # A gateway takes a substitute queue off its exchange, and there never is one.
            return spec.Channel.Close(404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'", 50, 50)
        case spec.Basic.Qos():
            return spec.Basic.QosOk()
        case spec.Basic.Consume():
            return spec.Basic.ConsumeOk(method.consumer_tag or "sink")
        case _:
            return None


class Client:
    """One connection: methods one by one until confirms are asked for, from then on only counted."""

    def __init__(self, plug: socket.socket, seen: list[tuple[int, int, int]] | None) -> None:
        self.seen = seen
        self.kept = b""
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plug = plug
        self.inbox = b""
        self.greeted = self.counting = False
        self.tag = 0
        self.owned: set[str] = set()
        # The tag of its consumer, if it has one; nothing is delivered to it here.
        self.consumer = ""

    def read(self, buffer: bytearray, view: memoryview) -> bool:
        """Take what there is; false at the end."""
        if not self.counting:
            return self._talk()
        keep = len(_PUBLISH) - 1
        # The last bytes again in front: a method may be cut between two reads.
        buffer[:keep] = self.inbox
        size = self.plug.recv_into(view[keep:])
        if not size:
            return False
        if self.seen is not None:
            self._note(bytes(view[keep : keep + size]))
        found = buffer.count(_PUBLISH, 0, keep + size)
        self.inbox = bytes(view[size : size + keep])
        if found:
            self.tag += found
            self.plug.sendall(_ACK.pack(1, 1, 13, 60, 80, self.tag, 1, 0xCE))
        elif size < _SHORT and _CLOSE in buffer[keep : keep + size]:
            self.plug.sendall(frame.marshal(spec.Connection.CloseOk(), 0))
        return True

    def _note(self, data: bytes) -> None:
        now = time.monotonic_ns()
        assert self.seen is not None
        data = self.kept + data
        end = 0
        for found in _MESSAGE_ID.finditer(data):
            self.seen.append((int(found[1]), int(found[2]), now))
            end = found.end()
        self.kept = data[max(end, len(data) - 64) :]

    def _talk(self) -> bool:
        data = self.plug.recv(65536)
        if not data:
            return False
        self.inbox += data
        if not self.greeted:
            self.inbox = self.inbox[8:]
            self.greeted = True
            hello = spec.Connection.Start(0, 9, {"product": "sink"}, "PLAIN", "en_US")
            self.plug.sendall(frame.marshal(hello, 0))
        while len(self.inbox) >= _HEAD.size and not self.counting:
            size = _HEAD.unpack_from(self.inbox)[2] + 8
            if len(self.inbox) < size:
                break
            _, channel, method = frame.unmarshal(self.inbox[:size])
            self.inbox = self.inbox[size:]
            answer = _answer(method)
            if isinstance(method, spec.Basic.Consume) and method.exclusive:
                # The first of a queue is its owner; a second one tries the lock, which has to hold.
                if method.queue in self.owned:
                    text = f"ACCESS_REFUSED - queue '{method.queue}' in exclusive use"
                    answer = spec.Channel.Close(403, text, 60, 20)
                self.owned.add(method.queue)
            if answer is not None:
                self.plug.sendall(frame.marshal(answer, channel))
            self.counting = isinstance(method, spec.Confirm.Select)
            if isinstance(answer, spec.Basic.ConsumeOk):
                self.consumer = str(answer.consumer_tag)
        if self.counting:
            self.inbox = bytes(len(_PUBLISH) - 1)
        return True


def main() -> None:
    """Serve until standard input ends."""
    # A collection over all that was noted would look like a slow gateway.
    gc.disable()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    buffer = bytearray(1024 * 1024)
    view = memoryview(buffer)
    clients: dict[int, Client] = {}
    confirmed = 0
    seen: list[tuple[int, int, int]] | None = [] if sys.argv[1:] == ["trace"] else None
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            client = clients.get(number)
            if client is not None:
                try:
                    alive = client.read(buffer, view)
                except ConnectionError:
                    alive = False
                if not alive:
                    confirmed += client.tag
                    del clients[number]
                    poll.unregister(number)
                    client.plug.close()
            elif number == listener.fileno():
                plug, _ = listener.accept()
                clients[plug.fileno()] = Client(plug, seen)
                poll.register(plug, select.EPOLLIN)
            else:
                told = os.read(number, 100)
                if not told:
                    return
                word = told.strip()
                if seen is not None and word:
                    print(json.dumps(seen if word == b"tell" else []), flush=True)
                    if word == b"clear":
                        seen.clear()
                    continue
                print(confirmed + sum(each.tag for each in clients.values()), flush=True)


if __name__ == "__main__":
    main()
