"""`rateway check`: ask Discord and the broker whether a start would work, start nothing, show the plan."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
from pamqp import commands as spec
from rateway import exit_codes, logs
from rateway.commands import configuration
from rateway.commands.plan import (
    BrokerSaid,
    Finding,
    Known,
    NodeSaid,
    Plan,
    choice_of,
    kept_of,
    make_plan,
)
from rateway.config import ConfigurationError, Settings, load
from rateway.config.broker import broker_address
from rateway.fleet.choice import Choice
from rateway.fleet.layout import Layout
from rateway.native.form import form
from rateway.proxy.http.certificate import REMEDY, Certificate, CertificateError
from rateway.runtime.identify.permits import SystemClock, read_ledgers
from rateway.runtime.startup import (
    Identity,
    StoredSessions,
    running_clusters,
    sessions_as_they_are,
    stored_layout,
)
from rateway.runtime.supervisor.supervisor import cores
from rateway.transports.amqp.fleet_queues import lacks_quorum_queues
from rateway.transports.amqp.log.log_keeper import lacks_streams
from rateway.transports.amqp.requests.inbound_queue import Away, Found, Refused, ask, look
from rateway.transports.amqp.wire.channel import ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.dial import addresses_of, dial, machines_at
from rateway.transports.amqp.wire.uri import AmqpAddress
from rateway.transports.rest import Application, DiscordRest, GatewayBot
from rateway.transports.state import FatalRecord, StateDir, StateError, try_folder
from rateway_protocol.contract import topology
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.intents import PRIVILEGED

SUMMARY = "ask Discord and the broker whether a start would work, and show the plan"
DESCRIPTION = """\
Read the configuration, ask Discord and the broker, start nothing, and show what a start would do: shards,
clusters and their exchanges, identifies needed and left today, how long the start takes and why, memory, and
the intents by name. Privileged intents are marked, with whether they are switched on for this application.

Nothing is sent that counts: two questions to Discord's REST, one connection to the broker. When the last start
ended because Discord refused the token or an intent, and Discord would take them now, that is forgotten, so that
the next start tries again.
"""
EPILOG = """\
examples:
  rateway check
  rateway check -c /etc/rateway.toml
  rateway check --json | jq .identifies

exit codes: 0 a start would work, 1 it would not (the reasons are listed), 78 there are mistakes in the configuration
"""

# Exchanges and queues that are looked at; a fleet of a thousand clusters is not asked for one by one.
MAX_LOOKED_AT = 64
# Each question opens it and closes it again.
CHANNEL = 1
# What a broker is asked is answered at once, unless a node of it is silent.
ANSWER_S = 10.0
# Nodes of a RabbitMQ cluster of which one may fail.
FLEET_NODES = 3
PRECONDITION_FAILED = 406
NOT_FOUND = 404


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway check`."""
    configuration.add_option(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Check and show; the exit code."""
    try:
        settings = load(options.config, os.environ)
    except ConfigurationError as error:
        if options.json:
            found = [Finding(each.where, each.wrong, each.instead) for each in error.problems]
            _print_json(Plan(ok=False, problems=found))
        else:
            configuration.explain(error)
        return exit_codes.CONFIGURATION
    logs.hide(*settings.secrets())
    plan = asyncio.run(check(settings))
    if options.json:
        _print_json(plan)
    else:
        from rateway.commands import check_page

        check_page.show(plan)
    return 0 if plan.ok else 1


def _print_json(plan: Plan) -> None:
    text = json.dumps(msgspec.to_builtins(plan), indent=2, ensure_ascii=False)
    print(logs.redact(text), file=sys.stdout)


async def check(settings: Settings) -> Plan:
    """Ask everybody, and make the plan."""
    rest = DiscordRest(settings.rest.api_url, settings.session.token, hosts=settings.rest.hosts)
    gateway = await rest.gateway_bot()
    application = await rest.application()
    known = Known(
        gateway,
        application,
        BrokerSaid("", False),
        SystemClock().moment(),
        form(),
        machine=machine_memory(),
        cores=cores(),
    )
    known = _with_proxy(settings, _with_state(settings, known))
    kept = kept_of(settings, known.stored, known.sessions)
    choice = choice_of(settings, gateway, kept, known.stored)
    if choice is None and settings.layout.shards is not None:
        choice = Choice(Layout(settings.layout.shards, settings.layout.per_cluster), "", "")
    clusters = [1] if choice is None else running_clusters(settings, choice.layout)
    return make_plan(settings, replace(known, broker=await _ask_broker(settings, clusters)))


# The broker


async def _ask_broker(settings: Settings, clusters: list[int]) -> BrokerSaid:
    address = broker_address(settings).current()
    nodes = await _ask_nodes(address)
    warnings = [
        Finding("broker", each.problem, "the other nodes are used meanwhile")
        for each in nodes
        if not each.reached
    ]
    try:
        connection = await dial(address, name="rateway check")
    except (BrokerUnavailable, BrokerRefused) as error:
        return BrokerSaid(str(address), False, problem=error.what, do=error.remedy, nodes=nodes)
    findings: list[Finding] = []
    there = 0
    try:
        for cluster in clusters[:MAX_LOOKED_AT]:
            there += await _look_at(connection, cluster, findings)
    except ConnectionLost as error:
        findings.append(Finding("broker", f"it closed the connection: {error}", "see the broker's log"))
    except TimeoutError:
        what = "it does not answer about an exchange or queue: a node of it may be silent"
        findings.append(Finding("broker", what, "see the broker's log"))
    finally:
        await connection.close()
    if settings.event_log.is_on and lacks_streams(connection.server):
        wanted = "EVENT_LOG" if settings.proxy.address is None else "the proxy at PROXY_ADDRESS"
        what = f"{connection.server} has no streams: events go out without the event log that {wanted} needs"
        warnings.append(Finding("broker", what, "RabbitMQ 3.9 or newer has them"))
    if settings.fleet.name is not None:
        # The other nodes of the address are those of one cluster.
        found = sum(node.reached for node in nodes) or 1
        problems, more = _of_fleet(connection.server, found)
        findings += problems
        warnings += more
    return BrokerSaid(str(address), True, connection.server, "", findings, there, warnings, nodes)


def _of_fleet(server: str, nodes: int) -> tuple[list[Finding], list[Finding]]:
    """Return what of the broker keeps FLEET from working, and what makes it less available than it could be."""
    if lacks_quorum_queues(server):
        what = f"{server} has no quorum queues, over which the members of a fleet agree on who owns a cluster"
        return [Finding("FLEET", what, "RabbitMQ 3.8 or newer has them")], []
    if nodes >= FLEET_NODES:
        return [], []
    named = "one node" if nodes == 1 else f"{nodes} nodes"
    what = f"the broker's address names {named}: no shard moves to another member while that is away"
    if nodes == 2:
        what = "the broker's address names 2 nodes: quorum queues need both of them"
    do = f"name those of a RabbitMQ cluster of {FLEET_NODES} in AMQP_URI, unless a load balancer stands before them"
    return [], [Finding("FLEET", what, do)]


async def _ask_nodes(address: AmqpAddress) -> list[NodeSaid]:
    """What each node says, if the address names several: hosts, or addresses behind a host's name."""
    found: list[AmqpAddress | NodeSaid] = []
    machines = 0
    for node in address.nodes():
        try:
            each = await addresses_of(node)
        except BrokerUnavailable as error:
            found.append(NodeSaid(str(node), False, problem=str(error)))
            machines += 1
        else:
            found += each
            machines += machines_at(each)
    if len(found) < 2:
        return []
    said = list(await asyncio.gather(*map(_ask_node, found)))
    # One machine by IPv4 and by IPv6 is one node, unless two brokers answer there.
    one = machines < 2 and len({node.cluster for node in said if node.reached}) < 2
    return [] if one else said


async def _ask_node(node: AmqpAddress | NodeSaid) -> NodeSaid:
    if isinstance(node, NodeSaid):
        return node
    try:
        connection = await connect(node, name="rateway check")
    except (BrokerUnavailable, BrokerRefused) as error:
        return NodeSaid(str(node), False, problem=str(error))
    await connection.close()
    return NodeSaid(str(node), True, connection.server, connection.cluster_name)


async def _look_at(connection: Connection, cluster: int, findings: list[Finding]) -> bool:
    """Whether the exchange is there. What is there has to have the contract's flags, or a start would fail on it."""
    exchange, queue = topology.exchange(cluster), topology.incoming(cluster)
    passive = spec.Exchange.Declare(0, exchange, topology.EXCHANGE_TYPE, passive=True, durable=True)
    ours = spec.Exchange.Declare(0, exchange, topology.EXCHANGE_TYPE, durable=True)
    closed = await ask(connection, CHANNEL, passive, spec.Exchange.DeclareOk, timeout=ANSWER_S)
    there = closed is None or closed.code != NOT_FOUND
    if closed is None:
        closed = await ask(connection, CHANNEL, ours, spec.Exchange.DeclareOk, timeout=ANSWER_S)
    if closed is not None and there:
        findings.append(_refused(f"the exchange {exchange}", closed))
    found = await look(connection, CHANNEL, queue, timeout=ANSWER_S)
    if isinstance(found, Refused) and "exclusive" not in found.closed.text:
        findings.append(_refused(f"the queue {queue}", found.closed))
    elif isinstance(found, Away):
        what = f"the queue {queue} is out of reach: {found.words}"
        do = (
            "bring its node back; until then stored sessions are resumed, but no query or command is answered "
            "without FLEET"
        )
        findings.append(Finding("broker", what, do))
    elif isinstance(found, Found) and found.kind not in ("", "classic"):
        what = f"the queue {queue} is a {found.kind} queue, which two gateways could read at the same time"
        do = f"delete it (its messages go with it): rabbitmqctl delete_queue {queue}"
        findings.append(Finding("broker", what, do))
    return there


def _refused(what: str, closed: ChannelClosed) -> Finding:
    if closed.code == PRECONDITION_FAILED:
        do = "delete it in the broker (its messages go with it): the gateway declares it anew, as the contract says"
        return Finding("broker", f"{what} is there with other flags: {closed.text}", do)
    do = "give the broker's user the rights to configure, write and read rateway-*"
    return Finding("broker", f"{what}: {closed.code} {closed.text}", do)


# This machine


def _with_state(settings: Settings, known: Known) -> Known:
    """Add what the state folder says, and forget what was fatal when it would not be now.

    The folder is opened as a start opens it; one that was not there is taken away again.
    """
    problems: list[Finding] = []
    if settings.cache.path is not None:
        try:
            try_folder(settings.cache.path, "CACHE_PATH")
        except StateError as error:
            problems.append(Finding("CACHE_PATH", str(error)))
    try:
        with StateDir.tried(settings.process.state_dir) as state:
            identity = Identity.of(settings, state)
            record = state.fatal(identity.settings)
            if record is not None and not _forgettable(record, settings, known):
                what = f"the last start with these settings ended with {record.code}: {record.meaning}"
                do = f"{record.help}; a start with the same settings sends nothing to Discord"
                problems.append(Finding("Discord", what, do))
            elif record is not None:
                state.forget_fatal()
            running = state.holder()
            sessions = StoredSessions(
                settings,
                identity.bot,
                lambda number: sessions_as_they_are(settings, state, number, in_use=running is not None),
            )
            stored = stored_layout(state)
            # Read while the folder is open.
            kept = kept_of(settings, stored, sessions)
            choice = choice_of(settings, known.gateway, kept, stored)
            if choice is not None:
                sessions.given_up(choice.layout, stored)
            try:
                ledger, _ = read_ledgers(state, identity.account)
            except FAILURES:
                ledger = None
            return replace(
                known,
                stored=stored,
                sessions=sessions,
                ledger=ledger,
                running_pid=running,
                problems=tuple(problems),
            )
    except StateError as error:
        return replace(known, problems=(*problems, Finding("STATE_DIR", str(error))))


def _with_proxy(settings: Settings, known: Known) -> Known:
    """Add whether this machine lets the proxy have its certificate and its address."""
    given = settings.proxy
    if given.address is None:
        return known
    problems, warnings = [*known.problems], [*known.warnings]
    try:
        if given.cert is not None:
            Certificate(given.cert, given.key)
    except CertificateError as error:
        problems.append(Finding("PROXY_CERT", f"{given.cert} cannot be used ({error})", REMEDY))
    if why := _cannot_listen(given.address):
        what = f"{given.address} cannot be listened on now ({why}); a proxy tries again every second"
        do = "see what listens there, unless it is the proxy of a gateway that this one replaces"
        warnings.append(Finding("PROXY_ADDRESS", what, do))
    return replace(known, problems=tuple(problems), warnings=tuple(warnings))


def _cannot_listen(address: str) -> str:
    """Why nothing can listen there, empty where something can; another proxy of this user may do so already."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(place)
    except OSError as error:
        return error.strerror or "no such address"
    return ""


def _forgettable(record: FatalRecord, settings: Settings, known: Known) -> bool:
    """Whether what was fatal has been put right outside of the settings: a token revived, an intent switched on."""
    if not isinstance(known.gateway, GatewayBot):
        return False
    if record.code in (401, 4004):
        return True
    if record.code == 4014:
        wanted = settings.session.intents & PRIVILEGED
        return (
            isinstance(known.application, Application) and not wanted & ~known.application.privileged_intents
        )
    if record.code in (4010, 4011):
        # Discord's recommendation of today takes the place of the number that it refused.
        return settings.layout.shards is None
    return False


def machine_memory() -> int | None:
    """Bytes that this process may use: the machine's, or the container's when that is less."""
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        pass
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if text.isdecimal():
            found.append(int(text))
    except OSError:
        pass
    return min(found, default=None)
