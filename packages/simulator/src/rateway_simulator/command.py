"""`rateway simulate`: a fake Discord on this machine, which judges the bots that connect to it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvloop
from rateway_protocol.discord import intents
from rateway_simulator import control, faults, patches
from rateway_simulator.certificate import NoCryptography
from rateway_simulator.faults import FaultError, Scheduled
from rateway_simulator.judge import ledger
from rateway_simulator.judge.rules import RULES
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.mix import Mix

SUMMARY = "run a fake Discord to try bots and gateways against"
DESCRIPTION = """\
Run a fake Discord on loopback: gateway and REST over a world of guilds, members and messages that is grown from
a seed. Bots connect to it as to the real one; no account, no network, no rate limit of others.

It keeps Discord's rules as a judge would: each rule that a client breaks is printed, and the exit code is 1
when there was one; what Discord is not known to mind is listed as a warning. It can make things happen (--rate) and
go wrong (--fault, --scenario) on purpose.
While it runs it can be steered over HTTP: GET …/simulator/ledger, /violations, /warnings, /sessions, /sent, /rules,
/faults; POST …/simulator/faults and /simulator/rate. docs/simulator.md describes all of it.
"""
EPILOG = """\
examples:
  rateway simulate                                   10 guilds, nothing happens until someone makes it
  rateway simulate --rate 50                         50 events a second from a mix as public bots see it
  rateway simulate --shards 16 --concurrency 16 --guilds 1000 --rate 2000
  rateway simulate --rate 100 --fault cut:shards=random:1,every=5 --fault op9:at=20
  rateway simulate --scenario bad-day.toml --seconds 60 --json
  rateway simulate --rate max --recorded --events 1000000      how fast is the client?

connect to it:
  rateway      DISCORD_API_URL=http://127.0.0.1:PORT/api/v10 DISCORD_TOKEN=TOKEN rateway      (both are printed)
  hikari       hikari.GatewayBot(token, rest_url="http://127.0.0.1:PORT/api/v10")
  discord.py   a patch of three lines, which is printed with the right addresses at the start

faults (kind:field=value,…; each with at=SECONDS and every=SECONDS; shards=all, random:2 or 0,4-7):
"""
EPILOG += "".join(
    f"  {name:<14} {kind.does}" + (f" [{', '.join(sorted(kind.uses))}]" if kind.uses else "") + "\n"
    for name, kind in faults.KINDS.items()
)

# How often the live line is written.
LIVE_S = 1.0
# Violations shown in full; the rest is counted.
SHOWN_VIOLATIONS = 20
# Warnings in the summary as JSON, and how much of the first of each is shown to people.
SHOWN_WARNINGS, SHOWN_DETAIL = 200, 120
# Fields that count what has to be there; all other numbers may be 0.
AT_LEAST_ONE = frozenset({"shards", "max_concurrency", "shards_multiple", "heartbeat_interval_ms"})
MOST_PORT = 65535

_Row = tuple[str, str, Any, str]

# Group → rows of flag, field, type, help. A field with a dot belongs to the world.
_FLAGS: Mapping[str, tuple[_Row, ...]] = {
    "addresses": (
        ("--host", "host", str, "address to listen on"),
        ("--port", "port", int, "port of the gateway, 0 for a free one"),
        ("--api-port", "api_port", int, "port of REST and control, 0 for a free one"),
        ("--resume-hosts", "resume_hosts", int, "further ports that resume_gateway_url points to"),
        ("--tls", "tls", bool, "wss and https, with a certificate made at the start"),
    ),
    "the bot": (
        ("--token", "token", str, "the only token that is accepted"),
        ("--shards", "shards", int, "recommended number of shards"),
        ("--shards-multiple", "shards_multiple", int, "num_shards must be a multiple of this, else 4010"),
        ("--max-guilds", "max_guilds_per_shard", int, "guilds that a shard may have, else 4011"),
        ("--concurrency", "max_concurrency", int, "max_concurrency: identify buckets"),
        ("--identify-window", "identify_window", float, "seconds between two identifies of a bucket"),
        (
            "--identify-refusal-delay",
            "identify_refusal_delay",
            float,
            "seconds until op 9 answers an identify that came too early",
        ),
        ("--identifies", "identifies_total", int, "identifies a day"),
        ("--identifies-left", "identifies_remaining", int, "identifies left today (default: all)"),
    ),
    "the world": (
        ("--guilds", "world.guilds", int, "guilds"),
        ("--members", "world.members_per_guild", int, "members of each guild"),
        ("--channels", "world.channels_per_guild", int, "channels of each guild"),
        ("--largest-guild", "world.largest_guild", int, "members of the first guild (0: as the others)"),
        ("--world-seed", "world.seed", int, "seed that the world is grown from"),
    ),
    "traffic": (
        ("--per-shard", "rate_per_shard", bool, "--rate is for each shard, not for all"),
        ("--recorded", "recorded", bool, "repeat recorded events instead of letting the world live: cheaper"),
        ("--events", "source_events", int, "stop after so many events (default: never)"),
        ("--seed", "seed", int, "seed of what happens and of the faults' luck"),
        ("--ready-delay", "ready_delay", float, "seconds from identify to READY"),
        ("--guild-delay", "guild_delay", float, "seconds between the GUILD_CREATEs after READY"),
        (
            "--split-bytes",
            "split_bytes",
            int,
            "zlib-stream: split messages over WebSocket messages of this size",
        ),
        ("--fragment-bytes", "fragment_bytes", int, "split messages over WebSocket frames of this size"),
    ),
    "limits": (
        ("--heartbeat-ms", "heartbeat_interval_ms", int, "heartbeat_interval in milliseconds"),
        ("--heartbeat-tolerance", "heartbeat_tolerance", float, "seconds by which a heartbeat may be late"),
        (
            "--replay-events",
            "replay_events",
            int,
            "events kept for a resume (default: as Discord, by guilds)",
        ),
        (
            "--replay-seconds",
            "replay_seconds",
            float,
            "seconds that events and sessions are kept for a resume",
        ),
        (
            "--refuse-with-4007",
            "refuse_with_4007",
            bool,
            "refuse a hopeless resume with 4007 instead of op 9",
        ),
        (
            "--repeat-session-ids",
            "repeat_session_ids",
            bool,
            "give each identify of a shard the same session id (as Spacebar does)",
        ),
        (
            "--first-sequence",
            "first_sequence",
            int,
            "number of a session's READY: 1 as Discord, 0 as Spacebar",
        ),
        ("--ledger-events", "ledger_events", int, "events that the ledger remembers, 26 bytes each"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``rateway-simulate``: the same as ``rateway simulate``, where only this package is installed."""
    parser = argparse.ArgumentParser(
        prog="rateway-simulate",
        description=DESCRIPTION,
        epilog=EPILOG.replace("rateway simulate", "rateway-simulate"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    configure(parser)
    return run(parser.parse_args(argv))


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway simulate`."""
    defaults, world = SimulatorOptions(), WorldOptions()
    for title, rows in _FLAGS.items():
        group = parser.add_argument_group(title)
        for flag, field, kind, text in rows:
            owner, name = (world, field[6:]) if field.startswith("world.") else (defaults, field)
            default = getattr(owner, name)
            if kind is bool:
                group.add_argument(flag, dest=field, action="store_true", help=text)
            else:
                shown = text if default is None else f"{text} (default: {default})"
                # All floats are seconds.
                word = {int: "N", float: "S"}.get(kind, flag[2:].upper())
                group.add_argument(flag, dest=field, type=kind, default=default, help=shown, metavar=word)
    parser.add_argument(
        "--rate",
        default="0",
        help="events a second from the world's mix, or max (default: 0, nothing happens)",
    )
    parser.add_argument(
        "--mix",
        action="append",
        default=[],
        metavar="EVENT=WEIGHT",
        help="weight of an event in the mix; may be repeated (PRESENCE_UPDATE=0 keeps presences out)",
    )
    parser.add_argument(
        "--privileged",
        default="all",
        metavar="NAMES",
        help="privileged intents that are switched on: all, none or names (default: all)",
    )
    parser.add_argument(
        "--fault", action="append", default=[], metavar="FAULT", help="something that goes wrong; see below"
    )
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="TOML file with [[fault]] tables")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after S seconds (default: at Ctrl-C)")
    parser.add_argument(
        "--json", action="store_true", help="addresses and summary as JSON, one object a line"
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="write the addresses here as JSON once it listens"
    )


def run(options: argparse.Namespace) -> int:
    """Simulate until interrupted or until --seconds; 0, 1 when a rule was broken, 2 for wrong arguments."""
    try:
        settings = settings_of(options)
    except (FaultError, ValueError, OSError) as error:
        print(f"rateway simulate: {error}", file=sys.stderr)
        return 2
    _allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_simulate(settings, options))
        except (OSError, NoCryptography) as error:
            print(f"rateway simulate: {error}", file=sys.stderr)
            return 2


def settings_of(options: argparse.Namespace) -> SimulatorOptions:
    """Return the simulator's options for the parsed arguments. Raises FaultError, ValueError or OSError."""
    values: dict[str, Any] = {}
    for flag, field, _, _ in itertools.chain.from_iterable(_FLAGS.values()):
        value = values[field] = getattr(options, field)
        least = 1 if field in AT_LEAST_ONE else 0
        if isinstance(value, int | float) and value < least:
            raise ValueError(f"{flag} {value:g}: it must be at least {least}")
        if field in ("port", "api_port") and value > MOST_PORT:
            raise ValueError(f"{flag} {value}: it must be at most {MOST_PORT}")
    world = {field[6:]: value for field, value in values.items() if field.startswith("world.")}
    plain = {field: value for field, value in values.items() if not field.startswith("world.")}
    scenario: list[Scheduled] = [faults.parse_word(word) for word in options.fault]
    if options.scenario is not None:
        scenario += faults.parse_scenario(options.scenario.read_text())
    settings = SimulatorOptions(
        **plain,
        world=replace(WorldOptions(**world), mix=dict(map(_weight, options.mix))),
        rate=control.parse_rate(options.rate),
        privileged_intents=_privileged(options.privileged),
        scenario=tuple(scenario),
    )
    Mix(settings.world.mix)  # raises for an event that cannot happen
    return settings


def _weight(word: str) -> tuple[str, float]:
    name, _, weight = word.partition("=")
    try:
        number = float(weight)
    except ValueError:
        number = -1.0
    if number < 0:
        raise ValueError(f"--mix {word!r} is not EVENT=WEIGHT")
    return name.upper(), number


def _privileged(words: str) -> int:
    if words in ("all", "none"):
        return int(intents.PRIVILEGED) if words == "all" else 0
    return intents.parse(words) & intents.PRIVILEGED


def _allow_many_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def addresses(simulator: Simulator) -> dict[str, Any]:
    """Return the addresses that a client needs, as JSON; also the content of --ready-file."""
    return {
        "gateway_url": simulator.gateway_url,
        "api_url": simulator.api_url,
        "control_url": simulator.control_url,
        "token": simulator.options.token,
        "ca_file": simulator.ca_file,
        "pid": os.getpid(),
    }


def _introduction(simulator: Simulator) -> str:
    options = simulator.options
    size = f"{options.world.guilds} guilds of {options.world.members_per_guild} members"
    lines = [
        f"simulated Discord: {size}, {options.shards} shards recommended, max_concurrency {options.max_concurrency}",
        f"  gateway  {simulator.gateway_url}",
        f"  REST     {simulator.api_url}",
        f"  control  {simulator.control_url}/ledger",
        "connect with",
        f"  rateway     DISCORD_API_URL={simulator.api_url} DISCORD_TOKEN={options.token}",
        f'  hikari      hikari.GatewayBot("{options.token}", rest_url="{simulator.api_url}")',
        "  discord.py  these lines before the client is made:",
        *(
            f"    {line}"
            for line in patches.discord_py(simulator.api_url, simulator.gateway_url).splitlines()
        ),
    ]
    if simulator.ca_file is not None:
        lines.append(f"  trust       SSL_CERT_FILE={simulator.ca_file}")
    return "\n".join(lines)


async def _simulate(settings: SimulatorOptions, options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(settings) as simulator:
        # The world at its start lives as long as the process: the collector need not look at it again.
        gc.freeze()
        # It grows as things happen, makes no cycles, and is walked whole by each full collection: seldom, then.
        gc.set_threshold(100_000, 50, 100)
        if options.ready_file is not None:
            _write_whole(options.ready_file, json.dumps(addresses(simulator)))
        print(
            json.dumps({"ready": addresses(simulator)}) if options.json else _introduction(simulator),
            flush=True,
        )
        await _wait(simulator, stop, options)
    return _finish(simulator, options)


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees all or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


async def _wait(simulator: Simulator, stop: asyncio.Event, options: argparse.Namespace) -> None:
    """Until it ends: violations as they come, and on a terminal one line that lives."""
    started, told, before = time.monotonic(), 0, simulator.ledger.events
    live = sys.stderr.isatty() and not options.json
    while not stop.is_set():
        left = LIVE_S if options.seconds is None else started + options.seconds - time.monotonic()
        if left <= 0:
            break
        try:
            async with asyncio.timeout(min(LIVE_S, left)):
                await stop.wait()
        except TimeoutError:
            pass
        broken = simulator.ledger.violations
        for line in [] if options.json else ledger.lines(broken[told:SHOWN_VIOLATIONS]):
            print(line, file=sys.stderr, flush=True)
        told = len(broken)
        if live:
            events = simulator.ledger.events
            print(
                f"\r\x1b[K{live_line(simulator, time.monotonic() - started, events - before)}",
                end="",
                file=sys.stderr,
            )
            before = events
    if live:
        print(file=sys.stderr)


def live_line(simulator: Simulator, elapsed: float, events: int) -> str:
    """Return one line about now: time, connections, sessions, events a second and in all, rules broken."""
    return (
        f"{elapsed:6.0f} s  {len(simulator.gateway.connections)} connected  {len(simulator.gateway.sessions)} sessions"
        f"  {events / LIVE_S:,.0f} events/s  {simulator.ledger.events:,} sent"
        f"  {len(simulator.ledger.violations)} violations"
    )


def _finish(simulator: Simulator, options: argparse.Namespace) -> int:
    summary = simulator.ledger.summary()
    violations = simulator.ledger.violations
    if options.json:
        found = {"violations": violations, "warnings": simulator.ledger.warnings[:SHOWN_WARNINGS]}
        shown = {kind: [asdict(each) for each in entries] for kind, entries in found.items()}
        print(json.dumps({"summary": summary} | shown), flush=True)
    else:
        counts = ", ".join(f"{what} {number}" for what, number in summary["counts"].items())
        print(
            f"{summary['events']:,} events in {summary['sessions']} sessions; {counts or 'no client connected'}"
        )
        print(f"violations: {len(violations)}")
        for rule, number in summary["rules_broken"].items():
            print(f"  {number:6} × {rule}: {RULES[rule].sentence}")
        if summary["warnings"]:
            print(f"warnings: {summary['warnings']}")
            example = {each.rule: each.detail for each in reversed(simulator.ledger.warnings)}
            for rule, number in summary["rules_warned"].items():
                print(
                    f"  {number:6} × {rule}: {RULES[rule].sentence} (first: {example[rule][:SHOWN_DETAIL]})"
                )
    return 1 if violations else 0
