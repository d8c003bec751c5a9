"""The line between the members of a fleet: records to one member or to all, and questions with answers.

Nothing that is sent is sure to arrive, and nothing that comes is trusted: a message that is no record costs itself
alone, and is counted.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
from rateway.fleet.membership import is_member_name
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["FleetLine", "Wire"]

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=msgspec.Struct)
Answer = TypeVar("Answer", bound=msgspec.Struct)

# Questions of other members that are answered at a time.
MOST_ANSWERING = 1_000


class Wire(Protocol):
    """What carries the messages of one member."""

    on_message: Callable[[bytes], None]
    on_up: Callable[[], None]
    """Called when messages can be sent (again)."""

    @property
    def is_up(self) -> bool: ...

    def send(self, member: str, data: bytes) -> bool: ...

    async def run(self) -> None: ...


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    sender: str
    kind: str
    record: msgspec.Raw
    call: int = 0
    """The sender's number of a question; 0: none is asked."""
    answers: int = 0
    """The receiver's number of the question that this answers."""


class FleetLine:
    """One member's end. Records are :class:`msgspec.Struct`; their class's name says which kind they are."""

    def __init__(self, wire: Wire, member: str) -> None:
        self.member = member
        self._wire = wire
        self._calls = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._handlers: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[str, Any], Any]]] = {}
        self._decode = msgspec.json.Decoder(_Envelope).decode
        self._answering: set[asyncio.Task[None]] = set()
        self.unreadable = 0
        """Messages that were no record, and records that could not be carried out."""
        self.on_up: Callable[[], None] = lambda: None
        wire.on_message = self._take
        wire.on_up = lambda: self.on_up()

    @property
    def is_up(self) -> bool:
        """Whether records can be sent to other members now."""
        return self._wire.is_up

    async def run(self) -> None:
        """Keep the line, until cancelled."""
        try:
            await self._wire.run()
        finally:
            for task in self._answering:
                task.cancel()

    def handle(
        self,
        kind: type[Record],
        handler: Callable[[str, Record], msgspec.Struct | Awaitable[msgspec.Struct | None] | None],
    ) -> None:
        """Call *handler* with the sender and the record for each record of that kind. What it returns, or its
        coroutine, is the answer to a question; None: there is none."""
        self._handlers[kind.__name__] = (msgspec.json.Decoder(kind), handler)

    def say(self, record: msgspec.Struct) -> None:
        """Send a record to all members, this one too."""
        data = self._encoded(record)
        self._wire.send("", data)
        self._soon(data)

    def tell(self, member: str, record: msgspec.Struct) -> None:
        """Send a record to one member."""
        self._send(member, self._encoded(record))

    async def ask(
        self, member: str, record: msgspec.Struct, answer: type[Answer], timeout: float
    ) -> Answer | None:
        """Send a question to *member* and return its answer; None when none that can be read came in *timeout* s."""
        call = next(self._calls)
        waiting: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[call] = waiting
        self._send(member, self._encoded(record, call=call))
        try:
            async with asyncio.timeout(timeout):
                return msgspec.json.decode(await waiting, type=answer)
        except TimeoutError:
            return None
        except FAILURES:
            self._pass_over(f"an answer of {member} that is no {answer.__name__}")
            return None
        finally:
            del self._waiting[call]

    def _encoded(self, record: msgspec.Struct, *, call: int = 0, answers: int = 0) -> bytes:
        raw = msgspec.Raw(msgspec.json.encode(record))
        return msgspec.json.encode(_Envelope(self.member, type(record).__name__, raw, call, answers))

    def _send(self, member: str, data: bytes) -> None:
        if member == self.member:
            self._soon(data)
        else:
            self._wire.send(member, data)

    def _soon(self, data: bytes) -> None:
        """What this member sends to itself does not need the broker."""
        asyncio.get_running_loop().call_soon(self._carry_out, data)

    def _take(self, data: bytes) -> None:
        self._carry_out(data, from_wire=True)

    def _carry_out(self, data: bytes, from_wire: bool = False) -> None:
        try:
            envelope = self._decode(data)
        except FAILURES as error:
            self._pass_over(f"a message that is none of a member's: {error}")
            return
        if not is_member_name(envelope.sender):
            self._pass_over("a message without a member's name")
            return
        if from_wire and envelope.sender == self.member:
            return
        if envelope.answers:
            waiting = self._waiting.get(envelope.answers)
            if waiting is not None and not waiting.done():
                waiting.set_result(envelope.record)
            return
        found = self._handlers.get(envelope.kind)
        if found is None:
            # A member of a later version.
            self._pass_over(f"a record of the unknown kind {envelope.kind[:40]!r}")
            return
        decoder, handler = found
        try:
            answer = handler(envelope.sender, decoder.decode(envelope.record))
        except Exception as error:  # noqa: BLE001 - one record must not end a process
            self._pass_over(f"a {envelope.kind} that cannot be carried out: {type(error).__name__}: {error}")
            return
        if inspect.isawaitable(answer):
            if len(self._answering) >= MOST_ANSWERING:
                self._pass_over(f"a {envelope.kind}: {MOST_ANSWERING} questions are being answered already")
                if inspect.iscoroutine(answer):
                    answer.close()
                return
            task = asyncio.ensure_future(self._answer(envelope, answer))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            self._reply(envelope, answer)

    async def _answer(self, envelope: _Envelope, answer: Awaitable[msgspec.Struct | None]) -> None:
        try:
            self._reply(envelope, await answer)
        except Exception as error:  # noqa: BLE001 - as above
            self._pass_over(f"a {envelope.kind} that cannot be answered: {type(error).__name__}: {error}")

    def _reply(self, envelope: _Envelope, answer: msgspec.Struct | None) -> None:
        if answer is not None and envelope.call:
            self._send(envelope.sender, self._encoded(answer, answers=envelope.call))

    def _pass_over(self, what: str) -> None:
        self.unreadable += 1
        level = logging.WARNING if self.unreadable == 1 else logging.DEBUG
        log.log(level, "%s; it is passed over", what[:300], extra={"action": "fleet"})
