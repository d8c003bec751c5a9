"""A subcommand's access to the broker: the address from option, variable or file, and a connection to it.

`tail` and `send` need nothing but the broker, so they ask for no token and no intents.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import ChannelClosed, DeliveryError
from rateway import exit_codes
from rateway.secret import Secret
from rateway.transports.amqp.wire.uri import parse
from rateway_client.line import dialled
from rateway_protocol.contract import topology
from yarl import URL

#: sysexits.h: a configuration that cannot be used, a service that is away.
# For each node of the broker, seconds.
DIAL_S = 10


class Refused(Exception):
    """The command cannot be carried out: words for a person, and the exit code."""

    def __init__(self, words: str, code: int = exit_codes.UNAVAILABLE) -> None:
        super().__init__(words)
        self.code = code


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which broker and which cluster are meant."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="take the broker's address from this file"
    )
    parser.add_argument(
        "--cluster",
        metavar="N",
        type=int,
        default=1,
        help="the cluster whose exchange is meant, from 1 (default: 1)",
    )


def address(config: Path | None, environ: Mapping[str, str]) -> Secret:
    """AMQP_URI, else what AMQP_URI_FILE holds, else the file's `amqp` or `amqp_file`; Refused when there is none."""
    if uri := environ.get("AMQP_URI"):
        return Secret(uri)
    if path := environ.get("AMQP_URI_FILE"):
        return _from_file(Path(path), "AMQP_URI_FILE")
    if config is not None:
        try:
            table = tomllib.loads(config.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise Refused(f"{config}: {error}", exit_codes.CONFIGURATION) from None
        uri = table.get("amqp")
        if isinstance(uri, list) and all(isinstance(each, str) for each in uri):
            uri = ",".join(uri)
        if isinstance(uri, str):
            return Secret(uri)
        if isinstance(path := table.get("amqp_file"), str):
            return _from_file(Path(path), f"{config}: amqp_file")
    raise Refused(
        "no broker's address: set AMQP_URI=amqp://user:password@host/vhost, or give -c FILE with a key 'amqp'",
        exit_codes.CONFIGURATION,
    )


def _from_file(path: Path, where: str) -> Secret:
    try:
        return Secret(path.read_text().strip())
    except OSError as error:
        raise Refused(f"{where}: {error}", exit_codes.CONFIGURATION) from None


async def connect(options: argparse.Namespace) -> AbstractConnection:
    """A connection to the broker that *options* name; Refused with the host and the reason, never the password.

    Of several nodes the first that answers is used.
    """
    uri = address(options.config, os.environ).reveal()
    try:
        place = parse(uri)
        context = place.tls_context()
    except ValueError as error:
        raise Refused(f"the broker's address cannot be used: {error}", exit_codes.CONFIGURATION) from None
    failures = []
    for node in place.nodes():
        # aio-pika has other names for what RabbitMQ's parameters say: it is reported in RabbitMQ's own words.
        url = URL.build(
            scheme="amqps" if node.tls else "amqp",
            user=node.user,
            password=node.password,
            host=node.host,
            port=node.port,
            path=f"/{node.vhost}",
            query={"auth": "external"} if node.external else {},
        )
        try:
            return await dialled(url, timeout=DIAL_S, ssl_context=context)
        except (OSError, TimeoutError, aio_pika.exceptions.AMQPError) as error:
            failures.append(f"no connection to the broker at {node}: {type(error).__name__}: {error}")
    raise Refused("; ".join(failures))


async def cluster_exchange(connection: AbstractConnection, cluster: int) -> AbstractExchange:
    """Return the exchange of *cluster*, which a gateway or a worker has declared; Refused when there is none.

    It is looked up on a channel of its own, because the broker closes the channel when it is missing.
    """
    name = topology.exchange(cluster)
    async with connection.channel() as probe:
        try:
            await probe.get_exchange(name, ensure=True)
        except ChannelClosed:
            raise Refused(
                f"there is no exchange {name} in this virtual host: no gateway has run cluster {cluster} here yet "
                f"(`rateway check` shows the clusters)"
            ) from None
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    return await channel.get_exchange(name, ensure=False)


async def request(
    options: argparse.Namespace,
    key: str,
    body: bytes,
    *,
    kind: str,
    unread: str,
    headers: dict[str, int] | None = None,
    expiration: float | None = None,
) -> AbstractIncomingMessage:
    """Publish *body* under *key* of the cluster's exchange and wait `options.timeout` seconds for the answer.

    *kind* (`queries`, `commands`) and *unread* (why no answer came) are words for :class:`Refused`.
    """
    connection = await connect(options)
    async with connection:
        exchange = await cluster_exchange(connection, options.cluster)
        channel = await connection.channel()
        answers = await channel.declare_queue(exclusive=True)
        correlation = uuid.uuid4().hex
        answer: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def on_answer(message: AbstractIncomingMessage) -> None:
            if message.correlation_id == correlation and not answer.done():
                answer.set_result(message)

        await answers.consume(on_answer, no_ack=True)
        message = aio_pika.Message(
            body,
            headers=dict(headers or {}),
            correlation_id=correlation,
            reply_to=answers.name,
            content_type="application/json",
            expiration=expiration,
        )
        try:
            await exchange.publish(message, key, mandatory=True)
        except DeliveryError:
            words = (
                f"no queue takes {kind} of {exchange.name}: no gateway has run cluster {options.cluster} here"
            )
            raise Refused(words) from None
        try:
            return await asyncio.wait_for(answer, options.timeout)
        except TimeoutError:
            raise Refused(f"no answer within {options.timeout:g} s: {unread}") from None
