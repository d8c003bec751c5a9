"""Two members that declare a queue at the same moment, which RabbitMQ 3.10 answers by closing their connections."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest
from pamqp import commands as spec
from pamqp.base import Frame
from rateway.transports.amqp.fleet_queues import FleetQueues
from rateway.transports.amqp.wire.uri import parse
from tests.transports.amqp.fake_broker import FakeBroker

from tests.aio import run


@dataclass
class CollidingBroker(FakeBroker):
    """Closes the connections of the first declarations."""

    collisions: int = 1

    def _answer(self, method: Frame) -> None:
        match method:
            case spec.Queue.Declare() if self.collisions:
                self.collisions -= 1
                self.close_connection(541, "INTERNAL_ERROR")
            case spec.Queue.Declare():
                self.method(spec.Queue.DeclareOk(method.queue, 0, 1), self.answering)
            case spec.Basic.Consume():
                self.method(spec.Basic.ConsumeOk("one"), self.answering)
            case spec.Confirm.Select():
                self.method(spec.Confirm.SelectOk(), self.answering)
            case _:
                super()._answer(method)


@pytest.mark.parametrize("collisions", [1, 2])
def test_a_collision_of_two_declarations_is_worth_a_warning_only_when_it_comes_again(
    collisions: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with CollidingBroker(collisions=collisions) as broker:
            queues = FleetQueues(address=parse(broker.uri), fleet="test", member="one")
            running = asyncio.ensure_future(queues.run())
            campaign = asyncio.ensure_future(queues.campaign("cluster-1", lambda why: None))
            await broker.until(lambda: any(isinstance(each, spec.Basic.Consume) for each in broker.methods))
            assert broker.connections == collisions + 1
            for task in (campaign, running):
                task.cancel()
            await asyncio.wait([campaign, running])

    with caplog.at_level(logging.INFO):
        run(scene())
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == collisions - 1, caplog.text
