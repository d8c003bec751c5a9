"""The client of a gateway proxy: it reads everything, and counts messages by the heads of their frames.

A process of its own: ``python -m benchmarks.peers.client``. A line ``PORT CONNECTIONS`` of its standard input makes so
many connections to a proxy, in place of those before, and is answered by their number, 0 when the proxy takes none; an
empty line is answered by the count of messages since the start.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import time

# A proxy that has just been started does not listen yet, seconds.
PATIENCE = 30.0
AGAIN = 0.05
_ASK = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Frames:
    """Text frames of one connection, counted as their heads go by."""

    def __init__(self) -> None:
        self.count = 0
        # Bytes of a body that are still to come, and a head of which some are.
        self._left = 0
        self._head = b""

    def feed(self, data: bytes | memoryview) -> None:
        """What one read has brought: whole frames and pieces of them."""
        if self._head:
            data = self._head + bytes(data)
            self._head = b""
        at, end = self._left, len(data)
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
            self.count += data[at] & 0x0F == 1
            at = body + size
        if at < end:
            self._head, at = bytes(data[at:]), end
        self._left = at - end


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
        plug.sendall(_ASK)
        return plug


def _shaken_hands(plug: socket.socket, frames: Frames) -> None:
    inbox = b""
    while b"\r\n\r\n" not in inbox:
        more = plug.recv(4096)
        if not more:
            raise ConnectionResetError("the proxy hung up")
        inbox += more
    frames.feed(inbox.partition(b"\r\n\r\n")[2])


def main() -> None:
    """Read until standard input ends."""
    gc.disable()
    buffer = bytearray(1024 * 1024)
    view = memoryview(buffer)
    peers: dict[int, tuple[socket.socket, Frames]] = {}
    before = 0
    poll = select.epoll()
    poll.register(sys.stdin, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number in peers:
                plug, frames = peers[number]
                try:
                    size = plug.recv_into(view)
                except ConnectionError:
                    size = 0
                if size:
                    frames.feed(view[:size])
                else:
                    poll.unregister(number)
                continue
            told = os.read(number, 100)
            if not told:
                return
            if told.strip():
                for plug, frames in peers.values():
                    before += frames.count
                    plug.close()
                port, count = map(int, told.split())
                peers = {}
                try:
                    made = [(_connected(port), Frames()) for _ in range(count)]
                    for plug, frames in made:
                        _shaken_hands(plug, frames)
                except OSError as error:
                    print(f"no client of the proxy: {error}", file=sys.stderr)
                    made = []
                for plug, frames in made:
                    poll.register(plug, select.EPOLLIN)
                    peers[plug.fileno()] = (plug, frames)
                print(len(peers), flush=True)
            else:
                print(before + sum(frames.count for _, frames in peers.values()), flush=True)


if __name__ == "__main__":
    main()
