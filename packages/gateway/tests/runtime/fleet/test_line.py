"""The line between members: records and questions, and what hostile or foreign messages cost: themselves alone."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.fleet.membership import Membership
from rateway.runtime.fleet.line import FleetLine
from rateway.transports.amqp.fleet_line import FleetWire
from rateway.transports.amqp.wire.uri import parse
from tests.fleet_line.memory import MemoryHub

from tests.aio import run
from tests.rabbitmq import Broker


class Note(msgspec.Struct):
    text: str


class Question(msgspec.Struct):
    number: int


class Answer(msgspec.Struct):
    doubled: int


def envelope(**fields: object) -> bytes:
    return msgspec.json.encode({"sender": "host-1", "kind": "Note", "record": {"text": "x"}} | fields)


HOSTILE = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"{}",
    envelope(sender="Not a name\n"),
    envelope(sender="host-1", kind="Unknown"),
    envelope(record={"text": 5}),
    envelope(record=None),
    envelope(kind="Broken", record={"number": 0}),
    b'{"sender": "host-1", "kind": "Note", "record": ' + b"[" * 2000,
]


@pytest.mark.parametrize("data", HOSTILE)
def test_a_message_that_cannot_be_carried_out_is_counted_and_the_next_one_is_taken(data: bytes) -> None:
    class Broken(msgspec.Struct):
        number: int

    async def scene() -> None:
        hub, heard = MemoryHub(), list[str]()
        line = hub.line("host-2")
        line.handle(Note, lambda sender, note: heard.append(f"{sender}: {note.text}"))
        line.handle(Broken, lambda sender, record: heard.append(str(1 // record.number)))
        hub.carry("host-2", data)
        hub.carry("host-2", envelope())
        await asyncio.sleep(0.01)
        assert (line.unreadable, heard) == (1, ["host-1: x"])

    run(scene())


@given(st.binary(max_size=200) | st.builds(envelope, sender=st.text(), kind=st.text(), call=st.integers()))
def test_no_message_ends_the_line(data: bytes) -> None:
    async def scene() -> None:
        hub, heard = MemoryHub(), list[Note]()
        line = hub.line("host-2")
        line.handle(Note, lambda sender, note: heard.append(note))
        hub.carry("host-2", data)
        hub.carry("host-2", envelope())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard

    run(scene())


def test_questions_are_answered_and_one_that_is_not_costs_its_time_alone() -> None:
    async def scene() -> None:
        hub = MemoryHub()
        one, two = hub.line("host-1"), hub.line("host-2")

        async def double(sender: str, question: Question) -> Answer:
            return Answer(2 * question.number)

        two.handle(Question, double)
        two.handle(Note, lambda sender, note: Note("no answer that was asked for"))
        assert await one.ask("host-2", Question(4), Answer, 1.0) == Answer(8)
        assert await two.ask("host-2", Question(5), Answer, 1.0) == Answer(10), "a member may ask itself"
        assert await one.ask("host-3", Question(4), Answer, 0.01) is None
        assert await one.ask("host-2", Note("x"), Answer, 1.0) is None
        assert one.unreadable == 1

    run(scene())


def test_members_hear_one_another_through_the_broker_and_again_after_their_connection_broke(
    broker: Broker,
) -> None:
    async def scene() -> None:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def line(member: str) -> tuple[FleetLine, asyncio.Task[None], asyncio.Event]:
            made = FleetLine(FleetWire(parse(broker.uri), Membership("bot", member)), member)
            up = asyncio.Event()
            made.on_up = up.set
            made.handle(Note, lambda sender, note: heard.put_nowait((member, f"{sender}: {note.text}")))
            made.handle(Question, lambda sender, question: Answer(2 * question.number))
            return made, asyncio.create_task(made.run()), up

        lines = [line(f"host-{number}") for number in (1, 2, 3)]
        one, two = lines[0][0], lines[1][0]
        for _, _, up in lines:
            await up.wait()
        one.say(Note("all"))
        assert {await heard.get() for _ in lines} == {
            (f"host-{number}", "host-1: all") for number in (1, 2, 3)
        }
        two.tell("host-3", Note("you"))
        assert await heard.get() == ("host-3", "host-2: you")
        assert await one.ask("host-2", Question(21), Answer, 10.0) == Answer(42)
        lines[1][2].clear()
        await broker.close_connections()
        await lines[1][2].wait()
        while await one.ask("host-2", Question(1), Answer, 1.0) is None:
            pass
        for _, task, _ in lines:
            task.cancel()
            await asyncio.wait([task])

    run(scene())
