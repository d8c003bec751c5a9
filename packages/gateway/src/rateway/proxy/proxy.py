"""The composition root of the gateway proxy: settings in, exit code out."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import resource
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec
from aiohttp import hdrs, web
from rateway import exit_codes
from rateway.config import Settings
from rateway.config.broker import broker_address
from rateway.config.proxy import DEFAULT_PROXY_ADDRESS
from rateway.delivery.proxy_port import Gateway, LogReader, Positions
from rateway.proxy.http.certificate import REMEDY, Certificate, CertificateError
from rateway.proxy.http.rest import RestProxy, host_of
from rateway.proxy.http.server import BotSocket, Limits, ProxyServer, Upgrade
from rateway.proxy.http.tokens import Tokens
from rateway.proxy.log.replay import Replay
from rateway.proxy.needs import judge
from rateway.proxy.sessions.bot_connection import BotConnection
from rateway.proxy.sessions.connections import Connections
from rateway.proxy.sessions.session_id import SessionIds
from rateway.transports import proxy_metrics
from rateway.transports.amqp.log.event_log import AmqpLogReader
from rateway.transports.amqp.log.positions import AmqpPositions
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.proxy_line import BotRow, ProxyStatus
from rateway_protocol.contract.errors import Fault
from rateway_protocol.discord.visibility import visible

__all__ = ["Proxy", "tune_memory"]

log = logging.getLogger(__name__)

# Events make containers that die with the write: the collector's first generation at its default of 700 would run for
# every few hundred of them and find nothing.
GC_THRESHOLD: Final = (50_000, 20, 100)
# How long a request of REST waits for the gateway's layout.
LAYOUT_WAIT_S: Final = 3.0
# While the gateway does not answer at the start.
ASK_AGAIN_S: Final = 2.0
# From op 7 to the end of connections whose bots have not left by themselves.
LEAVE_S: Final = 3.0
# Any code that no library takes for the end of its session. Discord: "Unknown error … Try reconnecting?"
RECONNECT_CODE: Final = 4000
# Where every proxy shows what it does; no route of Discord's REST begins so.
STATUS_PATH: Final = "/rateway/status"
METRICS_PATH: Final = "/rateway/metrics"
# Where a proxy shows another one, which is to share its address, that it is the same bot's.
PROOF_PATH: Final = "/rateway/proof"
MOST_CHALLENGE: Final = 64
PROOF_WITHIN_S: Final = 2.0
METRICS_HEADERS: Final = {hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8"}
# Connections that a status lists one by one.
MOST_ROWS: Final = 200


def tune_memory() -> None:
    """Collect seldom, and never look again at what is imported by now."""
    gc.set_threshold(*GC_THRESHOLD)
    gc.freeze()


class Proxy:
    """One proxy. :meth:`run` returns the exit code."""

    def __init__(
        self, settings: Settings, *, limits: Limits | None = None, held: socket.socket | None = None
    ) -> None:
        """*held* is listened with; the gateway that started this proxy holds it too."""
        self._settings = settings
        self._address = settings.proxy.address or DEFAULT_PROXY_ADDRESS
        self._limits = limits or Limits(connections=settings.proxy.connections)
        self._tokens = Tokens(settings.session.token, settings.proxy.token)
        self._held = held
        self._stop = asyncio.Event()
        self.exit_code = 0
        """What :meth:`run` returns."""
        self._bots: dict[_Bot, None] = {}
        # Set while no bot is connected.
        self._left = asyncio.Event()
        self._closes: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._notes: tuple[str, ...] = ()
        self._connections: Connections | None = None
        self._rest: RestProxy | None = None
        self._server: ProxyServer | None = None
        self._has_tls = settings.proxy.cert is not None
        self._certificate: Certificate | None = None

    def stop(self) -> None:
        """Send the bots away and end; :meth:`run` returns when that is done."""
        self._stop.set()

    def reload(self) -> None:
        """Read the certificate again, whether or not its files changed."""
        if self._certificate is not None:
            self._certificate.renew()

    async def run(self, on_bound: Callable[[int], None] = lambda port: None) -> int:
        """Serve until stopped."""
        given = self._settings.proxy
        try:
            certificate = None if given.cert is None else Certificate(given.cert, given.key)
        except CertificateError as error:
            words = "PROXY_CERT %s cannot be used (%s): %s"
            log.critical(words, given.cert, error, REMEDY, extra={"action": "configuration"})
            return exit_codes.CONFIGURATION
        self._certificate = certificate
        tls = None if certificate is None else certificate.context
        address = broker_address(self._settings)
        reader = AmqpLogReader(address=address, name="rateway proxy: event logs")
        gateway = AmqpGateway(address=address, name="rateway proxy: requests")
        positions = AmqpPositions(address=address, name="rateway proxy: places of bots")
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(reader.run()), tasks.create_task(gateway.run())]
            if self._settings.proxy.replay:
                running.append(tasks.create_task(positions.run()))
            if certificate is not None:
                running.append(tasks.create_task(certificate.watch()))
            running.append(tasks.create_task(self.serve(reader, gateway, tls, on_bound, positions)))
            await self._stop.wait()
            await running[-1]
            for task in running:
                task.cancel()
        return self.exit_code

    async def serve(
        self,
        reader: LogReader,
        gateway: Gateway,
        tls: ssl.SSLContext | None,
        on_bound: Callable[[int], None] = lambda port: None,
        positions: Positions | None = None,
    ) -> None:
        """Serve bots from these forms of the ports until stopped; without *positions* nothing is sent again to bots
        that identify again."""
        settings = self._settings
        rest = self._rest = RestProxy(
            self._tokens,
            settings.rest.api_url,
            rest_url=settings.proxy.rest_url,
            gateway_url=self._url_for,
            shards=self._shards,
            connections=settings.proxy.connections,
        )
        loop = asyncio.get_running_loop()
        connections = self._connections = Connections(
            gateway,
            reader,
            SessionIds(self._tokens.key(b"sessions")),
            self._tokens.admits,
            visible,
            loop,
            loop.time,
            rest.application,
            replay=self._replay(positions),
        )
        server = self._server = ProxyServer(
            self._address,
            tls,
            self._answer,
            self._connect,
            self._url_for,
            self._limits,
            self._stranger,
            self._held,
        )
        async with rest, asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(connections.run()),
                tasks.create_task(server.run(on_bound)),
                tasks.create_task(self._judge_gateway(connections)),
            ]
            await self._stop.wait()
            await self._send_away(server, connections)
            for task in beside:
                task.cancel()

    def _replay(self, positions: Positions | None) -> Replay | None:
        names = self._settings.proxy.replay
        if not names or positions is None:
            return None
        return Replay(names, self._settings.event_log.age, positions, time.time)

    # Bots.

    def _connect(self, socket: BotSocket, upgrade: Upgrade) -> _Bot:
        assert self._connections is not None
        bot = _Bot(self, socket, self._connections.connect(socket, upgrade.version, upgrade.url))
        self._bots[bot] = None
        self._left.clear()
        return bot

    def forget(self, bot: _Bot) -> None:
        """Forget a bot whose connection has ended."""
        self._bots.pop(bot, None)
        if bot.connection.close_code is not None:
            self._closes[str(bot.connection.close_code)] += 1
        if not self._bots:
            self._left.set()

    async def _send_away(self, server: ProxyServer, connections: Connections) -> None:
        """Tell all bots to reconnect, and end the connections of those that have not left by themselves."""
        server.turn_away()
        if not self._bots:
            return
        log.info("%d bots are told to reconnect (op 7)", len(self._bots), extra={"action": "stop"})
        connections.reconnect_all()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._left.wait()
        except TimeoutError:
            for bot in list(self._bots):
                bot.connection.close(RECONNECT_CODE, "The proxy stops: reconnect and resume.")

    def behind(self, connection: BotConnection) -> tuple[int, int]:
        """Return the entries of the log that a bot which resumes has still to get, and their seconds."""
        return self._connections.behind(connection) if self._connections is not None else (0, 0)

    # What bots get from the proxy itself.

    def _url_for(self, request: web.BaseRequest) -> str | None:
        """The gateway's address as the bot that asks can reach it."""
        given = self._settings.proxy
        if given.url is not None:
            return given.url
        host = host_of(request)
        if host is None:
            return None
        # Believed only where the settings name a server in front: any other client could send the header.
        before = request.headers.get(hdrs.X_FORWARDED_PROTO, "") if given.behind_tls else ""
        return f"{'wss' if self._has_tls or before.strip().lower() == 'https' else 'ws'}://{host}"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that is no WebSocket: of the proxy's own state, or one of REST."""
        assert self._rest is not None
        path = request.rel_url.raw_path
        if path == PROOF_PATH:
            return web.Response(text=self._tokens.proof(request.rel_url.raw_query_string[:MOST_CHALLENGE]))
        if path not in (STATUS_PATH, METRICS_PATH):
            return await self._rest.answer(request)
        if not self._tokens.admits_viewer(request.headers.get(hdrs.AUTHORIZATION, "")):
            return web.Response(status=401, text="send PROXY_TOKEN as a bearer token\n")
        if path == METRICS_PATH:
            return web.Response(body=proxy_metrics.render(self.status()).encode(), headers=METRICS_HEADERS)
        return web.Response(body=msgspec.json.encode(self.status()), content_type="application/json")

    async def _stranger(self) -> str:
        """Return what listens at the address already and is no proxy of this bot; empty where there is nothing else.

        The system would let two proxies of one user share the address, and give each one the other's bots.
        """
        host, _, port = self._address.rpartition(":")
        if port == "0":
            return ""
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        challenge = secrets.token_hex(MOST_CHALLENGE // 2)
        url = f"{'https' if self._has_tls else 'http'}://{host}:{port}{PROOF_PATH}?{challenge}"
        timeout = aiohttp.ClientTimeout(total=PROOF_WITHIN_S)
        try:
            # The certificate is for the name that bots use; what is asked for proves itself.
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, ssl=False) as answer,
            ):
                if await answer.text() == self._tokens.proof(challenge):
                    return ""
        except aiohttp.ClientConnectorError:
            return ""
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            pass
        return "another program or another bot's proxy listens there"

    async def _shards(self) -> int | None:
        """Return the number of shards for `GET /gateway/bot`."""
        if self._settings.proxy.shards is not None:
            return self._settings.proxy.shards
        assert self._connections is not None
        layout = await self._connections.layout_within(LAYOUT_WAIT_S)
        return None if layout is None else layout.shard_count

    async def _judge_gateway(self, connections: Connections) -> None:
        """Ask the gateway what it was given, say what bots will miss, and stop where they cannot be served."""
        said = False
        while isinstance(given := await connections.layout(), Fault):
            if not said:
                log.warning(
                    "no gateway answers (%s): bots are served once it does",
                    given.message,
                    extra={"action": "proxy"},
                )
            said = True
            await asyncio.sleep(ASK_AGAIN_S)
        found = judge(given)
        self._notes = found.notes
        for note in found.notes:
            log.warning("%s", note, extra={"action": "proxy"})
        if found.refusals:
            for refusal in found.refusals:
                log.critical("%s", refusal, extra={"action": "configuration"})
            self.exit_code = exit_codes.CONFIGURATION
            self.stop()
            return
        log.info(
            "the gateway has %d shards in %d clusters",
            given.shard_count,
            len(given.clusters),
            extra={"action": "proxy"},
        )

    # Seen.

    def status(self) -> ProxyStatus:
        """Return the status of this proxy."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        counts = self._connections.counts if self._connections is not None else Counter()
        now = self._loop.time()
        return ProxyStatus(
            pid=os.getpid(),
            address=self._address,
            connections=len(self._bots),
            bots=[bot.row(now) for bot in itertools.islice(self._bots, MOST_ROWS)],
            states=dict(Counter(bot.connection.state for bot in self._bots)),
            identifies=counts["identified"],
            resumes=counts["resumed"],
            refused=counts["refused"],
            sent=counts["sent"],
            replayed=counts["replayed"],
            closes=dict(self._closes),
            turned_away=dict(self._server.turned_away) if self._server is not None else {},
            rest=dict(self._rest.requests) if self._rest is not None else {},
            cpu_s=usage.ru_utime + usage.ru_stime,
            memory_bytes=_resident_bytes(),
            notes=self._all_notes(),
        )

    def _all_notes(self) -> list[str]:
        refusal = self._certificate.refusal if self._certificate is not None else ""
        stale = f"the certificate in PROXY_CERT has changed and cannot be used ({refusal}): the one before it is shown"
        return [*self._notes, *([stale] if refusal else [])]


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


class _Bot:
    """One bot: its WebSocket, and the connection of the gateway protocol over it."""

    def __init__(self, proxy: Proxy, socket: BotSocket, connection: BotConnection) -> None:
        self.connection = connection
        self._proxy = proxy
        self._socket = socket
        self._began_at = asyncio.get_running_loop().time()

    def on_message(self, payload: bytes) -> None:
        connection = self.connection
        connection.on_message(payload)
        self._socket.identified = connection.state != "unidentified"

    def on_closed(self, code: int | None) -> None:
        self.connection.on_closed()
        self._proxy.forget(self)

    def on_writable(self) -> None:
        self.connection.on_writable()

    def row(self, now: float) -> BotRow:
        """Return its row of the status."""
        connection, stream = self.connection, self.connection.stream
        entries, seconds = self._proxy.behind(connection)
        return BotRow(
            library=connection.library,
            shard=stream.shard if stream is not None else 0,
            count=stream.count if stream is not None else 0,
            state=connection.state,
            since_s=now - self._began_at,
            lag_events=entries,
            lag_s=seconds,
            waiting_bytes=connection.waiting,
            sent=sum(feed.sent for feed in stream.feeds) if stream is not None else 0,
        )
