"""What each form of the election's port must do: in memory, in virtual time; over RabbitMQ, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from rateway.fleet.port import MOST_BODY, RIGHT_S, Elections, Owned, cluster_subject, has_right
from tests.election.forms import Form, MemoryForm, QueueForm

from tests.rabbitmq import fresh_vhost, private_rabbitmq

SUBJECT = "cluster-1"


WORLD = [pytest.param("rabbitmq 4", marks=pytest.mark.world)]


@pytest.fixture(params=["memory", "rabbitmq", *WORLD])
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    yield from _form(request)


@pytest.fixture(params=["memory", *WORLD])
def patient_form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """For what takes its time, and is decided in the pure part, which a model of the queue tests."""
    yield from _form(request)


def _form(request: pytest.FixtureRequest) -> Iterator[Form]:
    if request.param == "memory":
        yield MemoryForm()
    elif request.param == "rabbitmq":
        yield QueueForm(request.getfixturevalue("broker").uri)
    else:
        with fresh_vhost(request.getfixturevalue("rabbitmq_4")) as broker:
            yield QueueForm(broker.uri)


@pytest.fixture(scope="module")
def rabbitmq_4() -> Iterator[object]:
    with private_rabbitmq(version="4") as node:
        yield node


async def owner(member: Elections, lost: list[str], subject: str = SUBJECT) -> Owned:
    return await member.campaign(subject, lost.append)


async def candidate(member: Elections, lost: list[str]) -> asyncio.Future[Owned]:
    """A campaign that is in line."""
    waiting = asyncio.ensure_future(owner(member, lost))
    # Only the order of the line depends on it.
    await asyncio.sleep(0.3)
    return waiting


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the port announces a right, and its end, nowhere
        await asyncio.sleep(0.02)


async def confirmed(member: Elections, *, after: float) -> None:
    """Wait until a write that was sent after that time is confirmed."""
    await until(lambda: (member.confirmed_at(SUBJECT) or 0.0) > after)


async def unconfirmed(member: Elections, body: bytes) -> None:
    """Write until no write is confirmed any more."""
    while await member.write(SUBJECT, 1, body) == "confirmed":  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)


def test_the_first_owner_has_no_record_and_the_next_one_gets_the_released_record_at_once(form: Form) -> None:
    async def scene() -> None:
        lost: list[str] = []
        one, two = await form.member("one"), await form.member("two")
        owned = await owner(one, lost)
        assert (owned.epoch, owned.record, owned.how) == (1, None, "first")
        waiting = await candidate(two, lost)
        assert await one.write(SUBJECT, 1, b"before") == "confirmed"
        assert has_right(one.confirmed_at(SUBJECT), form.now())
        began = form.now()
        assert await one.release(SUBJECT, 1, b"last")
        assert one.confirmed_at(SUBJECT) is None
        owned = await waiting
        assert form.now() - began < form.at_once_s
        assert (owned.epoch, owned.how) == (2, "released")
        assert owned.record is not None
        assert (owned.record.body, owned.record.owner) == (b"last", "one")
        assert await one.write(SUBJECT, 1, b"late") == "stale"
        assert await two.write(SUBJECT, 1, b"wrong epoch") == "stale"
        assert not await one.release(SUBJECT, 1, b"again")
        assert not lost

    form.run(scene)


def test_a_released_subject_goes_to_the_member_it_is_meant_for_whatever_the_line(form: Form) -> None:
    async def scene() -> None:
        lost: list[str] = []
        one, two, three = [await form.member(name) for name in ("one", "two", "three")]
        await owner(one, lost)
        second = await candidate(two, lost)
        third = await candidate(three, lost)
        began = form.now()
        assert await one.release(SUBJECT, 1, b"moved", to="three")
        owned = await third
        assert form.now() - began < form.at_once_s
        assert owned.record is not None
        assert owned.record.body == b"moved"
        assert not second.done()
        second.cancel()

    form.run(scene)


def test_a_subject_released_to_a_member_that_does_not_take_it_goes_to_another(patient_form: Form) -> None:
    async def scene() -> None:
        one, two = await patient_form.member("one"), await patient_form.member("two")
        await owner(one, [])
        second = await candidate(two, [])
        assert await one.release(SUBJECT, 1, b"moved", to="three")
        owned = await second
        assert (owned.epoch > 1, owned.how) == (True, "released")
        assert owned.record is not None
        assert owned.record.body == b"moved"

    patient_form.run(scene)


def test_the_successor_of_a_cut_owner_begins_after_its_right_has_ended_and_with_its_newest_record(
    form: Form,
) -> None:
    async def scene() -> None:
        lost: list[str] = []
        one, two = await form.member("one"), await form.member("two")
        await owner(one, lost)
        waiting = await candidate(two, [])
        for number in range(20):
            assert await one.write(SUBJECT, 1, b"confirmed %d" % number) == "confirmed"
        await form.cut("one")
        await unconfirmed(one, b"confirmed 19")
        assert not waiting.done()
        owned = await waiting
        assert not has_right(one.confirmed_at(SUBJECT), form.now())
        assert has_right(two.confirmed_at(SUBJECT), form.now())
        assert (owned.epoch, owned.how) == (2, "inherited")
        assert owned.record is not None
        assert owned.record.body == b"confirmed 19"
        # The former owner does not know.
        assert await one.write(SUBJECT, 1, b"of the past") == "away"
        assert not lost

    form.run(scene)


def test_a_replaced_owner_is_told_once_it_is_back(patient_form: Form) -> None:
    async def scene() -> None:
        lost: list[str] = []
        one, two = await patient_form.member("one"), await patient_form.member("two")
        await owner(one, lost)
        waiting = await candidate(two, [])
        await patient_form.cut("one")
        await waiting
        await patient_form.heal("one")
        await until(lambda: bool(lost))
        assert one.confirmed_at(SUBJECT) is None
        assert await one.write(SUBJECT, 1, b"late") == "stale"
        assert await two.write(SUBJECT, 2, b"of now") == "confirmed"
        assert len(lost) == 1

    patient_form.run(scene)


def test_a_cut_owner_whom_nobody_replaces_goes_on_and_its_newest_body_is_written(form: Form) -> None:
    async def scene() -> None:
        lost: list[str] = []
        one, two = await form.member("one"), await form.member("two")
        await owner(one, lost)
        await form.cut("one")
        await unconfirmed(one, b"newest")
        await until(lambda: not has_right(one.confirmed_at(SUBJECT), form.now()))
        began = form.now()
        await form.heal("one")
        await confirmed(one, after=began)
        assert not lost
        waiting = await candidate(two, [])
        assert await one.release(SUBJECT, 1, b"last")
        owned = await waiting
        assert owned.record is not None
        assert (owned.record.epoch, owned.record.body) == (1, b"last")

    form.run(scene)


def test_the_right_of_an_owner_that_writes_nothing_stays_fresh(patient_form: Form) -> None:
    async def scene() -> None:
        one = await patient_form.member("one")
        await owner(one, [])
        await confirmed(one, after=patient_form.now() + RIGHT_S)

    patient_form.run(scene)


def test_a_campaign_that_is_withdrawn_wins_nothing_and_may_begin_again(form: Form) -> None:
    async def scene() -> None:
        one, two = await form.member("one"), await form.member("two")
        await owner(one, [])
        waiting = await candidate(two, [])
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await one.release(SUBJECT, 1, b"")
        again = await owner(one, [])
        assert (again.epoch, again.how) == (2, "released")
        second = await candidate(two, [])
        assert await one.release(SUBJECT, 2, b"")
        assert (await second).epoch == 3

    form.run(scene)


def test_subjects_do_not_depend_on_each_other_and_bodies_may_be_large(form: Form) -> None:
    async def scene() -> None:
        one, two = await form.member("one"), await form.member("two")
        names = ["governor", *map(cluster_subject, range(1, 11))]
        for each in await asyncio.gather(*(owner(one, [], name) for name in names)):
            assert each.epoch == 1
        second = asyncio.ensure_future(owner(two, [], "cluster-3"))
        large = bytes(range(256)) * 2000
        assert await one.write("cluster-3", 1, large) == "confirmed"
        assert await one.release("cluster-3", 1, large)
        owned = await second
        assert owned.record is not None
        assert owned.record.body == large
        results = await asyncio.gather(*(one.write(name, 1, name.encode()) for name in names))
        assert results == ["stale" if name == "cluster-3" else "confirmed" for name in names]
        with pytest.raises(ValueError, match="bytes, above"):
            await one.write("governor", 1, bytes(MOST_BODY + 1))

    form.run(scene)
