"""Answers to commands: which session waits for which.

Discord answers op 8, 31 and 43 to the session that asked. In the log an answer comes to all. Requests for members are
told apart by a nonce of the proxy's own, the others by their guild.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from rateway.delivery.proxy_port import LogEntry
from rateway.proxy.log.dispatch import guild_of
from rateway.proxy.log.stream import Feed

__all__ = ["PendingAnswers"]

# Seconds within which an answer is waited for; a list of a million members comes in a minute.
PATIENCE: Final = 120.0
# Requests that wait for their answer, of all bots.
MOST_PENDING: Final = 10_000

_EVENTS: Final = {31: "SOUNDBOARD_SOUNDS", 43: "CHANNEL_INFO"}

Key = tuple[object, ...]


@dataclass(slots=True)
class _Members:
    """A request for members that was sent to Discord."""

    key: Key
    nonce: str
    asked: float
    askers: list[tuple[str, str | None]]
    """Session ids, each with the nonce of its own."""
    is_answered: bool = False
    """Whether a chunk has come: who asks later would miss it."""


class _Nonce(msgspec.Struct):
    nonce: Any = None


class _Meta(msgspec.Struct):
    meta: _Nonce


_decode_nonce = msgspec.json.Decoder(_Nonce).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class PendingAnswers:
    """Requests to Discord that wait for their answer. *clock* gives seconds that never jump."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_nonce: dict[str, _Members] = {}
        self._by_key: dict[Key, _Members] = {}
        self._members: deque[_Members] = deque()
        # (event, guild) → session id → when it asked.
        self._asked: dict[tuple[str, int], dict[str, float]] = {}

    def ask_members(self, session_id: str, d: dict[str, Any]) -> dict[str, Any] | None:
        """Note a request for members; return ``d`` to send to Discord, or None where an equal one is under way."""
        now = self._clock()
        self._forget(now)
        nonce = d.get("nonce")
        asker = session_id, nonce if isinstance(nonce, str) else None
        key = tuple((name, str(d[name])) for name in sorted(d) if name != "nonce")
        known = self._by_key.get(key)
        if known is not None and not known.is_answered:
            known.askers.append(asker)
            return None
        own = f"p{secrets.token_hex(12)}"
        asked = _Members(key, own, now, [asker])
        self._by_nonce[own] = self._by_key[key] = asked
        self._members.append(asked)
        return {**d, "nonce": own}

    def fail_members(self, nonce: str) -> None:
        """Drop a request that could not be sent."""
        asked = self._by_nonce.pop(nonce, None)
        if asked is not None and self._by_key.get(asked.key) is asked:
            del self._by_key[asked.key]

    def ask(self, session_id: str, op: int, guild_id: int) -> None:
        """Note a request for soundboard sounds or channel infos of a guild."""
        now = self._clock()
        self._forget(now)
        self._asked.setdefault((_EVENTS[op], guild_id), {})[session_id] = now

    def of(self, entry: LogEntry, feeds: Sequence[Feed]) -> Iterable[tuple[Feed, bytes]]:
        """Return the sessions that an answer goes to, and its ``d`` for each."""
        name = entry.name
        if name in _EVENTS.values():
            return self._of_guild(entry, feeds)
        try:
            if name == "GUILD_MEMBERS_CHUNK":
                asked = self._by_nonce.get(_decode_nonce(entry.body).nonce)
                if asked is None:
                    return ()
                asked.is_answered = True
                return self._of_members(asked, _decode_fields(entry.body), feeds)
            # RATE_LIMITED
            asked = self._by_nonce.get(_decode_meta(entry.body).meta.nonce)
            if asked is None:
                return ()
            fields = _decode_fields(entry.body)
            return self._of_limited(asked, fields, feeds)
        except (msgspec.MsgspecError, TypeError, RecursionError):
            return ()

    def _of_members(
        self, asked: _Members, fields: dict[str, msgspec.Raw], feeds: Sequence[Feed]
    ) -> Iterator[tuple[Feed, bytes]]:
        del fields["nonce"]
        for feed in feeds:
            for session_id, nonce in asked.askers:
                if session_id == feed.stream.session_id:
                    yield feed, msgspec.json.encode(fields if nonce is None else {**fields, "nonce": nonce})

    def _of_limited(
        self, asked: _Members, fields: dict[str, msgspec.Raw], feeds: Sequence[Feed]
    ) -> Iterator[tuple[Feed, bytes]]:
        meta = _decode_fields(fields["meta"])
        for feed, d in self._of_members(asked, meta, feeds):
            yield feed, msgspec.json.encode({**fields, "meta": msgspec.Raw(d)})
        self.fail_members(asked.nonce)

    def _of_guild(self, entry: LogEntry, feeds: Sequence[Feed]) -> Iterator[tuple[Feed, bytes]]:
        guild_id = guild_of(entry.name, entry.body)
        sessions = self._asked.pop((entry.name, guild_id), None) if guild_id is not None else None
        if sessions:
            for feed in feeds:
                if feed.stream.session_id in sessions:
                    yield feed, entry.body

    def _forget(self, now: float) -> None:
        while self._members and (
            self._members[0].asked < now - PATIENCE or len(self._by_nonce) > MOST_PENDING
        ):
            self.fail_members(self._members.popleft().nonce)
        if len(self._asked) > MOST_PENDING:
            self._asked = {
                key: young
                for key, sessions in self._asked.items()
                if (young := {each: at for each, at in sessions.items() if at > now - PATIENCE})
            }
