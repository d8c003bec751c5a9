"""What becomes of requests to a gateway when their channel ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pamqp import commands as spec
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract.errors import ErrorCode, Fault
from tests.transports.amqp.fake_broker import Received
from tests.transports.amqp.inbound_broker import InboundBroker, fields, properties

from tests.aio import run


@dataclass
class GatewayBroker(InboundBroker):
    """Answers each request; a publish to an *unwritable* exchange closes the channel."""

    unwritable: str = ""

    def _publish(self, taken: Received) -> None:
        super()._publish(taken)
        publish = next(each for each in reversed(self.methods) if isinstance(each, spec.Basic.Publish))
        if publish.exchange == self.unwritable:
            words = f"ACCESS_REFUSED - write access to exchange '{publish.exchange}' in vhost '/' refused"
            self.close_channel(403, words)
            return
        told = properties(
            headers=fields({"status": "ok"}), correlation_id=str(taken.properties.correlation_id).encode()
        )
        self.deliver(told, b'[{"of":"there"}]')


def test_a_refused_exchange_fails_its_queries_alone_and_others_are_asked_on_the_next_channel() -> None:
    async def scenario() -> None:
        async with GatewayBroker(refused={"rateway-2"}) as broker:
            gateway = AmqpGateway(address=parse(broker.uri))
            running = asyncio.create_task(gateway.run())
            others, refused, more = await asyncio.gather(
                *(gateway.ask(cluster, [{"type": "Guild", "arguments": ["1"]}], 5.0) for cluster in (3, 2, 4))
            )
            assert others == more == [b'{"of":"there"}']
            (fault,) = refused
            assert isinstance(fault, Fault)
            assert fault.code is ErrorCode.UNAVAILABLE
            assert "the broker refuses rateway-2: 406 PRECONDITION_FAILED" in fault.message
            assert broker.channels == 2
            # Asked for once more, it would end the channel for all once more.
            assert await gateway.ask(2, [{"type": "Guild", "arguments": ["1"]}], 5.0) == [fault]
            assert broker.channels == 2
            running.cancel()

    run(scenario())


def test_an_exchange_that_may_not_be_written_to_is_not_asked_again_and_again() -> None:
    async def scenario() -> None:
        async with GatewayBroker(unwritable="rateway-2") as broker:
            gateway = AmqpGateway(address=parse(broker.uri))
            running = asyncio.create_task(gateway.run())
            question = [{"type": "Guild", "arguments": ["1"]}]
            for _ in range(3):
                (fault,) = await gateway.ask(2, question, 5.0)
                assert isinstance(fault, Fault) and fault.code is ErrorCode.UNAVAILABLE
                assert "the broker refuses rateway-2: 403 ACCESS_REFUSED" in fault.message
                assert await gateway.ask(3, question, 5.0) == [b'{"of":"there"}']
            assert broker.channels == 2
            running.cancel()

    run(scenario())
