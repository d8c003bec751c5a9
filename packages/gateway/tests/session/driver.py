"""A shard's conversation under a simulated clock, with the Discord of one test at the other end."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from rateway.native.inflate import zstd
from rateway.session import actions
from rateway.session.actions import Command, State, StoredSession
from rateway.session.conversation import Conversation
from rateway.session.options import Chance, SessionOptions
from rateway_protocol.discord.envelope import Envelope

O = TypeVar("O")  # noqa: E741 - an order

GATEWAY = "wss://gateway.discord.test"
RESUME = "wss://resume.discord.test"
TOKEN = "secret-token"
INTERVAL_MS = 41_250
INTERVAL = INTERVAL_MS / 1000


def options(**changes: Any) -> SessionOptions:
    return SessionOptions(**{"token": TOKEN, "intents": 513, "compression": "none", **changes})


def stored(settled: int = 100, session_id: str = "stored") -> StoredSession:
    return StoredSession(session_id, RESUME, settled)


class Least:
    """Chance that always picks the lowest."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float, /) -> float:
        return a


class Most:
    """Chance that always picks (almost) the highest."""

    def random(self) -> float:
        return math.nextafter(1.0, 0.0)

    def uniform(self, a: float, b: float, /) -> float:
        return b


class Wire:
    """Discord's side of one connection's compression."""

    def __init__(self, compression: str) -> None:
        self.compression = compression
        self._zstd = zstd.ZstdCompressor()
        self._zlib = zlib.compressobj()

    def pack(self, data: bytes) -> bytes:
        if self.compression == "zstd-stream":
            return self._zstd.compress(data) + self._zstd.flush(zstd.ZstdCompressor.FLUSH_BLOCK)
        if self.compression == "zlib-stream":
            return self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        return data

    @property
    def binary(self) -> bool:
        return self.compression != "none"


class Driver:
    """Carries orders out against a clock: `taken` holds every order, `delivered` every dispatch, in order.

    Nothing is answered by itself except what a test switches on: `permits` grants identify at once, `acks`
    acknowledges every heartbeat.
    """

    def __init__(
        self,
        session: StoredSession | None = None,
        *,
        chance: Chance | None = None,
        settings: SessionOptions | None = None,
        shard: tuple[int, int] = (0, 1),
        permits: bool = True,
        acks: bool = True,
        shown: dict[str, Any] | None = None,
    ) -> None:
        self.now = 1000.0
        self.settings = settings or options()
        self.conversation = Conversation(
            shard_id=shard[0],
            shard_count=shard[1],
            options=self.settings,
            gateway_url=GATEWAY,
            session=session,
            chance=chance or random.Random(7),
            presence=shown,
        )
        self.permits = permits
        self.acks = acks
        self.taken: list[actions.Order] = []
        self.delivered: list[tuple[Envelope, int, bool]] = []
        self.wire = Wire("none")
        self.seq = session.settled if session else 0
        self.on_order: Callable[[actions.Order], None] = lambda order: None
        self.url = ""
        self._draining = False

    # The shell.

    def drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        while self.conversation.orders:
            batch, self.conversation.orders = self.conversation.orders, []
            for order in batch:
                self.taken.append(order)
                if isinstance(order, actions.Connect):
                    self.url = order.url
                if isinstance(order, actions.Deliver):
                    self.delivered.append((order.envelope, order.repeat, order.replayed))
                if isinstance(order, actions.RequestPermit) and self.permits:
                    self.conversation.permitted(self.now)
                if isinstance(order, actions.Send) and json.loads(order.data)["op"] == 1 and self.acks:
                    self.say({"op": 11})
                self.on_order(order)
        self._draining = False

    def fact(self, name: str, *arguments: Any, **named: Any) -> None:
        getattr(self.conversation, name)(*arguments, **named)
        self.drain()

    def advance(self, seconds: float) -> None:
        """Let time pass, waking the conversation whenever it asked for it."""
        end, wakes_in_vain = self.now + seconds, 0
        while (at := self.conversation.wake_at) is not None and at <= end:
            wakes_in_vain = 0 if at > self.now else wakes_in_vain + 1
            assert wakes_in_vain < 10, f"woken for nothing, again and again, in {self.conversation.state}"
            self.now = max(self.now, at)
            self.fact("woken", self.now)
        self.now = end

    # Discord.

    def start(self) -> Driver:
        self.fact("start", self.now)
        return self

    def open(self) -> None:
        query = self.url.partition("compress=")[2]
        self.wire = Wire(query or "none")
        self.fact("opened", self.now)

    def raw(self, message: bytes, binary: bool | None = None) -> Envelope | None:
        """One WebSocket message exactly as given."""
        binary = self.wire.binary if binary is None else binary
        envelope = self.conversation.received(memoryview(message), binary, self.now)
        if envelope is not None:
            self.delivered.append((envelope, self.conversation.repeat, self.conversation.replaying))
        self.drain()
        return envelope

    def say(self, payload: Any) -> Envelope | None:
        return self.raw(self.wire.pack(json.dumps(payload).encode()))

    def hello(self, interval_ms: Any = INTERVAL_MS) -> None:
        self.say({"op": 10, "d": {"heartbeat_interval": interval_ms, "_trace": []}})

    def dispatch(self, name: str = "MESSAGE_CREATE", d: Any = None, **fields: Any) -> Envelope | None:
        self.seq += 1
        payload = {"t": name, "s": self.seq, "op": 0, "d": {"n": self.seq} if d is None else d, **fields}
        return self.say(payload)

    def ready(self, session_id: str = "first", url: str = RESUME) -> None:
        self.seq = 0
        d = {"v": 10, "session_id": session_id, "resume_gateway_url": url, "guilds": [], "user": {"id": "1"}}
        self.dispatch("READY", d)

    def resumed(self) -> None:
        self.dispatch("RESUMED", {"_trace": []})

    def live(self, session_id: str = "first") -> Driver:
        """From nothing to READY."""
        self.start()
        self.reconnected()
        self.ready(session_id)
        assert self.conversation.state is State.LIVE
        return self

    def reconnected(self) -> None:
        """Answer the connection that was ordered, up to Hello."""
        self.until(State.CONNECTING)
        self.open()
        self.hello()

    def until(self, state: State, at_most: float = 2000.0) -> None:
        end = self.now + at_most
        while self.conversation.state is not state:
            at = self.conversation.wake_at
            assert at is not None and at <= end, f"{self.conversation.state} for ever, not {state}"
            self.now = max(self.now, at)
            self.fact("woken", self.now)

    # Questions of tests.

    def state(self) -> State:
        return self.conversation.state

    def session(self) -> str | None:
        return self.conversation.session_id

    def all(self, kind: type[O]) -> list[O]:
        return [order for order in self.taken if isinstance(order, kind)]

    def last(self, kind: type[O]) -> O:
        return self.all(kind)[-1]

    def forget(self) -> None:
        """Only what comes from now on."""
        self.taken.clear()
        self.delivered.clear()

    def sent(self, op: int | None = None) -> list[dict[str, Any]]:
        payloads = [
            json.loads(each.data) for each in self.taken if isinstance(each, actions.Send | actions.Identify)
        ]
        return [payload for payload in payloads if op is None or payload["op"] == op]

    def names(self) -> list[str]:
        return [str(envelope.t) for envelope, _, _ in self.delivered]

    def outcomes(self) -> list[tuple[Any, str]]:
        return [(done.command.handle, done.outcome) for done in self.all(actions.CommandDone)]

    def command(self, op: int, d: Any, handle: object = None, lasts: float = 60.0) -> None:
        payload = json.dumps({"op": op, "d": d}).encode()
        self.fact("command", Command(op, d, payload, self.now + lasts, handle), self.now)


def voice(guild: int = 1 << 30, channel: str | None = "5") -> dict[str, Any]:
    return {"guild_id": str(guild), "channel_id": channel, "self_mute": False, "self_deaf": False}


def presence(name: str = "x") -> dict[str, Any]:
    return {"since": None, "activities": [{"name": name, "type": 0}], "status": "online", "afk": False}


def long_presence() -> dict[str, Any]:
    """It fits into an op 3, and into no identify."""
    activities = [{"name": f"{number}", "type": 0, "state": "x" * 128} for number in range(24)]
    return {**presence(), "activities": activities}


def members(guild: int = 1 << 30, **fields: Any) -> dict[str, Any]:
    return {"guild_id": str(guild), "query": "", "limit": 0, **fields}
