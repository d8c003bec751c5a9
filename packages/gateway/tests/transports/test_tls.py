"""TLS on both sides: amqps:// to RabbitMQ and wss:// to Discord, with certificates that are checked."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import ipaddress
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rateway.commands import broker_access
from rateway.delivery.limits import DeliveryLimits
from rateway.demo.broker import PrivateBroker, free_ports
from rateway.secret import Secret
from rateway.transports.amqp.events.publisher import EventPublisher
from rateway.transports.amqp.requests.inbound import Inbound, Message
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.rest import DiscordRest, RestFailure
from rateway.transports.tls import client_context
from rateway.transports.websocket import DialError, WebSocket, dial
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from tests.transports.amqp.publishing import Listener

from tests.aio import run
from tests.e2e.harness import Gateway, stage
from tests.rabbitmq import Broker

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A certificate authority of the test's own; its files lie in *folder*."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(self._name, self._key.public_key(), authority=True))

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """A certificate for *name* that is valid for *hosts*, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate_file.write_bytes(self._sign(subject, key.public_key(), hosts))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        hosts: tuple[str, ...] = (),
        *,
        authority: bool = False,
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # What strict checks ask for (RFC 5280, 4.2.1): Python makes them from 3.13 on.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_key_usage(authority), critical=True)
        )
        if hosts:
            names = [_general_name(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(authority: bool) -> x509.KeyUsage:
    """An authority's key signs certificates, any other the handshake."""
    names = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
    others = dict.fromkeys(names.split(), False)
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **others
    )


def _general_name(host: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


@dataclass(frozen=True)
class TlsBroker:
    node: PrivateBroker
    port: int
    authority: Path
    stranger: Path
    client: str

    def uri(self, query: str = "", *, password: str = "guest") -> str:
        """An address that trusts the right authority; *query* follows."""
        return f"amqps://guest:{password}@127.0.0.1:{self.port}/?cacertfile={self.authority}{query}"

    @property
    def plain(self) -> Broker:
        return Broker(self.node, "/", self.node.uri)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    """A node that speaks TLS too, and takes a client's certificate in place of a password."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    certificate, key = authority.issue("broker", "localhost", "127.0.0.1")
    client, client_key = authority.issue("certified-bot")
    (port,) = free_ports(1)
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(authority.file),
        "ssl_options.certfile": str(certificate),
        "ssl_options.keyfile": str(key),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
        "ssl_cert_login_from": "common_name",
    }
    with PrivateBroker(settings=settings, plugins=["rabbitmq_auth_mechanism_ssl"]) as node:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        # No password: only the certificate opens this door.
        node.api("PUT", "users/certified-bot", {"password_hash": "", "tags": ""})
        node.api("PUT", "permissions/%2F/certified-bot", everything)
        files = f"&certfile={client}&keyfile={client_key}"
        yield TlsBroker(node, port, authority.file, stranger.file, files)


def test_events_flow_over_tls_and_again_after_the_connection_was_closed(secured: TlsBroker) -> None:
    async def scenario() -> None:
        listener = Listener()
        publisher = EventPublisher(
            address=parse(secured.uri()),
            exchange="rateway-1",
            cluster=1,
            limits=DeliveryLimits(),
            persistent=True,
            spool=None,
            clock=time,
            observer=listener,
        )
        # The worker trusts the same authority, in its library's own words.
        worker_uri = f"amqps://guest:guest@localhost:{secured.port}/?cafile={secured.authority}"
        async with await aio_pika.connect(worker_uri) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
            queue = await channel.declare_queue("tls-worker", durable=True)
            await queue.bind(exchange, "MESSAGE_CREATE")
            task = asyncio.create_task(publisher.run())
            stream = publisher.stream(0, 1)
            stream.begin("s")
            bodies = [b"{}", b"x" * 200_000, b"y" * 5_000_000] + [b'{"n":%d}' % n for n in range(2000)]
            for seq, body in enumerate(bodies, 1):
                stream.publish("MESSAGE_CREATE", body, seq, False)
            found: dict[str, bytes] = {}
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    found[str(message.message_id)] = message.body
                    if len(found) == len(bodies):
                        break
            assert list(found.values()) == bodies
        # As an operator would: every connection of the virtual host.
        await secured.plain.close_connections()
        while not (listener.said("down") and listener.said("up") >= 2):
            listener.changed.clear()
            await listener.changed.wait()
        stream.publish("MESSAGE_CREATE", b"{}", len(bodies) + 1, False)
        assert await publisher.drain(60) == 0 and stream.settled == len(bodies) + 1
        publisher.stop()
        await task
        connection = await aio_pika.connect(secured.node.uri)
        async with connection:
            assert (await (await connection.channel()).queue_delete("tls-worker")).message_count == 1

    run(scenario())


def test_the_inbound_side_owns_its_queue_over_tls_and_answers(secured: TlsBroker) -> None:
    async def scenario() -> None:
        owned = asyncio.Event()

        def answer(message: Message) -> None:
            inbound.answer(message, b'"answer"', (("status", "ok"),))
            inbound.acknowledge(message)

        inbound = Inbound(
            address=parse(secured.uri()),
            name="rateway: inbound",
            exchange="rateway-2",
            queue="rateway-incoming-2",
            keys=("cache", "gateway"),
            on_message=answer,
            on_ownership=lambda state, why: owned.set() if state == "owned" else None,
        )
        task = asyncio.create_task(inbound.run())
        await owned.wait()
        async with await aio_pika.connect(secured.node.uri) as connection:
            channel = await connection.channel()
            replies = await channel.declare_queue(exclusive=True)
            exchange = await channel.get_exchange("rateway-2")
            question = aio_pika.Message(b"{}", reply_to=replies.name, correlation_id="7")
            await exchange.publish(question, "cache")
            async with replies.iterator(no_ack=True) as messages:
                async for message in messages:
                    assert (message.body, message.correlation_id) == (b'"answer"', "7")
                    break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(scenario())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it.uri().replace(str(it.authority), str(it.stranger)), "certificate that is not trusted"),
        (lambda it: it.uri().partition("?")[0], "certificate that is not trusted"),
        (lambda it: it.uri("&server_name_indication=other.example"), "not valid for 'other.example'"),
        (lambda it: it.uri(password="wr0ng"), "ACCESS_REFUSED"),
        (lambda it: it.uri("&auth_mechanism=external"), "ACCESS_REFUSED"),
    ],
    ids=[
        "another authority",
        "the system's authorities",
        "another name",
        "password",
        "no client certificate",
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_and_without_the_password(
    secured: TlsBroker, change: Any, words: str
) -> None:
    async def scenario() -> None:
        with pytest.raises(BrokerRefused) as caught:
            await connect(parse(change(secured)), name="test")
        assert words in str(caught.value)
        assert f"amqps://guest@127.0.0.1:{secured.port}" in str(caught.value)
        assert "wr0ng" not in str(caught.value)

    run(scenario())


def test_tls_where_none_is_spoken_and_none_where_it_is_are_named(secured: TlsBroker) -> None:
    async def scenario() -> None:
        swapped = secured.uri().replace(str(secured.port), str(secured.node.ports.amqp))
        with pytest.raises(
            BrokerUnavailable, match="no TLS is spoken there; the port of TLS is usually 5671"
        ):
            await connect(parse(swapped), name="test")
        with pytest.raises(BrokerUnavailable, match="TLS is spoken there; write amqps:// for this port"):
            await connect(parse(f"amqp://127.0.0.1:{secured.port}/"), name="test")

    run(scenario())


def test_a_client_certificate_stands_for_user_and_password(secured: TlsBroker, broker: Broker) -> None:
    async def scenario() -> None:
        connection = await connect(
            parse(secured.uri("&auth_mechanism=external" + secured.client)), name="certified"
        )
        users = await secured.plain.ctl("list_connections", "user", "ssl", "auth_mechanism")
        assert [line.split() for line in users.splitlines() if "certified-bot" in line] == [
            ["certified-bot", "true", "EXTERNAL"]
        ]
        await connection.close()
        # Encryption without a check is there for those who ask for it.
        unchecked = await connect(
            parse(f"amqps://guest:guest@127.0.0.1:{secured.port}/?verify=verify_none"), name="unchecked"
        )
        await unchecked.close()
        with pytest.raises(BrokerRefused, match=r"does not offer the mechanism EXTERNAL, only .*PLAIN"):
            await connect(parse(f"{broker.uri}?auth_mechanism=external"), name="test")

    run(scenario())


def test_tail_send_and_query_take_the_same_address(
    secured: TlsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        nothing = argparse.Namespace(config=None)
        for query in ("", "&auth_mechanism=external" + secured.client):
            monkeypatch.setenv("AMQP_URI", secured.uri(query))
            async with await broker_access.connect(nothing) as connection:
                assert not connection.is_closed
        monkeypatch.setenv("AMQP_URI", secured.uri().replace(str(secured.authority), str(secured.stranger)))
        with pytest.raises(broker_access.Refused, match="CERTIFICATE_VERIFY_FAILED") as refused:
            await broker_access.connect(nothing)
        assert "guest:guest" not in str(refused.value)
        monkeypatch.setenv("AMQP_URI", secured.uri("&cacertfyle=x"))
        with pytest.raises(broker_access.Refused, match="did you mean cacertfile"):
            await broker_access.connect(nothing)

    run(scenario())


class Silent:
    """A handler that only remembers its socket."""

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def message(self, data: bytes, binary: bool) -> None: ...

    def closed(self, code: int | None, reason: str) -> None: ...
    def failed(self, error: Exception) -> None: ...


def test_a_gateway_host_with_an_unknown_certificate_is_not_spoken_to() -> None:
    async def scenario() -> None:
        async with Simulator(SimulatorOptions(tls=True)) as simulator:

            async def dial_with(context: ssl.SSLContext) -> Silent:
                handler = Silent()
                await dial(
                    f"{simulator.gateway_url}/?v=10&encoding=json",
                    handler,
                    timeout=60,
                    max_message_bytes=1_000_000,
                    headers={},
                    ssl_context=context,
                )
                return handler

            with pytest.raises(
                DialError, match="certificate is not trusted: self-signed certificate"
            ) as failure:
                await dial_with(ssl.create_default_context())
            assert not failure.value.silent and failure.value.status is None
            trusting = await dial_with(ssl.create_default_context(cafile=simulator.ca_file))
            trusting.socket.close(4900)

    run(scenario())


def test_the_whole_gateway_speaks_tls_to_discord_and_to_the_broker(
    secured: TlsBroker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with stage(
            tmp_path,
            secured.plain,
            shards=2,
            simulator={"tls": True},
            amqp_uri=secured.uri("&auth_mechanism=external" + secured.client),
            start=False,
        ) as it:
            assert it.sim.api_url.startswith("https://") and it.sim.gateway_url.startswith("wss://")
            doubting = Gateway(tmp_path, "doubting", **it.gateway.environment | {"LOG_LEVEL": "info"})
            await doubting.start()
            assert "certificate" in await doubting.logged("/gateway/bot")
            await doubting.stop()
            assert it.count("identify") == 0
            it.gateway.environment["SSL_CERT_FILE"] = str(it.sim.ca_file)
            await it.gateway.start()
            await it.ready()
            await it.events(300)
            assert (await it.all_arrived()).doubled == 0

    run(scenario())


@pytest.mark.checklist("K60")
@pytest.mark.parametrize("boundary", ["Discord", "REST", "AMQP"])
def test_a_certificate_without_a_subject_alternative_name_is_refused(
    boundary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    # A certificate says which host it is for in its common name only.
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("localhost"))
    good = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    good.load_cert_chain(*authority.issue("good", "localhost"))

    async def refused(context: ssl.SSLContext) -> str:
        def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        listening = await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        if boundary == "REST":
            answer = await DiscordRest(f"https://localhost:{port}/api", Secret("tok.en")).gateway_bot()
            assert isinstance(answer, RestFailure)
            return answer.text
        if boundary == "AMQP":
            address = parse(f"amqps://guest:guest@localhost:{port}/?cacertfile={authority.file}")
            try:
                await asyncio.open_connection("localhost", port, ssl=address.tls_context())
            except ssl.SSLCertVerificationError as error:
                return str(error)
            return ""
        with pytest.raises(DialError) as caught:
            await dial(
                f"wss://localhost:{port}/",
                Silent(),
                timeout=60,
                max_message_bytes=1,
                headers={},
                ssl_context=client_context(),
            )
        return caught.value.reason

    words = run(refused(server))
    assert "ertificate" in words and ("mismatch" in words or "Hostname" in words or "not valid for" in words)
    assert "ertificate" not in run(refused(good))
