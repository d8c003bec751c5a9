"""The private RabbitMQ node: on loopback, its own, and gone at the end."""

from __future__ import annotations

import subprocess
import sys

import aio_pika
import psutil
from rateway.demo.broker import PrivateBroker

from tests.aio import run
from tests.rabbitmq import Broker


def test_a_message_published_to_a_fresh_virtual_host_arrives(broker: Broker) -> None:
    async def main() -> bytes:
        connection = await aio_pika.connect(broker.uri)
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(exclusive=True)
            await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
            message = await queue.get()
            return message.body

    assert run(main()) == b"hello"


def test_closing_connections_closes_those_of_the_virtual_host(broker: Broker) -> None:
    async def main() -> bool:
        connection = await aio_pika.connect(broker.uri)
        assert broker.node.connections(broker.vhost) == 1
        lost = connection.transport.connection.closing  # type: ignore[union-attr]
        await broker.close_connections()
        try:
            await lost
        except Exception:  # noqa: BLE001 (what closed it is the point: the connection ends with the broker's words)
            return True
        return False

    assert run(main())
    assert broker.node.connections(broker.vhost) == 0


def test_a_durable_queue_survives_a_kill_of_the_node(broker: Broker) -> None:
    async def main() -> int:
        connection = await aio_pika.connect(broker.uri)
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"1", delivery_mode=2), "kept")
        await connection.close()
        await broker.write_down()
        await broker.kill()
        await broker.start()
        async with await aio_pika.connect(broker.uri) as again:
            channel = await again.channel()
            queue = await channel.declare_queue("kept", durable=True, passive=True)
            return queue.declaration_result.message_count or 0

    assert run(main()) == 1


def test_the_node_listens_on_loopback_only(rabbitmq: PrivateBroker) -> None:
    assert rabbitmq.pid is not None
    tree = [psutil.Process(rabbitmq.pid), *psutil.Process(rabbitmq.pid).children(recursive=True)]
    addresses = {
        found.laddr.ip
        for process in tree
        for found in process.net_connections(kind="tcp")
        if found.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_node_ends_with_a_process_that_is_killed() -> None:
    program = (
        "import sys\nfrom rateway.demo.broker import PrivateBroker\n"
        "node = PrivateBroker(management=False)\nnode.start()\nprint(node.pid, flush=True)\nsys.stdin.read()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdin is not None
    node = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    gone, alive = psutil.wait_procs([node], timeout=60)
    owner.stdin.close()
    owner.stdout.close()
    assert (len(gone), alive) == (1, [])
