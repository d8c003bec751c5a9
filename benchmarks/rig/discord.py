"""A stand-in for Discord that costs next to nothing: it replays what was compressed and framed beforehand.

A process of its own: ``python -m benchmarks.rig.discord RECIPE COMPRESSION`` (a recipe as JSON). It prints a line of
JSON for each fact and reads a line of JSON for each command; see :class:`Stage` for both. One thread and
plain sockets, because what paces events must be finer than an event loop's timers.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

from rateway_simulator.world.people import BOT_ID

from benchmarks.rig.streams import Packed, Recipe, Stream, pack, recorded

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Bytes of frames in one write when all goes out as fast as it is taken.
CHUNK = 128 * 1024
# Between two looks at what peers say while events are paced, seconds.
LOOK = 0.05
COMPRESSIONS = {"zstd": "zstd-stream", "zlib": "zlib-stream", "none": "none"}


def say(**fact: object) -> None:
    """One line for whoever started us."""
    print(json.dumps(fact), flush=True)


class Peer:
    """One connection: HTTP until it is upgraded, then one shard's stream."""

    def __init__(self, plug: socket.socket) -> None:
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plug.setblocking(False)
        self.plug = plug
        self.inbox = b""
        self.outbox: list[memoryview] = []
        self.compression: str | None = None
        self.shard: int | None = None

    def send(self, data: bytes) -> None:
        """Write now, or as soon as the peer reads."""
        self.outbox.append(memoryview(data))
        self.drain()

    def drain(self) -> bool:
        """Write what waits; whether all of it is written."""
        while self.outbox:
            try:
                sent = self.plug.send(self.outbox[0])
            except BlockingIOError:
                return False
            if sent < len(self.outbox[0]):
                self.outbox[0] = self.outbox[0][sent:]
            else:
                self.outbox.pop(0)
        return True


class Stage:
    """Facts: ``{"port"}``, ``{"live": shards}``, ``{"sent", "seconds", "times"}``.

    Commands: ``{"do": "flood", "events"}``, ``{"do": "pace", "rate", "seconds", "times"}``: events a second a shard,
    and whether to tell when each was sent.
    """

    def __init__(self, streams: list[Stream], compressions: list[str]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.packed = {name: self._pack(streams, COMPRESSIONS[name]) for name in compressions}
        self.poll = select.poll()
        self.peers: dict[int, Peer] = {}
        self.live: dict[int, Peer] = {}
        self.at = [0] * len(streams)
        self.commands = b""
        self.poll.register(self.listener, select.POLLIN)
        self.poll.register(sys.stdin, select.POLLIN)

    def _pack(self, streams: list[Stream], compression: str) -> list[Packed]:
        made: dict[int, Packed] = {}
        for stream in streams:
            if id(stream) not in made:
                made[id(stream)] = pack(stream, compression, self.url)
        return [made[id(stream)] for stream in streams]

    def run(self) -> None:
        """Serve until standard input ends."""
        say(port=self.port)
        while True:
            for number, what in self.poll.poll():
                if number == self.listener.fileno():
                    self._accept()
                elif number == sys.stdin.fileno():
                    if not self._commanded():
                        return
                else:
                    self._peer(number, what)

    def _accept(self) -> None:
        while True:
            try:
                plug, _ = self.listener.accept()
            except BlockingIOError:
                return
            self.peers[plug.fileno()] = Peer(plug)
            self.poll.register(plug, select.POLLIN)

    def _peer(self, number: int, what: int) -> None:
        peer = self.peers[number]
        try:
            if what & select.POLLOUT and peer.drain():
                self.poll.modify(number, select.POLLIN)
            if what & ~select.POLLOUT:
                data = peer.plug.recv(65536)
                if not data:
                    raise ConnectionResetError
                peer.inbox += data
                self._read(peer)
                if peer.outbox:
                    self.poll.modify(number, select.POLLIN | select.POLLOUT)
        except ConnectionError:
            self._forget(number)

    def _forget(self, number: int) -> None:
        peer = self.peers.pop(number)
        self.poll.unregister(number)
        peer.plug.close()
        if peer.shard is not None and self.live.get(peer.shard) is peer:
            del self.live[peer.shard]

    # What peers say

    def _read(self, peer: Peer) -> None:
        while peer.compression is None and b"\r\n\r\n" in peer.inbox:
            head, _, peer.inbox = peer.inbox.partition(b"\r\n\r\n")
            self._http(peer, head.decode("latin-1"))
        while peer.compression is not None and len(peer.inbox) >= 6:
            size, at = peer.inbox[1] & 0x7F, 6
            if size == 126:
                size, at = struct.unpack_from("!H", peer.inbox, 2)[0], 8
            if len(peer.inbox) < at + size:
                return
            opcode, mask = peer.inbox[0] & 0x0F, peer.inbox[at - 4 : at]
            payload = bytes(byte ^ mask[i & 3] for i, byte in enumerate(peer.inbox[at : at + size]))
            peer.inbox = peer.inbox[at + size :]
            if opcode == 8:
                peer.send(b"\x88\x02" + payload[:2])
                raise ConnectionResetError
            if opcode in (1, 2):
                self._said(peer, json.loads(payload))

    def _http(self, peer: Peer, head: str) -> None:
        path = head.split(" ", 2)[1]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        key = headers.get("sec-websocket-key")
        if key is None:
            body = json.dumps(self._rest(path)).encode()
            peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            return
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
        asked = next((name for name in COMPRESSIONS if f"compress={name}" in path), "none")
        if asked not in self.packed:
            peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        peer.compression = asked
        peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n%b" % (accept, self.packed[asked][0].hello)
        )

    def _rest(self, path: str) -> dict[str, Any]:
        if path.endswith("/gateway/bot"):
            limit = {
                "total": 100_000,
                "remaining": 100_000,
                "reset_after": 86_400_000,
                "max_concurrency": 1024,
            }
            return {"url": self.url, "shards": len(self.at), "session_start_limit": limit}
        user = {"id": BOT_ID, "username": "bot", "discriminator": "0", "avatar": None, "global_name": None}
        if path.endswith("/users/@me"):
            return user | {
                "bot": True,
                "flags": 0,
                "verified": True,
                "mfa_enabled": True,
                "locale": "en-US",
                "email": None,
            }
        about = {"id": BOT_ID, "name": "bot", "icon": None, "description": "", "bot_public": True}
        more = {"bot_require_code_grant": False, "verify_key": "00", "flags": 0x8AE000, "rpc_origins": None}
        return about | more | {"owner": user, "team": None, "summary": "", "approximate_guild_count": 1}

    def _said(self, peer: Peer, payload: dict[str, Any]) -> None:
        if payload["op"] == 2 and peer.compression is not None:
            shard = peer.shard = (payload["d"].get("shard") or [0, 1])[0]
            self.live[shard] = peer
            self.at[shard] = 0
            peer.send(self.packed[peer.compression][shard].begin)
            if len(self.live) == len(self.at):
                say(live=len(self.live))

    # What we are told to do

    def _commanded(self) -> bool:
        data = os.read(sys.stdin.fileno(), 65536)
        self.commands += data
        while b"\n" in self.commands:
            line, _, self.commands = self.commands.partition(b"\n")
            command = json.loads(line)
            if command.pop("do") == "flood":
                self.flood(**command)
            else:
                self.pace(**command)
        return bool(data)

    def _stream(self, shard: int) -> Packed:
        compression = self.live[shard].compression
        assert compression is not None
        return self.packed[compression][shard]

    def flood(self, events: int) -> None:
        """So many events of each shard, as fast as they are read."""
        waiting: dict[int, tuple[Peer, memoryview]] = {}
        joined: dict[tuple[int, int], memoryview] = {}
        sent = 0
        for shard, peer in self.live.items():
            stream, at = self._stream(shard), self.at[shard]
            count = len(stream.events[at : at + events])
            if (id(stream), at) not in joined:
                joined[id(stream), at] = memoryview(b"".join(stream.events[at : at + count]))
            self.at[shard] += count
            sent += count
            waiting[peer.plug.fileno()] = (peer, joined[id(stream), at])
        began = time.monotonic()
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLOUT)
        while waiting:
            for number, _ in poll.poll():
                peer, left = waiting[number]
                try:
                    left = left[peer.plug.send(left[:CHUNK]) :]
                except BlockingIOError:
                    continue
                waiting[number] = (peer, left)
                if not left:
                    poll.unregister(number)
                    del waiting[number]
        say(sent=sent, seconds=time.monotonic() - began)

    def pace(self, rate: float, seconds: float, times: bool = False, seed: int = 1) -> None:
        """Events at random moments (a Poisson process a shard), each in a write of its own; those of a shard that are
        due together, because they come faster than this process wakes up, share one.
        """
        chance = random.Random(seed)
        plan: list[tuple[float, int]] = []
        for shard in self.live:
            left, at = len(self._stream(shard).events) - self.at[shard], chance.expovariate(rate)
            while at < seconds and left:
                plan.append((at, shard))
                at, left = at + chance.expovariate(rate), left - 1
        plan.sort()
        frames = {shard: iter(self._stream(shard).events[self.at[shard] :]) for shard in self.live}
        noted: dict[int, list[int]] = {shard: [] for shard in self.live}
        began, looked, done = time.monotonic(), 0.0, 0
        while done < len(plan):
            wait = began + plan[done][0] - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            now = time.monotonic() - began
            due: dict[int, list[bytes]] = {}
            while done < len(plan) and plan[done][0] <= now:
                shard = plan[done][1]
                due.setdefault(shard, []).append(next(frames[shard]))
                done += 1
            for shard, some in due.items():
                peer = self.live[shard]
                if peer.outbox:
                    peer.drain()
                peer.send(some[0] if len(some) == 1 else b"".join(some))
                self.at[shard] += len(some)
                if times:
                    noted[shard] += [time.monotonic_ns()] * len(some)
            if now > looked + LOOK:
                looked = now
                self._look()
        for peer in self.live.values():
            while not peer.drain():
                select.select([], [peer.plug], [])
        fact: dict[str, object] = {"sent": len(plan), "seconds": time.monotonic() - began}
        if times:
            fact["times"] = noted
        say(**fact)

    def _look(self) -> None:
        for number, what in self.poll.poll(0):
            if number in self.peers and number not in (self.listener.fileno(), sys.stdin.fileno()):
                self._peer(number, what)


def main() -> None:
    """Serve until standard input ends."""
    # A collection over a long plan would be a burst of late events that nobody ordered.
    gc.disable()
    recipe = Recipe(**json.loads(sys.argv[1]))
    Stage(recorded(recipe), sys.argv[2].split(",")).run()


if __name__ == "__main__":
    main()
