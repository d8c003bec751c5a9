"""What becomes of requests to a gateway when their channel ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pamqp import commands as spec
from pamqp.base import Frame
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract.errors import ErrorCode, Fault
from tests.transports.amqp.fake_broker import Received
from tests.transports.amqp.inbound_broker import InboundBroker, fields, properties

from tests.aio import run


@dataclass
class GatewayBroker(InboundBroker):
    """Answers each request; closes the channel on which a *refused* exchange is declared."""

    refused: set[str] = field(default_factory=set)

    def _publish(self, taken: Received) -> None:
        super()._publish(taken)
        told = properties(
            headers=fields({"status": "ok"}), correlation_id=str(taken.properties.correlation_id).encode()
        )
        self.deliver(told, b'[{"of":"there"}]')

    def _answer(self, method: Frame) -> None:
        if isinstance(method, spec.Exchange.Declare) and method.exchange in self.refused:
            words = f"inequivalent arg 'type' for exchange '{method.exchange}' in vhost '/'"
            self.close_channel(406, f"PRECONDITION_FAILED - {words}")
            return
        super()._answer(method)


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
